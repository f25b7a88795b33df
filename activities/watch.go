package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// controlWatch has all loops of a process watch bucket control together: a consumer for each would keep the stream server
// busy with nothing but signs of life, and servers bound how many a bucket may have. It is safe for concurrent use.
type controlWatch struct {
	store *Store
	log   *zap.Logger

	mu      sync.Mutex
	waiting map[string]map[*awaited]struct{} // by key
	stop    func()                           // ends the watch and waits for its end; nil while nobody waits
}

// awaited is a drain for which a loop waits.
type awaited struct {
	generation uint64
	asked      chan struct{}
	once       sync.Once
}

func (a *awaited) look(c control) {
	if c.drains(a.generation) {
		a.once.Do(func() { close(a.asked) })
	}
}

// drain returns a channel that is closed when the control plane asks for a drain of that generation, until ctx ends.
func (w *controlWatch) drain(ctx context.Context, key string, generation uint64) (<-chan struct{}, error) {
	a := &awaited{generation: generation, asked: make(chan struct{})}
	if err := w.enter(ctx, key, a); err != nil {
		return nil, err
	}
	var now control // which the watch may have seen before
	if _, err := w.store.read(ctx, controlBucket, key, &now); err != nil {
		w.leave(key, a)
		return nil, err
	}
	a.look(now)
	context.AfterFunc(ctx, func() { w.leave(key, a) })
	return a.asked, nil
}

func (w *controlWatch) enter(ctx context.Context, key string, a *awaited) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop == nil {
		if err := w.begin(ctx); err != nil {
			return err
		}
	}
	if w.waiting[key] == nil {
		w.waiting[key] = make(map[*awaited]struct{})
	}
	w.waiting[key][a] = struct{}{}
	return nil
}

// begin starts the watch, which outlives ctx.
func (w *controlWatch) begin(ctx context.Context) error {
	b, err := w.store.bucket(ctx, controlBucket)
	if err != nil {
		return err
	}
	watching, cancel := context.WithCancel(context.Background())
	entries, err := b.Watch(watching, ">")
	if err != nil {
		cancel()
		return fmt.Errorf("watching the control keys: %w", err)
	}
	done := failure.Go(func() error {
		for e := range entries {
			if err := failure.Guard(func() error { return w.pass(e) }); err != nil {
				w.log.Error("a control key cannot be read", zap.String("key", e.Key), zap.Any("failure", failure.Describe(err)))
			}
		}
		return nil
	})
	w.waiting = make(map[string]map[*awaited]struct{})
	w.stop = func() { cancel(); <-done }
	return nil
}

func (w *controlWatch) pass(e stream.Entry) error {
	var c control
	if e.Value == nil {
		return nil
	}
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return fmt.Errorf("decoding it: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for a := range w.waiting[e.Key] {
		a.look(c)
	}
	return nil
}

func (w *controlWatch) leave(key string, a *awaited) {
	w.mu.Lock()
	delete(w.waiting[key], a)
	if len(w.waiting[key]) == 0 {
		delete(w.waiting, key)
	}
	stop := func() {}
	if len(w.waiting) == 0 && w.stop != nil {
		stop, w.stop = w.stop, nil
	}
	w.mu.Unlock()
	stop()
}
