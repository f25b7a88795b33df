package followtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// Event is what one transaction did to a query's rows, as SSE and reactions show it.
type Event struct {
	Sequence uint64 `json:"sequence"`
	Snapshot bool   `json:"snapshot"` // the result set is built anew; without differences, all rows so far are void
	Diffs    []Diff `json:"diffs"`
}

// Diff is a row that was added, updated or deleted.
type Diff struct {
	Op     string          `json:"op"`
	Key    string          `json:"key"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// mostFaults is how many faults are kept: one that is not mended makes others.
const mostFaults = 20

// Replay adds up the events of one query, and notes whatever does not fit what came before. It is not safe for concurrent
// use.
type Replay struct {
	// Look, if not nil, is shown each event, and returns an error for one that should not be.
	Look func(Event) error

	Query    string
	Sequence uint64   // of the last event
	Anew     int      // how often the result set was built anew
	Faults   []string // no more than the first of them

	started bool
	rows    map[string]json.RawMessage // by key
}

// NewReplay returns a replay that begins with any event.
func NewReplay(query string) *Replay {
	return &Replay{Query: query, rows: make(map[string]json.RawMessage)}
}

// Begin takes all rows, by key, as they are at a sequence.
func (r *Replay) Begin(sequence uint64, rows map[string]json.RawMessage) {
	if r.started && sequence <= r.Sequence {
		r.fault("begun anew at sequence %d after %d", sequence, r.Sequence)
	}
	if r.started {
		r.Anew++
	}
	r.started, r.Sequence, r.rows = true, sequence, rows
}

// Take takes an event in JSON.
func (r *Replay) Take(data []byte) {
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		r.fault("an event does not parse: %v: %.200s", err, data)
		return
	}
	if r.Look != nil {
		if err := r.Look(e); err != nil {
			r.fault("event %d: %v", e.Sequence, err)
		}
	}
	if e.Snapshot && len(e.Diffs) == 0 {
		r.Begin(e.Sequence, make(map[string]json.RawMessage))
		return
	}
	if r.started && e.Sequence != r.Sequence+1 {
		r.fault("sequence %d after %d", e.Sequence, r.Sequence)
	}
	r.started, r.Sequence = true, e.Sequence
	for _, d := range e.Diffs {
		r.apply(e.Sequence, d)
	}
}

func (r *Replay) apply(sequence uint64, d Diff) {
	old, had := r.rows[d.Key]
	switch d.Op {
	case "added":
		if had {
			r.fault("event %d: row %s added twice", sequence, d.Key)
		}
	case "updated", "deleted":
		if !had || Canonical(old) != Canonical(d.Before) {
			r.fault("event %d: row %s %s from %s, but it was %s", sequence, d.Key, d.Op, d.Before, old)
		}
	default:
		r.fault("event %d: row %s is %q", sequence, d.Key, d.Op)
	}
	if d.Op == "deleted" {
		delete(r.rows, d.Key)
	} else {
		r.rows[d.Key] = d.After
	}
}

func (r *Replay) fault(format string, args ...any) {
	if len(r.Faults) < mostFaults {
		r.Faults = append(r.Faults, r.Query+": "+fmt.Sprintf(format, args...))
	}
}

// Rows returns the rows that the events add up to, in canonical JSON and sorted.
func (r *Replay) Rows() []string {
	rows := make([]string, 0, len(r.rows))
	for _, row := range r.rows {
		rows = append(rows, Canonical(row))
	}
	slices.Sort(rows)
	return rows
}

// Canonical encodes JSON again, with sorted keys and numbers as they were written.
func Canonical(raw json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "not JSON: " + string(raw)
	}
	out, _ := json.Marshal(v) // what was decoded can be encoded
	return string(out)
}
