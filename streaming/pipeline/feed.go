package pipeline

import (
	"context"
	"fmt"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/stream"
)

// feed reads a source's change log and puts transactions of several fragments together again. While they come in they
// are held in memory; those of a transaction that is larger than that are read again when it is complete, and so is what was
// staged of one.
type feed struct {
	source  string
	log     *stream.Log
	staged  func(ctx context.Context) (*stream.Log, error) // opens the log of what is staged
	decoder graph.Decoder

	// waits is since when it has waited for the log and heard nothing, none while it does not wait for that.
	waits moment

	parts   []graph.Change // of the transaction whose fragments are coming in
	bytes   int            // of them; beyond maxHeld they are not held
	next    int            // the fragment to come; 0 when there is no such transaction
	barrier uint64         // offset after which reading must begin again while there is one

	// anew says that reading begins where the log happened to end when somebody looked. What is left there of a transaction
	// of several fragments is passed over: it was committed before.
	anew bool
}

// maxHeld is how many bytes, encoded, of a transaction of several fragments are held.
const maxHeld = 8 << 20

// message is a batch and how large it was in the log.
type message struct {
	query.Batch
	sequence uint64
	bytes    int
	followed []applying // transactions that are
}

// run reads from an offset on and hands over what becomes complete, until ctx ends or take fails.
func (f *feed) run(ctx context.Context, from uint64, take func(message) error) error {
	r, err := f.log.Read(ctx, from)
	if err != nil {
		return fmt.Errorf("reading the change log of %s from message %d: %w", f.source, from, err)
	}
	defer r.Close()
	r.OnIdle(f.waits.set)
	defer f.waits.clear()
	for {
		f.waits.set()
		m, err := r.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading the change log of %s: %w", f.source, err)
		}
		b, bytes, err := f.decode(ctx, m.Sequence, m.Data)
		if err != nil {
			return err
		}
		if f.anew { // still: reading would have to begin here again
			continue
		}
		f.waits.clear()
		if err := take(message{Batch: b, sequence: m.Sequence, bytes: bytes}); err != nil {
			return err
		}
	}
}

// decode turns a message into the batch of the transactions that are complete with it, and returns how many bytes these
// changes have. While one is not, the batch's offset stays before the message in which it began.
func (f *feed) decode(ctx context.Context, sequence uint64, data []byte) (b query.Batch, bytes int, err error) {
	m, err := f.decoder.Decode(data)
	if err != nil {
		return b, 0, fmt.Errorf("decoding message %d of the change log of %s: %w", sequence, f.source, err)
	}
	bytes = len(data)
	b = query.Batch{Source: f.source, Position: m.Position, Transactions: make([]graph.Transaction, 0, len(m.Transactions))}
	anew := f.anew
	f.anew = false
	for i := range m.Transactions {
		part := &m.Transactions[i]
		if anew && i == 0 && part.Fragment > 0 {
			f.anew = !part.Last
			continue
		}
		if part.Fragment == 0 && part.Last {
			f.next, f.parts = 0, nil
			b.Transactions = append(b.Transactions, part.Transaction)
			continue
		}
		if part.Fragment == 0 {
			// A new attempt of the source begins a transaction anew that an earlier one left unfinished.
			f.next, f.parts, f.bytes, f.barrier = 0, nil, 0, sequence-1
		}
		if part.Fragment != f.next {
			return b, 0, failure.StateCorrupt.Errorf("message %d of the change log of %s holds fragment %d of a transaction, expected %d",
				sequence, f.source, part.Fragment, f.next)
		}
		f.bytes += len(data)
		if part.Staged != nil {
			bytes += int(part.Staged.Bytes)
			f.bytes = maxHeld + 1
		}
		if f.bytes > maxHeld {
			f.parts = nil
		} else {
			f.parts = append(f.parts, part.Changes...)
		}
		f.next++
		if part.Last { // and has what is said of the schema
			whole := part.Transaction
			whole.Changes = f.parts
			if f.bytes > maxHeld {
				b.Parts = f.again(ctx, f.barrier+1, sequence)
			}
			b.Transactions = append(b.Transactions, whole)
			f.next, f.parts = 0, nil
		}
	}
	b.Offset = sequence
	if f.next > 0 {
		if len(b.Transactions) > 0 {
			return b, 0, failure.StateCorrupt.Errorf("message %d of the change log of %s holds whole transactions and a part of another",
				sequence, f.source)
		}
		b.Offset = f.barrier
	}
	return b, bytes, nil
}

// again returns what reads the fragments of a transaction again, which are all there is from one message to another.
func (f *feed) again(ctx context.Context, from, to uint64) func(yield func([]graph.Change) error) error {
	return func(yield func([]graph.Change) error) error {
		r, err := f.log.ReadTo(ctx, from, to)
		if err != nil {
			return fmt.Errorf("reading a large transaction of %s from message %d: %w", f.source, from, err)
		}
		defer r.Close()
		var decoder graph.Decoder
		for sequence := uint64(0); sequence < to; {
			m, err := r.Next(ctx)
			if err != nil {
				return fmt.Errorf("reading a large transaction of %s: %w", f.source, err)
			}
			sequence = m.Sequence
			fragments, err := decoder.Decode(m.Data)
			if err != nil {
				return fmt.Errorf("decoding message %d of the change log of %s: %w", sequence, f.source, err)
			}
			for i := range fragments.Transactions {
				part := &fragments.Transactions[i]
				if part.Staged != nil {
					err = f.readStaged(ctx, part.Staged, yield)
				} else {
					err = yield(part.Changes)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// readStaged reads the changes to which the change log refers. Those of other transactions are between them.
func (f *feed) readStaged(ctx context.Context, staged *graph.Staged, yield func([]graph.Change) error) error {
	log, err := f.staged(ctx)
	if err != nil {
		return err
	}
	state, err := log.State(ctx)
	if err != nil {
		return fmt.Errorf("reading what was staged of a transaction of %s: %w", f.source, err)
	}
	if state.Last < staged.To { // reading would wait
		return failure.StreamTrimmed.Errorf("what was staged of a transaction of %s ends with message %d, and its log with %d", f.source, staged.To, state.Last)
	}
	r, err := log.ReadTo(ctx, staged.From, staged.To)
	if err != nil {
		return fmt.Errorf("reading what was staged of a transaction of %s: %w", f.source, err)
	}
	defer r.Close()
	var decoder graph.Decoder
	found := uint64(0)
	for sequence := uint64(0); sequence < staged.To; {
		m, err := r.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading what was staged of a transaction of %s: %w", f.source, err)
		}
		if sequence = m.Sequence; !strings.HasPrefix(m.ID, staged.Key+":") {
			continue
		}
		found++
		changes, err := decoder.Decode(m.Data)
		if err != nil {
			return fmt.Errorf("decoding message %d of what is staged of %s: %w", sequence, f.source, err)
		}
		for i := range changes.Transactions {
			if err := yield(changes.Transactions[i].Changes); err != nil {
				return err
			}
		}
	}
	if found != staged.Messages {
		return failure.StateCorrupt.Errorf("of %d messages of a transaction of %s, staged from %d to %d, there are %d",
			staged.Messages, f.source, staged.From, staged.To, found)
	}
	return nil
}
