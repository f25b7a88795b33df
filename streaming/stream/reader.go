package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
)

// What a reader asks for ahead. Half of it is asked for again when half is used up, so that messages flow without
// pause; half of the bytes must hold the largest message.
const (
	readMessages = 4096
	readBytes    = 20 << 20
)

// Times of a reader.
const (
	// readHeartbeat is how often the server says that it is still there while there is nothing to read.
	readHeartbeat = time.Second
	// readExpires is how long one request for messages stays with the server.
	readExpires = time.Minute
	// readForgotten is when the server forgets a reader that asks for nothing.
	readForgotten = 5 * time.Minute
	// readPatience is how long Next tries to get hold of the server again before it returns StreamUnavailable.
	readPatience = 30 * time.Second
)

// Reader reads a log in order. It belongs to one goroutine and starts none: the server sends ahead what the reader has
// asked for, into a channel that is as long as that.
type Reader struct {
	log  *Log
	next uint64 // sequence of the next message, fence markers included; 0: whatever the log begins with
	last uint64 // sequence of the last one that is wanted; 0: none is the last

	status chan nats.Status // a value for each reconnect
	idle   func()           // see OnIdle; may be nil

	// The subscription of the server's consumer that we read from; replaced when it is lost.
	in        chan *nats.Msg
	sub       *nats.Subscription
	requests  string // subject that takes requests for messages
	consumer  string
	delivered uint64 // messages of this consumer so far; they are numbered, so that a lost one shows

	// What the server may still send of what was asked for.
	openMessages, openBytes int
}

// Read starts to read at a sequence; 0 and 1 mean the first message that the log holds. When messages from there on
// were trimmed, or the log ends before, the error is StreamTrimmed.
func (l *Log) Read(ctx context.Context, from uint64) (*Reader, error) { return l.ReadTo(ctx, from, 0) }

