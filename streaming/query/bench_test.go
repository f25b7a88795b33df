package query_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
)

// batchSize is how many transactions of one change a batch has, as when the pipeline is busy.
const batchSize = 100

// sizes are how many elements a shape is measured with; large ones are left out with -short.
var sizes = map[int]string{1_000: "1k", 10_000: "10k", 100_000: "100k", 1_000_000: "1M"}

// shape is a query with a graph and a stream of changes.
type shape struct {
	name, text string
	sizes      []int
	// graph yields the elements to start from.
	graph func(n int, yield func(graph.Change))
	// change returns the i-th change of a graph made for n. r is seeded anew for each measurement.
	change func(n, i int, r *rand.Rand) graph.Change
	// wide says that a change makes thousands of rows, so that a batch has one change only.
	wide bool
}

// run measures shapes on both back ends. One operation is one change, which is a transaction; 100 of them are a batch.
// Before measuring starts changes fill the caches.
func run(b *testing.B, shapes []shape) {
	for _, s := range shapes {
		for _, n := range s.sizes {
			for _, backend := range []string{"memory", "pebble"} {
				b.Run(fmt.Sprintf("%s/%s/%s", s.name, sizes[n], backend), func(b *testing.B) {
					if testing.Short() && n > 10_000 {
						b.Skip("too large for -short")
					}
					r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // must be the same each time
					before := heap()
					q := open(b, openBackend(b, backend), s.text)
					load(b, q, func(yield func(graph.Change)) { s.graph(n, yield) })
					state := stateOf(q, before)
					m := stream{batch: batchSize, warm: min(n, 50_000), change: func(i int) graph.Change { return s.change(n, i, r) }}
					if s.wide {
						m.batch, m.warm = 1, 2
					}
					m.measure(b, q)
					state.report(b)
				})
			}
		}
	}
}

func openBackend(b *testing.B, name string) index.Backend {
	if name == "memory" {
		return memory.New()
	}
	return pebble.New(pebble.Options{Dir: b.TempDir()})
}

func open(b *testing.B, backend index.Backend, text string) *query.Query {
	p, err := query.Compile(text, query.Options{})
	require.NoError(b, err)
	s, err := backend.Open(fmt.Sprintf("bench-%s", strings.ReplaceAll(p.Fingerprint(), "/", "")))
	require.NoError(b, err)
	q, err := query.Open(p, s)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, q.Close()) })
	return q
}

func load(b *testing.B, q *query.Query, elements func(yield func(graph.Change))) {
	const step = 1000
	changes := make([]graph.Change, 0, step)
	flush := func() {
		require.NoError(b, q.Load("bench", nil, changes))
		changes = changes[:0]
	}
	elements(func(c graph.Change) {
		if changes = append(changes, c); len(changes) == step {
			flush()
		}
	})
	flush()
	require.NoError(b, q.Seal(result.State{}, 1000))
	require.NoError(b, q.TrimOutbox(q.State().Sequence))
	_, err := q.Apply(query.Batch{Source: "bench"})
	require.NoError(b, err)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first one finishes what finalizers hold
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// state is what an element costs: in memory, caches included, and as the index says of itself.
type state struct{ heap, index float64 }

func stateOf(q *query.Query, before uint64) state {
	n := float64(q.Stats().Elements)
	return state{float64(int64(heap())-int64(before)) / n, float64(q.Stats().Bytes) / n}
}

func (s state) report(b *testing.B) {
	b.ReportMetric(s.heap, "heap-B/element")
	b.ReportMetric(s.index, "index-B/element")
}

// stream makes changes, which go to queries in batches.
type stream struct {
	batch, warm int // changes
	change      func(i int) graph.Change

	made int
}

// next makes some batches ahead.
func (s *stream) next() []query.Batch {
	const ahead = 500 // few enough to be in the caches still, as what was just decoded is
	batches := make([]query.Batch, max(1, ahead/s.batch))
	for k := range batches {
		changes := make([]graph.Change, s.batch)
		batches[k] = query.Batch{Source: "bench", Offset: uint64(s.made + 1), Transactions: make([]graph.Transaction, s.batch)}
		for i := range changes {
			changes[i] = s.change(s.made)
			batches[k].Transactions[i].Changes = changes[i : i+1]
			s.made++
		}
	}
	return batches
}

// measure applies one batch after the other to queries over one stream.
func (s *stream) measure(b *testing.B, queries ...*query.Query) {
	for s.made < s.warm {
		for _, batch := range s.next() {
			for _, q := range queries {
				applyBatch(b, q, batch)
			}
		}
	}
	var batches []query.Batch
	n, rows := 0, 0
	var used time.Duration
	b.ReportAllocs()
	for b.Loop() {
		if n%s.batch == 0 {
			if len(batches) == 0 {
				b.StopTimer()
				batches = s.next()
				b.StartTimer()
			}
			start := processorTime(b)
			for _, q := range queries {
				rows += applyBatch(b, q, batches[0])
			}
			used += processorTime(b) - start
			batches = batches[1:]
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "changes/s")
	applied := float64((n + s.batch - 1) / s.batch * s.batch)
	b.ReportMetric(float64(rows)/applied, "rows/change")
	b.ReportMetric(float64(used.Nanoseconds())/applied, "cpu-ns/change")
}

// processorTime is what all threads of the process have had, that of the collector included: on a machine with other
// work it tells more than the clock.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func applyBatch(b *testing.B, q *query.Query, batch query.Batch) (rows int) {
	events, err := q.Apply(batch)
	if err != nil {
		b.Fatal(err)
	}
	for i := range events {
		rows += len(events[i].Diffs)
	}
	if n := len(events); n > 0 {
		if err := q.TrimOutbox(events[n-1].Sequence); err != nil {
			b.Fatal(err)
		}
	}
	return rows
}

func node(op graph.Op, id, label string, shape *graph.Shape, values ...graph.Value) graph.Change {
	return graph.Change{Op: op, Element: graph.Element{
		ID: graph.ElementID(id), Labels: labels[label], Shape: shape, Values: values,
	}}
}

func relationship(kind, id, from, to string) graph.Change {
	return graph.Change{Op: graph.OpInsert, Element: graph.Element{
		ID: graph.ElementID(id), Labels: labels[kind], Start: graph.ElementID(from), End: graph.ElementID(to),
	}}
}

// labels are shared by elements, as those of a source are.
var labels = func() map[string][]string {
	m := make(map[string][]string)
	for _, l := range []string{"Order", "Customer", "City", "Country", "OF", "Document", "Room", "Floor", "Building", "PART_OF"} {
		m[l] = []string{l}
	}
	return m
}()
