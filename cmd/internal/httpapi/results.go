package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/telemetry"
)

const (
	standardWait = 10 * time.Second
	longestWait  = 5 * time.Minute
)

// wanted is the position that a reader waits for, so that it sees its own writes.
type wanted struct {
	position graph.Position // empty: whatever is there
	source   string         // empty: the only one
	timeout  time.Duration
}

// errBehind ends a snapshot that is older than wanted.
var errBehind = errors.New("the result set has not come to the position yet")

func (a *api) results(w http.ResponseWriter, r *http.Request) {
	results, query, err := a.query(r)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	want, err := wantedOf(r)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	out := newRowWriter(w, query, want, a.WriteTimeout)
	err = out.copy(r.Context(), results)
	switch {
	case err == nil:
	case out.sent:
		// Too late for a status: a body that breaks off tells the client that it is not whole.
		a.Log.Warn("sending results broke off", zap.String(telemetry.KeyQuery, query), zap.Error(err))
		panic(http.ErrAbortHandler)
	default:
		writeProblem(w, problemOf(err))
	}
}

var positionPattern = regexp.MustCompile(`^[0-9A-Za-z]+([/:-][0-9A-Za-z]+)*$`)

func wantedOf(r *http.Request) (wanted, error) {
	q := r.URL.Query()
	want := wanted{source: q.Get("source"), timeout: standardWait}
	if text := q.Get("min_lsn"); text != "" {
		if !positionPattern.MatchString(text) {
			return want, failure.ConfigInvalid.Errorf("min_lsn: %q is not a position such as 16/B374D848", text).WithFix("Give what pg_current_wal_insert_lsn() returned.")
		}
		want.position = graph.Position(strings.ToUpper(text))
	}
	if text := q.Get("timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 || d > longestWait {
			return want, failure.ConfigInvalid.Errorf("timeout: %q is not a duration from 1ms to %s, such as 10s", text, longestWait).WithFix("Correct the parameter.")
		}
		want.timeout = d
	}
	return want, nil
}

// reached reports whether state is what the reader waits for.
func (want wanted) reached(state result.State) (bool, error) {
	if want.position == "" {
		return true, nil
	}
	source := want.source
	if source == "" {
		if len(state.Positions) > 1 {
			return false, failure.ConfigInvalid.Errorf("min_lsn: the query has several sources, %s", strings.Join(slices.Sorted(maps.Keys(state.Positions)), ", ")).
				WithFix("Say with source= whose position it is.")
		}
		for source = range state.Positions { // the only one
		}
	}
	return state.Positions[source].Compare(want.position) >= 0, nil
}

// rowWriter writes a result set as it is read, so that large ones need no memory:
// {"query":...,"sequence":...,"positions":{...},"columns":[...],"rows":[{...},...]}.
type rowWriter struct {
	query    string
	want     wanted
	w        http.ResponseWriter
	within   time.Duration // for each write
	buffer   *bufio.Writer // writes to the rowWriter, so that it notices
	sent     bool          // something has left: there is no way back to another status
	patience *time.Timer   // ends the wait for the position; nil without one
	reached  bool          // the wait is over
	columns  []string
	rows     int
}

func newRowWriter(w http.ResponseWriter, query string, want wanted, within time.Duration) *rowWriter {
	o := &rowWriter{query: query, want: want, w: w, within: within}
	o.buffer = bufio.NewWriterSize(o, 32<<10)
	return o
}

// Write implements io.Writer for the buffer. It is bounded, because a reader that stops reading would hold a cursor on
// the result set for as long as it stays connected.
func (o *rowWriter) Write(p []byte) (int, error) {
	o.sent = true
	err := http.NewResponseController(o.w).SetWriteDeadline(time.Now().Add(o.within))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return o.w.Write(p)
}

// copy writes the result set as soon as it is where the reader wants it.
func (o *rowWriter) copy(ctx context.Context, results reaction.Results) error {
	if o.want.position == "" {
		return o.attempt(ctx, results)
	}
	// The bound is for the wait only: sending what is there takes as long as the reader takes.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.patience = time.AfterFunc(o.want.timeout, cancel)
	defer o.patience.Stop()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := o.attempt(ctx, results)
		code := failure.CodeOf(err)
		waits := errors.Is(err, errBehind) || code == failure.QueryMissing || code == failure.QueryNotReady
		if o.reached || !waits && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return failure.Timeout.Errorf("waiting %s for query %s to come to %s: %w", o.want.timeout, o.query, o.want.position, err).
				WithFix("Ask again, with a longer timeout; if it persists, look at the status of the query and its source.")
		case <-time.After(pause):
		}
	}
}

func (o *rowWriter) attempt(ctx context.Context, results reaction.Results) error {
	o.buffer.Reset(o)
	o.rows = 0
	if err := results.Snapshot(ctx, o.query, o.begin, o.row); err != nil {
		return err
	}
	_, _ = o.buffer.WriteString("]}\n") // Flush reports it
	return o.buffer.Flush()
}

func (o *rowWriter) begin(columns []string, state result.State) error {
	reached, err := o.want.reached(state)
	if err != nil {
		return err
	}
	if !reached {
		return errBehind
	}
	if o.patience != nil && !o.patience.Stop() {
		return errBehind // a moment too late
	}
	o.reached = true
	head, err := json.Marshal(struct {
		Query     string                    `json:"query"`
		Sequence  uint64                    `json:"sequence"`
		Positions map[string]graph.Position `json:"positions"`
		Columns   []string                  `json:"columns"`
	}{o.query, state.Sequence, state.Positions, columns})
	if err != nil {
		return fmt.Errorf("encoding the state of query %s: %w", o.query, err)
	}
	o.columns = columns
	o.w.Header().Set("Content-Type", "application/json")
	o.w.Header().Set("Cache-Control", "no-store")
	_, _ = o.buffer.Write(head[:len(head)-1])
	_, err = o.buffer.WriteString(`,"rows":[`)
	return err
}

func (o *rowWriter) row(row result.Row) error {
	if o.rows > 0 {
		_ = o.buffer.WriteByte(',')
	}
	o.rows++
	_, err := o.buffer.Write(result.RowJSON(o.columns, row))
	return err
}
