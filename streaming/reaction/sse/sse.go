package sse

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
)

const (
	headerTimeout = 10 * time.Second // for what a client asks
	idleTimeout   = time.Minute      // of a connection on which nobody asks
)

// Factory makes SSE reactions.
type Factory struct{}

// Config is what a spec may say.
type Config struct {
	Listen       string        `json:"listen" doc:"Host and port to listen on; port 0 takes a free one, which the log tells." default:"127.0.0.1:8090"`
	Heartbeat    time.Duration `json:"heartbeat" doc:"Time without events after which a heartbeat is sent." default:"15s"`
	WriteTimeout time.Duration `json:"writeTimeout" doc:"How long a client may take to accept what it is sent." default:"10s"`
}

// Validate implements component.Validator.
func (c *Config) Validate(p *component.Problems) {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		p.Addf("listen", "must be host:port: %s", err)
	}
	if c.Heartbeat < 10*time.Millisecond {
		p.Addf("heartbeat", "must be at least 10ms")
	}
	if c.WriteTimeout < 10*time.Millisecond {
		p.Addf("writeTimeout", "must be at least 10ms")
	}
}

// Kind implements reaction.Factory.
func (Factory) Kind() string { return "sse" }

// New implements reaction.Factory.
func (Factory) New(config json.RawMessage, s reaction.Settings) (reaction.Reaction, error) {
	var c Config
	if err := component.DecodeConfig(config, &c); err != nil {
		return nil, err
	}
	return &server{config: c, settings: s, listening: make(chan net.Addr, 1)}, nil
}

// server implements reaction.Server.
type server struct {
	config    Config
	settings  reaction.Settings
	listening chan net.Addr
}

// Serve implements reaction.Server.
func (s *server) Serve(ctx context.Context, results reaction.Results) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		return classify(s.config.Listen, err)
	}
	s.settings.Log.Info("serving results", zap.Stringer("address", listener.Addr()))
	s.listening <- listener.Addr()
	mux := http.NewServeMux()
	events := s.only(NewHandler(results, Options{Heartbeat: s.config.Heartbeat, WriteTimeout: s.config.WriteTimeout, Log: s.settings.Log}))
	mux.Handle("GET /queries/{id}/events", events)
	mux.Handle("GET /api/v1/queries/{id}/events", events)
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	web := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ErrorLog:          zap.NewStdLog(s.settings.Log),
	}
	served := failure.Go(func() error { return web.Serve(listener) })
	select {
	case err := <-served:
		return failure.Unclassified.Errorf("serving results: %w", err)
	case <-ctx.Done():
	}
	end() // streams never end by themselves
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.WriteTimeout)
	defer cancel()
	if err := web.Shutdown(bounded); err != nil {
		_ = web.Close() // cuts what did not end in time
	}
	<-served
	return nil
}

// only serves the queries that the spec names and no others.
func (s *server) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(s.settings.Queries, r.PathValue("id")) {
			refuse(w, failure.QueryMissing.Errorf("query %q is not among those of this reaction", r.PathValue("id")))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Close implements reaction.Reaction.
func (s *server) Close(context.Context) error { return nil }

func classify(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return failure.PortInUse.Errorf("listening on %s: %w", address, err)
	case errors.Is(err, fs.ErrPermission):
		return failure.PermissionDenied.Errorf("listening on %s: %w", address, err).WithFix("Choose a port above 1023, then signal reconfigure.")
	}
	return failure.ConfigInvalid.Errorf("listen: %w", err)
}
