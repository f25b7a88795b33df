package reactiontest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
)

// Got is a row that arrived at a target, as far as targets tell.
type Got struct {
	Query    string
	Sequence uint64
	ID       int64 // column id of the row
}

// Target is what a reaction of a test delivers to: the real thing, run by the test. Its methods are called one at a time.
type Target interface {
	// Config returns the config of a reaction that delivers to it.
	Config() json.RawMessage
	// Got returns what has arrived, in order, repetitions included.
	Got(t *testing.T) []Got
	// Break makes the target fail as it does when it is down, or answers no more where hang is set, until mend is called.
	// It reports false when the target cannot be made to.
	Break(t *testing.T, hang bool) (mend func(), ok bool)
}

// BadConfig is a config that is refused.
type BadConfig struct {
	Config   string
	Problems []string // each of which the refusal must name
}

// Fixture says how to test a reaction.
type Fixture struct {
	Factory reaction.Factory
	Target  func(t *testing.T) Target // a new one
	Bad     []BadConfig               // at least one with two problems
}

// within bounds everything that must not take long.
const within = 10 * time.Second

// Run holds a reaction that is pushed to against its contract.
func Run(t *testing.T, f Fixture) {
	t.Run("delivers in order", f.order)
	t.Run("delivers side by side", f.sideBySide)
	t.Run("says of a target that is down that it is transient", f.down)
	t.Run("ends with its context", f.hang)
	t.Run("is delivered to again after a crash", f.crash)
	t.Run("tells of rows that are void", f.void)
	t.Run("tells all that is wrong with a config", func(t *testing.T) { badConfigs(t, f.Factory, f.Bad) })
}

// RunServer holds a reaction that serves clients of its own against its contract: it serves until its context ends, and
// tells what is wrong with a config.
func RunServer(t *testing.T, f reaction.Factory, config string, results reaction.Results, bad []BadConfig) {
	t.Run("serves until its context ends", func(t *testing.T) {
		r, err := f.New(json.RawMessage(config), settings(t))
		require.NoError(t, err)
		s, ok := r.(reaction.Server)
		require.True(t, ok, "it is no Server")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, results) }()
		select {
		case err := <-done:
			require.NoError(t, err)
			t.Fatal("it ended by itself")
		case <-time.After(50 * time.Millisecond): // long enough for a start that fails
		}
		cancel()
		select {
		case err := <-done:
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
			}
		case <-time.After(within):
			t.Fatal("it does not end with its context")
		}
		closed(t, r)
	})
	t.Run("tells all that is wrong with a config", func(t *testing.T) { badConfigs(t, f, bad) })
}

func settings(t *testing.T) reaction.Settings {
	return reaction.Settings{
		Instance: "default", Name: "tested", Queries: []string{"q0", "q1"}, Generation: 1, Log: zaptest.NewLogger(t),
		Secret: component.ResolveSecret,
	}
}

func closed(t *testing.T, r reaction.Reaction) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
	defer cancel()
	require.NoError(t, r.Close(ctx))
}

// start makes a reaction that is closed with the test.
func (f Fixture) start(t *testing.T, target Target) reaction.Deliverer {
	r, err := f.Factory.New(target.Config(), settings(t))
	require.NoError(t, err)
	t.Cleanup(func() { closed(t, r) })
	d, ok := r.(reaction.Deliverer)
	require.True(t, ok, "it is no Deliverer")
	return d
}

// delivery makes the delivery of an event with one row for each id.
func delivery(query string, sequence uint64, ids ...int64) reaction.Delivery {
	e := &result.Event{
		Sequence: sequence, Source: "shop", Position: "0/1", CommitTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Columns: []string{"id", "note"},
	}
	for _, id := range ids {
		e.Diffs = append(e.Diffs, result.Diff{
			Op: result.Added, Key: result.RowKey{byte(id)}, After: []graph.Value{graph.Int(id), graph.String("\"<>&\n")},
		})
	}
	return reaction.Delivery{Query: query, Key: fmt.Sprintf("default.tested:%s:%d", query, sequence), Event: e}
}

func deliver(t *testing.T, r reaction.Deliverer, d reaction.Delivery) error {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return r.Deliver(ctx, d)
}

func (f Fixture) order(t *testing.T) {
	target := f.Target(t)
	r := f.start(t, target)
	var want []Got
	for sequence := uint64(1); sequence <= 50; sequence++ {
		id := int64(2 * sequence)
		require.NoError(t, deliver(t, r, delivery("q0", sequence, id, id+1)))
		want = append(want, Got{"q0", sequence, id}, Got{"q0", sequence, id + 1})
	}
	require.Equal(t, want, target.Got(t))
}

