package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/stream"
)

// startAsking starts a query that is told to read its sources again, if reload is not empty, and whose control plane
// passes on what it needs.
func (r *rig) startAsking(spec component.QuerySpec, reload string) (*run, <-chan Need) {
	h, needs := r.host(), make(chan Need, 10)
	return r.start(spec.ID(), func(ctx context.Context, a Attempt) error {
		a.Reload = reload
		var last Need
		a.Need = func(_ context.Context, n Need) error {
			if !reflect.DeepEqual(n, last) { // it asks again while it waits
				needs <- n
			}
			last = n
			return nil
		}
		_, err := h.RunQuery(ctx, a, spec)
		return err
	}), needs
}

// asked waits for what a query needs.
func asked(t *testing.T, needs <-chan Need) Need {
	t.Helper()
	select {
	case n := <-needs:
		return n
	case <-time.After(20 * time.Second):
		t.Fatal("the query asks for nothing")
		return Need{}
	}
}

// above is the query auto with another bound.
func above(least int64) component.QuerySpec {
	spec := auto
	spec.Parameters = map[string]json.RawMessage{"least": json.RawMessage(fmt.Sprint(least))}
	return spec
}

// TestAnotherStateTakesThePlace has the sources read again, or another question asked, while changes go on: the state of
// before is followed until the other one takes its place, which shows as one difference.
func TestAnotherStateTakesThePlace(t *testing.T) {
	for name, next := range map[string]struct {
		spec   component.QuerySpec
		reload string
		need   Outcome
		least  int64
	}{
		"read again":       {auto, "1", NeedsResync, 10},
		"another question": {above(17), "", NeedsBootstrap, 17},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
			r.stock(500)
			r.readySource()
			r.ran("first")
			_, before := r.replayed("late")
			r.book.miss(item(graph.OpUpdate, "Item", 24, "missed", 24))

			query, needs := r.startAsking(next.spec, next.reload)
			require.Equal(t, Need{Outcome: next.need}, asked(t, needs))
			r.book.commit(item(graph.OpInsert, "Item", 3000, "meanwhile", 30))
			r.caughtUp("late")
			rows, _, err := r.shown("late")
			require.NoError(t, err)
			require.Contains(t, rows["3000"], "meanwhile")
			require.NotContains(t, rows["24"], "missed")

			stop := r.busy()
			r.bootstrapAs(next.spec, BootstrapRef{ID: "second"})
			eventually(t, func() bool { return r.took(next.reload, next.spec) }, "the other state has taken the place")
			stop()
			r.settledAt("late", r.book.end(), r.book.wantedAbove(next.least))
			_, after := r.replayed("late")
			require.Less(t, after, before+rebuiltAfter, "nothing was void")
			require.Empty(t, needs)
			query.drained()

			query, needs = r.startAsking(next.spec, next.reload)
			r.book.commit(item(graph.OpInsert, "Item", 3001, "after a restart", 30))
			r.settledAt("late", r.book.end(), r.book.wantedAbove(next.least))
			require.Empty(t, needs, "it has had it")
			query.drained()
			require.Len(t, r.storesLeft(), 1)
		})
	}
}

// TestAnotherStateThatIsNotWantedAnyMore is removed: the question is the first one again before the other had its place.
func TestAnotherStateThatIsNotWantedAnyMore(t *testing.T) {
	r := newRig(t)
	r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
	r.stock(100)
	r.readySource()
	r.ran("first")
	record := r.record()
	r.bootstrapAs(above(15), BootstrapRef{ID: "second"})
	next, boots := r.loader(above(15))
	require.NoError(t, next.loadAhead(t.Context(), boots))
	require.Len(t, r.storesLeft(), 2)
	require.NoError(t, r.host().RemoveOrphans(t.Context(), nil))
	require.Len(t, r.storesLeft(), 2, "it is on record")

	query, needs := r.startAsking(auto, "")
	r.settled("late")
	sealed, err := r.host().bucket(t.Context(), bootstrapBucket)
	require.NoError(t, err)
	eventually(t, func() bool {
		keys, err := sealed.Keys(t.Context(), "default.late.")
		require.NoError(t, err)
		return len(keys) == 0
	}, "its bootstrap is given up")
	query.drained()
	require.Empty(t, needs)
	require.Equal(t, []string{record.Store}, r.storesLeft())
	for _, name := range []string{bootstrapBucket, subscriptionsBucket} {
		b, err := r.host().bucket(t.Context(), name)
		require.NoError(t, err)
		keys, err := b.Keys(t.Context(), "default.")
		require.NoError(t, err)
		for _, key := range keys {
			require.Equal(t, "default.shop.late", key, "nothing is held for it")
		}
	}
	_, err = r.conn.OpenLog(t.Context(), bootstrapLog("default", "late", "shop"))
	require.ErrorIs(t, err, stream.ErrMissing)
}

