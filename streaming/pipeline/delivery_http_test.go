package pipeline

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	reactionhttp "github.com/perdure/perdure/streaming/reaction/http"
	"github.com/perdure/perdure/streaming/result"
)

// hook is a real HTTP server that fails as behave says.
type hook struct {
	server *httptest.Server
	behave func(n int, w http.ResponseWriter, r *http.Request) bool // of the n-th request; true: it is taken

	mu       sync.Mutex
	requests int
	taken    []hooked
}

// hooked is what was taken.
type hooked struct {
	Key      string
	Sequence uint64
	Rows     []int64
}

func newHook(t *testing.T, behave func(n int, w http.ResponseWriter, r *http.Request) bool) *hook {
	h := &hook{behave: behave}
	h.server = httptest.NewServer(h)
	t.Cleanup(h.server.Close)
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var event struct {
		Sequence uint64
		Diffs    []struct{ After struct{ ID int64 } }
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &event) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	h.requests++
	n := h.requests
	h.mu.Unlock()
	one := hooked{Key: r.Header.Get("Idempotency-Key"), Sequence: event.Sequence}
	for _, d := range event.Diffs {
		one.Rows = append(one.Rows, d.After.ID)
	}
	if h.behave(n, w, r) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.taken = append(h.taken, one)
	}
}

func (h *hook) got() []hooked {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.taken)
}

func (h *hook) spec(name string) component.ReactionSpec {
	return component.ReactionSpec{
		Name: name, Kind: "http", Queries: []string{"late"}, Config: json.RawMessage(`{"url":"` + h.server.URL + `"}`),
		Delivery: component.Delivery{TimeoutSeconds: 1, Retry: component.Retry{FirstMillis: 1, MaxMillis: 20}},
	}
}

// TestHookThatFails: every seventh request fails, in all the ways there are, the effect included; nothing is left out and
// each row's events come in order, by their first arrival.
func TestHookThatFails(t *testing.T) {
	for _, unit := range []string{"event", "row"} {
		t.Run(unit, func(t *testing.T) {
			r := newRig(t)
			h := newHook(t, func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n%7 != 0 {
					return true
				}
				switch n / 7 % 6 {
				case 0:
					w.WriteHeader(http.StatusInternalServerError)
				case 1:
					w.Header().Set("Retry-After", "0")
					w.WriteHeader(http.StatusTooManyRequests)
				case 2:
					panic(http.ErrAbortHandler) // the connection breaks
				case 3: // taken, and nobody learns of it
					w.WriteHeader(http.StatusBadGateway)
					return true
				case 4:
					if n > 60 { // once is enough: it takes a second
						w.WriteHeader(http.StatusGatewayTimeout)
						return false
					}
					<-r.Context().Done() // the client gives up
					return false
				case 5: // slow
					_ = rest(r.Context(), 20*time.Millisecond, nil, nil)
					return true
				}
				return false
			})
			r.reactions = []reaction.Factory{reactionhttp.Factory{}}
			out := r.results()
			for range 100 {
				out.rows(1, 2, 3)
			}
			spec := h.spec("hook")
			if spec.Delivery.Unit = unit; unit == "row" {
				spec.Delivery.Lanes = 4
			}
			running := r.startReactionOf(spec)
			eventually(t, func() bool { return running.status.Snapshot().Sequence == 100 }, "the last event")
			running.drained()

			next, seen := make(map[int64]uint64), make(map[string]bool)
			for _, one := range h.got() {
				if seen[one.Key] {
					continue
				}
				seen[one.Key] = true
				for _, row := range one.Rows {
					next[row]++
					require.Equal(t, next[row], one.Sequence, "of row %d", row)
				}
			}
			require.Equal(t, map[int64]uint64{1: 100, 2: 100, 3: 100}, next)
		})
	}
}

// TestDeadReactionHurtsNobody: of two reactions to one query, one is dead while a long backlog builds up. The other is as
// quick as ever, memory stays flat, and the dead one has everything once it is alive again.
func TestDeadReactionHurtsNobody(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	alive := false
	dead := newHook(t, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if !alive {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return alive
	})
	well := newHook(t, func(int, http.ResponseWriter, *http.Request) bool { return true })
	r.reactions = []reaction.Factory{reactionhttp.Factory{}}
	out := r.results()
	deadSpec := dead.spec("dead")
	deadSpec.Delivery.Unit, deadSpec.Delivery.Lanes = "row", 8
	deadRun := r.startReactionOf(deadSpec)
	wellRun := r.startReactionOf(well.spec("well"))

	// The backlog: 128 MiB, far more than what may wait in readers.
	note := graph.String(strings.Repeat("x", 1024))
	backlog := func(events int) {
		for range events {
			e := &result.Event{Sequence: out.next, Source: "shop", Columns: []string{"id", "note"}}
			for k := range 64 {
				e.Diffs = append(e.Diffs, result.Diff{Op: result.Added, Key: rowKey(k), After: []graph.Value{graph.Int(int64(k)), note}})
			}
			out.append(e)
		}
	}
	backlog(1)
	eventually(t, func() bool { return statusOf(deadRun).Target == TargetOpen }, "the dead one is noticed")
	before := heap()
	events := 2000
	if testing.Short() { // then it shows no more than that nobody waits
		events = 200
	}
	backlog(events - 1)
	eventually(t, func() bool { return wellRun.status.Snapshot().Sequence == uint64(events) }, "the other one has all")
	// The embedded server, which lives in the same process, gives up its caches after a while.
	eventually(t, func() bool { return heap()-before < 64<<20 }, "memory is bounded")
	t.Logf("the heap grew by %d KiB for %d KiB", (heap()-before)>>10, 64*events)
	require.EqualValues(t, 0, deadRun.status.Snapshot().Sequence)

	var slowest time.Duration
	for i := range 50 {
		began := time.Now()
		out.rows(i)
		eventually(t, func() bool { return wellRun.status.Snapshot().Sequence == uint64(events+1+i) }, "the next event")
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("the slowest of 50 events took %s", slowest)
	require.Less(t, slowest, 2*time.Second, "nobody waits for the dead one")
	require.Empty(t, deadRun.done)

	mu.Lock()
	alive = true
	mu.Unlock()
	deadRun.drained() // a few are enough: what is left comes with the next run
	deadSpec.Delivery.Unit, deadSpec.Delivery.Lanes = "event", 1
	deadRun = r.startReactionOf(deadSpec)
	eventually(t, func() bool { return deadRun.status.Snapshot().Sequence == out.next-1 }, "the dead one catches up")
	deadRun.drained()
	wellRun.drained()
	sequences := make(map[uint64]bool)
	for _, one := range dead.got() {
		sequences[one.Sequence] = true
	}
	require.Len(t, sequences, int(out.next-1))
}

// heap is what is in use after garbage is collected; the embedded server of the test counts too.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
