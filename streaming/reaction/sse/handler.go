package sse

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
)

// What the options are when they are left out.
const (
	heartbeat    = 15 * time.Second
	writeTimeout = 10 * time.Second
)

// Options configure a handler. Zero fields have defaults.
type Options struct {
	// Heartbeat is the time without any event after which one says that the connection lives; 15 s.
	Heartbeat time.Duration
	// WriteTimeout is how long a client may take to accept what it is sent; 10 s.
	WriteTimeout time.Duration
	Log          *zap.Logger
}

// NewHandler returns the handler of GET .../queries/{id}/events. It serves until the request's context ends, so a server
// that shuts down must end the contexts of its requests.
func NewHandler(results reaction.Results, o Options) http.Handler {
	o.Heartbeat, o.WriteTimeout = cmp.Or(o.Heartbeat, heartbeat), cmp.Or(o.WriteTimeout, writeTimeout)
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &handler{results, o}
}

type handler struct {
	results reaction.Results
	Options
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.PathValue("id")
	after, resume, err := lastEventID(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	c := &client{w: w, control: http.NewResponseController(w), timeout: h.WriteTimeout, sequence: after}
	if resume {
		// Whoever had a stream gets one again, also while its query is away: a browser gives up at any other answer.
		if err := c.open(); err != nil {
			return
		}
	}
	beats := failure.Go(func() error {
		defer cancel() // without signs of life there is no connection
		c.beat(ctx, h.Heartbeat)
		return nil
	})
	err = h.serve(ctx, c, query, resume)
	cancel()
	if panicked := <-beats; panicked != nil {
		h.Log.Error("an event stream ended", zap.String("query", query), zap.Any("failure", failure.Describe(panicked)))
	}
	if !c.begun {
		refuse(w, err)
		return
	}
	// Also without an error: what has begun ends only with the connection.
	h.Log.Debug("event stream ended", zap.String("query", query), zap.String("client", r.RemoteAddr), zap.Errors("reason", []error{c.failed, err}))
}

// errAnew says that a query's result set was built anew.
var errAnew = errors.New("the result set was built anew")

// serve sends a snapshot, unless the client resumes, and then what changes. When what comes next is no longer kept, or
// the result set was built anew, it begins again with a snapshot.
func (h *handler) serve(ctx context.Context, c *client, query string, resume bool) error {
	for {
		if !resume {
			if err := h.results.Snapshot(ctx, query, c.beginSnapshot, c.row); err != nil {
				return err
			}
			if err := c.endSnapshot(); err != nil {
				return err
			}
		}
		err := h.results.Follow(ctx, query, c.last(), func(e *result.Event) error {
			if e.Snapshot && len(e.Diffs) == 0 {
				return errAnew
			}
			return c.diff(e)
		}, nil)
		if !errors.Is(err, errAnew) && failure.CodeOf(err) != failure.StreamTrimmed {
			return err
		}
		resume = false
	}
}

func lastEventID(r *http.Request) (after uint64, resume bool, err error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("lastEventId")
	}
	if text == "" {
		return 0, false, nil
	}
	after, err = strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false, failure.ConfigInvalid.Errorf("Last-Event-ID must be a sequence, is %q", text)
	}
	return after, true, nil
}

// refuse answers a request whose stream could not begin.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if failure.CodeOf(err) == failure.QueryMissing {
		status = http.StatusNotFound
	}
	body, encodeErr := json.Marshal(map[string]any{
		"title": http.StatusText(status), "status": status, "detail": err.Error(), "code": failure.CodeOf(err).ID,
	})
	if encodeErr != nil {
		status, body = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone if this fails
}

// client writes events to one connection. Its goroutine writes results, beat's writes heartbeats; a lock keeps each
// event in one piece.
type client struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration

	mu       sync.Mutex
	begun    bool
	inside   bool // a snapshot is being written
	rows     int  // of the snapshot so far
	columns  []string
	sequence uint64 // of the last event
	wrote    time.Time
	failed   error
	buf      []byte
}

func (c *client) begin() {
	c.begun = true
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	c.w.WriteHeader(http.StatusOK)
	c.buf = append(c.buf, "retry: 1000\n\n"...)
}

func (c *client) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin()
	return c.flush()
}

// flush sends what is in buf.
func (c *client) flush() error {
	if c.failed != nil {
		return c.failed
	}
	c.wrote = time.Now()
	err := c.control.SetWriteDeadline(c.wrote.Add(c.timeout))
	if err == nil || errors.Is(err, http.ErrNotSupported) {
		_, err = c.w.Write(c.buf)
	}
	if err == nil {
		err = c.control.Flush()
	}
	c.buf = c.buf[:0]
	if err != nil {
		c.failed = failure.ConnectionLost.Errorf("writing to the client: %w", err)
	}
	return c.failed
}

func (c *client) header(kind string, sequence uint64) {
	c.sequence = sequence
	c.buf = append(c.buf, "event: "...)
	c.buf = append(c.buf, kind...)
	c.buf = append(c.buf, "\nid: "...)
	c.buf = strconv.AppendUint(c.buf, sequence, 10)
	c.buf = append(c.buf, "\ndata: "...)
}

func (c *client) last() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sequence
}

func (c *client) beginSnapshot(columns []string, state result.State) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun {
		c.begin()
	}
	if columns == nil {
		columns = []string{}
	}
	head, err := json.Marshal(map[string]any{"sequence": state.Sequence, "positions": state.Positions, "columns": columns})
	if err != nil {
		return err
	}
	c.inside, c.rows, c.columns = true, 0, columns
	c.header("snapshot", state.Sequence)
	c.buf = append(c.buf, head[:len(head)-1]...)
	c.buf = append(c.buf, `,"rows":[`...)
	return nil
}

// snapshotPart is how many bytes of a snapshot are sent at a time.
const snapshotPart = 64 << 10

func (c *client) row(r result.Row) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows++; c.rows > 1 {
		c.buf = append(c.buf, ',')
	}
	c.buf = append(c.buf, `{"key":"`...)
	c.buf = append(c.buf, r.Key.String()...)
	c.buf = append(c.buf, `","row":`...)
	c.buf = append(c.buf, result.RowJSON(c.columns, r)...)
	c.buf = append(c.buf, '}')
	if len(c.buf) < snapshotPart {
		return nil
	}
	return c.flush()
}

func (c *client) endSnapshot() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside = false
	c.buf = append(c.buf, "]}\n\n"...)
	return c.flush()
}

func (c *client) diff(e *result.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header("diff", e.Sequence)
	c.buf = e.AppendJSON(c.buf)
	c.buf = append(c.buf, "\n\n"...)
	return c.flush()
}

// beat sends a heartbeat whenever nothing else was sent for a while, until ctx ends or that fails.
func (c *client) beat(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if err := c.heartbeat(every); err != nil {
			return
		}
	}
}

func (c *client) heartbeat(every time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun || c.inside || time.Since(c.wrote) < every {
		return nil
	}
	c.header("heartbeat", c.sequence)
	c.buf = append(c.buf, `{"sequence":`...)
	c.buf = strconv.AppendUint(c.buf, c.sequence, 10)
	c.buf = append(c.buf, "}\n\n"...)
	return c.flush()
}