// ReadTo is Read for messages up to one that there is: what follows it, the server does not send, and Next would wait in
// vain. 0 means that none is the last.
func (l *Log) ReadTo(ctx context.Context, from, last uint64) (*Reader, error) {
	if from == 1 {
		from = 0
	}
	r := &Reader{log: l, next: from, last: last, status: l.conn.nats.StatusChanged(nats.CONNECTED)}
	if err := r.open(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// open makes a consumer that starts with the next message and asks for the first ones.
func (r *Reader) open(ctx context.Context) error {
	state, err := r.log.State(ctx)
	if err != nil {
		return err
	}
	if r.next > 0 && (r.next < state.First || r.next > state.Last+1) {
		return r.trimmed(state.First)
	}
	bounded, cancel := r.log.conn.bound(ctx)
	defer cancel()
	config := jetstream.ConsumerConfig{
		Name:              "read_" + uuid.NewString(),
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		MaxDeliver:        1,
		InactiveThreshold: readForgotten,
		MemoryStorage:     true,
		Replicas:          1,
	}
	if r.next > 0 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, r.next
	}
	if _, err := r.log.stream.CreateConsumer(bounded, config); err != nil {
		return classify(ctx, err, "reading log %s", r.log.name)
	}
	r.consumer = config.Name
	r.requests = "$JS.API.CONSUMER.MSG.NEXT." + r.log.name + "." + config.Name
	// Heartbeats and other notices come in between: a few per request and minute.
	r.in = make(chan *nats.Msg, 2*readMessages)
	r.delivered, r.openMessages, r.openBytes = 0, 0, 0
	if r.sub, err = r.log.conn.nats.ChanSubscribe(nats.NewInbox(), r.in); err != nil {
		return classify(ctx, err, "reading log %s", r.log.name)
	}
	return r.request(ctx)
}

// request asks for as many messages as are used up.
func (r *Reader) request(ctx context.Context) error {
	wanted := readMessages
	if r.last > 0 {
		wanted = int(min(readMessages, r.last+1-max(r.next, 1))) //nolint:gosec // it is at most readMessages
	}
	messages, bytes := wanted-r.openMessages, readBytes-r.openBytes
	if messages <= 0 {
		return nil
	}
	body := fmt.Appendf(nil, `{"expires":%d,"batch":%d,"max_bytes":%d,"idle_heartbeat":%d}`,
		readExpires.Nanoseconds(), messages, bytes, readHeartbeat.Nanoseconds())
	if err := r.log.conn.nats.PublishRequest(r.requests, r.sub.Subject, body); err != nil {
		return classify(ctx, err, "reading log %s", r.log.name)
	}
	r.openMessages, r.openBytes = wanted, readBytes
	return nil
}

// OnIdle has Next call f each time the server says that it has nothing more, every second while it waits. So whoever reads
// can tell a log that is quiet from a reader that hears nothing.
func (r *Reader) OnIdle(f func()) { r.idle = f }

// Next returns the next message, waiting for it as long as ctx lasts. A connection that breaks is no error as long as
// the server is back within 30 s; after StreamUnavailable, Next may be called again. StreamTrimmed says that the next
// message is gone, ErrMissing that the log is.
func (r *Reader) Next(ctx context.Context) (Message, error) {
	for {
		var m *nats.Msg
		select {
		case m = <-r.in:
		default:
			var err error
			if m, err = r.wait(ctx); err != nil {
				return Message{}, err
			}
		}
		message, ok, err := r.take(ctx, m)
		if ok || err != nil {
			return message, err
		}
	}
}

// wait waits until something arrives, and makes a new consumer when nothing does that should.
func (r *Reader) wait(ctx context.Context) (*nats.Msg, error) {
	silence := time.NewTimer(3 * readHeartbeat)
	defer silence.Stop()
	for {
		select {
		case m := <-r.in:
			return m, nil
		case <-r.log.conn.closed:
			return nil, failure.StreamUnavailable.Errorf("reading log %s: the connection is closed", r.log.name)
		case <-r.status: // requests were lost with the connection, maybe the consumer too
			if err := r.reopen(ctx, "reconnected"); err != nil {
				return nil, err
			}
		case <-silence.C:
			if err := r.reopen(ctx, "no heartbeat"); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("reading log %s: %w", r.log.name, context.Cause(ctx))
		}
		silence.Reset(3 * readHeartbeat)
	}
}

// take looks at what the server sent and reports whether it is a message for the caller.
func (r *Reader) take(ctx context.Context, m *nats.Msg) (Message, bool, error) {
	if m.Reply == "" || !strings.HasPrefix(m.Reply, ackPrefix) {
		return Message{}, false, r.notice(ctx, m)
	}
	at, err := parseAck(m.Reply)
	if err != nil {
		return Message{}, false, failure.BadRecord.Errorf("reading log %s: %w", r.log.name, err)
	}
	if at.delivered != r.delivered+1 { // one was lost on the way
		return Message{}, false, r.reopen(ctx, "message lost on the way")
	}
	if r.next != 0 && at.sequence != r.next {
		return Message{}, false, r.trimmed(at.sequence)
	}
	r.delivered++
	r.next = at.sequence + 1
	r.openMessages--
	r.openBytes -= m.Size()
	if r.openMessages < readMessages/2 || r.openBytes < readBytes/2 {
		if err := r.request(ctx); err != nil {
			return Message{}, false, err
		}
	}
	if m.Subject != r.log.subject { // a fence marker
		return Message{}, false, nil
	}
	return Message{Sequence: at.sequence, ID: first(m.Header, headerID), Data: m.Data, Time: time.Unix(0, at.stored)}, true, nil
}

// notice handles what the server sends besides messages.
func (r *Reader) notice(ctx context.Context, m *nats.Msg) error {
	switch status := first(m.Header, "Status"); status {
	case "100": // heartbeat: all that was sent before has arrived before
		sent, err := strconv.ParseUint(first(m.Header, "Nats-Last-Consumer"), 10, 64)
		if err == nil && sent > r.delivered {
			return r.reopen(ctx, "message lost on the way")
		}
		if r.idle != nil {
			r.idle()
		}
		return nil
	case "408", "409": // the request expired or its bytes are used up; the rest of it will not be sent
		if messages, err := strconv.Atoi(first(m.Header, "Nats-Pending-Messages")); err == nil {
			bytes, _ := strconv.Atoi(first(m.Header, "Nats-Pending-Bytes")) // 0 where the server says nothing
			r.openMessages -= messages
			r.openBytes -= bytes
			return r.request(ctx)
		}
	}
	// The consumer is gone: deleted, forgotten, or its server restarted.
	return r.reopen(ctx, first(m.Header, "Description"))
}

// reopen makes a new consumer where the old one stopped, trying for readPatience.
func (r *Reader) reopen(ctx context.Context, why string) error {
	r.log.conn.log.Debug("reading log anew", zap.String("log", r.log.name), zap.Uint64("from", r.next), zap.String("why", why))
	r.release()
	deadline := time.Now().Add(readPatience)
	for delay := firstRetry; ; delay = nextRetry(delay) {
		err := r.open(ctx)
		if err == nil || failure.CodeOf(err) == failure.StreamTrimmed || errors.Is(err, ErrMissing) || ctx.Err() != nil {
			return err
		}
		r.release()
		if time.Now().After(deadline) || !r.log.conn.pause(ctx, delay) {
			return err
		}
	}
}

// release lets the server forget the consumer, which it would by itself in a while.
func (r *Reader) release() {
	if r.sub != nil {
		// Both fail when the connection is closed, and then there is nothing to release.
		_ = r.sub.Unsubscribe()
		_ = r.log.conn.nats.Publish("$JS.API.CONSUMER.DELETE."+r.log.name+"."+r.consumer, nil)
	}
	r.sub, r.in = nil, nil
}

func (r *Reader) trimmed(first uint64) error {
	return failure.StreamTrimmed.Errorf("reading log %s: message %d is not there, the log goes on at %d", r.log.name, r.next, first).
		WithDetail("log", r.log.name)
}

// Buffered returns how many messages Next would return at once; fence markers and notices of the server count too.
func (r *Reader) Buffered() int { return len(r.in) }

// Close ends the reading.
func (r *Reader) Close() {
	r.release()
	r.log.conn.nats.RemoveStatusListener(r.status)
}

// ackPrefix begins the reply subject of every message that a consumer sends.
const ackPrefix = "$JS.ACK."

// ackInfo is what the reply subject tells about a message.
type ackInfo struct {
	sequence  uint64 // in the log
	delivered uint64 // by the consumer
	stored    int64  // Unix nanoseconds
}

// parseAck reads $JS.ACK.<stream>.<consumer>.<attempt>.<sequence>.<delivered>.<time>.<pending>, where newer servers put
// a domain and an account in front and may append more.
func parseAck(reply string) (ackInfo, error) {
	parts := strings.Count(reply, ".") + 1
	skip := 5
	if parts > 9 {
		skip = 7
	}
	rest := reply
	for range skip {
		_, rest, _ = strings.Cut(rest, ".")
	}
	var number [3]uint64
	for i := range number {
		var part string
		part, rest, _ = strings.Cut(rest, ".")
		n, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return ackInfo{}, fmt.Errorf("parsing reply subject %q: %w", reply, err)
		}
		number[i] = n
	}
	return ackInfo{sequence: number[0], delivered: number[1], stored: int64(number[2])}, nil
}
