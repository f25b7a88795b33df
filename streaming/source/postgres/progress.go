package postgres

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/perdure/perdure/streaming/failure"
)

// inProgress is the transactions that the server sends before they end, because they are large. From version 2 of the
// protocol on it sends them in blocks, one transaction at a time; in a block each message names its subtransaction.
type inProgress struct {
	dir          string
	early        *early                 // nil: nothing is staged
	transactions map[uint32]*unfinished // by their numbers
	block        *unfinished            // the one whose block is open; nil: none
}

// unfinished is a transaction in progress: what was staged of it, and behind that what waits.
type unfinished struct {
	spool
	xid       uint32
	relations map[uint32]*relation // as its messages describe them; see assembler
	waits     bool                 // nothing more is staged
	staged    bool                 // something is
}

// committing is what becomes of a transaction in progress when it commits.
type committing struct {
	// replay gets all of it as if it had been sent then, but for what was staged. The messages are valid until done is called,
	// or take returns.
	replay func(message []byte) error
	done   func() error
	// staged is called behind the begin when something was staged, whose place is there.
	staged func(t *unfinished) error
}

// take takes a message if it is about a transaction in progress.
func (p *inProgress) take(ctx context.Context, src []byte, to committing) (taken bool, err error) {
	if len(src) == 0 {
		return false, nil
	}
	switch kind := src[0]; {
	case kind == 'S':
		return true, p.start(src[1:])
	case kind == 'E':
		p.block = nil
		return true, nil
	case kind == 'A':
		return true, p.abort(src[1:])
	case kind == 'c':
		return true, p.commit(ctx, src[1:], to)
	case p.block == nil:
		return false, nil
	case len(src) < 5:
		return true, failure.BadRecord.Errorf("the server sent a message of %d bytes in a transaction in progress", len(src))
	}
	return true, p.add(ctx, p.block, binary.BigEndian.Uint32(src[1:]), src[0], src[5:])
}

// add stages a message or has it wait. What describes a table waits in any case: it is for the rows that wait, too, and what
// it tells of DDL counts when the transaction commits.
func (p *inProgress) add(ctx context.Context, t *unfinished, owner uint32, kind byte, message []byte) error {
	if !t.waits {
		plain := false
		if p.early != nil && owner == t.xid {
			var err error
			if plain, err = p.early.take(ctx, t, kind, message); err != nil {
				return err
			}
		}
		if t.waits = !plain; plain && kind != 'R' {
			t.bytes += int64(len(message))
			return nil
		}
	}
	return t.spool.add(owner, kind, message)
}

func (p *inProgress) start(src []byte) error {
	if len(src) != 5 {
		return failure.BadRecord.Errorf("the server sent the start of a block of %d bytes", len(src))
	}
	xid := binary.BigEndian.Uint32(src)
	if p.transactions[xid] == nil {
		if p.transactions == nil {
			p.transactions = make(map[uint32]*unfinished)
		}
		p.transactions[xid] = &unfinished{xid: xid, relations: make(map[uint32]*relation), spool: spool{dir: p.dir, memory: spoolMemory}}
	}
	p.block = p.transactions[xid]
	return nil
}

func (p *inProgress) abort(src []byte) error {
	if len(src) < 8 {
		return failure.BadRecord.Errorf("the server sent the rollback of a transaction in progress of %d bytes", len(src))
	}
	xid, sub := binary.BigEndian.Uint32(src), binary.BigEndian.Uint32(src[4:])
	switch t := p.transactions[xid]; {
	case t == nil:
	case sub == xid:
		p.drop(t)
		delete(p.transactions, xid)
	default:
		t.abort(sub)
	}
	return nil
}

// drop lets go of a transaction that was not committed, or is to come again.
func (p *inProgress) drop(t *unfinished) {
	t.close()
	if t.staged {
		p.early.sink.Unstage(uint64(t.xid))
	}
}

func (p *inProgress) commit(ctx context.Context, src []byte, to committing) error {
	if len(src) != 4+25 {
		return failure.BadRecord.Errorf("the server sent the commit of a transaction in progress of %d bytes", len(src))
	}
	xid, src := binary.BigEndian.Uint32(src), src[4:]
	t := p.transactions[xid]
	if t == nil {
		t = &unfinished{}
	}
	defer t.close()
	// As a transaction that is sent when it has ended: begin (final position, time, id), what is in it, commit.
	begin := append([]byte{'B'}, src[1:9]...)
	begin = binary.BigEndian.AppendUint32(append(begin, src[17:25]...), xid)
	if err := to.replay(begin); err != nil {
		return err
	}
	if t.staged {
		if err := to.staged(t); err != nil {
			return err
		}
	}
	delete(p.transactions, xid) // until then, what was staged has to be dropped when the connection ends
	if err := t.replay(func(message []byte) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return to.replay(message)
	}, to.done); err != nil {
		return err
	}
	return to.replay(append([]byte{'C'}, src...))
}

// String says how many transactions there are and how large they are; "" when there are none.
func (p *inProgress) String() string {
	if len(p.transactions) == 0 {
		return ""
	}
	var bytes int64
	for _, t := range p.transactions {
		bytes += t.bytes
	}
	return fmt.Sprintf("%d, of %d MiB so far", len(p.transactions), bytes>>20)
}

func (p *inProgress) close() {
	for _, t := range p.transactions {
		p.drop(t)
	}
	p.transactions, p.block = nil, nil
}