func (f Fixture) sideBySide(t *testing.T) {
	target := f.Target(t)
	r := f.start(t, target)
	const lanes, each = 8, 20
	var wg sync.WaitGroup
	errs := make(chan error, lanes*each)
	for lane := range lanes {
		wg.Go(func() {
			for sequence := uint64(1); sequence <= each; sequence++ {
				errs <- deliver(t, r, delivery(fmt.Sprintf("q%d", lane), sequence, int64(lane)))
			}
		})
	}
	wg.Wait()
	for range lanes * each {
		require.NoError(t, <-errs)
	}
	got := target.Got(t)
	require.Len(t, got, lanes*each)
	for lane := range lanes {
		next := uint64(1)
		for _, g := range got {
			if g.Query == fmt.Sprintf("q%d", lane) {
				require.Equal(t, Got{g.Query, next, int64(lane)}, g)
				next++
			}
		}
		require.EqualValues(t, each+1, next)
	}
}

func (f Fixture) down(t *testing.T) {
	target := f.Target(t)
	r := f.start(t, target)
	require.NoError(t, deliver(t, r, delivery("q0", 1, 1)))
	mend, ok := target.Break(t, false)
	if !ok {
		t.Skip("the target cannot be made to fail")
	}
	for range 3 {
		err := deliver(t, r, delivery("q0", 2, 2))
		require.Error(t, err)
		require.True(t, failure.ClassOf(err).Retryable(), "%v", err)
		require.NotEqual(t, failure.Unclassified, failure.CodeOf(err), "%v", err)
	}
	mend()
	require.NoError(t, deliver(t, r, delivery("q0", 2, 2)))
	require.NoError(t, deliver(t, r, delivery("q0", 3, 3)))
	f.requireOrder(t, target, 3)
}

func (f Fixture) hang(t *testing.T) {
	target := f.Target(t)
	r := f.start(t, target)
	mend, ok := target.Break(t, true)
	if !ok {
		t.Skip("the target cannot be made to hang")
	}
	defer mend()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Deliver(ctx, delivery("q0", 1, 1)) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the target: %v", err)
	case <-time.After(50 * time.Millisecond): // it hangs for longer than any that answers
	}
	cancel()
	select {
	case err := <-done:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(within):
		t.Fatal("it does not end with its context")
	}
}

// crash cuts a delivery short and lets another instance go on, as after a crash of the process.
func (f Fixture) crash(t *testing.T) {
	target := f.Target(t)
	r := f.start(t, target)
	require.NoError(t, deliver(t, r, delivery("q0", 1, 1)))
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	_ = r.Deliver(ctx, delivery("q0", 2, 2)) // it may have arrived or not
	again := f.start(t, target)
	for sequence := int64(2); sequence <= 4; sequence++ {
		require.NoError(t, deliver(t, again, delivery("q0", uint64(sequence), sequence)))
	}
	f.requireOrder(t, target, 4)
}

// requireOrder checks that each event up to last arrived, and that none came before the one that precedes it.
func (f Fixture) requireOrder(t *testing.T, target Target, last uint64) {
	t.Helper()
	next := uint64(1)
	for _, g := range target.Got(t) {
		require.LessOrEqual(t, g.Sequence, next, "an event was left out")
		next = max(next, g.Sequence+1)
	}
	require.Equal(t, last+1, next)
}

func (f Fixture) void(t *testing.T) {
	target := f.Target(t)
	r := f.start(t, target)
	anew := delivery("q0", 1)
	anew.Event.Snapshot = true
	require.NoError(t, deliver(t, r, anew))
	require.NoError(t, deliver(t, r, delivery("q0", 2, 2)))
	require.Contains(t, target.Got(t), Got{"q0", 2, 2})
}

func badConfigs(t *testing.T, f reaction.Factory, bad []BadConfig) {
	require.True(t, slices.ContainsFunc(bad, func(b BadConfig) bool { return len(b.Problems) > 1 }), "no config with two problems")
	for _, b := range append(bad, BadConfig{`{"nonesuch":1}`, []string{"nonesuch: unknown field"}}) {
		_, err := f.New(json.RawMessage(b.Config), settings(t))
		require.Error(t, err, b.Config)
		require.Equal(t, failure.Configuration, failure.ClassOf(err), b.Config)
		for _, p := range b.Problems {
			require.Contains(t, err.Error(), p, b.Config)
		}
	}
}
