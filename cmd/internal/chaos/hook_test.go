package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// How a hook answers what is posted to it.
const (
	answersWell  = "well"
	answersError = "answer 500"
	answersLate  = "answer late"
	answersNever = "answer never"
)

// lateAfter is how late a late answer is. The reaction waits longer, so that it counts.
const lateAfter = 500 * time.Millisecond

// hook is the process that a reaction of kind http posts rows to. It keeps nothing but a journal of what it is given and of
// what it has taken, which it writes before it answers that it has.
type hook struct {
	journal *os.File
	server  *http.Server

	mu      sync.Mutex
	answers string
	changed chan struct{} // closed, and replaced, when answers change
}

// entry is a line of the journal.
type entry struct {
	Query    string `json:"query,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	Key      string `json:"key,omitempty"`
	Taken    bool   `json:"taken,omitempty"` // and not only given
	Fault    string `json:"fault,omitempty"` // instead: it was given what is no row of an event
}

// journalOf is where the journal is of a hook that has a directory.
func journalOf(dir string) string { return dir + ".journal" }

func startHook(dir, address string) (*hook, error) {
	journal, err := os.OpenFile(journalOf(dir), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	if _, err := journal.WriteString("\n"); err != nil { // behind a line that a kill may have cut off
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	h := &hook{journal: journal, answers: answersWell, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("POST /", h)
	mux.HandleFunc("PUT /answers", h.answer)
	h.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go h.server.Serve(l) //nolint:errcheck // it ends with the process
	return h, nil
}

func (h *hook) stop(context.Context) error { return errors.Join(h.server.Close(), h.journal.Close()) }

// answer takes how to answer from now on.
func (h *hook) answer(w http.ResponseWriter, r *http.Request) {
	how, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = string(how)
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
		h.note(entry{Fault: fmt.Sprintf("%d differences, or no JSON, in %.200s", len(event.Diffs), body)})
		return
	}
	d := entry{Query: event.Query, Sequence: event.Sequence}
	if len(event.Diffs) == 1 {
		d.Key = event.Diffs[0].Key
	}
	answers, changed := h.note(d)
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
	d.Taken = true
	h.note(d)
}

// note writes to the journal, and returns how to answer.
func (h *hook) note(d entry) (answers string, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line, err := json.Marshal(d)
	if err == nil {
		_, err = h.journal.Write(append(line, '\n'))
	}
	if err != nil { // what is not in the journal must not be answered
		panic(err)
	}
	return h.answers, h.changed
}

// witness reads the journal of a hook and holds it against what the hook was to be given.
type witness struct {
	address string
	journal string

	mu     sync.Mutex
	read   int64               // bytes of the journal
	seen   map[delivery]bool   // what came, however it was answered
	taken  map[delivery]bool   // what was answered well
	last   map[delivery]uint64 // by query and row: the highest sequence that came
	lasts  map[string]uint64   // by query: the same of all its rows
	took   map[string]uint64   // by query: the highest sequence that was taken
	voided map[string]uint64   // by query: the highest sequence of an event that voids all rows
	faults []string
}

func newWitness(dir, address string) *witness {
	return &witness{
		address: address, journal: journalOf(dir), seen: make(map[delivery]bool), taken: make(map[delivery]bool),
		last: make(map[delivery]uint64), lasts: make(map[string]uint64), took: make(map[string]uint64), voided: make(map[string]uint64),
	}
}

// tell has the hook answer in some way from now on.
func (w *witness) tell(ctx context.Context, how string) error {
	return until(ctx, 20*time.Second, "telling the hook how to answer", func() error { // it may be starting
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+w.address+"/answers", strings.NewReader(how))
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
}

// catchUp reads what is new in the journal. Whoever calls it has the lock.
func (w *witness) catchUp() error {
	f, err := os.Open(w.journal)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, w.read, math.MaxInt64-w.read))
	if err != nil {
		return err
	}
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	w.read += int64(len(whole))
	for line := range bytes.Lines(whole) {
		var d entry
		if json.Unmarshal(line, &d) != nil {
			continue // a kill cut it off, before there was an answer
		}
		w.note(d)
	}
	return nil
}

// note takes a line of the journal. A row may come again, but for the first time only in order, and on the side that it has
// in the query of an event that voids all rows.
func (w *witness) note(e entry) {
	d := delivery{query: e.Query, sequence: e.Sequence, key: e.Key}
	if e.Taken {
		w.taken[d] = true
		w.took[d.query] = max(w.took[d.query], d.sequence)
		return
	}
	if e.Fault != "" {
		w.fault(e.Fault)
		return
	}
	row := delivery{query: d.query, key: d.key}
	before := w.last[row]
	if d.key == "" {
		before = w.lasts[d.query]
	}
	if before = max(before, w.voided[d.query]); !w.seen[d] && d.sequence < before {
		w.fault(fmt.Sprintf("event %d of %s, row %q, came for the first time after event %d", d.sequence, d.query, d.key, before))
	}
	w.seen[d] = true
	w.last[row], w.lasts[d.query] = max(w.last[row], d.sequence), max(w.lasts[d.query], d.sequence)
	if d.key == "" {
		w.voided[d.query] = max(w.voided[d.query], d.sequence)
	}
}

func (w *witness) fault(text string) {
	if len(w.faults) < 20 {
		w.faults = append(w.faults, text)
	}
}

// reached returns an error if nothing from a sequence on was taken.
func (w *witness) reached(query string, sequence uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.catchUp(); err != nil {
		return err
	}
	if w.took[query] < sequence {
		return fmt.Errorf("the last event that it took is %d, that of the result %d", w.took[query], sequence)
	}
	return nil
}

// missing returns an error if the hook has not taken everything that was to be given.
func (w *witness) missing(given []delivery) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.catchUp(); err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(given), func(d delivery) bool { return w.taken[d] })
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
	return func(ctx context.Context, e *environment, _ string) (func(context.Context) error, error) {
		return func(ctx context.Context) error { return e.hook.tell(ctx, answersWell) }, e.hook.tell(ctx, how)
	}
}
