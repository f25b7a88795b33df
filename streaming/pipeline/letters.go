package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// letter is a message of a reaction's dead-letter log.
type letter struct {
	Query    string         `json:"query"`
	Key      string         `json:"key"` // idempotency key
	Attempts int            `json:"attempts"`
	Failure  failure.Report `json:"failure"`
	Event    []byte         `json:"event"` // as in a result log: it may have to be delivered
}

// letterOptions are those of a reaction's dead-letter log. Its letters stay until somebody decides what becomes of them:
// none is dropped for its age, and when no more fit, deliveries wait.
func letterOptions(id component.ID, p component.Policy) stream.LogOptions {
	o := logOptions(deadLetterLog(id.Instance, id.Name), p, "dead letters of "+id.String())
	o.MaxAge, o.Refuse, o.Removable = 0, true, true
	return o
}

// bury puts a delivery into the dead letters.
func (d *delivery) bury(ctx context.Context, c consignment, tries int, cause error) error {
	data, err := json.Marshal(letter{c.Query, c.Key, tries, failure.Describe(cause), result.AppendMessage(nil, c.Event)})
	if err != nil {
		return fmt.Errorf("encoding a dead letter: %w", err)
	}
	w := d.letters.NewSharedWriter()
	if _, err := retried(ctx, func() (uint64, error) { return w.Append(ctx, c.Key, data) }); err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	d.metrics.DeadLetters.Inc()
	d.host.logFor(component.ID{Kind: component.Reaction, Instance: d.instance, Name: d.name}).Warn("a delivery went to the dead letters",
		zap.String("key", c.Key), zap.Int("tries", tries), zap.Error(cause))
	select {
	case d.buried <- struct{}{}:
	default:
	}
	return nil
}

// countLetters shows how many dead letters there are.
func (d *deliverer) countLetters(ctx context.Context) error {
	count, err := countLetters(ctx, d.letters)
	if err != nil {
		return err
	}
	d.metrics.Letters.Set(float64(count.Count))
	d.progress.setDelivery(func(s *DeliveryStatus) { s.DeadLetters = count })
	return nil
}

// watchLetters keeps the count up to date, which others may change.
func (d *deliverer) watchLetters(ctx context.Context) error {
	for {
		if err := rest(ctx, fenceEvery, nil, d.buried); err != nil {
			return nil
		}
		if err := d.countLetters(ctx); err != nil && ctx.Err() == nil && !failure.ClassOf(err).Retryable() {
			return err
		}
	}
}

// DeadLetterCount is how many dead letters a component has.
type DeadLetterCount struct {
	Count  uint64    `json:"count,string"`
	Oldest time.Time `json:"oldest,omitzero"`
}

func countLetters(ctx context.Context, log *stream.Log) (DeadLetterCount, error) {
	state, err := log.State(ctx)
	if err != nil || state.Messages == 0 {
		return DeadLetterCount{}, err
	}
	oldest, err := log.Next(ctx, 0)
	if err != nil || oldest == nil {
		return DeadLetterCount{}, err
	}
	return DeadLetterCount{state.Messages, oldest.Time.UTC()}, nil
}

// DeadLetter is what a reaction's target did not take, or a record that a source could not decode.
type DeadLetter struct {
	ID      string         `json:"id"` // ascending with time
	At      time.Time      `json:"at"`
	Failure failure.Report `json:"failure"`
	// Damaged says that the letter itself cannot be decoded, for the reason in Failure: it can only be dropped.
	Damaged bool `json:"damaged,omitempty"`

	// Of a reaction.
	Query    string        `json:"query,omitempty"`
	Key      string        `json:"key,omitempty"` // idempotency key
	Attempts int           `json:"attempts,omitempty"`
	Event    *result.Event `json:"event,omitempty"`

	// Of a source.
	Position graph.Position `json:"position,omitempty"`
	Scope    string         `json:"scope,omitempty"`  // table
	Record   []byte         `json:"record,omitempty"` // of a letter that is damaged: all that is kept of it
}

