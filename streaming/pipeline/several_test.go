package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/source"
)

// other is a book of another kind.
type other struct{ *book }

// Kind implements source.Factory.
func (other) Kind() string { return "other" }

// cutting is a back end of a process that ends when a store is restored, before anything else happens.
type cutting struct{ index.Durable }

var errCut = errors.New("the process ends")

func (c cutting) Restore(name string, bytes int64, fill func(dir string) error) error {
	return errors.Join(c.Durable.Restore(name, bytes, fill), errCut)
}

// pair is a rig with a query of two sources, whose changes are taken in an order that only its index knows.
type pair struct {
	*rig
	both   component.QuerySpec
	second *book
	random *rand.Rand
}

// newPair starts the sources.
func newPair(t *testing.T) *pair {
	p := &pair{rig: newRig(t), both: often, second: newBook(), random: rand.New(rand.NewPCG(1, 5))}
	p.both.Sources, p.both.Bootstrap = []string{"shop", "store"}, "none"
	p.sources = []source.Factory{p.book, other{p.second}}
	p.readySource()
	store := component.SourceSpec{Name: "store", Kind: "other"}
	h := p.host()
	p.start(store.ID(), func(ctx context.Context, a Attempt) error { return h.RunSource(ctx, a, store) })
	eventually(t, func() bool { return h.SourceReady(t.Context(), "default", "store") == nil }, "the source has a log")
	return p
}

func (p *pair) write(transactions int) {
	for range transactions {
		p.book.scribble(p.random, 1)
		id := 1000 + p.random.IntN(50)
		p.second.commit(item(graph.OpInsert, "Item", id, fmt.Sprint("n", p.random.IntN(5)), p.random.IntN(25)))
	}
}

// requireSettled waits until the query has seen everything, and requires that its rows, and what follows from its events,
// are what both sources have.
func (p *pair) requireSettled() {
	p.t.Helper()
	wanted := p.book.wanted()
	for id, row := range p.second.wanted() {
		wanted[id] = row
	}
	eventually(p.t, func() bool {
		rows, state, err := p.shown("late")
		return err == nil && len(rows) == len(wanted) && state.Positions["shop"].Compare(p.book.end()) >= 0 &&
			state.Positions["store"].Compare(p.second.end()) >= 0
	}, "the query has seen everything")
	rows, state, err := p.shown("late")
	require.NoError(p.t, err)
	require.Equal(p.t, wanted, rows)
	eventually(p.t, func() bool { _, sequence := p.replayed("late"); return sequence == state.Sequence }, "all is published")
	replayed, _ := p.replayed("late")
	require.Equal(p.t, wanted, replayed)
}

// requireOneStore requires that nothing is left on a host of what was restored there.
func (p *pair) requireOneStore(dir string) {
	p.t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "default", "late"))
	require.NoError(p.t, err)
	var stores []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".checkpoint") {
			stores = append(stores, e.Name())
		}
	}
	require.Len(p.t, stores, 1, "%v", stores)
}

// cut has the process of an attempt end when it has restored the state.
func (p *pair) cut() {
	p.t.Helper()
	whole := p.index
	p.index = cutting{whole.(index.Durable)}
	require.ErrorIs(p.t, p.startQuery(p.both).result(), errCut)
	p.index = whole
	require.NotEmpty(p.t, p.record().Next, "it does not count as whole")
}

// TestRestoreOfSeveralSourcesGoesOn takes the disk of a query away that was killed: whoever follows it is told what differs.
func TestRestoreOfSeveralSourcesGoesOn(t *testing.T) {
	for name, order := range map[string]string{"": "", "in an order": " ORDER BY name, id"} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.both.Query += order
			p.elsewhere()
			query := p.startQuery(p.both)
			p.following(query)
			client := p.watch()
			for round := range 4 {
				p.write(20)
				if round < 3 { // else from the one that was restored before
					p.anotherCheckpoint(p.random)
				}
				p.write(20)
				if round == 2 {
					p.requireSettled()
				}
				query.kill()
				before := len(p.published())
				dir := p.elsewhere()
				if round == 1 {
					p.cut()
					record := p.record()
					require.ElementsMatch(t, record.stores(), p.storesLeft())
				}
				p.write(20)
				query = p.startQuery(p.both)
				p.following(query)
				require.Empty(t, p.record().Next)
				require.NotEmpty(t, query.status.Snapshot().Details["restored"])
				require.GreaterOrEqual(t, len(p.published()), before)
				p.write(20)
				p.requireSettled()
				require.Zero(t, p.beginnings(), "no row was void")
				p.requireOneStore(dir)
			}
			_, sequence := p.replayed("late")
			eventually(t, func() bool { return len(client.done) > 0 || client.seen() == sequence }, "all is seen")
			require.Empty(t, client.done, "the series ended")
			query.drained()
		})
	}
}

