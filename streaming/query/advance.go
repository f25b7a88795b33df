package query

import (
	"time"

	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Advance moves the query's clock forward to a time, as a change that happened then would, and returns an event for each
// moment before it at which time alone changed the result set. All of it is one commit. A time that has passed changes
// nothing. After an error nothing has happened.
func (q *Query) Advance(to time.Time) ([]result.Event, error) {
	if err := q.want(Live); err != nil {
		return nil, err
	}
	if !to.After(q.meta.Clock) {
		return nil, nil
	}
	var events []result.Event
	err := q.write(func(b index.Batch) error {
		for {
			due, ok, err := store.FirstTimer(b, to)
			if err != nil || !ok {
				q.tick(to)
				return err
			}
			if events, err = q.fire(b, due.At, events); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

// fire wakes all rows whose time has come, as one transaction, and appends its events.
func (q *Query) fire(b index.Batch, at time.Time, events []result.Event) ([]result.Event, error) {
	q.tick(at)
	q.chance()
	for {
		t, ok, err := store.FirstTimer(b, at)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if err := store.DeleteTimer(b, t); err != nil {
			return nil, err
		}
		if err := q.network.Fire(t.Node, t.Row, at); err != nil {
			return nil, err
		}
	}
	diffs, err := q.network.Diffs()
	if err != nil || len(diffs) == 0 {
		return events, err
	}
	return q.emit(b, events, result.Event{CommitTime: at, Diffs: diffs})
}