// loader returns what is about to load the bootstraps that are sealed for a query.
func (r *rig) loader(spec component.QuerySpec) (*queryRun, []*boot) {
	plan, err := compile(spec)
	require.NoError(r.t, err)
	run := &queryRun{host: r.host(), attempt: r.attempt(spec.ID()), spec: spec, id: spec.ID(), plan: plan}
	run.comesAfter(r.record().Sources)
	boots, err := run.sealed(r.t.Context())
	require.NoError(r.t, err)
	return run, boots
}

// record returns what bucket queries says of the query late.
func (r *rig) record() queryRecord {
	b, err := r.host().bucket(r.t.Context(), queriesBucket)
	require.NoError(r.t, err)
	var record queryRecord
	_, _, err = read(r.t.Context(), b, "default.late", &record)
	require.NoError(r.t, err)
	return record
}

func (r *rig) storesLeft() []string {
	names, err := r.index.Names()
	require.NoError(r.t, err)
	return names
}

// TestAnotherStateTakesThePlaceWhateverHappens ends the attempts at any time, while changes go on.
func TestAnotherStateTakesThePlaceWhateverHappens(t *testing.T) {
	r := newRig(t)
	r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
	r.stock(500)
	r.readySource()
	r.bootstrap("first")
	stop := r.busy()
	random := rand.New(rand.NewPCG(9, 9))
	spec, least := auto, int64(10)
	for round := range 4 {
		reload := ""
		if round%2 == 0 {
			reload = fmt.Sprint(round)
		} else {
			least = 5 + random.Int64N(15)
			spec = above(least)
		}
		var needed, sealed bool
		for !sealed {
			query, needs := r.startAsking(spec, reload)
			eventually(t, func() bool {
				return len(needs) > 0 || query.status.Snapshot().Phase == "following" && round == 0 && !needed
			}, "it asks")
			needed = needed || len(needs) > 0
			if random.IntN(2) == 0 {
				query.kill()
				continue
			}
			r.bootstrapAs(spec, BootstrapRef{ID: fmt.Sprint("round", round)})
			sealed = true
			steps := []string{"", "is loading", "takes its place", "none"}
			far := random.IntN(len(steps))
			eventually(t, func() bool {
				at := slices.Index(steps, query.status.Snapshot().Details["successor"])
				return at < 0 && far == 0 || at >= far || r.took(reload, spec)
			}, "the other state "+steps[far])
			query.kill()
		}
		query, needs := r.startAsking(spec, reload)
		eventually(t, func() bool { return r.took(reload, spec) }, "the other state has taken the place")
		require.Empty(t, needs)
		query.drained()
	}
	stop()
	query, _ := r.startAsking(spec, "")
	r.settledAt("late", r.book.end(), r.book.wantedAbove(least))
	query.drained()
	require.Len(t, r.storesLeft(), 1)
}

// took reports whether the state on record is what was asked for, and whole.
func (r *rig) took(reload string, spec component.QuerySpec) bool {
	record := r.record()
	plan, err := compile(spec)
	require.NoError(r.t, err)
	return record.Fingerprint == plan.Fingerprint() && record.Previous == "" && (reload == "" || record.Reload == reload)
}

// TestAnotherStateIsLostInItsPlace takes the disk of a query whose state has just taken the place of another one, before the
// bootstraps are used up, and gives it back later.
func TestAnotherStateIsLostInItsPlace(t *testing.T) {
	r := newRig(t)
	r.query = often
	r.elsewhere()
	first := r.index
	r.stock(200)
	r.readySource()
	r.ran("first")
	_, published := r.replayed("late")
	r.book.miss(item(graph.OpUpdate, "Item", 24, "missed", 24))
	r.bootstrap("second")

	run, boots := r.loader(auto)
	run.published = published
	records, err := run.host.bucket(t.Context(), queriesBucket)
	require.NoError(t, err)
	current, err := run.claim(t.Context(), records)
	require.NoError(t, err)
	wanted := run.record(boots, current)
	require.NoError(t, run.choosePredecessor(t.Context(), boots, current, &wanted))
	require.NotNil(t, run.old)
	run.query, err = run.openStore(t.Context(), run.plan, wanted.Store, query.Empty)
	require.NoError(t, err)
	require.NoError(t, run.load(t.Context(), boots))
	require.NoError(t, run.removePredecessor(t.Context(), records, wanted))
	require.NoError(t, run.query.Close())

	for _, disk := range []func(){func() { r.elsewhere() }, func() { r.index = first }} {
		disk()
		query := r.startQuery(auto)
		r.settled("late")
		r.book.scribble(rand.New(rand.NewPCG(1, 1)), 20)
		r.settled("late")
		query.drained()
	}
	require.Equal(t, 1, r.beginnings())
}

