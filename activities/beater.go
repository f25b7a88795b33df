package activities

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/perdure/perdure/streaming/failure"
)

// beater sends heartbeats from a goroutine of its own, because sending one can block for ten seconds while the server
// is away.
type beater struct {
	queue chan beat // capacity one: only the newest is of interest
	send  chan func(beat) error
	lost  chan error // the server says that the attempt is over; only once detached
	done  <-chan error
	close func()
}

// newBeater starts the goroutine; close ends it and waits for it.
func newBeater(ctx context.Context) *beater {
	b := &beater{
		queue: make(chan beat, 1), send: make(chan func(beat) error), lost: make(chan error, 1),
	}
	b.close = sync.OnceFunc(func() { close(b.queue); <-b.done })
	b.done = failure.Go(func() error {
		b.loop(func(details beat) error { activity.RecordHeartbeat(ctx, details); return nil })
		return nil
	})
	return b
}

func (b *beater) loop(send func(beat) error) {
	for {
		select {
		case send = <-b.send:
		case details, open := <-b.queue:
			if !open {
				return
			}
			if err := failure.Guard(func() error { return send(details) }); over(err) || failure.CodeOf(err) == failure.Panic {
				select {
				case b.lost <- err:
				default:
				}
			}
		}
	}
}

// beat sends details soon, instead of older ones that wait.
func (b *beater) beat(details beat) {
	select {
	case <-b.queue:
	default:
	}
	b.queue <- details
}

// detach goes on without the SDK's heartbeats, which end with the activity's context, by calling the server directly.
func (b *beater) detach(ctx, loopCtx context.Context, token []byte) {
	client := activity.GetClient(ctx)
	b.send <- func(details beat) error {
		callCtx, cancel := context.WithTimeout(loopCtx, beatEvery)
		defer cancel()
		return client.RecordActivityHeartbeat(callCtx, token, details)
	}
}

// over reports whether the answer to a heartbeat means that the attempt must end.
func over(err error) bool {
	return temporal.IsCanceledError(err) || superseded(err) ||
		errors.Is(err, activity.ErrActivityPaused) || errors.Is(err, activity.ErrActivityReset)
}

// endOfStop is how long a loop may drain when its worker stops, unless the worker says otherwise.
const endOfStop = 20 * time.Second
