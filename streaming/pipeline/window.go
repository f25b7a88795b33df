package pipeline

import (
	"context"
	"sync"

	"github.com/perdure/perdure/streaming/result"
)

// windowSize is how many events of a query may be taken before the oldest of them is delivered. It bounds what is
// delivered again after a crash, and how far rows may run ahead of one that its target does not take.
const windowSize = 1024

// window holds the events of a query that were taken and are not delivered as a whole. What is on record is always below
// the oldest of them, whatever the lanes have done of later ones.
type window struct {
	delivered func(*taken) // called in order, one at a time

	room chan struct{} // has one element for each event in open

	mu   sync.Mutex
	open []*taken // oldest first
}

// taken is an event in the window.
type taken struct {
	event *result.Event
	at    deliveryRecord // that holds once it and all before it are delivered
	left  int            // deliveries that it still needs
}

func newWindow(delivered func(*taken)) *window {
	return &window{delivered: delivered, room: make(chan struct{}, windowSize)}
}

// take puts an event in, after waiting for room.
func (w *window) take(ctx context.Context, t *taken) error {
	if err := w.occupy(ctx, 1); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, t)
	return nil
}

// empty waits until all events are delivered. Nobody may take meanwhile.
func (w *window) empty(ctx context.Context) error {
	if err := w.occupy(ctx, windowSize); err != nil {
		return err
	}
	for range windowSize {
		<-w.room
	}
	return nil
}

func (w *window) isEmpty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.open) == 0
}

func (w *window) occupy(ctx context.Context, n int) error {
	for range n {
		select {
		case w.room <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// done says that one delivery of an event was made.
func (w *window) done(t *taken) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.left--
	for len(w.open) > 0 && w.open[0].left == 0 {
		oldest := w.open[0]
		w.open[0] = nil
		w.open = w.open[1:]
		w.delivered(oldest)
		<-w.room
	}
}
