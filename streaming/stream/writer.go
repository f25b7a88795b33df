package stream

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/streaming/failure"
)

// Writer appends to a log as the only one who does. Get one with NewWriter.
type Writer struct {
	log   *Log
	fence *Fence

	mu         sync.Mutex
	last       uint64 // sequence that the log ends with, as far as this writer knows
	unresolved string // id of an append of which we do not know whether it is in the log
	err        error  // why nothing can be appended any more
}

// NewWriter takes the log over: it checks the fence and appends a fence marker, after which older writers fail with
// FencedOff. It fails with that itself when a newer attempt holds the component.
func (l *Log) NewWriter(ctx context.Context, f *Fence) (*Writer, error) {
	ctx, cancel := context.WithTimeout(ctx, l.conn.options.AppendTimeout)
	defer cancel()
	marker := &nats.Msg{Subject: l.subject + fenceSubjects, Header: nats.Header{
		headerFence: {f.component + " " + f.Epoch().String() + " " + uuid.NewString()},
	}}
	for delay := firstRetry; ; delay = nextRetry(delay) {
		last, err := l.mark(ctx, f, marker)
		if err == nil {
			return &Writer{log: l, fence: f, last: last}, nil
		}
		if !errors.Is(err, ErrConflict) || !l.conn.pause(ctx, delay) {
			return nil, err
		}
	}
}

// mark appends the marker and returns its sequence; ErrConflict when somebody appended meanwhile.
//
// The order matters: the end of the log is read before the fence is checked. A newer attempt that claims the component
// after the check appends its marker after ours; one that claimed it before makes the check fail; and one that appends
// between our look at the end and our marker makes the expected sequence wrong.
func (l *Log) mark(ctx context.Context, f *Fence, marker *nats.Msg) (uint64, error) {
	state, err := l.State(ctx)
	if err != nil {
		return 0, err
	}
	if err := f.Check(ctx); err != nil {
		return 0, err
	}
	// An earlier try may have succeeded without our knowing.
	if state.Messages > 0 {
		raw, err := l.get(ctx, state.Last)
		if err == nil && first(raw.Header, headerFence) == marker.Header[headerFence][0] {
			return state.Last, nil
		}
		if err != nil && !errors.Is(err, ErrMissing) {
			return 0, err
		}
	}
	ack, err := l.publish(ctx, marker, jetstream.WithExpectLastSequence(state.Last))
	if err == nil {
		return ack.Sequence, nil
	}
	err = classify(ctx, err, "taking over log %s", l.name)
	if failure.CodeOf(err) == failure.StreamUnavailable { // it may be in the log: look again
		return 0, errors.Join(ErrConflict, err)
	}
	return 0, err
}

// publish publishes once and waits for the acknowledgement.
func (l *Log) publish(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ctx, cancel := l.conn.untilLost(ctx, l.conn.options.AckTimeout)
	defer cancel()
	return l.conn.js.PublishMsg(ctx, m, append(opts, jetstream.WithRetryAttempts(0))...)
}

func (l *Log) message(id string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: l.subject, Header: nats.Header{headerID: {id}}, Data: data}
}

// checkID makes sure that a message's id survives the way: it travels as a header line.
func (l *Log) checkID(id string) error {
	if id == "" || strings.ContainsAny(id, "\r\n") || strings.TrimSpace(id) != id {
		return failure.Panic.Errorf("appending to log %s: %q cannot be the id of a message", l.name, id)
	}
	return nil
}

