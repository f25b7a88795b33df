// Package httpapi is the HTTP interface of a process: current rows and differences of queries, health, version.
//
// It reads result sets through reaction.Results and keeps no state of its own, so any process that reaches the JetStream
// server can serve it. Errors are problem details (RFC 9457) with the stable code of the failure.
package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/cmd/internal/version"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/reaction"
)

// Deps is what the handler works with.
type Deps struct {
	// Results reads the results of one instance's queries.
	Results func(instance string) reaction.Results
	// Events streams the differences of the query whose name is the request's path value "id".
	Events func(reaction.Results) http.Handler
	// DeadLetters gives access to those of sources and reactions.
	DeadLetters *pipeline.DeadLetters
	// Ready says whether this process can do its work; nil: always.
	Ready func(ctx context.Context) error
	// Alive says whether this process can go on without being started anew; nil: always.
	Alive func() error
	// Loops lists the loops that run in this process; nil: there are none.
	Loops func() []activities.Loop
	// WriteTimeout is how long a reader of results may take to accept a part of them; 30 s when zero.
	WriteTimeout time.Duration
	Log          *zap.Logger
	// Metrics is served at /metrics; nil: there is none.
	Metrics http.Handler
	// Codec is served below /codec; nil: payloads are not encrypted.
	Codec http.Handler
}

const writeTimeout = 30 * time.Second

// New returns the handler of everything below /api/v1, and of /livez, /readyz, /metrics and /codec.
func New(d Deps) http.Handler {
	if d.Log == nil {
		d.Log = zap.NewNop()
	}
	d.WriteTimeout = cmp.Or(d.WriteTimeout, writeTimeout)
	a := &api{d}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/queries/{id}/results", a.results)
	mux.HandleFunc("GET /api/v1/queries/{id}/events", a.events)
	mux.HandleFunc("GET /api/v1/reactions/{id}/dead-letters", a.deadLetters(component.Reaction))
	mux.HandleFunc("GET /api/v1/sources/{id}/dead-letters", a.deadLetters(component.Source))
	mux.HandleFunc("GET /api/v1/version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, version.Get()) })
	mux.HandleFunc("GET /api/v1/health", a.health)
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("GET /livez", a.alive)
	if d.Metrics != nil {
		mux.Handle("GET /metrics", d.Metrics)
	}
	if d.Codec != nil {
		mux.Handle("/codec/", d.Codec)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problem{Status: http.StatusNotFound, Detail: r.Method + " " + r.URL.Path + " is not part of the API"})
	})
	return mux
}

type api struct{ Deps }

// health says that the process is well; a problem says why it is not.
type health struct {
	Status string `json:"status"`          // ok
	Loops  []loop `json:"loops,omitempty"` // that run in this process
}

// loop is how one component's loop does.
type loop struct {
	Component  string         `json:"component"`
	Generation string         `json:"generation"`
	Since      time.Time      `json:"since"`
	Phase      string         `json:"phase,omitempty"`
	WaitsFor   string         `json:"waitsFor,omitempty"`
	Position   graph.Position `json:"position,omitempty"`
	Offset     string         `json:"offset,omitempty"`
	Sequence   string         `json:"sequence,omitempty"`
	// Intake is how a source gets on with its system, Delivery how a reaction gets on with its target.
	Intake        *pipeline.IntakeStatus   `json:"intake,omitempty"`
	Delivery      *pipeline.DeliveryStatus `json:"delivery,omitempty"`
	SilentSeconds float64                  `json:"silentSeconds"`           // since it last made progress, or looked for work and found none
	EndingSeconds float64                  `json:"endingSeconds,omitempty"` // since it was told to end, if it was
}

func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	var err error
	if a.Ready != nil {
		err = a.Ready(r.Context())
	}
	writeHealth(w, err, nil)
}

func (a *api) alive(w http.ResponseWriter, _ *http.Request) {
	var err error
	if a.Alive != nil {
		err = a.Alive()
	}
	writeHealth(w, err, nil)
}

// health is what /readyz says, with the loops.
func (a *api) health(w http.ResponseWriter, r *http.Request) {
	var err error
	if a.Ready != nil {
		err = a.Ready(r.Context())
	}
	var loops []loop
	if a.Loops != nil {
		for _, l := range a.Loops() {
			loops = append(loops, loop{
				Component: l.Component, Generation: strconv.FormatUint(l.Generation, 10), Since: l.Since.UTC(), Phase: l.Status.Phase,
				WaitsFor: l.Status.Backpressure, Position: l.Status.Position, Offset: number(l.Status.Offset), Sequence: number(l.Status.Sequence),
				Intake: l.Status.Intake, Delivery: l.Status.Delivery,
				SilentSeconds: seconds(l.Silent), EndingSeconds: seconds(l.Ending),
			})
		}
	}
	writeHealth(w, err, loops)
}

// seconds rounds to tenths.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*10) / 10 }

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func writeHealth(w http.ResponseWriter, err error, loops []loop) {
	if err == nil {
		writeJSON(w, http.StatusOK, health{"ok", loops})
		return
	}
	p := problemOf(err)
	p.Status, p.Loops = http.StatusServiceUnavailable, loops
	writeProblem(w, p)
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

// query finds the results that the path names.
func (a *api) query(r *http.Request) (reaction.Results, string, error) {
	id, err := named(r, component.Query)
	if err != nil {
		return nil, "", err
	}
	return a.Results(id.Instance), id.Name, nil
}

// named returns the component of a kind that the path names: by its name in the default instance, else as instance.name.
func named(r *http.Request, kind component.Kind) (component.ID, error) {
	instance, name, dotted := strings.Cut(r.PathValue("id"), ".")
	if !dotted {
		instance, name = component.DefaultInstance, instance
	}
	if !component.ValidName(instance) || !component.ValidName(name) {
		return component.ID{}, failure.ConfigInvalid.Errorf("%q is neither a %s's name nor instance.name", r.PathValue("id"), kind)
	}
	return component.ID{Kind: kind, Instance: instance, Name: name}, nil
}

// problem is an RFC 9457 problem detail.
type problem struct {
	Title  string   `json:"title"`
	Status int      `json:"status"`
	Detail string   `json:"detail,omitempty"`
	Code   string   `json:"code,omitempty"`
	Causes []string `json:"causes,omitempty"`
	Fix    string   `json:"fix,omitempty"`
	Loops  []loop   `json:"loops,omitempty"` // of the process, where that is asked for
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
