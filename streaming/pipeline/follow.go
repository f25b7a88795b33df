package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

const (
	idleEvery = 10 * time.Second       // between two calls of Follow's idle
	catchUp   = 5 * time.Second        // for an event that somebody has seen, to appear in the result log
	askEvery  = 200 * time.Millisecond // how far the query is, while waiting for that
	maxAhead  = 256                    // events, and messages with them, that wait for one before them
)

// Follow implements reaction.Results. Events come from whoever runs the query as soon as they are derived, and from the
// result log where that leaves one out (see show).
func (r *Results) Follow(ctx context.Context, query string, after uint64, visit func(*result.Event) error, idle func() error) error {
	log, err := r.conn.OpenLog(ctx, resultLog(r.instance, query))
	if errors.Is(err, stream.ErrMissing) {
		return failure.QueryMissing.Errorf("query %s has no result log: %w", query, err)
	}
	if err != nil {
		return fmt.Errorf("opening the result log of %s: %w", query, err)
	}
	shown := make(chan *nats.Msg, maxAhead)
	sub, err := r.conn.NATS().ChanSubscribe(shownSubject(r.instance, query), shown)
	if err != nil {
		return failure.StreamUnavailable.Errorf("subscribing to the events of %s: %w", query, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is closed, which ends it as well
	from, err := r.locate(ctx, log, query, after)
	if err != nil {
		return fmt.Errorf("looking for the event after %d of %s: %w", after, query, err)
	}
	reader, err := log.Read(ctx, from)
	if err != nil {
		return fmt.Errorf("reading the result log of %s: %w", query, err)
	}
	defer reader.Close()
	logged := make(chan []*result.Event)
	g := newGroup(ctx)
	defer g.stop()
	g.run(func(ctx context.Context) error { return readEvents(ctx, reader, query, logged) })

	f := &follower{query: query, next: after + 1, visit: visit}
	quiet := time.NewTicker(idleEvery)
	defer quiet.Stop()
	for {
		select {
		case m := <-shown:
			err = f.shown(m.Data)
			quiet.Reset(idleEvery)
		case events := <-logged:
			err = f.logged(events)
			quiet.Reset(idleEvery)
		case <-quiet.C:
			if idle != nil {
				err = idle()
			}
		case <-g.ctx.Done():
			if err = g.wait(); err == nil {
				err = ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
}

// readEvents hands over the events of each message until ctx ends.
func readEvents(ctx context.Context, reader *stream.Reader, query string, logged chan<- []*result.Event) error {
	for {
		m, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading the result log of %s: %w", query, err)
		}
		events, err := result.DecodeMessage(m.Data)
		if err != nil {
			return fmt.Errorf("decoding message %d of the result log of %s: %w", m.Sequence, query, err)
		}
		select {
		case logged <- events:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// follower makes one series, without gap or repetition, of what is shown and what is logged. It relies on the log alone:
// what is shown only comes earlier, and may be late, lost or repeated.
type follower struct {
	query string
	next  uint64          // sequence of the event to visit next
	ahead []*result.Event // shown, while one before them was not; ascending
	visit func(*result.Event) error
}

func (f *follower) shown(data []byte) error {
	events, err := result.DecodeMessage(data)
	if err != nil {
		return fmt.Errorf("decoding an event of %s: %w", f.query, err)
	}
	for _, e := range events {
		newest := f.next - 1
		if n := len(f.ahead); n > 0 {
			newest = f.ahead[n-1].Sequence
		}
		if e.Sequence > newest && len(f.ahead) < maxAhead {
			f.ahead = append(f.ahead, e)
		}
	}
	return f.advance()
}

func (f *follower) logged(events []*result.Event) error {
	for _, e := range events {
		if e.Sequence < f.next {
			continue
		}
		if e.Sequence > f.next && !isAnew(e) {
			return failure.StreamTrimmed.Errorf("event %d of query %s is no longer kept; the first is %d", f.next, f.query, e.Sequence)
		}
		if err := f.pass(e); err != nil {
			return err
		}
	}
	return f.advance()
}

// advance passes on what was shown and follows now.
func (f *follower) advance() error {
	for len(f.ahead) > 0 && f.ahead[0].Sequence <= f.next {
		e := f.ahead[0]
		f.ahead = f.ahead[1:]
		if e.Sequence < f.next {
			continue
		}
		if err := f.pass(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) pass(e *result.Event) error {
	f.next = e.Sequence + 1
	return f.visit(e)
}

// locate returns the sequence of a message of a result log from which on reading finds the event after a given one.
// Their numbers ascend and messages hold one or more, so it halves what lies between.
func (r *Results) locate(ctx context.Context, log *stream.Log, query string, after uint64) (uint64, error) {
	if after == 0 {
		return 0, nil // the reader finds out whether that is trimmed
	}
	last, err := r.lastEvent(ctx, log, query, after)
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

// lastEvent returns where the log ends. Somebody who has seen a view, or an event before it was in the log, may know one
// that is still to come: it waits for that as long as the query is away, goes forward, or did so catchUp ago. The log of an
// idle query may be empty; then the query says whether it has come that far.
func (r *Results) lastEvent(ctx context.Context, log *stream.Log, query string, wanted uint64) (place, error) {
	var reached uint64
	deadline, asked := time.Now().Add(catchUp), time.Now()
	for {
		state, err := log.State(ctx) // before the last message: what comes in between must not be passed over
		if err != nil {
			return place{}, err
		}
		end := place{message: state.Last}
		last, err := log.Last(ctx)
		if err != nil {
			return place{}, err
		}
		if last != nil {
			events, err := result.DecodeMessage(last.Data)
			if err != nil {
				return place{}, err
			}
			end = place{last.Sequence, events[len(events)-1].Sequence}
		}
		if end.sequence >= wanted {
			return end, nil
		}
		if time.Since(asked) > askEvery {
			sequence, running, err := r.reached(ctx, query)
			if err != nil {
				return place{}, err
			}
			if last == nil && running && sequence >= wanted {
				return place{end.message, wanted}, nil
			}
			if asked = time.Now(); !running || sequence > reached {
				reached, deadline = sequence, asked.Add(catchUp)
			}
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

// reached asks whoever runs the query for the sequence of its last event. It reports false when nobody answers.
func (r *Results) reached(ctx context.Context, query string) (sequence uint64, running bool, err error) {
	err = r.Snapshot(ctx, query, func(_ []string, state result.State) error {
		sequence = state.Sequence
		return errReached
	}, nil)
	switch {
	case errors.Is(err, errReached):
		return sequence, true, nil
	case ctx.Err() != nil:
		return 0, false, ctx.Err()
	}
	return 0, false, nil
}

var errReached = errors.New("that is all there is to know")

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
