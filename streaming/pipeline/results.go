package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

const (
	answerTimeout = 5 * time.Second  // for the first part of a view
	idleEvery     = 10 * time.Second // between two calls of Follow's idle
	catchUp       = 5 * time.Second  // for events that a view has, to appear in the result log
)

// Results reads the results of one instance's queries, wherever they run: current rows from the process that runs the
// query, events from the result log. It implements reaction.Results and is safe for concurrent use.
type Results struct {
	conn     *stream.Conn
	instance string
}

// NewResults returns the results of an instance.
func NewResults(conn *stream.Conn, instance string) *Results {
	return &Results{conn: conn, instance: component.InstanceOr(instance)}
}

// Snapshot implements reaction.Results. An error of begin or visit ends it and is returned.
func (r *Results) Snapshot(
	ctx context.Context, query string,
	begin func(columns []string, state result.State) error, visit func(result.Row) error,
) error {
	nc := r.conn.NATS()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return failure.StreamUnavailable.Errorf("asking for the results of %s: %w", query, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is closed, which ends it as well
	if err := nc.PublishRequest(viewSubject(r.instance, query), inbox, nil); err != nil {
		return failure.StreamUnavailable.Errorf("asking for the results of %s: %w", query, err)
	}
	wait := answerTimeout
	for {
		m, err := nextPart(ctx, sub, wait)
		if err != nil {
			return fmt.Errorf("reading the results of %s: %w", query, err)
		}
		wait = viewTimeout
		switch m.Header.Get(partHeader) {
		case partEnd:
			return nil
		case partError:
			return viewError(query, m.Data)
		case partBegin:
			var b viewBegin
			if err = json.Unmarshal(m.Data, &b); err == nil {
				err = begin(b.Columns, b.State)
			}
		case partRows:
			err = visitRows(m.Data, visit)
		default:
			return failure.QueryMissing.Errorf("query %s is not running", query)
		}
		answer := answerMore
		if err != nil {
			answer = answerStop
		}
		if respondErr := m.Respond([]byte(answer)); err == nil && respondErr != nil {
			err = failure.StreamUnavailable.Errorf("reading the results of %s: %w", query, respondErr)
		}
		if err != nil {
			return err
		}
	}
}

func nextPart(ctx context.Context, sub *nats.Subscription, wait time.Duration) (*nats.Msg, error) {
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	m, err := sub.NextMsgWithContext(bounded)
	switch {
	case err == nil:
		return m, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, nats.ErrNoResponders):
		return nil, failure.QueryMissing.Errorf("the query is not running: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, failure.QueryMissing.Errorf("whoever runs the query does not answer: %w", err)
	}
	return nil, failure.StreamUnavailable.Errorf("waiting for an answer: %w", err)
}

func viewError(query string, data []byte) error {
	var report failure.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return failure.BadRecord.Errorf("decoding an error from whoever runs query %s: %w", query, err)
	}
	return failure.QueryMissing.Errorf("whoever runs query %s cannot read its results: %s", query, report.Message).
		WithDetail("code", report.Code)
}

func visitRows(data []byte, visit func(result.Row) error) error {
	for len(data) > 0 {
		row, rest, err := decodeRow(data)
		if err != nil {
			return err
		}
		if err := visit(row); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

// Follow implements reaction.Results.
func (r *Results) Follow(ctx context.Context, query string, after uint64, visit func(*result.Event) error, idle func() error) error {
	log, err := r.conn.OpenLog(ctx, resultLog(r.instance, query))
	if errors.Is(err, stream.ErrMissing) {
		return failure.QueryMissing.Errorf("query %s has no result log: %w", query, err)
	}
	if err != nil {
		return fmt.Errorf("opening the result log of %s: %w", query, err)
	}
	from, err := locate(ctx, log, after)
	if err != nil {
		return fmt.Errorf("looking for the event after %d of %s: %w", after, query, err)
	}
	reader, err := log.Read(ctx, from)
	if err != nil {
		return fmt.Errorf("reading the result log of %s: %w", query, err)
	}
	defer reader.Close()
	next := after + 1
	for {
		m, err := nextOrIdle(ctx, reader, idle)
		if err != nil {
			return err
		}
		events, err := result.DecodeMessage(m.Data)
		if err != nil {
			return fmt.Errorf("decoding message %d of the result log of %s: %w", m.Sequence, query, err)
		}
		for _, e := range events {
			if e.Sequence < next {
				continue
			}
			if e.Sequence > next {
				return failure.StreamTrimmed.Errorf("event %d of query %s is no longer kept; the first is %d", next, query, e.Sequence)
			}
			if err := visit(e); err != nil {
				return err
			}
			next++
		}
	}
}

func nextOrIdle(ctx context.Context, reader *stream.Reader, idle func() error) (stream.Message, error) {
	for {
		bounded, cancel := context.WithTimeout(ctx, idleEvery)
		m, err := reader.Next(bounded)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return m, err
		}
		if idle != nil {
			if err := idle(); err != nil {
				return m, err
			}
		}
	}
}

// locate returns the sequence of a message of a result log from which on reading finds the event after a given one.
// Events are numbered without gaps and messages hold one or more, so it halves what lies between.
func locate(ctx context.Context, log *stream.Log, after uint64) (uint64, error) {
	if after == 0 {
		return 0, nil // the reader finds out whether that is trimmed
	}
	last, err := lastEvent(ctx, log, after)
	if err != nil {
		return 0, err
	}
	if last.sequence == after {
		return last.message + 1, nil
	}
	state, err := log.State(ctx)
	if err != nil {
		return 0, err
	}
	low, high := state.First, last.message+1 // it is at or after low and before high
	for high-low > 1 {
		middle := low + (high-low)/2
		first, found, err := firstEvent(ctx, log, middle, high)
		if err != nil {
			return 0, err
		}
		if found && first.sequence <= after+1 {
			low = first.message
		} else {
			high = middle
		}
	}
	return low, nil
}

// place is where an event is in a result log.
type place struct{ message, sequence uint64 }

// lastEvent returns where the log ends. Somebody who has seen a view may know an event that is just being published, so
// it waits a little for that one. The log of an idle query may be empty; then nothing says that the caller is wrong.
func lastEvent(ctx context.Context, log *stream.Log, wanted uint64) (place, error) {
	deadline := time.Now().Add(catchUp)
	for {
		last, err := log.Last(ctx)
		if err != nil {
			return place{}, err
		}
		if last == nil {
			state, err := log.State(ctx)
			return place{state.Last, wanted}, err
		}
		events, err := result.DecodeMessage(last.Data)
		if err != nil {
			return place{}, err
		}
		end := place{last.Sequence, events[len(events)-1].Sequence}
		if end.sequence >= wanted {
			return end, nil
		}
		if time.Now().After(deadline) {
			return place{}, failure.StreamTrimmed.Errorf("the log ends with event %d: it is not the one in which event %d was seen", end.sequence, wanted)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return place{}, ctx.Err()
		}
	}
}

// firstEvent returns the first event of the first message at or after probe and before high.
func firstEvent(ctx context.Context, log *stream.Log, probe, high uint64) (place, bool, error) {
	for ; probe < high; probe++ {
		m, err := log.Get(ctx, probe)
		if errors.Is(err, stream.ErrMissing) {
			continue // a fence marker
		}
		if err != nil {
			return place{}, false, err
		}
		events, err := result.DecodeMessage(m.Data)
		if err != nil {
			return place{}, false, err
		}
		return place{m.Sequence, events[0].Sequence}, true, nil
	}
	return place{}, false, nil
}