// DeadLetters gives access to the dead letters of sources and reactions. It is safe for concurrent use.
type DeadLetters struct{ conn *stream.Conn }

// NewDeadLetters returns the dead letters on a stream server.
func NewDeadLetters(conn *stream.Conn) *DeadLetters { return &DeadLetters{conn} }

// open returns the log of a component's dead letters, or nil if it never had any.
func (l *DeadLetters) open(ctx context.Context, id component.ID) (*stream.Log, error) {
	name := deadLetterLog(id.Instance, id.Name)
	if id.Kind == component.Source {
		name = rejectedLog(id.Instance, id.Name)
	}
	log, err := l.conn.OpenLog(ctx, name)
	if errors.Is(err, stream.ErrMissing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the dead-letter log: %w", err)
	}
	return log, nil
}

// Existing returns which of the letters that ids name there are.
func (l *DeadLetters) Existing(ctx context.Context, id component.ID, ids []string) (existing []string, err error) {
	for _, one := range ids {
		err := l.each(ctx, id, []string{one}, func(*stream.Log, *stream.Message) error { return nil })
		if err == nil {
			existing = append(existing, one)
		} else if failure.CodeOf(err) != failure.LetterMissing {
			return nil, err
		}
	}
	return existing, nil
}

// Count returns how many dead letters a component has.
func (l *DeadLetters) Count(ctx context.Context, id component.ID) (DeadLetterCount, error) {
	log, err := l.open(ctx, id)
	if err != nil || log == nil {
		return DeadLetterCount{}, err
	}
	return countLetters(ctx, log)
}

// List returns up to limit dead letters, oldest first, whose ids are above after; "" is below all.
func (l *DeadLetters) List(ctx context.Context, id component.ID, after string, limit int) ([]DeadLetter, error) {
	from, err := parseLetterID(after)
	if err != nil {
		return nil, err
	}
	log, err := l.open(ctx, id)
	if err != nil || log == nil {
		return nil, err
	}
	var all []DeadLetter
	for len(all) < limit {
		m, err := log.Next(ctx, from+1)
		if err != nil || m == nil {
			return all, err
		}
		all, from = append(all, decodeLetter(id.Kind, m)), m.Sequence
	}
	return all, nil
}

func parseLetterID(id string) (uint64, error) {
	if id == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(id, 10, 63)
	if err != nil {
		return 0, failure.ConfigInvalid.Errorf("%q is not the id of a dead letter, which is a number", id).WithFix("Give an id that the list of dead letters shows.")
	}
	return n, nil
}

// decodeLetter never fails, so that a letter that is damaged does not keep the others from being listed and retried.
func decodeLetter(kind component.Kind, m *stream.Message) DeadLetter {
	one := DeadLetter{ID: strconv.FormatUint(m.Sequence, 10), At: m.Time.UTC()}
	if err := one.decode(kind, m.Data); err != nil {
		damage := failure.BadRecord.Errorf("decoding dead letter %s: %w", one.ID, err).WithFix("Drop the letter: it cannot be delivered again.")
		one.Failure, one.Damaged, one.Record = failure.Describe(damage), true, m.Data
	}
	return one
}

func (l *DeadLetter) decode(kind component.Kind, data []byte) error {
	if kind == component.Source {
		var r rejected
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		l.Failure, l.Position, l.Scope, l.Record = r.Failure, r.Position, r.Scope, r.Record
		return nil
	}
	var r letter
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	l.Failure, l.Query, l.Key, l.Attempts = r.Failure, r.Query, r.Key, r.Attempts
	events, err := result.DecodeMessage(r.Event)
	if err != nil {
		return err
	}
	if len(events) != 1 {
		return fmt.Errorf("it has %d events", len(events))
	}
	l.Event = events[0]
	return nil
}

