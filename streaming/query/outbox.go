package query

import (
	"encoding/binary"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// emit numbers an event and puts it into the outbox.
func (q *Query) emit(b index.Batch, e *result.Event) error {
	q.meta.Sequence++
	e.Sequence, e.Columns = q.meta.Sequence, q.plan.plan.Columns
	q.buf = result.AppendEvent(q.buf[:0], e)
	q.key = store.OutboxKey(q.key[:0], e.Sequence)
	err := b.Set(q.key, q.buf)
	const usual = 1 << 20 // what a large event needed, such as those of a snapshot, is not kept
	if cap(q.buf) > usual {
		q.buf = nil
	}
	return err
}

// Outbox visits the events after a sequence that are not trimmed yet, in order, encoded by result.AppendEvent. The
// bytes are valid during the call only.
func (q *Query) Outbox(after uint64, visit func(sequence uint64, encoded []byte) (more bool, err error)) error {
	from := store.OutboxKey(nil, max(after, q.trim)+1)
	return q.store.Scan(from, store.OutboxEnd(), func(key, value []byte) (bool, error) {
		if len(key) != len(from) {
			return false, failure.StateCorrupt.Errorf("reading the outbox: a key is malformed")
		}
		return visit(binary.BigEndian.Uint64(key[1:]), value)
	})
}

// TrimOutbox forgets events up to and including through. It costs nothing: the next batch does it.
func (q *Query) TrimOutbox(through uint64) error {
	q.trim = max(q.trim, min(through, q.meta.Sequence))
	return nil
}

// pointDeletes is up to how many events are deleted one by one, as range deletions slow down reads.
const pointDeletes = 4096

func (q *Query) trimOutbox(b index.Batch) error {
	if q.trim <= q.meta.Trimmed {
		return nil
	}
	if q.trim-q.meta.Trimmed > pointDeletes {
		err := b.DeleteRange(store.OutboxKey(nil, q.meta.Trimmed+1), store.OutboxKey(nil, q.trim+1))
		q.meta.Trimmed = q.trim
		return err
	}
	for q.meta.Trimmed < q.trim {
		q.meta.Trimmed++
		q.key = store.OutboxKey(q.key[:0], q.meta.Trimmed)
		if err := b.Delete(q.key); err != nil {
			return err
		}
	}
	return nil
}
