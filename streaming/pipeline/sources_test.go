package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/source"
)

var store = component.SourceSpec{Name: "store", Kind: "other"}

// shops is a rig with two sources, of which a query may read one or the other or both.
type shops struct {
	*rig
	books map[string]*book
	specs map[string]component.SourceSpec
	runs  map[string]*run
}

// newShops returns one whose books have so many rows each; those of the second one have ids from 1000 on.
func newShops(t *testing.T, rows int, started ...string) *shops {
	s := &shops{
		rig: newRig(t), books: map[string]*book{"store": newBook()}, specs: map[string]component.SourceSpec{"shop": shop, "store": store},
		runs: make(map[string]*run),
	}
	s.books["shop"] = s.book
	s.sources = []source.Factory{s.book, other{s.books["store"]}}
	s.index = pebble.New(pebble.Options{Dir: t.TempDir()})
	for i := range rows {
		s.write("shop", i, "n", i%25)
		s.write("store", i, "m", i%25)
	}
	for _, name := range started {
		s.startOne(name)
	}
	return s
}

// write puts an item into the book of a source.
func (s *shops) write(source string, id int, name string, amount int) {
	if source == "store" {
		id += 1000
	}
	s.books[source].commit(item(graph.OpInsert, "Item", id, name, amount))
}

func (s *shops) startOne(name string) {
	h := s.host()
	s.runs[name] = s.start(s.specs[name].ID(), func(ctx context.Context, a Attempt) error { return h.RunSource(ctx, a, s.specs[name]) })
	eventually(s.t, func() bool { return h.SourceReady(s.t.Context(), "default", name) == nil }, "the source has a log")
}

// remove deletes a source.
func (s *shops) remove(name string) {
	s.runs[name].drained()
	require.NoError(s.t, s.host().TeardownSource(s.t.Context(), s.specs[name]))
}

// read does the bootstraps of a query.
func (s *shops) read(spec component.QuerySpec, id string) {
	s.t.Helper()
	for _, name := range spec.Sources {
		s.bootstrapOf(s.specs[name], spec, id, func() {})
	}
}

// began has a query with all that its sources have.
func (s *shops) began(spec component.QuerySpec) {
	s.t.Helper()
	s.read(spec, "first")
	query := s.startQuery(spec)
	s.requireRows(spec, 10)
	query.drained()
}

// of is the query auto of other sources.
func of(sources ...string) component.QuerySpec {
	spec := auto
	spec.Sources = sources
	return spec
}

// titled is the same question with another column.
func titled(sources ...string) component.QuerySpec {
	spec := of(sources...)
	spec.Query = strings.Replace(auto.Query, "AS name", "AS title", 1)
	return spec
}

// requireRows waits until the query has seen everything, and requires that its rows, and what follows from its events, are
// what its sources have.
func (s *shops) requireRows(spec component.QuerySpec, least int64) {
	s.t.Helper()
	wanted := make(map[string]string)
	for _, name := range spec.Sources {
		for id, row := range s.books[name].wantedAbove(least) {
			if strings.Contains(spec.Query, "AS title") {
				row = strings.Replace(row, `"name":`, `"title":`, 1)
			}
			wanted[id] = row
		}
	}
	eventually(s.t, func() bool {
		rows, state, err := s.shown("late")
		if err != nil || len(rows) != len(wanted) || len(state.Positions) != len(spec.Sources) {
			return false
		}
		for _, name := range spec.Sources {
			if state.Positions[name].Compare(s.books[name].end()) < 0 {
				return false
			}
		}
		return true
	}, "the query has seen everything")
	rows, state, err := s.shown("late")
	require.NoError(s.t, err)
	require.Equal(s.t, wanted, rows)
	eventually(s.t, func() bool { _, sequence := s.replayed("late"); return sequence == state.Sequence }, "all is published")
	replayed, _ := s.replayed("late")
	require.Equal(s.t, wanted, replayed)
}

