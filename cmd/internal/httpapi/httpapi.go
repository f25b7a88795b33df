// Package httpapi is the HTTP interface of a process: current rows and differences of queries, health, version.
//
// It reads result sets through reaction.Results and keeps no state of its own, so any process that reaches the JetStream
// server can serve it. Errors are problem details (RFC 9457) with the stable code of the failure.
package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/cmd/internal/version"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
)

// Deps is what the handler works with.
type Deps struct {
	// Results reads the results of one instance's queries.
	Results func(instance string) reaction.Results
	// Events streams the differences of the query whose name is the request's path value "id".
	Events func(reaction.Results) http.Handler
	// Ready says whether this process can do its work; nil: always.
	Ready func(ctx context.Context) error
	// WriteTimeout is how long a reader of results may take to accept a part of them; 30 s when zero.
	WriteTimeout time.Duration
	Log          *zap.Logger
	// Metrics is served at /metrics; nil: there is none.
	Metrics http.Handler
}

// New returns the handler of everything below /api/v1, and of /livez, /readyz and /metrics.
func New(d Deps) http.Handler {
	if d.Log == nil {
		d.Log = zap.NewNop()
	}
	if d.WriteTimeout == 0 {
		d.WriteTimeout = 30 * time.Second
	}
	a := &api{d}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/queries/{id}/results", a.results)
	mux.HandleFunc("GET /api/v1/queries/{id}/events", a.events)
	mux.HandleFunc("GET /api/v1/version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, version.Get()) })
	mux.HandleFunc("GET /api/v1/health", a.ready)
	mux.HandleFunc("GET /readyz", a.ready)
	if d.Metrics != nil {
		mux.Handle("GET /metrics", d.Metrics)
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, health{"ok"}) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problem{Status: http.StatusNotFound, Detail: r.Method + " " + r.URL.Path + " is not part of the API"})
	})
	return mux
}

type api struct{ Deps }

type health struct {
	Status string `json:"status"`
}

func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	if a.Ready != nil {
		if err := a.Ready(r.Context()); err != nil {
			p := problemOf(err)
			p.Status = http.StatusServiceUnavailable
			writeProblem(w, p)
			return
		}
	}
	writeJSON(w, http.StatusOK, health{"ok"})
}

func (a *api) events(w http.ResponseWriter, r *http.Request) {
	results, query, err := a.query(r)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	r.SetPathValue("id", query)
	a.Events(results).ServeHTTP(w, r)
}

// query finds the results that the path names: a query of the default instance by its name, others as instance.name.
func (a *api) query(r *http.Request) (reaction.Results, string, error) {
	instance, name, dotted := strings.Cut(r.PathValue("id"), ".")
	if !dotted {
		instance, name = component.DefaultInstance, instance
	}
	if !component.ValidName(instance) || !component.ValidName(name) {
		return nil, "", failure.ConfigInvalid.Errorf("%q is neither a query's name nor instance.name", r.PathValue("id"))
	}
	return a.Results(instance), name, nil
}

// problem is an RFC 9457 problem detail.
type problem struct {
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Detail string   `json:"detail,omitempty"`
	Code   string   `json:"code,omitempty"`
	Causes []string `json:"causes,omitempty"`
	Fix    string   `json:"fix,omitempty"`
}

// problemOf is the one place where codes become statuses.
func problemOf(err error) problem {
	report := failure.Describe(err)
	p := problem{Detail: report.Message, Code: report.Code, Causes: report.Causes, Fix: report.Fix}
	switch code := failure.CodeOf(err); {
	case code == failure.QueryMissing:
		p.Status = http.StatusNotFound
	case code == failure.ConfigInvalid:
		p.Status = http.StatusBadRequest
	case code == failure.StreamTrimmed:
		p.Status = http.StatusGone
	case code == failure.Timeout:
		p.Status = http.StatusGatewayTimeout
	case code == failure.Unclassified:
		p.Status = http.StatusInternalServerError
	case code.Class.Retryable():
		p.Status = http.StatusServiceUnavailable
	default:
		p.Status = http.StatusInternalServerError
	}
	return p
}

func writeProblem(w http.ResponseWriter, p problem) {
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	write(w, p.Status, p)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	write(w, status, body)
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client went away
}
