package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// How a hook answers what is posted to it.
const (
	answersWell  = ""
	answersError = "answer 500"
	answersLate  = "answer late"
	answersNever = "answer never"
)

// lateAfter is how late a late answer is. The reaction waits longer, so that it counts.
const lateAfter = 500 * time.Millisecond

// hook is what a reaction of kind http posts rows to. It notes what it is given and what it has taken, which is what it
// answered that it has.
type hook struct {
	address string

	mu      sync.Mutex
	server  *http.Server // nil: it is down
	answers string
	changed chan struct{}       // closed, and replaced, when answers change
	seen    map[delivery]bool   // what came, however it was answered
	taken   map[delivery]bool   // what was answered well
	last    map[delivery]uint64 // by query and row: the highest sequence that came
	lasts   map[string]uint64   // by query: the same of all its rows
	took    map[string]uint64   // by query: the highest sequence that was taken
	voided  map[string]uint64   // by query: the highest sequence of an event that voids all rows
	faults  []string
}

// newHook returns one that is up.
func newHook(ctx context.Context) (*hook, error) {
	h := &hook{
		address: "127.0.0.1:0", changed: make(chan struct{}), seen: make(map[delivery]bool), taken: make(map[delivery]bool),
		last: make(map[delivery]uint64), lasts: make(map[string]uint64), took: make(map[string]uint64), voided: make(map[string]uint64),
	}
	return h, h.up(ctx)
}

func (h *hook) up(ctx context.Context) error {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", h.address)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.address = l.Addr().String() // the same from now on
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	h.server = server
	go server.Serve(l) //nolint:errcheck // it ends when the hook goes down
	return nil
}

// down closes all connections, also those over which answers are due.
func (h *hook) down() error {
	h.mu.Lock()
	server := h.server
	h.server = nil
	h.mu.Unlock()
	if server == nil {
		return nil
	}
	return server.Close()
}

func (h *hook) answer(how string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = how
	close(h.changed)
	h.changed = make(chan struct{})
}

// ServeHTTP implements http.Handler.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var event struct {
		Query    string
		Sequence uint64
		Diffs    []struct{ Key string }
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the connection broke
	}
	if err := json.Unmarshal(body, &event); err != nil || len(event.Diffs) > 1 {
		h.fault("%d differences, or no JSON, in %.200s", len(event.Diffs), body)
		return
	}
	d := delivery{query: event.Query, sequence: event.Sequence}
	if len(event.Diffs) == 1 {
		d.key = event.Diffs[0].Key
	}
	answers, changed := h.came(d)
	switch answers {
	case answersError:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case answersLate:
		sleep(r.Context(), lateAfter)
	case answersNever:
		select {
		case <-r.Context().Done():
		case <-changed:
		}
		panic(http.ErrAbortHandler) // there is no answer
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken[d] = true
	h.took[d.query] = max(h.took[d.query], d.sequence)
}

// came notes a delivery. It may come again, but for the first time only in the order of its row, and on the
// side that it has in the query of an event that voids all rows.
func (h *hook) came(d delivery) (answers string, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	row := delivery{query: d.query, key: d.key}
	before := h.last[row]
	if d.key == "" {
		before = h.lasts[d.query]
	}
	if before = max(before, h.voided[d.query]); !h.seen[d] && d.sequence < before {
		h.faultLocked("event %d of %s, row %q, came for the first time after event %d", d.sequence, d.query, d.key, before)
	}
	h.seen[d] = true
	h.last[row], h.lasts[d.query] = max(h.last[row], d.sequence), max(h.lasts[d.query], d.sequence)
	if d.key == "" {
		h.voided[d.query] = max(h.voided[d.query], d.sequence)
	}
	return h.answers, h.changed
}

func (h *hook) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faultLocked(format, args...)
}

func (h *hook) faultLocked(format string, args ...any) {
	if len(h.faults) < 20 {
		h.faults = append(h.faults, fmt.Sprintf(format, args...))
	}
}

// reached returns an error if nothing from a sequence on was taken.
func (h *hook) reached(query string, sequence uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.took[query] < sequence {
		return fmt.Errorf("the last event that it took is %d, that of the result %d", h.took[query], sequence)
	}
	return nil
}

// missing returns an error if the hook has not taken everything that was to be given.
func (h *hook) missing(given []delivery) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	missing := slices.DeleteFunc(slices.Clone(given), func(d delivery) bool { return h.taken[d] })
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("the hook has not taken %d of %d rows, such as row %s of event %d", len(missing), len(given), missing[0].key, missing[0].sequence)
}

// checkHook waits until the hook has taken all that it was to be given of a query.
func (e *environment) checkHook(ctx context.Context, query string, given []delivery) error {
	err := until(ctx, time.Minute, "events of "+query+" with the hook", func() error { return e.hook.missing(given) })
	e.hook.mu.Lock()
	defer e.hook.mu.Unlock()
	for _, fault := range e.hook.faults {
		err = errors.Join(err, fmt.Errorf("the hook: %s", fault))
	}
	return err
}

// checkLetters wants no dead letter: there was nothing that a target would not have taken in the end.
func (e *environment) checkLetters(ctx context.Context) error {
	return until(ctx, 30*time.Second, "no dead letters of the hook", func() error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var letters struct{ Count string }
		status, text, err := get(ctx, e.apis[0]+"/api/v1/reactions/"+hookName+"/dead-letters")
		if err == nil {
			err = json.Unmarshal(text, &letters)
		}
		if err == nil && letters.Count != "0" {
			err = fmt.Errorf("%d: %.2000s", status, text)
		}
		return err
	})
}

func get(ctx context.Context, url string) (status int, text []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	return response.StatusCode, text, err
}

// answering makes a fault of how the hook answers.
func answering(how string) func(context.Context, *environment, string) (func(context.Context) error, error) {
	return func(_ context.Context, e *environment, _ string) (func(context.Context) error, error) {
		e.hook.answer(how)
		return func(context.Context) error { e.hook.answer(answersWell); return nil }, nil
	}
}

func hookDown(_ context.Context, e *environment, _ string) (func(context.Context) error, error) {
	return func(ctx context.Context) error {
		return until(ctx, 20*time.Second, "taking the port again", func() error { return e.hook.up(ctx) })
	}, e.hook.down()
}