// whole reports whether the state on record is what was asked for, and has its place.
func (s *shops) whole(spec component.QuerySpec) bool {
	record := s.record()
	plan, err := compile(spec)
	require.NoError(s.t, err)
	run := &queryRun{spec: spec, plan: plan}
	run.comesAfter(record.Sources)
	return run.asksFor(record) && record.Previous == ""
}

// requireNothingElse requires that a query has left nothing but what it needs for its sources.
func (s *shops) requireNothingElse(spec component.QuerySpec) {
	s.t.Helper()
	h, id := s.host(), spec.ID()
	var subscribed, wanting, booted, copied []string
	for _, name := range spec.Sources {
		subscribed = append(subscribed, "default."+name+".late")
		wanting = append(wanting, name+": late")
		booted, copied = append(booted, "default.late."+name), append(copied, bootstrapLog(id.Instance, id.Name, name))
	}
	keys := func(bucket, prefix string) []string {
		b, err := h.bucket(s.t.Context(), bucket)
		require.NoError(s.t, err)
		keys, err := b.Keys(s.t.Context(), prefix)
		require.NoError(s.t, err)
		return keys
	}
	slices.Sort(subscribed)
	eventually(s.t, func() bool {
		return slices.Equal(subscribed, slices.Sorted(slices.Values(keys(subscriptionsBucket, "default."))))
	}, "nothing else is held")
	for _, key := range keys(bootstrapBucket, "default.") {
		record, _, _ := strings.Cut(key, ".scope")
		require.Contains(s.t, booted, record)
	}
	positions, err := h.bucket(s.t.Context(), positionsBucket)
	require.NoError(s.t, err)
	var wants []string
	for _, key := range keys(positionsBucket, "default.") {
		name, is := strings.CutSuffix(strings.TrimPrefix(key, "default."), wantsSuffix)
		if !is {
			continue
		}
		var record wantsRecord
		_, _, err := read(s.t.Context(), positions, key, &record)
		require.NoError(s.t, err)
		for by := range record.Wants {
			wants = append(wants, name+": "+by)
		}
	}
	require.ElementsMatch(s.t, wanting, wants)
	logs, err := s.conn.LogNames(s.t.Context(), bootstrapLog(id.Instance, id.Name, ""))
	require.NoError(s.t, err)
	require.Subset(s.t, copied, logs, "what an interruption leaves, the next bootstrap removes")
	require.Equal(s.t, []string{s.record().Store}, s.storesLeft())
}

// TestOtherSourcesTakeThePlace changes what a query reads while its sources go on: it goes on with the state of the sources
// that it had until that of the others takes the place.
func TestOtherSourcesTakeThePlace(t *testing.T) {
	for name, test := range map[string]struct {
		from, to component.QuerySpec
		void     int
	}{
		"another one":                 {of("shop"), of("store"), 0},
		"one more":                    {of("shop"), of("shop", "store"), 0},
		"one more before it":          {of("store"), of("store", "shop"), 0},
		"one less":                    {of("shop", "store"), of("shop"), 0},
		"not the first":               {of("shop", "store"), of("store"), 0},
		"other columns":               {of("shop"), titled("shop"), 1},
		"other columns, another one":  {of("shop"), titled("store"), 1},
		"other columns of one of two": {of("shop", "store"), titled("store"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShops(t, 200, "shop", "store")
			s.began(test.from)
			_, before := s.replayed("late")
			query, needs := s.startAsking(test.to, "")
			require.Equal(t, Need{Outcome: NeedsBootstrap}, asked(t, needs))
			for _, name := range test.from.Sources {
				s.write(name, 300, "meanwhile", 30)
			}
			s.requireRows(test.from, 10)
			require.Empty(t, query.status.Snapshot().Details["held"])

			stop := s.busy()
			s.read(test.to, "second")
			eventually(t, func() bool { return s.whole(test.to) }, "the other state has taken the place")
			stop()
			s.requireRows(test.to, 10)
			require.Equal(t, test.void, s.beginnings())
			if _, after := s.replayed("late"); test.void == 0 {
				require.Less(t, after, before+rebuiltAfter)
			}
			s.requireNothingElse(test.to)
			query.drained()

			query, needs = s.startAsking(test.to, "")
			s.write("store", 301, "after a restart", 30)
			s.write("shop", 301, "after a restart", 30)
			s.requireRows(test.to, 10)
			require.Empty(t, needs)
			query.drained()
			require.Equal(t, test.void, s.beginnings())
		})
	}
}

