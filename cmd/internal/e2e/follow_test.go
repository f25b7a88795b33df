package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// follower reads a query's events over SSE for as long as the test lasts, reconnecting with Last-Event-ID as a browser
// would, replays the diffs from empty and records every break of the sequence.
type follower struct {
	s     *system
	query string

	mu       sync.Mutex
	started  bool
	sequence uint64
	rows     map[string]json.RawMessage // by row key
	faults   []string
	events   int
	seen     chan struct{} // capacity one: something came
}

type sseRow struct {
	Key string          `json:"key"`
	Row json.RawMessage `json:"row"`
}

type sseSnapshot struct {
	Sequence uint64   `json:"sequence"`
	Rows     []sseRow `json:"rows"`
}

type sseDiff struct {
	Op     string          `json:"op"`
	Key    string          `json:"key"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

type sseEvent struct {
	Sequence uint64    `json:"sequence"`
	Diffs    []sseDiff `json:"diffs"`
}

// follow starts following. It waits until the query has a snapshot to give.
func (s *system) follow(query string) *follower {
	s.t.Helper()
	f := &follower{s: s, query: query, rows: map[string]json.RawMessage{}, seen: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.loop(ctx)
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	eventually(s.t, 60*time.Second, "first snapshot of "+query, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.started {
			return fmt.Errorf("nothing came; %v", f.faults)
		}
		return nil
	})
	return f
}

func (f *follower) loop(ctx context.Context) {
	for ctx.Err() == nil {
		_ = f.connection(ctx) // connections break in these tests; what counts is what came
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (f *follower) connection(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.s.url("/api/v1/queries/"+f.query+"/events"), nil)
	if err != nil {
		return err
	}
	f.mu.Lock()
	if f.started {
		request.Header.Set("Last-Event-ID", strconv.FormatUint(f.sequence, 10))
	}
	f.mu.Unlock()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("events: %s", response.Status)
	}
	var name string
	var data bytes.Buffer
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "":
			f.take(name, data.Bytes())
			name = ""
			data.Reset()
		case strings.HasPrefix(line, "event:"):
			name = strings.TrimSpace(line[len("event:"):])
		case strings.HasPrefix(line, "data:"):
			data.WriteString(strings.TrimPrefix(line[len("data:"):], " "))
		}
	}
	return lines.Err()
}

func (f *follower) take(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch name {
	case "snapshot":
		var s sseSnapshot
		if err := json.Unmarshal(data, &s); err != nil {
			f.fault("snapshot does not parse: %v: %.200s", err, data)
			return
		}
		if f.started {
			f.fault("second snapshot at sequence %d after %d", s.Sequence, f.sequence)
		}
		f.started, f.sequence = true, s.Sequence
		for _, row := range s.Rows {
			f.rows[row.Key] = row.Row
		}
	case "diff":
		var e sseEvent
		if err := json.Unmarshal(data, &e); err != nil {
			f.fault("diff does not parse: %v: %.200s", err, data)
			return
		}
		if e.Sequence != f.sequence+1 {
			f.fault("sequence %d after %d", e.Sequence, f.sequence)
		}
		f.sequence = e.Sequence
		f.events++
		for _, d := range e.Diffs {
			f.apply(d)
		}
	}
	select {
	case f.seen <- struct{}{}:
	default:
	}
}

func (f *follower) apply(d sseDiff) {
	old, had := f.rows[d.Key]
	switch d.Op {
	case "added":
		if had {
			f.fault("row %s added twice", d.Key)
		}
		f.rows[d.Key] = d.After
	case "updated", "deleted":
		if !had || !sameJSON(old, d.Before) {
			f.fault("row %s %s from %s, but it was %s", d.Key, d.Op, d.Before, old)
		}
		if d.Op == "deleted" {
			delete(f.rows, d.Key)
		} else {
			f.rows[d.Key] = d.After
		}
	default:
		f.fault("diff of kind %q", d.Op)
	}
}

func (f *follower) fault(format string, args ...any) {
	if len(f.faults) < 20 {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

// state returns the rows that the diffs add up to, as canonical sorted JSON lines, and all faults so far.
func (f *follower) state() (sequence uint64, rows []string, faults []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rows {
		rows = append(rows, canonical(r))
	}
	sort.Strings(rows)
	return f.sequence, rows, append([]string(nil), f.faults...)
}

// canonical re-encodes JSON with sorted keys, numbers kept as written.
func canonical(raw json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "not JSON: " + string(raw)
	}
	out, _ := json.Marshal(v)
	return string(out)
}

func sameJSON(a, b json.RawMessage) bool { return canonical(a) == canonical(b) }
