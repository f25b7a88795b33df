package stream

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/streaming/failure"
)

// Subjects of a log named X: perdure.log.X for messages and perdure.log.X.fence for the markers of writers.
const (
	logSubjects   = "perdure.log."
	fenceSubjects = ".fence"
)

// duplicateWindow is how long the server remembers message ids.
const duplicateWindow = 2 * time.Minute

// Headers of stored messages.
const (
	headerFence = "Perdure-Fence"
	headerID    = jetstream.MsgIDHeader
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)

// LogOptions say what a log keeps.
type LogOptions struct {
	// Name consists of letters, digits, underscores and dashes.
	Name string
	// MaxBytes bounds what is kept, 0: nothing does. Beyond, the oldest messages go, unless Refuse is set.
	MaxBytes int64
	// MaxAge is how long a message is kept, 0: for ever.
	MaxAge time.Duration
	// Refuse makes appends to a full log fail with StreamFull instead of dropping its oldest messages.
	Refuse bool
	// Yields makes appends fail with StreamFull when the embedded server's disk gets short of space, while there is still
	// some for all other logs, for buckets and for objects: so the log's readers can get on and let it be trimmed. It
	// counts for what is written through the Log that EnsureLog returns.
	Yields bool
	// Removable lets single messages be removed, which Reader takes for loss: such a log is read with Next. It counts when
	// the log is created.
	Removable   bool
	Description string
}

// Log is a durable list of messages.
type Log struct {
	conn    *Conn
	created time.Time
	stream  jetstream.Stream
	name    string
	subject string
	yields  bool
}

// LogState tells how far a log reaches. An empty one has First = Last + 1. MaxBytes is the bound of Bytes, 0: there is
// none.
type LogState struct{ First, Last, Messages, Bytes, MaxBytes uint64 }

// Message is one entry of a log.
type Message struct {
	Sequence uint64
	ID       string // as given to Append
	Data     []byte
	Time     time.Time // when the server stored it
}

// EnsureLog opens a log, creating it when missing and adjusting its bounds to o.
func (c *Conn) EnsureLog(ctx context.Context, o LogOptions) (*Log, error) {
	if !namePattern.MatchString(o.Name) {
		return nil, failure.ConfigInvalid.Errorf("opening log %q: the name must consist of letters, digits, underscores and dashes", o.Name)
	}
	subject := logSubjects + o.Name
	config := jetstream.StreamConfig{
		Name:        o.Name,
		Description: o.Description,
		Subjects:    []string{subject, subject + fenceSubjects},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxBytes:    -1,
		MaxAge:      o.MaxAge,
		Duplicates:  duplicateWindow,
		DenyDelete:  !o.Removable, // holes would look like lost messages
		Replicas:    c.options.Replicas,
	}
	if o.MaxBytes > 0 {
		config.MaxBytes = o.MaxBytes
	}
	if o.MaxAge > 0 {
		config.Duplicates = min(duplicateWindow, o.MaxAge)
	}
	if o.Refuse {
		config.Discard = jetstream.DiscardNew
	}
	bounded, cancel := c.bound(ctx)
	defer cancel()
	stream, err := c.js.CreateOrUpdateStream(bounded, config)
	if err != nil {
		return nil, classify(ctx, err, "opening log %s", o.Name)
	}
	log := c.newLog(o.Name, stream)
	log.yields = o.Yields
	return log, nil
}

// OpenLog opens a log that exists; otherwise the error is ErrMissing.
func (c *Conn) OpenLog(ctx context.Context, name string) (*Log, error) {
	bounded, cancel := c.bound(ctx)
	defer cancel()
	stream, err := c.js.Stream(bounded, name)
	if err != nil {
		return nil, classify(ctx, err, "opening log %s", name)
	}
	return c.newLog(name, stream), nil
}

func (c *Conn) newLog(name string, stream jetstream.Stream) *Log {
	return &Log{conn: c, created: stream.CachedInfo().Created, stream: stream, name: name, subject: logSubjects + name}
}

// DeleteLog removes a log and all its messages. It is no error when there is none.
func (c *Conn) DeleteLog(ctx context.Context, name string) error {
	bounded, cancel := c.bound(ctx)
	defer cancel()
	if err := c.js.DeleteStream(bounded, name); err != nil && !missing(err) {
		return classify(ctx, err, "deleting log %s", name)
	}
	return nil
}

// LogNames returns the names of the logs that begin with prefix, in order.
func (c *Conn) LogNames(ctx context.Context, prefix string) ([]string, error) {
	return c.names(ctx, prefix, jetstream.WithStreamListSubject(logSubjects+"*"))
}