// Append appends a message and returns its sequence when it is on disk. An id that the server remembers from the last
// two minutes is not appended again: the sequence it has is returned.
//
// An acknowledgement that does not come is asked for by publishing again, until ctx ends or for 30 s; after that only
// the same id can be appended, as it may be in the log. FencedOff says that another writer took the log over, for good.
func (w *Writer) Append(ctx context.Context, id string, data []byte) (uint64, error) {
	if err := w.log.checkID(id); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return 0, w.err
	case w.unresolved != "" && w.unresolved != id:
		return 0, failure.StreamUnavailable.Errorf("appending %s to log %s: the message before, %s, has not been acknowledged", id, w.log.name, w.unresolved)
	}
	if err := w.log.yield(id); err != nil {
		return 0, err
	}
	bounded, cancel := context.WithTimeout(ctx, w.log.conn.options.AppendTimeout)
	defer cancel()
	for delay := firstRetry; ; delay = nextRetry(delay) {
		sequence, err := w.try(bounded, id, data)
		if err == nil {
			w.unresolved = ""
			return sequence, nil
		}
		if code := failure.CodeOf(err); code == failure.FencedOff {
			w.err = err
			return 0, err
		} else if code == failure.StreamFull || code == failure.BadRecord { // refused for sure
			return 0, err
		}
		w.unresolved = id
		if !w.log.conn.pause(bounded, delay) {
			return 0, classify(ctx, err, "appending %s to log %s", id, w.log.name)
		}
	}
}

// try publishes once and finds out what became of it.
func (w *Writer) try(ctx context.Context, id string, data []byte) (uint64, error) {
	ack, err := w.log.publish(ctx, w.log.message(id, data), jetstream.WithExpectLastSequence(w.last))
	switch {
	case err == nil && (!ack.Duplicate || ack.Sequence == w.last+1):
		w.last = ack.Sequence
		return ack.Sequence, nil
	case err == nil && ack.Sequence <= w.last: // an older message of ours or of a writer before us
		return ack.Sequence, nil
	case err == nil:
		return 0, w.takenOver()
	case !wrongLastSequence(err):
		return 0, classify(ctx, err, "appending %s to log %s", id, w.log.name)
	}
	// The log is longer than we think. What follows our last message is either this very message, its acknowledgement
	// lost, or the marker of another writer.
	raw, err := w.log.get(ctx, w.last+1)
	if errors.Is(err, ErrMissing) {
		return 0, w.takenOver()
	}
	if err != nil {
		return 0, err
	}
	if raw.Subject == w.log.subject && first(raw.Header, headerID) == id {
		w.last = raw.Sequence
		return raw.Sequence, nil
	}
	return 0, w.takenOver()
}

func (w *Writer) takenOver() error {
	return failure.FencedOff.Errorf("attempt %s at %s: another writer took over log %s after message %d",
		w.fence.Epoch(), w.fence.component, w.log.name, w.last)
}

// Last returns the sequence that the log ends with as far as this writer knows; at first its marker's.
func (w *Writer) Last() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Close makes further appends fail. The log stays as it is.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = failure.Cancelled.Errorf("appending to log %s: the writer is closed", w.log.name)
	}
}

// SharedWriter appends to a log that several write, without order among them.
type SharedWriter struct{ log *Log }

// NewSharedWriter returns a writer for a log without fence.
func (l *Log) NewSharedWriter() *SharedWriter { return &SharedWriter{l} }

// Append appends a message and returns its sequence when it is on disk. An id that the server remembers from the last
// two minutes is not appended again. An acknowledgement that does not come is asked for by publishing again, until ctx
// ends or for AppendTimeout.
func (w *SharedWriter) Append(ctx context.Context, id string, data []byte) (uint64, error) {
	if err := w.log.checkID(id); err != nil {
		return 0, err
	}
	if err := w.log.yield(id); err != nil {
		return 0, err
	}
	bounded, cancel := context.WithTimeout(ctx, w.log.conn.options.AppendTimeout)
	defer cancel()
	for delay := firstRetry; ; delay = nextRetry(delay) {
		ack, err := w.log.publish(bounded, w.log.message(id, data))
		if err == nil {
			return ack.Sequence, nil
		}
		err = classify(ctx, err, "appending %s to log %s", id, w.log.name)
		if failure.CodeOf(err) != failure.StreamUnavailable || !w.log.conn.pause(bounded, delay) {
			return 0, err
		}
	}
}
