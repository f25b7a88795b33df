package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// connectBound is how long a query may take to answer its first request.
const connectBound = 15 * time.Second

// watcher follows the differences of queries as any client of the API would, prints them and remembers how long each
// took from its commit.
type watcher struct {
	api   string
	paint paint

	mu        sync.Mutex
	out       io.Writer
	latencies []time.Duration
	diffs     int
}

func newWatcher(api string, p paint, out io.Writer) *watcher {
	return &watcher{api: api, paint: p, out: out}
}

// event is one message of the stream, in the form of result.Event.
type event struct {
	CommitTime time.Time `json:"commitTime"`
	Diffs      []struct {
		Op     string `json:"op"`
		Before row    `json:"before"`
		After  row    `json:"after"`
	} `json:"diffs"`
}

// follow reads the server-sent events of a query until ctx ends.
func (w *watcher) follow(ctx context.Context, query string) error {
	stream, err := w.connect(ctx, query)
	if err != nil {
		return unlessEnded(ctx, fmt.Errorf("following %s: %w", query, err))
	}
	defer stream.Close()
	lines := bufio.NewReaderSize(stream, 64<<10)
	for kind := ""; ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return unlessEnded(ctx, fmt.Errorf("reading events of %s: %w", query, err))
		}
		now := time.Now()
		if name, ok := bytes.CutPrefix(line, []byte("event:")); ok {
			kind = string(bytes.TrimSpace(name))
		}
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok || kind != "diff" {
			continue
		}
		var e event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("decoding an event of %s: %w", query, err)
		}
		w.show(query, e, now)
	}
}

// connect opens the stream of events. A query that has just started may need a moment before it answers.
func (w *watcher) connect(ctx context.Context, query string) (io.ReadCloser, error) {
	deadline := time.Now().Add(connectBound)
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.api+"/api/v1/queries/"+query+"/events", nil)
		if err != nil {
			return nil, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		if res.StatusCode == http.StatusOK {
			return res.Body, nil
		}
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // for the message only
		_ = res.Body.Close()
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(text))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (w *watcher) show(query string, e event, now time.Time) {
	latency := now.Sub(e.CommitTime)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latencies = append(w.latencies, latency)
	w.diffs += len(e.Diffs)
	for _, d := range e.Diffs {
		var text string
		switch d.Op {
		case "added":
			text = w.paint.good("+ ") + d.After.String()
		case "deleted":
			text = w.paint.bad("- ") + d.Before.String()
		default:
			text = w.paint.change("~ ") + d.Before.to(d.After, w.paint)
		}
		fmt.Fprintf(w.out, "%s %-13s %s  %s\n", w.paint.faint(now.Format("15:04:05.000")), query, text, w.paint.faint(latency.Round(100*time.Microsecond).String()))
	}
}

// percentiles returns the given parts of the sorted latencies; nothing when there are none.
func (w *watcher) percentiles(parts ...float64) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.latencies) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(w.latencies))
	at := make([]time.Duration, len(parts))
	for i, p := range parts {
		at[i] = sorted[int(p*float64(len(sorted)-1))]
	}
	return at
}

// row is a JSON object that keeps the order of its members, which is that of the query's columns.
type row []member

type member struct{ name, value string }

// UnmarshalJSON implements json.Unmarshaler.
func (r *row) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil { // {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		*r = append(*r, member{fmt.Sprint(name), strings.Trim(string(value), `"`)})
	}
	return nil
}

// String returns the members in one line.
func (r row) String() string { return r.to(r, "") }

// to shows what becomes of a row: members that differ are shown with both values.
func (r row) to(after row, p paint) string {
	parts := make([]string, len(after))
	for i, m := range after {
		parts[i] = m.name + " " + m.value
		if i < len(r) && r[i].value != m.value {
			parts[i] = m.name + " " + p.faint(r[i].value+" →") + " " + p.change(m.value)
		}
	}
	return strings.Join(parts, "  ")
}

// paint colours text when it is not empty.
type paint string

func newPaint(colour bool) paint {
	if colour {
		return "\x1b["
	}
	return ""
}

func (p paint) with(code, s string) string {
	if p == "" {
		return s
	}
	return string(p) + code + "m" + s + string(p) + "0m"
}

func (p paint) good(s string) string   { return p.with("32", s) }
func (p paint) bad(s string) string    { return p.with("31", s) }
func (p paint) change(s string) string { return p.with("33", s) }
func (p paint) faint(s string) string  { return p.with("2", s) }
