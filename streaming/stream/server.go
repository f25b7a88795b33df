package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
)

// MaxMessage is the size of the largest message, headers included.
const MaxMessage = 8 << 20

// startTimeout bounds how long an embedded server may take to accept connections after it has read its directory.
const startTimeout = 15 * time.Second

// ServerOptions configure an embedded server.
type ServerOptions struct {
	// Dir is the directory of its files; it belongs to one server at a time.
	Dir string
	// Listen is "host:port"; no host means 127.0.0.1, port 0 a free one. Empty: connections from this process only.
	Listen string
	// MaxBytes bounds what its logs may grow to together, 0: the space on the disk does, of which it leaves some.
	MaxBytes int64
	Log      *zap.Logger

	space func(dir string) (free, total uint64, err error) // another one in tests
}

// Server is an embedded JetStream server that syncs every write to disk before acknowledging it.
type Server struct {
	nats  *server.Server
	space *spaceGuard
	lock  *os.File
	url   string
}

// Serve starts a server and returns when it is ready. Reading a large directory takes a while.
func Serve(o ServerOptions) (*Server, error) {
	opts := &server.Options{
		ServerName: "perdure",
		DontListen: true,
		JetStream:  true,
		StoreDir:   o.Dir,
		SyncAlways: true,
		MaxPayload: MaxMessage,
		NoSigs:     true,
		NoLog:      true, // ours is set below
	}
	opts.JetStreamMaxStore = math.MaxInt64 / 2
	opts.JetStreamLimits.DefaultMaxConsumers = -1 // each query of a source is one of its log's: it is ours to bound them
	if o.MaxBytes > 0 {
		opts.JetStreamMaxStore = o.MaxBytes
	}
	if o.space == nil {
		o.space = spaceOn
	}
	if o.Listen != "" {
		if err := listenOn(opts, o.Listen); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("creating stream directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(o.Dir, "LOCK"))
	if err != nil {
		return nil, failure.ConfigInvalid.Errorf("locking stream directory %s: %w", o.Dir, err).
			WithFix("Stop the other process that uses this directory, or choose another directory.")
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, errors.Join(failure.ConfigInvalid.Errorf("configuring stream server: %w", err), lock.Close())
	}
	log := &serverLog{log: o.Log.Named("stream-server").Sugar()}
	ns.SetLoggerV2(log, false, false, false)
	ns.Start()
	s := &Server{nats: ns, lock: lock}
	if err = s.awaitReady(log); err == nil {
		s.space, err = guardSpace(o.Dir, ns, o.space, o.Log.Named("stream-server"))
	}
	if err != nil {
		ns.Shutdown()
		ns.WaitForShutdown()
		return nil, errors.Join(err, lock.Close())
	}
	if o.Listen != "" {
		s.url = ns.ClientURL()
	}
	return s, nil
}

func listenOn(opts *server.Options, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return failure.ConfigInvalid.Errorf("reading listen address %q: %w", address, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return failure.ConfigInvalid.Errorf("reading port of listen address %q: %w", address, err)
	}
	opts.DontListen, opts.Host, opts.Port = false, host, int(n)
	if n == 0 {
		opts.Port = server.RANDOM_PORT
		return nil
	}
	// The server reports a taken port to its log only.
	probe, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return failure.PortInUse.Errorf("listening on %s: %w", address, err)
	}
	return probe.Close()
}

func (s *Server) awaitReady(log *serverLog) error {
	deadline := time.Now().Add(startTimeout)
	for !s.nats.ReadyForConnections(100 * time.Millisecond) {
		if message := log.fatal.Load(); message != nil {
			return failure.StreamUnavailable.Errorf("starting stream server: %s", *message)
		}
		if time.Now().After(deadline) {
			return failure.StreamUnavailable.Errorf("starting stream server: not ready after %s", startTimeout)
		}
	}
	if !s.nats.JetStreamEnabled() {
		return failure.StreamUnavailable.Errorf("starting stream server: its store cannot be opened")
	}
	return nil
}

// URL returns where clients of other processes connect, "" when there is no listener.
func (s *Server) URL() string { return s.url }

// Close stops the server; connections end. It returns early, with the stop going on, when ctx ends.
func (s *Server) Close(ctx context.Context) error {
	done := failure.Go(func() error {
		s.space.close()
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
		return s.lock.Close()
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("stopping stream server: %w", ctx.Err())
	}
}

// serverLog passes the server's log on: what it finds notable is routine to us.
type serverLog struct {
	log   *zap.SugaredLogger
	fatal atomic.Pointer[string] // why the server could not start
}

func (l *serverLog) Noticef(format string, v ...any) { l.log.Debugf(format, v...) }
func (l *serverLog) Warnf(format string, v ...any)   { l.log.Warnf(format, v...) }
func (l *serverLog) Errorf(format string, v ...any)  { l.log.Warnf(format, v...) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log.Debugf(format, v...) }
func (l *serverLog) Tracef(format string, v ...any)  { l.log.Debugf(format, v...) }
func (l *serverLog) Fatalf(format string, v ...any) {
	message := fmt.Sprintf(format, v...)
	l.fatal.Store(&message)
}