// each calls do with the letters that ids name, or with all that there are now where ids is empty.
func (l *DeadLetters) each(ctx context.Context, id component.ID, ids []string, do func(*stream.Log, *stream.Message) error) error {
	wanted := make([]uint64, 0, len(ids))
	for _, text := range ids {
		n, err := parseLetterID(text)
		if err != nil {
			return err
		}
		wanted = append(wanted, n)
	}
	log, err := l.open(ctx, id)
	if err != nil {
		return err
	}
	if log == nil {
		if len(ids) > 0 {
			return failure.LetterMissing.Errorf("%s has no dead letter %s", id, ids[0])
		}
		return nil
	}
	for _, n := range wanted {
		m, err := log.Get(ctx, n)
		if errors.Is(err, stream.ErrMissing) {
			return failure.LetterMissing.Errorf("%s has no dead letter %d", id, n)
		}
		if err == nil {
			err = do(log, m)
		}
		if err != nil {
			return err
		}
	}
	if len(ids) > 0 {
		return nil
	}
	state, err := log.State(ctx)
	if err != nil {
		return err
	}
	for from := uint64(1); from <= state.Last; {
		m, err := log.Next(ctx, from)
		if err != nil || m == nil || m.Sequence > state.Last {
			return err
		}
		if err := do(log, m); err != nil {
			return err
		}
		from = m.Sequence + 1
	}
	return nil
}

// Drop removes the dead letters that ids name, or all that there are now where ids is empty, and returns how many it
// removed. One that does not exist is LetterMissing; those before it are removed then.
func (l *DeadLetters) Drop(ctx context.Context, id component.ID, ids []string) (dropped int, err error) {
	err = l.each(ctx, id, ids, func(log *stream.Log, m *stream.Message) error {
		if err := log.Remove(ctx, m.Sequence); err != nil && !errors.Is(err, stream.ErrMissing) {
			return err
		}
		dropped++
		return nil
	})
	return dropped, err
}

// Redelivery is what became of dead letters that were delivered again.
type Redelivery struct {
	Delivered int `json:"delivered"`
	Refused   int `json:"refused,omitempty"` // for good, again, or damaged: they stay
}

// letterTries is how often a dead letter is tried by one command.
const letterTries = 3

// RetryDeadLetters delivers the dead letters of a reaction that ids name, or all that there are now where ids is empty,
// oldest first, beside whatever else is delivered. What is delivered is no dead letter any more; what is refused for good
// stays one, and so does what is damaged. Any other failure, a transient one after three tries, ends it: the letters that are left stay.
func (h *Host) RetryDeadLetters(ctx context.Context, spec component.ReactionSpec, ids []string) (done Redelivery, err error) {
	re, err := h.newReaction(spec, 0)
	if err != nil {
		return done, err
	}
	defer func() {
		if closeErr := closeReaction(ctx, re); err == nil {
			err = closeErr
		}
	}()
	d, ok := re.(reaction.Deliverer)
	if !ok {
		return done, failure.Unsupported.Errorf("reaction kind %q delivers nothing and has no dead letters", spec.Kind)
	}
	how := spec.Delivery.WithDefaults()
	timeout := time.Duration(how.TimeoutSeconds) * time.Second
	err = NewDeadLetters(h.conn).each(ctx, spec.ID(), ids, func(log *stream.Log, m *stream.Message) error {
		l := decodeLetter(component.Reaction, m)
		if l.Damaged {
			done.Refused++
			return nil
		}
		var err error
		for tries := 1; ; tries++ {
			err = attemptDelivery(ctx, d, timeout, reaction.Delivery{Query: l.Query, Key: l.Key, Event: l.Event})
			if err == nil || tries == letterTries || !failure.ClassOf(err).Retryable() {
				break
			}
			if rest(ctx, max(backoffAfter(how.Retry, tries), waitOf(err)), nil, nil) != nil {
				break
			}
		}
		if err != nil && failure.ClassOf(err) == failure.Data {
			done.Refused++
			return nil
		}
		if err != nil {
			return fmt.Errorf("delivering dead letter %s: %w", l.ID, err)
		}
		if err := log.Remove(ctx, m.Sequence); err != nil && !errors.Is(err, stream.ErrMissing) {
			return err
		}
		done.Delivered++
		return nil
	})
	return done, err
}
