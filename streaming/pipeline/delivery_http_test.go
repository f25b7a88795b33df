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

// TestDeadReactionHurtsNobody: of two reactions to one query, one is dead while a backlog builds up of several times what
// readers hold. Source, query and the other reaction are as quick as ever, memory stays flat, and the dead one has
// everything once it is alive again.
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
	src := r.readySource()
	queryRun := r.startQuery(late)
	r.following(queryRun)
	deadSpec := dead.spec("dead")
	deadSpec.Delivery.Unit, deadSpec.Delivery.Lanes = "row", 8
	deadRun := r.startReactionOf(deadSpec)
	wellRun := r.startReactionOf(well.spec("well"))

	// Each event is a transaction in which all rows change: it has them as they were and as they are, 512 KiB together.
	// The first 40 MiB are twice what a reader holds, and after them 80 MiB come.
	const rows, rowBytes, full, events = 8, 32 << 10, 80, 240
	note := strings.Repeat("x", rowBytes)
	written := 0
	write := func(rows int, note string) {
		written++
		var changes []graph.Change
		for id := range rows {
			changes = append(changes, item(graph.OpInsert, "Item", id, note, 10+written))
		}
		r.book.commit(changes...)
	}
	commit := func() { write(rows, note) }
	hasAll := func() bool { return wellRun.status.Snapshot().Sequence == uint64(written) }
	commit()
	eventually(t, func() bool { return statusOf(deadRun).Target == TargetOpen }, "the dead one is noticed")
	eventually(t, hasAll, "the other one is not")
	backlog := func(until int) {
		for written < until {
			for range min(20, until-written) {
				commit()
			}
			eventually(t, hasAll, "the other one has all")
		}
	}
	backlog(full)
	before := heap()
	backlog(events)
	// The embedded server, which lives in the same process, gives up its caches after a while.
	const came = 2 * rows * rowBytes * (events - full)
	eventually(t, func() bool { return heap()-before < came/2 }, "memory is bounded")
	t.Logf("the heap grew by %d KiB while %d KiB came", (heap()-before)>>10, came>>10)
	require.EqualValues(t, 0, deadRun.status.Snapshot().Sequence)

	var slowest time.Duration
	for range 50 {
		began := time.Now()
		write(1, "short")
		eventually(t, hasAll, "the next event")
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("the slowest of 50 events took %s", slowest)
	require.Less(t, slowest, 2*time.Second, "nobody waits for the dead one")
	eventually(t, func() bool { return r.book.confirmedAt() == r.book.end() }, "nor does the source")
	for _, run := range []*run{src, queryRun, deadRun} {
		require.Empty(t, run.done)
	}

	mu.Lock()
	alive = true
	mu.Unlock()
	deadRun.drained() // a few are enough: what is left comes with the next run
	deadSpec.Delivery.Unit, deadSpec.Delivery.Lanes = "event", 1
	deadRun = r.startReactionOf(deadSpec)
	for up := 20; up < written+20; up += 20 {
		eventually(t, func() bool { return deadRun.status.Snapshot().Sequence >= uint64(min(up, written)) }, "the dead one catches up")
	}
	for _, run := range []*run{deadRun, wellRun, queryRun, src} {
		run.drained()
	}
	sequences := make(map[uint64]bool)
	for _, one := range dead.got() {
		sequences[one.Sequence] = true
	}
	require.Len(t, sequences, written)
}

// heap is what is in use after garbage is collected; the embedded server of the test counts too.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