// Names returns the names of everything on the server, in order: of logs as they are, of buckets after KV_ and of objects
// after OBJ_.
func (c *Conn) Names(ctx context.Context) ([]string, error) { return c.names(ctx, "") }

func (c *Conn) names(ctx context.Context, prefix string, of ...jetstream.StreamListOpt) ([]string, error) {
	bounded, cancel := c.bound(ctx)
	defer cancel()
	list := c.js.StreamNames(bounded, of...)
	var names []string
	for name := range list.Name() {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	if err := list.Err(); err != nil {
		return nil, classify(ctx, err, "listing streams")
	}
	slices.Sort(names)
	return names, nil
}

// Name returns the log's name.
func (l *Log) Name() string { return l.name }

// Created returns when the log was made, which tells it from one of the same name that was deleted before.
func (l *Log) Created() time.Time { return l.created }

// State asks the server how far the log reaches.
func (l *Log) State(ctx context.Context) (LogState, error) {
	bounded, cancel := l.conn.bound(ctx)
	defer cancel()
	info, err := l.stream.Info(bounded)
	if err != nil {
		return LogState{}, classify(ctx, err, "asking for the state of log %s", l.name)
	}
	s := info.State
	state := LogState{
		First: s.FirstSeq, Last: s.LastSeq, Messages: s.Msgs, Bytes: s.Bytes, MaxBytes: uint64(max(info.Config.MaxBytes, 0)),
	}
	if state.Messages == 0 { // the server says 0 of a log that never had a message
		state.First = state.Last + 1
	}
	return state, nil
}

// Last returns the newest message, or nil when there is none. Fence markers are no messages.
func (l *Log) Last(ctx context.Context) (*Message, error) {
	bounded, cancel := l.conn.bound(ctx)
	defer cancel()
	raw, err := l.stream.GetLastMsgForSubject(bounded, l.subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, classify(ctx, err, "reading the end of log %s", l.name)
	}
	return rawMessage(raw), nil
}

// Get returns the message with a sequence; the error is ErrMissing when it was trimmed, is not there yet, or is a fence
// marker.
func (l *Log) Get(ctx context.Context, sequence uint64) (*Message, error) {
	raw, err := l.get(ctx, sequence)
	if err != nil {
		return nil, err
	}
	if raw.Subject != l.subject {
		return nil, fmt.Errorf("reading message %d of log %s: a fence marker: %w", sequence, l.name, ErrMissing)
	}
	return rawMessage(raw), nil
}

// Next returns the oldest message whose sequence is not below from, or nil when there is none.
func (l *Log) Next(ctx context.Context, from uint64) (*Message, error) {
	bounded, cancel := l.conn.bound(ctx)
	defer cancel()
	raw, err := l.stream.GetMsg(bounded, max(from, 1), jetstream.WithGetMsgSubject(l.subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, classify(ctx, err, "reading log %s from message %d", l.name, from)
	}
	return rawMessage(raw), nil
}

// Remove removes one message of a log that is Removable; the error is ErrMissing when there is none of that sequence.
func (l *Log) Remove(ctx context.Context, sequence uint64) error {
	bounded, cancel := l.conn.bound(ctx)
	defer cancel()
	if err := l.stream.DeleteMsg(bounded, sequence); err != nil {
		return classify(ctx, err, "removing message %d of log %s", sequence, l.name)
	}
	return nil
}

// get returns whatever has a sequence.
func (l *Log) get(ctx context.Context, sequence uint64) (*jetstream.RawStreamMsg, error) {
	bounded, cancel := l.conn.bound(ctx)
	defer cancel()
	raw, err := l.stream.GetMsg(bounded, sequence)
	if err != nil {
		return nil, classify(ctx, err, "reading message %d of log %s", sequence, l.name)
	}
	return raw, nil
}

func rawMessage(raw *jetstream.RawStreamMsg) *Message {
	return &Message{Sequence: raw.Sequence, ID: first(raw.Header, headerID), Data: raw.Data, Time: raw.Time}
}

func first(h nats.Header, key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// TrimBefore drops the messages with smaller sequences, except that the newest message stays.
func (l *Log) TrimBefore(ctx context.Context, sequence uint64) error {
	last, err := l.Last(ctx)
	if err != nil || last == nil {
		return err
	}
	sequence = min(sequence, last.Sequence)
	if sequence <= 1 {
		return nil
	}
	bounded, cancel := l.conn.bound(ctx)
	defer cancel()
	if err := l.stream.Purge(bounded, jetstream.WithPurgeSequence(sequence)); err != nil {
		return classify(ctx, err, "trimming log %s before %d", l.name, sequence)
	}
	return nil
}
