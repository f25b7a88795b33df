package pipeline

import (
	"context"
	"sync"

	"github.com/perdure/perdure/streaming/failure"
)

// group runs goroutines that live and die together: the first error cancels the context of all of them, and a panic is
// an error that carries its stack instead of the end of the process.
type group struct {
	ctx    context.Context //nolint:containedctx // the group is the owner of this context and never outlives its function
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

func newGroup(ctx context.Context) *group {
	g := &group{}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// run starts f.
func (g *group) run(f func(ctx context.Context) error) {
	g.wg.Go(func() {
		if err := failure.Guard(func() error { return f(g.ctx) }); err != nil {
			g.once.Do(func() { g.err = err })
			g.cancel()
		}
	})
}

// wait waits for all goroutines and returns the first error.
func (g *group) wait() error {
	g.wg.Wait()
	g.cancel()
	return g.err
}

// stop cancels all goroutines and waits for them; how they end no longer matters.
func (g *group) stop() {
	g.once.Do(func() {})
	g.cancel()
	g.wg.Wait()
}
