package stream

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
)

// Options configure a connection. Give URL or Server.
type Options struct {
	URL    string  // of a server or cluster, such as "nats://127.0.0.1:4222"
	Server *Server // embedded
	Name   string  // shown by the server's monitoring
	Log    *zap.Logger
	// Replicas is how many servers keep each log and bucket; 0 means 1. A cluster of three takes 3.
	Replicas int
	// RequestTimeout bounds each request to the server whose context has no earlier end; 0 means 10 s.
	RequestTimeout time.Duration
	// AckTimeout is how long an acknowledgement may take before the message is published again; 0 means 2 s.
	AckTimeout time.Duration
	// AppendTimeout bounds an append whose context has no earlier end; 0 means 30 s.
	AppendTimeout time.Duration
	// CloseTimeout bounds how long Close waits for what is on its way; 0 means 5 s.
	CloseTimeout time.Duration
}

// What the timeouts are unless the options say otherwise.
const (
	requestTimeout = 10 * time.Second
	ackTimeout     = 2 * time.Second
	appendTimeout  = 30 * time.Second
	closeTimeout   = 5 * time.Second
)

// Conn is a connection to a stream server. It reconnects for ever; what is asked meanwhile waits.
type Conn struct {
	nats    *nats.Conn
	js      jetstream.JetStream
	log     *zap.Logger
	options Options
	closed  chan struct{}
	short   atomic.Pointer[time.Time] // until when the server's disk counts as short of space; nil: it does not

	mu         sync.Mutex
	fences     *Bucket            // opened by the first use
	connection context.Context    //nolint:containedctx // ends with the connection as it is now; a new one has another
	lost       context.CancelFunc // ends it
}

// Connect connects to a server and checks that it keeps streams. It waits for the server as long as ctx and
// RequestTimeout allow.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	o.RequestTimeout, o.AckTimeout = cmp.Or(o.RequestTimeout, requestTimeout), cmp.Or(o.AckTimeout, ackTimeout)
	o.AppendTimeout, o.CloseTimeout = cmp.Or(o.AppendTimeout, appendTimeout), cmp.Or(o.CloseTimeout, closeTimeout)
	o.Replicas = cmp.Or(o.Replicas, 1)
	if (o.URL == "") == (o.Server == nil) {
		return nil, failure.ConfigInvalid.Errorf("connecting to the stream server: give either a URL or an embedded server")
	}
	c := &Conn{log: o.Log.Named("stream"), options: o, closed: make(chan struct{})}
	c.renew()
	options := []nats.Option{
		nats.Name(o.Name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.SyncQueueLen(4096), // each subscription has memory for so many; the readers of logs have channels of their own
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.PingInterval(5 * time.Second), // a peer that vanished is noticed after two of these
		nats.DrainTimeout(o.CloseTimeout),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			c.renew()
			if err != nil {
				c.log.Warn("connection to the stream server lost", zap.Error(err))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { c.log.Info("connected to the stream server again") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.log.Debug("stream client", zap.Error(err))
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
	if o.Server != nil {
		options = append(options, nats.InProcessServer(o.Server.nats))
	}
	nc, err := nats.Connect(o.URL, options...)
	if err != nil {
		return nil, failure.StreamUnavailable.Errorf("connecting to the stream server: %w", err)
	}
	c.nats = nc
	if c.js, err = jetstream.New(nc); err == nil {
		err = c.listenForSpace()
	}
	if err == nil {
		err = c.probe(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, classify(ctx, err, "connecting to the stream server")
	}
	return c, nil
}

// probe asks the server for its account until it answers.
func (c *Conn) probe(ctx context.Context) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	for delay := firstRetry; ; delay = nextRetry(delay) {
		_, err := c.js.AccountInfo(ctx)
		if err == nil || !c.pause(ctx, delay) {
			return err
		}
	}
}

// Close lets what is on its way arrive, bounded by CloseTimeout, and ends the connection.
func (c *Conn) Close() {
	if err := c.nats.Drain(); err == nil {
		timer := time.NewTimer(c.options.CloseTimeout)
		defer timer.Stop()
		select {
		case <-c.closed:
			return
		case <-timer.C:
		}
	}
	c.nats.Close()
}

// renew ends what waits for answers that were lost with the connection.
func (c *Conn) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		c.lost()
	}
	c.connection, c.lost = context.WithCancel(context.Background())
}

// untilLost bounds ctx by a timeout and by the life of the connection as it is now.
func (c *Conn) untilLost(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	c.mu.Lock()
	connection := c.connection
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	stop := context.AfterFunc(connection, cancel)
	return ctx, func() { stop(); cancel() }
}

// pause waits for d before the next attempt at something. It reports false when there can be none: ctx has ended or
// the connection is closed.
func (c *Conn) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return !c.nats.IsClosed()
	case <-c.closed:
		return false
	case <-ctx.Done():
		return false
	}
}

// NATS returns the connection below, for messages that are not kept.
func (c *Conn) NATS() *nats.Conn { return c.nats }

// bound gives ctx the end that every request has.
func (c *Conn) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.options.RequestTimeout)
}
