package pipeline

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// mark is a reaction's place in a query's results, kept in a bucket. Setting it costs nothing: run writes the newest
// place, one write at a time, so that what is on record lags by one write at most.
type mark struct {
	bucket *stream.Bucket
	key    string
	wake   chan struct{}
	due    moment // since when nothing was written though there is a newer place, none while there is not

	mu       sync.Mutex
	newest   deliveryRecord
	written  uint64 // sequence on record
	revision uint64
	moved    chan struct{} // closed when written moved; nil while nobody waits
}

// openMark reads the place and takes it over for an attempt. A place in a log that was made at another time than this one
// is none.
func openMark(ctx context.Context, b *stream.Bucket, key string, owner stream.Epoch, log int64) (*mark, error) {
	m := &mark{bucket: b, key: key, wake: make(chan struct{}, 1)}
	for {
		var err error
		if m.revision, _, err = read(ctx, b, key, &m.newest); err != nil {
			return nil, err
		}
		if m.newest.Owner.Compare(owner) > 0 {
			return nil, m.takenOver(m.newest)
		}
		if m.newest.Log != 0 && m.newest.Log != log {
			m.newest = deliveryRecord{}
		}
		m.newest.Owner, m.newest.Log = owner, log
		m.written = m.newest.Sequence
		m.revision, err = replace(ctx, b, key, m.newest, m.revision)
		if !errors.Is(err, stream.ErrConflict) {
			return m, err
		}
	}
}

func (m *mark) takenOver(there deliveryRecord) error {
	return failure.FencedOff.Errorf("attempt %s has taken over %s at event %d", there.Owner, m.key, there.Sequence)
}

func (m *mark) get() deliveryRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newest
}

func (m *mark) set(r deliveryRecord) {
	m.mu.Lock()
	r.Owner, r.Log = m.newest.Owner, m.newest.Log
	if m.written == m.newest.Sequence {
		m.due.set()
	}
	m.newest = r
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// flush waits until the newest place is on record.
func (m *mark) flush(ctx context.Context) error {
	for {
		m.mu.Lock()
		if m.written == m.newest.Sequence {
			m.mu.Unlock()
			return nil
		}
		if m.moved == nil {
			m.moved = make(chan struct{})
		}
		moved := m.moved
		m.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *mark) run(ctx context.Context) error {
	for {
		select {
		case <-m.wake:
		case <-ctx.Done():
			return nil
		}
		next := m.get()
		next.At = time.Now().UTC()
		revision, err := m.write(ctx, next)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		m.mu.Lock()
		if m.revision, m.written = revision, next.Sequence; m.written == m.newest.Sequence {
			m.due.clear()
		} else {
			m.due.set()
		}
		if m.moved != nil {
			close(m.moved)
			m.moved = nil
		}
		m.mu.Unlock()
	}
}

// write replaces the record. A conflict is a newer attempt's write, or an earlier try of ours whose answer was lost.
func (m *mark) write(ctx context.Context, next deliveryRecord) (uint64, error) {
	return retried(ctx, func() (uint64, error) {
		revision, err := replace(ctx, m.bucket, m.key, next, m.revision)
		if !errors.Is(err, stream.ErrConflict) {
			return revision, err
		}
		var there deliveryRecord
		revision, _, err = read(ctx, m.bucket, m.key, &there)
		if err != nil {
			return 0, err
		}
		if there.Owner != next.Owner {
			return 0, m.takenOver(there)
		}
		return replace(ctx, m.bucket, m.key, next, revision)
	})
}
