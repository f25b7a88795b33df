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
	dir    string
	spools map[uint32]*spool // by transaction
	block  *spool            // the one whose block is open; nil: none
}

// take takes a message if it is about a transaction in progress. When one commits, replay gets all of it as if it had
// been sent then. The messages are valid until done is called, or take returns.
func (p *inProgress) take(ctx context.Context, src []byte, replay func(message []byte) error, done func() error) (taken bool, err error) {
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
		return true, p.commit(ctx, src[1:], replay, done)
	case p.block == nil:
		return false, nil
	case len(src) < 5:
		return true, failure.BadRecord.Errorf("the server sent a message of %d bytes in a transaction in progress", len(src))
	}
	owner := binary.BigEndian.Uint32(src[1:])
	return true, p.block.add(owner, src[0], src[5:])
}

func (p *inProgress) start(src []byte) error {
	if len(src) != 5 {
		return failure.BadRecord.Errorf("the server sent the start of a block of %d bytes", len(src))
	}
	xid := binary.BigEndian.Uint32(src)
	if p.spools[xid] == nil {
		if p.spools == nil {
			p.spools = make(map[uint32]*spool)
		}
		p.spools[xid] = &spool{dir: p.dir, memory: spoolMemory}
	}
	p.block = p.spools[xid]
	return nil
}

func (p *inProgress) abort(src []byte) error {
	if len(src) < 8 {
		return failure.BadRecord.Errorf("the server sent the rollback of a transaction in progress of %d bytes", len(src))
	}
	xid, sub := binary.BigEndian.Uint32(src), binary.BigEndian.Uint32(src[4:])
	switch s := p.spools[xid]; {
	case s == nil:
	case sub == xid:
		s.close()
		delete(p.spools, xid)
	default:
		s.abort(sub)
	}
	return nil
}

func (p *inProgress) commit(ctx context.Context, src []byte, replay func(message []byte) error, done func() error) error {
	if len(src) != 4+25 {
		return failure.BadRecord.Errorf("the server sent the commit of a transaction in progress of %d bytes", len(src))
	}
	xid, src := binary.BigEndian.Uint32(src), src[4:]
	s := p.spools[xid]
	if s == nil {
		s = &spool{}
	}
	delete(p.spools, xid)
	defer s.close()
	// As a transaction that is sent when it has ended: begin (final position, time, id), what is in it, commit.
	begin := append([]byte{'B'}, src[1:9]...)
	begin = binary.BigEndian.AppendUint32(append(begin, src[17:25]...), xid)
	if err := replay(begin); err != nil {
		return err
	}
	if err := s.replay(func(message []byte) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return replay(message)
	}, done); err != nil {
		return err
	}
	return replay(append([]byte{'C'}, src...))
}

// String says how many transactions are kept and how large they are; "" when there are none.
func (p *inProgress) String() string {
	if len(p.spools) == 0 {
		return ""
	}
	var bytes int64
	for _, s := range p.spools {
		bytes += s.bytes
	}
	return fmt.Sprintf("%d, of %d MiB so far", len(p.spools), bytes>>20)
}

func (p *inProgress) close() {
	for _, s := range p.spools {
		s.close()
	}
	p.spools, p.block = nil, nil
}