// TestOtherSourcesShowAsOneDifference: rows of sources that stay are not told of, whatever the names of the others.
func TestOtherSourcesShowAsOneDifference(t *testing.T) {
	for _, change := range [][2]component.QuerySpec{{of("store"), of("shop", "store")}, {of("shop", "store"), of("shop")}} {
		s := newShops(t, 200, "shop", "store")
		s.began(change[0])
		_, before := s.replayed("late")
		query, _ := s.startAsking(change[1], "")
		s.read(change[1], "second")
		eventually(t, func() bool { return s.whole(change[1]) }, "the other state has taken the place")
		s.requireRows(change[1], 10)
		_, after := s.replayed("late")
		require.Equal(t, before+1, after)
		event, _, err := result.DecodeEvent([]byte(s.published()[after]))
		require.NoError(t, err)
		require.Len(t, event.Diffs, len(s.books["shop"].wanted()), "as many as the source has that came, or of the one that went")
		query.drained()
	}
}

// TestSourceOfAStateIsDeleted before another state takes the place, while the query runs or not: what came of it stays.
func TestSourceOfAStateIsDeleted(t *testing.T) {
	for name, to := range map[string]component.QuerySpec{"another one": of("shop"), "other columns": titled("shop")} {
		for _, runs := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", while it runs: ", runs), func(t *testing.T) {
				s := newShops(t, 100, "shop", "store")
				from := of("shop", "store")
				s.began(from)
				query, needs := s.startAsking(to, "")
				require.Equal(t, Need{Outcome: NeedsBootstrap}, asked(t, needs))
				if !runs {
					query.drained()
				}
				s.remove("store")
				if !runs {
					query, needs = s.startAsking(to, "")
					require.Equal(t, Need{Outcome: NeedsBootstrap, Held: true}, asked(t, needs))
				}
				eventually(t, func() bool {
					return strings.Contains(query.status.Snapshot().Details["held"], "store")
				}, "it says so")
				s.write("shop", 300, "meanwhile", 30)
				eventually(t, func() bool {
					rows, _, err := s.shown("late")
					return err == nil && strings.Contains(rows["300"], "meanwhile") && rows["1024"] != ""
				}, "what the other source has is applied")
				s.read(to, "second")
				eventually(t, func() bool { return s.whole(to) }, "the other state has taken the place")
				s.requireRows(to, 10)
				require.Equal(t, map[string]int{"another one": 0, "other columns": 1}[name], s.beginnings())
				s.requireNothingElse(to)
				require.Empty(t, query.status.Snapshot().Details["held"])
				query.drained()
			})
		}
	}
}

// TestSourceIsMadeAnew under the name of one that the query goes on reading: the numbers of its messages begin anew.
func TestSourceIsMadeAnew(t *testing.T) {
	s := newShops(t, 100, "shop", "store")
	s.began(of("shop"))
	to := of("shop", "store")
	query, needs := s.startAsking(to, "")
	require.Equal(t, Need{Outcome: NeedsBootstrap}, asked(t, needs))
	s.remove("shop")
	eventually(t, func() bool { return query.status.Snapshot().Details["held"] != "" }, "it says so")
	s.startOne("shop")
	s.read(to, "second")
	eventually(t, func() bool { return s.whole(to) }, "the other state has taken the place")
	s.write("shop", 300, "later", 30)
	s.requireRows(to, 10)
	require.Zero(t, s.beginnings())
	query.drained()
	s.requireNothingElse(to)
}

