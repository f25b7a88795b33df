package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/cmd/internal/followtest"
	"github.com/perdure/perdure/workflows"
)

// hook is what a reaction of kind http posts to.
type hook struct {
	server *httptest.Server

	mu      sync.Mutex
	refuses string // row key that is refused for good
	stuck   string // row key that is never taken, without a word whether it might be
	down    bool
	steady  bool // it does not fail now and then
	posts   int
	next    map[string]uint64 // by row key: the highest sequence that was taken
	seen    map[string]bool   // idempotency keys that were taken, without the part that names the query's log
	faults  []string
}

func newHook(t *testing.T) *hook {
	h := &hook{next: make(map[string]uint64), seen: make(map[string]bool)}
	h.server = httptest.NewServer(h)
	t.Cleanup(h.server.Close)
	return h
}

// ServeHTTP takes rows, which may come again but not out of order. Now and then it fails, before or after it took one.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var event struct {
		Sequence uint64
		Diffs    []struct{ Key string }
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &event) != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.posts++
	if h.down || !h.steady && h.posts%31 == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if len(event.Diffs) != 1 {
		return // all rows are void
	}
	row, key := event.Diffs[0].Key, r.Header.Get("Idempotency-Key")
	if key = withoutLog(key); key == r.Header.Get("Idempotency-Key") {
		h.faults = append(h.faults, fmt.Sprintf("row %s came under the key %q", row, key))
	}
	if h.refuses == "next" {
		h.refuses = row
	}
	if h.stuck == "next" {
		h.stuck = row
	}
	if row == h.stuck {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if row == h.refuses {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	if !h.seen[key] && event.Sequence < h.next[row] {
		h.faults = append(h.faults, fmt.Sprintf("event %d of row %s came after %d", event.Sequence, row, h.next[row]))
	}
	h.seen[key], h.next[row] = true, max(h.next[row], event.Sequence)
	if !h.steady && h.posts%37 == 0 {
		w.WriteHeader(http.StatusInternalServerError) // nobody learns that it was taken
	}
}

// withoutLog takes the part that names the query's log out of an idempotency key, if it is there.
func withoutLog(key string) string {
	parts := strings.SplitN(key, ":", 5)
	if len(parts) == 5 {
		parts = append(parts[:2], parts[3:]...)
	}
	return strings.Join(parts, ":")
}

func (h *hook) set(change func(*hook)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

// missing lists the deliveries that follow from the query's events and did not come.
func (h *hook) missing(due []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var missing []string
	for _, key := range due {
		if !h.seen[withoutLog(key)] {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d of %d are missing, such as %s", len(missing), len(due), missing[0])
	}
	return nil
}

func (s *system) startHook(h *hook) {
	s.startComponent("Reaction", "reaction.default.hook", object{"spec": object{
		"name": "hook", "kind": "http", "queries": []string{"open-orders"}, "config": object{"url": h.server.URL},
		"delivery": object{"unit": "row", "lanes": 4, "retry": object{"firstMillis": 10, "maxMillis": 500}},
	}})
}

// TestKillingTheWorkerDuringDeliveries: each row of each event arrives at least once, and none after a later one of the same
// row.
func TestKillingTheWorkerDuringDeliveries(t *testing.T) {
	kills := 5
	if full() {
		kills = 25
	}
	s := newSystem(t, externalWorkers)
	worker := s.startWorker("worker")
	s.startOrders()
	h := newHook(t)
	var due []string
	replay := followtest.NewReplay("open-orders")
	replay.Look = func(e followtest.Event) error {
		for _, d := range e.Diffs {
			due = append(due, fmt.Sprintf("default.hook:open-orders:%d:%s", e.Sequence, d.Key))
		}
		return nil
	}
	f := s.followInto(replay)
	s.startHook(h)
	writers := s.openShop(2, 2)
	rnd := rand.New(rand.NewPCG(3, 25))
	for i := range kills {
		var before int
		h.set(func(h *hook) { before = len(h.seen) })
		worker.kill()
		worker = s.startWorker("worker")
		eventually(t, 30*time.Second, fmt.Sprintf("deliveries after kill %d", i+1), func() error {
			var after int
			h.set(func(h *hook) { after = len(h.seen) })
			if after <= before {
				return fmt.Errorf("still %d", after)
			}
			return nil
		})
		pause(time.Duration(rnd.IntN(1000)) * time.Millisecond)
	}
	writers.close()
	s.requireEqualsSQL(f, 90*time.Second) // nothing comes any more
	eventually(t, 90*time.Second, "everything is delivered", func() error { return h.missing(due) })
	h.set(func(h *hook) {
		require.Empty(t, h.faults)
		t.Logf("%d posts for %d deliveries", h.posts, len(h.seen))
	})
}

// TestTargetOfAReactionIsSeenToFail: an outage and refused rows show in the workflow's status; dead letters are listed,
// retried and dropped by signal.
func TestTargetOfAReactionIsSeenToFail(t *testing.T) {
	s := newSystem(t, apart(t))
	s.startOrders()
	h := newHook(t)
	h.set(func(h *hook) { h.down, h.steady = true, true })
	s.startHook(h)
	shows := func(what string, is func(workflows.Status) bool) {
		t.Helper()
		eventually(t, 100*time.Second, what, func() error { // a change is told once a minute at most
			var st workflows.Status
			err := s.statusInto("reaction.default.hook", &st)
			if err == nil && !is(st) {
				err = fmt.Errorf("%+v; %+v", st.Delivery, st.Commands)
			}
			return err
		})
	}
	done := func(name, outcome, result string) {
		t.Helper()
		shows(name+" "+outcome, func(st workflows.Status) bool {
			n := len(st.Commands)
			return n > 0 && st.Commands[n-1].Name == name && st.Commands[n-1].Outcome == outcome &&
				strings.Contains(st.Commands[n-1].Result+st.Commands[n-1].Error, result)
		})
	}
	execSQL(t, s.connect(), `INSERT INTO orders (customer_id, total) VALUES (3, 99.90)`)
	shows("the outage", func(st workflows.Status) bool {
		return st.Phase == workflows.PhaseRunning && st.Delivery != nil && st.Delivery.Target == "open" && st.Delivery.LastError.Code == "DeliveryFailed"
	})

	h.set(func(h *hook) { h.down, h.refuses = false, "next" })
	list := func() (page struct {
		Count       string
		DeadLetters []struct {
			ID, Key  string
			Attempts int
			Failure  struct{ Code string }
			Event    struct{ Diffs []json.RawMessage }
		}
	}, err error) {
		return page, s.get("/api/v1/reactions/hook/dead-letters", &page)
	}
	eventually(t, 30*time.Second, "a dead letter", func() error {
		page, err := list()
		if err == nil && page.Count == "0" {
			err = fmt.Errorf("there is none")
		}
		return err
	})
	shows("the dead letters", func(st workflows.Status) bool {
		return st.Delivery != nil && st.Delivery.Target == "closed" && st.DeadLetters != nil && st.DeadLetters.Count != "" && !st.DeadLetters.Oldest.IsZero()
	})
	page, err := list()
	require.NoError(t, err)
	letter := page.DeadLetters[0]
	require.Equal(t, "DeliveryRejected", letter.Failure.Code)
	require.Len(t, letter.Event.Diffs, 1)

	s.signal("reaction.default.hook", "retry", `{"ids":["`+letter.ID+`"]}`)
	done("retry", "applied", "1 refused again")
	h.set(func(h *hook) { h.refuses = "" })
	s.signal("reaction.default.hook", "retry")
	eventually(t, 30*time.Second, "it is delivered", func() error { return h.missing([]string{letter.Key}) })
	s.signal("reaction.default.hook", "drop", `{"ids":["`+letter.ID+`"]}`)
	done("drop", "rejected", "LetterMissing")
	s.signal("reaction.default.hook", "drop", `{"all":true}`)
	done("drop", "noop", "0 left")
}

// TestResultThatIsSkipped: a reaction that stops at one result goes on without it, and begins anew where it is told to.
func TestResultThatIsSkipped(t *testing.T) {
	s := newSystem(t, apart(t))
	s.startOrders()
	h := newHook(t)
	h.set(func(h *hook) { h.steady, h.stuck = true, "next" })
	const id = "reaction.default.hook"
	s.startComponent("Reaction", id, object{"spec": object{
		"name": "hook", "kind": "http", "queries": []string{"open-orders"}, "config": object{"url": h.server.URL},
		"delivery": object{"unit": "row", "retry": object{"firstMillis": 10, "maxMillis": 20, "attempts": 2}},
	}})
	var st workflows.Status
	shows := func(what string, is func() bool) {
		t.Helper()
		eventually(t, time.Minute, what, func() error {
			st = workflows.Status{}
			err := s.statusInto(id, &st)
			if err == nil && !is() {
				err = fmt.Errorf("%+v", st)
			}
			return err
		})
	}
	shows("it stops", func() bool { return st.Phase == workflows.PhaseNeedsOperator })
	var sequence int
	_, err := fmt.Sscanf(st.Breaker.LastError.Message, "delivering event %d of query open-orders", &sequence)
	require.NoError(t, err, st.Breaker.LastError.Message)
	last := func() workflows.Command { return st.Commands[len(st.Commands)-1] }
	skip := func(sequence int, generation uint64) string {
		return fmt.Sprintf(`{"query":"open-orders","seq":"%d","confirm":"hook","generation":%d}`, sequence, generation)
	}
	s.signal(id, "skip", skip(sequence+1, st.Generation))
	shows("another event is not skipped", func() bool { return len(st.Commands) == 1 })
	require.Equal(t, "PlaceInvalid", last().Code)
	s.signal(id, "skip", skip(sequence, st.Generation+1))
	shows("nor one of another generation", func() bool { return len(st.Commands) == 2 })
	require.Contains(t, last().Error, "the generation is")
	s.signal(id, "skip", skip(sequence, st.Generation))
	shows("it goes on", func() bool {
		return st.Phase == workflows.PhaseRunning && st.DeadLetters != nil && st.DeadLetters.Count != ""
	})
	h.set(func(h *hook) { h.stuck = "" })
	execSQL(t, s.connect(), `INSERT INTO orders (customer_id, total) VALUES (3, 99.90)`)
	taken := func(what string) {
		t.Helper()
		eventually(t, time.Minute, what, func() error {
			var n int
			h.set(func(h *hook) { n = len(h.seen) })
			if n == 0 {
				return fmt.Errorf("nothing has come")
			}
			return nil
		})
	}
	taken("what follows is delivered")

	s.signal(id, "pause")
	shows("it is paused", func() bool { return st.Phase == workflows.PhasePaused })
	s.signal(id, "setPosition", `{"query":"open-orders","seq":"earliest","confirm":"hook"}`)
	shows("its position is set", func() bool { return last().Name == "setPosition" && last().Outcome == workflows.Applied })
	h.set(func(h *hook) { h.seen, h.next = make(map[string]bool), make(map[string]uint64) })
	s.signal(id, "resume")
	taken("it begins anew")
}