// TestResultIsHeld has changes lost: the result stays to be seen as it is until what was lost is there.
func TestResultIsHeld(t *testing.T) {
	r, _ := newReading(t, 300)
	query, needs := r.startAsking(auto, "")
	r.settled("late")
	for i, missing := range []*Missing{nil, {Source: "shop", Labels: []string{"Item"}}} {
		held := r.book.wanted()
		r.book.miss(item(graph.OpUpdate, "Item", 23, fmt.Sprint("missed", i), 23))
		if missing == nil {
			r.book.tell(graph.MissedDiff)
		} else {
			r.book.tell(graph.MissedDiff, missing.Labels...)
		}
		require.Equal(t, Need{Outcome: NeedsResync, Missing: missing, Held: true}, asked(t, needs))
		r.book.commit(item(graph.OpInsert, "Item", 3000+i, "later", 30))
		rows, _, err := r.shown("late")
		require.NoError(t, err)
		require.Equal(t, held, rows)
		ref := BootstrapRef{ID: fmt.Sprint("again", i)}
		if missing != nil {
			ref.Labels = missing.Labels
		}
		r.bootstrapAs(auto, ref)
		r.settled("late")
	}
	_, last := r.replayed("late")
	require.Less(t, last, uint64(rebuiltAfter), "nothing was void")
	query.drained()
}

// TestAnotherQuestionMendsAQueryThatStopped: what the present state cannot apply does not keep another one from coming.
func TestAnotherQuestionMendsAQueryThatStopped(t *testing.T) {
	r := newRig(t)
	r.stock(100)
	r.readySource()
	stops := auto
	stops.Query = "MATCH (i:Item) WHERE i.amount > $least RETURN i.id AS id, toString(100 / (i.amount - 99)) AS name, i.amount AS amount"
	stops.OnError = "stop"
	r.bootstrapAs(stops, BootstrapRef{ID: "first"})
	query := r.startQuery(stops)
	r.caughtUp("late")
	r.book.commit(item(graph.OpInsert, "Item", 3000, "breaks it", 99))
	require.Error(t, query.result())

	query, needs := r.startAsking(auto, "")
	require.Equal(t, Need{Outcome: NeedsBootstrap}, asked(t, needs))
	eventually(t, func() bool { return query.status.Snapshot().Details["held"] != "" }, "the result is held")
	r.bootstrap("second")
	r.settled("late")
	query.drained()
}

// TestAnotherQuestionMendsAQueryThatMayNotReadItsSources: what counts is whether the one that is asked now may.
func TestAnotherQuestionMendsAQueryThatMayNotReadItsSources(t *testing.T) {
	r := newRig(t)
	r.readySource()
	query := r.startQuery(late)
	r.following(query)
	r.book.miss(item(graph.OpInsert, "Item", 1, "missed", 20))
	r.book.tell(graph.MissedDiff)
	require.Equal(t, failure.ChangesLost, failure.CodeOf(query.result()))

	query, needs := r.startAsking(above(17), "")
	require.Equal(t, Need{Outcome: NeedsBootstrap}, asked(t, needs))
	eventually(t, func() bool { return query.status.Snapshot().Details["held"] != "" }, "the result is held")
	r.bootstrapAs(above(17), BootstrapRef{ID: "first"})
	eventually(t, func() bool { return r.took("", above(17)) }, "the other state has taken the place")
	r.settledAt("late", r.book.end(), r.book.wantedAbove(17))
	query.drained()
}

// TestAnotherStateWaitsForNoMark has the source started again after the snapshot, and then quiet.
func TestAnotherStateWaitsForNoMark(t *testing.T) {
	r := newRig(t)
	r.stock(100)
	src := r.readySource()
	r.ran("first")
	r.bootstrapAs(above(15), BootstrapRef{ID: "second"})
	src.drained()
	log, err := r.conn.OpenLog(t.Context(), changeLog("default", "shop"))
	require.NoError(t, err)
	before, err := log.State(t.Context())
	require.NoError(t, err)
	r.startSource()
	eventually(t, func() bool {
		now, err := log.State(t.Context())
		require.NoError(t, err)
		return now.Last > before.Last
	}, "the source is back")
	next, boots := r.loader(above(15))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, next.loadAhead(ctx, boots))
}

// TestNeedIsTakenLate: whoever is asked for a bootstrap may not listen at first.
func TestNeedIsTakenLate(t *testing.T) {
	r := newRig(t)
	r.stock(100)
	r.readySource()
	r.ran("first")
	h, needs := r.host(), make(chan Need, 10)
	query := r.start(auto.ID(), func(ctx context.Context, a Attempt) error {
		a.Need = func(_ context.Context, n Need) error { needs <- n; return nil }
		_, err := h.RunQuery(ctx, a, above(17))
		return err
	})
	for range 2 {
		select {
		case need := <-needs:
			require.Equal(t, Need{Outcome: NeedsBootstrap}, need)
		case <-time.After(20 * time.Second):
			t.Fatal("it does not ask again")
		}
	}
	r.bootstrapAs(above(17), BootstrapRef{ID: "second"})
	eventually(t, func() bool { return r.took("", above(17)) }, "the other state has taken the place")
	r.settledAt("late", r.book.end(), r.book.wantedAbove(17))
	query.drained()
}