// TestRestoreOfSeveralSourcesBeginsAnew: what was published since the checkpoint is not kept any more.
func TestRestoreOfSeveralSourcesBeginsAnew(t *testing.T) {
	p := newPair(t)
	p.elsewhere()
	query := p.startQuery(p.both)
	p.following(query)
	p.write(20)
	p.anotherCheckpoint(p.random)
	p.write(20)
	p.requireSettled()
	query.kill()
	p.age(resultLog("default", "late"))
	dir := p.elsewhere()
	query = p.startQuery(p.both)
	p.following(query)
	p.write(20)
	wanted := p.book.wanted()
	maps.Copy(wanted, p.second.wanted())
	eventually(t, func() bool {
		rows, _, err := p.shown("late")
		return err == nil && maps.Equal(rows, wanted)
	}, "the query has seen everything")
	require.Equal(t, 1, p.beginnings())
	p.requireOneStore(dir)
	query.drained()
}

// TestQueryOfSeveralSourcesMoves: after a stop in good order its rows stay what they are, on whichever host it goes on; what it
// ended with counts for nothing once it has gone on.
func TestQueryOfSeveralSourcesMoves(t *testing.T) {
	p := newPair(t)
	hosts := []string{t.TempDir(), t.TempDir()}
	move := func(round int) {
		p.index = pebble.New(pebble.Options{Dir: hosts[round%2], MemTableBytes: 64 << 10})
		require.NoError(t, p.host().RemoveOrphans(t.Context(), nil))
	}
	move(0)
	query, outcome := p.startTold(p.both)
	p.following(query)
	for round := 1; round <= 4; round++ {
		p.write(20)
		query.drained()
		require.Equal(t, Stored, <-outcome)
		p.write(5)
		move(round)
		if round == 2 {
			p.cut()
		}
		query, outcome = p.startTold(p.both)
		p.following(query)
		require.NotEmpty(t, query.status.Snapshot().Details["restored"])
		p.write(20)
		p.requireSettled()
		p.requireOneStore(hosts[round%2])
		require.Zero(t, p.beginnings())
	}
	query.drained()
	require.Equal(t, Stored, <-outcome)
	query, outcome = p.startTold(p.both)
	p.following(query)
	require.Empty(t, query.status.Snapshot().Details["restored"], "it is on this host")
	query.drained()
	require.Equal(t, Stored, <-outcome)
	query = p.startQuery(p.both)
	p.following(query)
	p.write(1)
	p.requireSettled()
	query.kill()
	move(5)
	query = p.startQuery(p.both)
	p.following(query)
	p.requireSettled()
	require.Zero(t, p.beginnings())
	query.drained()
}

// startTold is startQuery that also tells as what the query ends.
func (r *rig) startTold(spec component.QuerySpec) (*run, <-chan Outcome) {
	h, outcomes := r.host(), make(chan Outcome, 1)
	return r.start(spec.ID(), func(ctx context.Context, a Attempt) error {
		a.Need = func(context.Context, Need) error { return nil }
		outcome, err := h.RunQuery(ctx, a, spec)
		outcomes <- outcome
		return err
	}), outcomes
}

// TestQueryThatMustStay ends queries of which something is on their host alone.
func TestQueryThatMustStay(t *testing.T) {
	ends := func(t *testing.T, query *run, outcome <-chan Outcome) {
		query.drained()
		require.Equal(t, Drained, <-outcome)
	}
	t.Run("the state", func(t *testing.T) {
		r := newRig(t)
		r.readySource()
		query, outcome := r.startTold(late)
		r.following(query)
		ends(t, query, outcome)
	})
	t.Run("the end of the state", func(t *testing.T) {
		r, _, query, _ := newFollowing(t, late, 10)
		query.drained()
		query, outcome := r.startTold(late)
		r.following(query)
		require.NoError(t, r.host().removeCheckpoints(t.Context(), late.ID()))
		r.book.scribble(rand.New(rand.NewPCG(1, 5)), 50)
		r.caughtUp("late")
		ends(t, query, outcome)
	})
	t.Run("another state", func(t *testing.T) {
		r := newRig(t)
		r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
		r.readySource()
		r.ran("first")
		query, outcome := r.startTold(above(17))
		eventually(t, func() bool { return query.status.Snapshot().Details["successor"] != "" }, "it asks for a bootstrap")
		ends(t, query, outcome)
	})
}
