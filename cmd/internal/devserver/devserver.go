// Package devserver runs a Temporal server and its web UI inside this process, for one machine: everything is kept in
// one SQLite file, and nothing listens anywhere but on the loopback interface, because there is neither TLS nor
// authorisation. It is the only package that imports the server, so that other binaries do not carry its weight.
//
// Stop order matters to callers: workers first, then this server, never the other way round.
package devserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/perdure/perdure/streaming/failure"
)

// Options says what to start. Zero fields mean the default.
type Options struct {
	// DBFile is the SQLite file; it is created when missing, with the directory it lies in. Required.
	DBFile string
	// FrontendAddr is where clients connect, "127.0.0.1:7233" unless set. Port 0 takes a free one.
	FrontendAddr string
	// UIAddr is where the web UI listens; empty means no UI. Port 0 takes a free one.
	UIAddr string
	// CodecURL is where pages of the UI have payloads decrypted; empty means nowhere.
	CodecURL string
	// Namespace is created when missing, with a retention of seven days; "default" unless set.
	Namespace string
	// Log takes what the server says at warning level and above; nil drops it.
	Log *zap.Logger
}

// Server is a running Temporal server. Its methods are safe for concurrent use.
type Server struct {
	temporal temporal.Server
	ui       *uiserver.Server // nil: no UI
	address  string
	uiURL    string
	level    zap.AtomicLevel // raised by Quiet
}

// Start starts the server, and the UI when wanted, and returns once clients can use the namespace.
func Start(ctx context.Context, o Options) (*Server, error) {
	o = o.withDefaults()
	frontend, err := freeAddress(o.FrontendAddr, "the Temporal server", "--temporal-port")
	if err != nil {
		return nil, err
	}
	if o.UIAddr != "" {
		if o.UIAddr, err = freeAddress(o.UIAddr, "the Temporal UI", "--ui-port"); err != nil {
			return nil, err
		}
	}
	store, err := openStore(o.DBFile, o.Namespace)
	if err != nil {
		return nil, fmt.Errorf("opening Temporal's database %s: %w", o.DBFile, err)
	}
	level := zap.NewAtomicLevelAt(max(zap.WarnLevel, o.Log.Level()))
	logger := log.NewZapLogger(o.Log.Named("temporal").WithOptions(zap.IncreaseLevel(level)))
	cfg, hosts, err := serverConfig(store, frontend)
	if err != nil {
		return nil, err
	}
	server, err := temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return authorization.NewNoopClaimMapper() }),
		temporal.WithDynamicConfigClient(dynamicConfig()),
		temporal.WithCustomMetricsHandler(metrics.NoopMetricsHandler),
	)
	if err != nil {
		return nil, fmt.Errorf("making the Temporal server: %w", err)
	}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("starting the Temporal server: %w", err)
	}
	s := &Server{temporal: server, address: frontend, level: level}
	if err := s.finishStart(ctx, o); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.FrontendAddr == "" {
		o.FrontendAddr = "127.0.0.1:7233"
	}
	if o.Namespace == "" {
		o.Namespace = "default"
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o
}

func (s *Server) finishStart(ctx context.Context, o Options) error {
	if o.UIAddr != "" {
		if err := s.startUI(o); err != nil {
			return err
		}
		if err := answers(ctx, s.uiURL+"/healthz"); err != nil {
			return fmt.Errorf("waiting for the Temporal UI: %w", err)
		}
	}
	if err := s.awaitNamespace(ctx, o.Namespace); err != nil {
		return fmt.Errorf("waiting for namespace %s: %w", o.Namespace, err)
	}
	return nil
}

// startUI runs the UI server in a goroutine that ends with Stop. The UI server exits the process when it cannot listen,
// which is why the port is checked before.
func (s *Server) startUI(o Options) error {
	host, port, err := splitAddress(o.UIAddr)
	if err != nil {
		return err
	}
	s.ui = uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		Host: host, Port: port, TemporalGRPCAddress: s.address, DefaultNamespace: o.Namespace,
		EnableUI: true, HideLogs: true, DisableNewsFetch: true, CORS: uiconfig.CORS{CookieInsecure: true},
		Codec: uiconfig.Codec{Endpoint: o.CodecURL},
	}))
	s.uiURL = "http://" + o.UIAddr
	go func() { _ = s.ui.Start() }() // its error is nil by construction
	return nil
}

// awaitNamespace returns when a client can describe the namespace, which is when the server's caches know it.
func (s *Server) awaitNamespace(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := client.NewNamespaceClient(client.Options{HostPort: s.address, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		return err
	}
	defer c.Close()
	return poll(ctx, func() error {
		_, err := c.Describe(ctx, namespace)
		return err
	})
}

// Address returns the frontend's host:port.
func (s *Server) Address() string { return s.address }

// UIURL returns the address of the web UI, "" when there is none.
func (s *Server) UIURL() string { return s.uiURL }

// Quiet drops what the server logs from now on. Call it before workers stop: to the server, the requests that they cancel
// look like failures.
func (s *Server) Quiet() { s.level.SetLevel(zapcore.FatalLevel) }

// Stop ends the UI, then the server. When ctx ends before the server did, its error is returned and the server is left to
// end with the process; the file is safe then too, as after a power cut.
func (s *Server) Stop(ctx context.Context) error {
	s.Quiet()
	if s.ui != nil {
		s.ui.Stop()
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.temporal.Stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			return fmt.Errorf("stopping the Temporal server: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping the Temporal server: %w", ctx.Err())
	}
}

// freeAddress returns addr with its port filled in, after making sure that nobody listens there.
func freeAddress(addr, what, flag string) (string, error) {
	host, _, err := splitAddress(addr)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", failure.ConfigInvalid.Errorf("%s would listen on %s, which others can reach, without authorisation", what, addr).
			WithFix("Use 127.0.0.1, or run a Temporal cluster and point TEMPORAL_ADDRESS at it.")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", failure.PortInUse.Errorf("listening on %s for %s: %w", addr, what, err).
			WithFix("Free the port or choose another one with %s.", flag)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func splitAddress(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil {
		return "", 0, failure.ConfigInvalid.Errorf("address %q is not host:port: %w", addr, err)
	}
	return host, port, nil
}

func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return poll(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
}

// poll calls try until it succeeds or ctx ends; the last error is returned then.
func poll(ctx context.Context, try func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func hostsOf(cfg map[string]config.Service) map[primitives.ServiceName]static.Hosts {
	hosts := make(map[primitives.ServiceName]static.Hosts, len(cfg))
	for name, service := range cfg {
		addr := net.JoinHostPort(service.RPC.BindOnIP, strconv.Itoa(service.RPC.GRPCPort))
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(addr)
	}
	return hosts
}

func exists(file string) (bool, error) {
	_, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
