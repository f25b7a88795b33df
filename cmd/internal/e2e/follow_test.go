package e2e

import (
	"context"
	"time"

	"github.com/perdure/perdure/cmd/internal/followtest"
)

// follow follows a query's events for as long as the test lasts.
func (s *system) follow(query string) *followtest.Follower {
	s.t.Helper()
	return s.followInto(followtest.NewReplay(query))
}

// followInto does so with a replay of the test's. It waits until the query has a snapshot to give.
func (s *system) followInto(replay *followtest.Replay) *followtest.Follower {
	s.t.Helper()
	f := followtest.New(replay, s.url(""))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	eventually(s.t, 60*time.Second, "first snapshot of "+replay.Query, f.Started)
	return f
}