// TestSourceComesLate: a query waits for a source that is not there yet with the state that it has, if there is one.
func TestSourceComesLate(t *testing.T) {
	s := newShops(t, 100, "shop")
	s.began(of("shop"))
	to := of("shop", "store")
	query, needs := s.startAsking(to, "")
	eventually(t, func() bool {
		return strings.Contains(query.status.Snapshot().Details["successor"], "store")
	}, "it says what it waits for")
	s.write("shop", 300, "meanwhile", 30)
	s.requireRows(of("shop"), 10)
	require.Empty(t, needs, "there is nothing to read yet")
	ref := BootstrapRef{ID: "early", Instance: "default", Query: "late", Source: "store", SnapshotGeneration: 1}
	_, err := s.host().Subscribe(t.Context(), ref, to)
	require.Equal(t, failure.SourceMissing, failure.CodeOf(err))
	s.requireNothingElse(of("shop"))

	s.startOne("store")
	require.Equal(t, Need{Outcome: NeedsBootstrap}, asked(t, needs))
	s.read(to, "second")
	eventually(t, func() bool { return s.whole(to) }, "the other state has taken the place")
	s.requireRows(to, 10)
	s.requireNothingElse(to)
	require.Zero(t, s.beginnings())
	query.drained()
}

// TestOtherSourcesAreNotWantedAnyMore: the query reads the first ones again before the others had the place.
func TestOtherSourcesAreNotWantedAnyMore(t *testing.T) {
	for name, to := range map[string]component.QuerySpec{"another one": of("store"), "one more": of("shop", "store")} {
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", sealed: ", sealed), func(t *testing.T) {
				s := newShops(t, 100, "shop", "store")
				s.began(of("shop"))
				query, needs := s.startAsking(to, "")
				asked(t, needs)
				query.drained()
				ref := BootstrapRef{ID: "second", Instance: "default", Query: "late", Source: "store", SnapshotGeneration: 1}
				if sealed {
					s.read(to, ref.ID)
					next, boots := s.loader(to)
					require.NoError(t, next.loadAhead(t.Context(), boots))
				} else {
					_, err := s.host().Subscribe(t.Context(), ref, to)
					require.NoError(t, err)
				}
				query, needs = s.startAsking(of("shop"), "")
				s.write("shop", 300, "later", 30)
				s.requireRows(of("shop"), 10)
				require.Empty(t, needs)
				s.requireNothingElse(of("shop"))
				require.Zero(t, s.beginnings())
				query.drained()
			})
		}
	}
}

// TestPartOfAStateIsNoneOfOtherSources: a bootstrap of some labels, for the state that there is, does not do for another one.
func TestPartOfAStateIsNoneOfOtherSources(t *testing.T) {
	s := newShops(t, 100, "shop", "store")
	s.began(of("shop"))
	s.bootstrapRef(shop, of("shop"), BootstrapRef{ID: "part", Labels: []string{"Item"}}, func() {})
	to := of("shop", "store")
	query, needs := s.startAsking(to, "")
	require.Equal(t, Need{Outcome: NeedsBootstrap}, asked(t, needs))
	s.read(to, "second")
	eventually(t, func() bool { return s.whole(to) }, "the other state has taken the place")
	s.requireRows(to, 10)
	require.Zero(t, s.beginnings())
	query.drained()
}

