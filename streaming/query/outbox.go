package query

import (
	"encoding/binary"
	"slices"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// outbox is the events that are not trimmed yet. Those of one batch are one record under the sequence of the last of
// them, or several when they are large: their number, then each with its size in front.
type outbox struct {
	records []uint64 // sequences of the last events, ascending
	packed  []byte   // of the batch at hand
	events  uint64
	buf     []byte
}

// load reads which records there are.
func (o *outbox) load(r index.Reader) error {
	*o = outbox{}
	return r.Scan(store.OutboxKey(nil, 0), store.OutboxEnd(), func(key, _ []byte) (bool, error) {
		sequence, ok := store.OutboxSequence(key)
		if !ok {
			return false, errOutbox
		}
		o.records = append(o.records, sequence)
		return true, nil
	})
}

var errOutbox = failure.StateCorrupt.Errorf("reading the outbox: it is malformed")

// maxEventBytes is how large an event may become, encoded: several must fit into a message of a log.
const maxEventBytes = 2 << 20

// emit numbers an event, puts it into the outbox and appends it to events; one that is too large becomes several.
func (q *Query) emit(b index.Batch, events []result.Event, e result.Event) ([]result.Event, error) {
	if q.silent {
		return events, nil
	}
	e.Sequence, e.Columns = q.meta.Sequence+1, q.plan.plan.Columns
	o := &q.outbox
	large := len(e.Diffs)*len(result.RowKey{}) > maxEventBytes // the keys alone are
	if !large {
		o.buf = result.AppendEvent(o.buf[:0], &e)
		large = len(o.buf) > maxEventBytes
	}
	if half := len(e.Diffs) / 2; large && half > 0 {
		first, second := e, e
		first.Diffs, first.More, second.Diffs = e.Diffs[:half], true, e.Diffs[half:]
		events, err := q.emit(b, events, first)
		if err != nil {
			return nil, err
		}
		return q.emit(b, events, second)
	}
	q.meta.Sequence++
	o.packed = store.AppendBytes(o.packed, o.buf)
	o.events++
	if len(o.packed) > maxEventBytes {
		if err := q.writePacked(b); err != nil {
			return nil, err
		}
	}
	return append(events, e), nil
}

// writePacked stores the events that are packed.
func (q *Query) writePacked(b index.Batch) error {
	o := &q.outbox
	q.key = store.OutboxKey(q.key[:0], q.meta.Sequence)
	o.buf = append(binary.AppendUvarint(o.buf[:0], o.events), o.packed...)
	if err := b.Set(q.key, o.buf); err != nil {
		return err
	}
	o.records = append(o.records, q.meta.Sequence)
	o.packed, o.events = o.packed[:0], 0
	return nil
}

// writeOutbox stores the events of a batch and trims those that were published.
func (q *Query) writeOutbox(b index.Batch) error {
	o := &q.outbox
	if o.events > 0 {
		if err := q.writePacked(b); err != nil {
			return err
		}
	}
	const usual = 1 << 20 // what large events needed, such as those of a snapshot, is not kept
	if cap(o.packed) > usual {
		o.packed, o.buf = nil, nil
	}
	n := 0
	for ; n < len(o.records) && o.records[n] <= q.trim; n++ {
		q.key = store.OutboxKey(q.key[:0], o.records[n])
		if err := b.Delete(q.key); err != nil {
			return err
		}
	}
	o.records = slices.Delete(o.records, 0, n)
	q.meta.Trimmed = q.trim
	return nil
}

// Outbox visits the events after a sequence that are not trimmed yet, in order, encoded by result.AppendEvent. The
// bytes are valid during the call only.
func (q *Query) Outbox(after uint64, visit func(sequence uint64, encoded []byte) (more bool, err error)) error {
	after = max(after, q.trim)
	return q.store.Scan(store.OutboxKey(nil, after+1), store.OutboxEnd(), func(key, record []byte) (bool, error) {
		last, ok := store.OutboxSequence(key)
		in := store.Reader{Src: record}
		n := in.Uvarint()
		if !ok || n > last {
			return false, errOutbox
		}
		for sequence := last - n + 1; sequence <= last; sequence++ {
			encoded := in.Bytes()
			if in.Err != nil {
				return false, in.Err
			}
			if sequence <= after {
				continue
			}
			if more, err := visit(sequence, encoded); !more || err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// TrimOutbox forgets events up to and including through. It costs nothing: the next batch does it.
func (q *Query) TrimOutbox(through uint64) error {
	q.trim = max(q.trim, min(through, q.meta.Sequence))
	return nil
}
