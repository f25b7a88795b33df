package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/stream"
)

// trialChild makes the test binary a process that runs the stages of a trial until it is killed.
const trialChild = "PERDURE_TEST_TRIAL_CHILD"

// trialIndex is the directory of the query's state.
const trialIndex = "index"

// order is what the process is told.
type order struct {
	Stream  string // URL of the stream server
	Dir     string // of the query's state and what else there is on the disk
	Lost    int    // how often the disk was lost
	Source  component.SourceSpec
	Query   component.QuerySpec
	Attempt uint64 // grows with each process
}

// child does in one process what workers do for the workflows of a source and a query: each stage is begun anew when it
// ends, and where the query needs a bootstrap it gets one.
type child struct {
	order
	host *Host
}

// runChild never returns.
func runChild(t *testing.T, text string) {
	var c child
	if err := json.Unmarshal([]byte(text), &c.order); err != nil {
		t.Fatal(err)
	}
	go func() { // the process ends with the one that started it
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log, err := zap.NewDevelopment()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	conn, err := stream.Connect(ctx, stream.Options{URL: c.Stream, Name: "trial", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	c.host, err = NewHost(Options{
		Stream: conn, Sources: []source.Factory{postgres.Factory{}}, Index: pebble.New(pebble.Options{Dir: filepath.Join(c.Dir, trialIndex), Log: log}),
		SpillDir: c.Dir, HostID: fmt.Sprint(os.Getpid()), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	go c.forEver("source", func(a Attempt) error {
		a.ID = c.Source.ID()
		if err := c.host.ProvisionSource(ctx, c.Source); err != nil {
			return err
		}
		return c.host.RunSource(ctx, a, c.Source)
	})
	c.forEver("query", func(a Attempt) error {
		a.ID = c.Query.ID()
		// Each process either goes on while its sources are read again, and has that done once, or ends when it needs that.
		if c.Attempt%2 == 0 {
			a.Reload = fmt.Sprint("attempt ", c.Attempt)
			asked, atWork := 0, new(atomic.Bool)
			a.Need = func(ctx context.Context, n Need) error {
				if atWork.Swap(true) { // it is asked for again
					return nil
				}
				asked++
				ref := c.ref(a, n.Outcome, n.Missing)
				ref.ID += fmt.Sprint("-", asked) // as a workflow that is started again
				go func() {                      // ends with the process
					defer atWork.Store(false)
					_, err := backoff.Retry(ctx, func() (struct{}, error) {
						return struct{}{}, c.bootstrap(ctx, ref, int(a.Epoch.Generation))
					}, backoff.WithBackOff(backoff.NewConstantBackOff(20*time.Millisecond)), backoff.WithMaxElapsedTime(trialBound))
					log.Info("bootstrap ended", zap.Error(err))
				}()
				return nil
			}
		}
		outcome, err := c.host.RunQuery(ctx, a, c.Query)
		status := a.Progress.Snapshot()
		log.Info("query stopped", zap.String("outcome", string(outcome)), zap.Any("status", status), zap.Error(err))
		switch outcome {
		case NeedsBootstrap, NeedsResync, NeedsRebuild:
			return c.bootstrap(ctx, c.ref(a, outcome, status.Missing), int(a.Epoch.Generation))
		}
		return err
	})
}

// ref names the bootstrap that an attempt needs.
func (c *child) ref(a Attempt, outcome Outcome, missing *Missing) BootstrapRef {
	if outcome == NeedsBootstrap {
		return BootstrapRef{ID: fmt.Sprint("disk", c.Lost)}
	}
	ref := BootstrapRef{ID: fmt.Sprint("need", a.Epoch.Generation), Rebuild: outcome == NeedsRebuild}
	if missing != nil {
		ref.Labels = missing.Labels
	}
	return ref
}

// forEver begins something again and again. What a retry cannot help ends the process, which fails the trial.
func (c *child) forEver(what string, do func(Attempt) error) {
	for n := uint64(1); ; n++ {
		err := do(Attempt{Epoch: stream.Epoch{Generation: c.Attempt<<20 + n, Started: time.Now().UnixNano()}, Progress: &Progress{}})
		c.host.log.Info(what+" ended", zap.Error(err))
		switch failure.CodeOf(err) {
		case failure.SnapshotLost, failure.SourceMissing: // the source has no log yet
		default:
			if err != nil && !failure.ClassOf(err).Retryable() {
				fmt.Printf("fatal: %s: %s\n", what, failure.CodeOf(err).ID)
				os.Exit(3)
			}
		}
		time.Sleep(20 * time.Millisecond) // between tries
	}
}

// bootstrap copies a snapshot. What was copied of an earlier one counts where a label is complete.
func (c *child) bootstrap(ctx context.Context, ref BootstrapRef, generation int) error {
	ref.Instance, ref.Query, ref.Source, ref.SnapshotGeneration = "default", c.Query.Name, c.Source.Name, generation
	if _, err := c.host.Subscribe(ctx, ref, c.Query); err != nil {
		return err
	}
	holding, release := context.WithCancel(ctx)
	ready, lost := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		lost <- c.host.HoldSnapshot(holding, ref, c.Source, func(graph.Position) error { ready <- struct{}{}; return nil }, func() {})
	}()
	select {
	case <-ready:
	case err := <-lost:
		release()
		return err
	}
	err := c.copy(ctx, ref)
	release()
	<-lost // whether it was lost shows in the copy
	return err
}

func (c *child) copy(ctx context.Context, ref BootstrapRef) error {
	if _, err := c.host.PlanChunks(ctx, ref, c.Source, c.Query); err != nil {
		return err
	}
	if _, record, err := c.host.current(ctx, ref); err == nil && len(record.Continued) > 0 {
		c.host.log.Info("the copy goes on", zap.Strings("labels", record.Continued))
	}
	copies := make(chan error, 2)
	for i := range cap(copies) {
		go func() {
			_, err := c.host.CopyChunks(ctx, ref, c.Source, fmt.Sprint("worker", i), func(CopyProgress) {})
			copies <- err
		}()
	}
	var failed error
	for range cap(copies) {
		if err := <-copies; err != nil {
			failed = err
		}
	}
	if failed != nil {
		return failed
	}
	if err := c.host.VerifyBootstrap(ctx, ref, c.Source, func() {}); err != nil {
		return err
	}
	_, _, err := c.host.SealBootstrap(ctx, ref)
	return err
}