// TestProcessEndsInTheMiddle of one state taking the place of another, which is then wanted, or is not any more; also with its
// disk, while there is a checkpoint of the first one.
func TestProcessEndsInTheMiddle(t *testing.T) {
	to := of("shop", "store")
	to.Parameters = above(15).Parameters
	for name, then := range map[string]component.QuerySpec{"as before": to, "the first one": of("shop"), "a third one": of("store")} {
		least := int64(10)
		if name == "as before" {
			least = 15
		}
		for _, far := range []string{"sealed", "on record", "loaded", "loaded, without its disk", "sealed, without its disk"} {
			t.Run(name+", "+far, func(t *testing.T) {
				s := newShops(t, 100, "shop", "store")
				s.began(of("shop"))
				_, published := s.replayed("late")
				s.read(to, "second")
				far, lost := strings.CutSuffix(far, ", without its disk")
				run, boots := s.loader(to)
				run.published = published
				records, err := run.host.bucket(t.Context(), queriesBucket)
				require.NoError(t, err)
				current, err := run.claim(t.Context(), records)
				require.NoError(t, err)
				wanted := run.record(boots, current)
				if far != "sealed" {
					require.NoError(t, run.choosePredecessor(t.Context(), boots, current, &wanted))
					require.NoError(t, run.put(t.Context(), records, wanted))
					if far == "loaded" {
						run.query, err = run.openStore(t.Context(), run.plan, wanted.Store, query.Empty)
						require.NoError(t, err)
						require.NoError(t, run.load(t.Context(), boots))
						require.NoError(t, run.query.Close())
					}
					require.NoError(t, run.old.Close())
				}
				if lost {
					s.index = pebble.New(pebble.Options{Dir: t.TempDir()})
				}

				last, needs := s.startAsking(then, "")
				if name == "a third one" {
					asked(t, needs)
					s.write("shop", 300, "meanwhile", 30)
					s.requireRows(of("shop"), 10)
					s.read(then, "third")
				}
				eventually(t, func() bool { return s.whole(then) }, "it is the state on record")
				s.write("shop", 301, "later", 30)
				s.write("store", 301, "later", 30)
				s.requireRows(then, least)
				require.Zero(t, s.beginnings())
				s.requireNothingElse(then)
				last.drained()
			})
		}
	}
}

// TestOtherSourcesTakeThePlaceWhateverHappens ends the attempts at any time, while changes of both sources go on.
func TestOtherSourcesTakeThePlaceWhateverHappens(t *testing.T) {
	s := newShops(t, 300, "shop", "store")
	s.began(of("shop"))
	stop, written := s.busy(), 0
	stopStore := busily(func() {
		written++
		s.write("store", written%20, fmt.Sprint("w", written), written%25)
	})
	random := rand.New(rand.NewPCG(9, 11))
	sets := [][]string{{"shop"}, {"store"}, {"shop", "store"}}
	spec, at, least := of("shop"), 0, int64(10)
	for round := range 6 {
		at = (at + 1 + random.IntN(2)) % len(sets)
		spec = of(sets[at]...)
		if round%2 > 0 {
			least = 5 + random.Int64N(15)
		}
		spec.Parameters = above(least).Parameters
		if s.whole(spec) {
			continue
		}
		for sealed := 0; !s.whole(spec); {
			query, needs := s.startAsking(spec, "")
			far := random.IntN(6)
			began := time.Now()
			eventually(t, func() bool {
				return len(needs) > 0 || s.whole(spec) || sealed > 0 && time.Since(began) > time.Duration(far)*100*time.Millisecond
			}, "it asks")
			if far > 0 && len(needs) > 0 {
				sealed++
				s.read(spec, fmt.Sprint("round", round, sealed))
				steps := []string{"is loading", "takes its place", "loading", "sealing", ""}
				eventually(t, func() bool {
					now := query.status.Snapshot()
					return s.whole(spec) || now.Details["successor"] == steps[far-1] || now.Phase == steps[far-1]
				}, "the other state is far enough")
			}
			query.kill()
		}
	}
	stop()
	stopStore()
	query, _ := s.startAsking(spec, "")
	s.requireRows(spec, least)
	query.drained()
	require.Zero(t, s.beginnings())
	require.NoError(t, s.host().RemoveOrphans(t.Context(), nil)) // of processes that ended after they had put that down
	s.requireNothingElse(spec)
}
