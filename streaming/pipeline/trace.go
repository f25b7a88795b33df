package pipeline

import (
	"context"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/telemetry"
)

// tracer tells the traces what becomes of the transactions that they follow. A nil one follows none, so that stages ask
// it and nothing else. Whatever it keeps of a transaction is small and lasts as long as the message that holds it.
type tracer struct {
	traces   *telemetry.Traces
	instance string
}

func (h *Host) tracer(instance string) *tracer {
	if h.traces == nil {
		return nil
	}
	return &tracer{h.traces, instance}
}

// follows reports whether a transaction of a source is followed.
func (t *tracer) follows(source string, position graph.Position) bool {
	return t != nil && t.traces.Follows(t.transaction(source, position))
}

func (t *tracer) transaction(source string, position graph.Position) telemetry.Transaction {
	return telemetry.Transaction{Instance: t.instance, Source: source, Position: string(position)}
}

// storing is a transaction on its way into a change log.
type storing struct {
	position graph.Position
	commit   time.Time
	changes  int
}

// stored tells of the transactions of a message that the change log has.
func (t *tracer) stored(source, kind string, all []storing, offset uint64) {
	for _, s := range all {
		t.traces.Stored(t.transaction(source, s.position), telemetry.Stored{
			Kind: kind, Committed: s.commit, Durable: time.Now(), Log: changeLog(t.instance, source), Offset: offset, Changes: s.changes,
		})
	}
}

// applying is a transaction that a query works on, or an event of it that is on its way into the result log.
type applying struct {
	source   string
	position graph.Position
	told     telemetry.Applied
}

// read returns the transactions of a message that are followed.
func (t *tracer) read(query string, b query.Batch) (all []applying) {
	if t == nil {
		return nil
	}
	for i := range b.Transactions {
		if position := b.Transactions[i].Position; t.follows(b.Source, position) {
			all = append(all, applying{b.Source, position, telemetry.Applied{
				Query: query, Log: changeLog(t.instance, b.Source), Offset: b.Offset, Read: time.Now(),
			}})
		}
	}
	return all
}

// event returns what is known of an event that is about to be published, nil when it is not followed. Of one that an
// earlier attempt made, that is little.
func (t *tracer) event(query string, e *result.Event, work []applying) *applying {
	if t == nil || e.Snapshot || !t.follows(e.Source, e.Position) {
		return nil
	}
	a := applying{e.Source, e.Position, telemetry.Applied{Query: query, Log: changeLog(t.instance, e.Source), Read: time.Now()}}
	for _, w := range work {
		if w.position == e.Position {
			a = w
		}
	}
	a.told.Sequence, a.told.Rows = e.Sequence, len(e.Diffs)
	return &a
}

// unchanged tells of the transactions that left a query's result as it was.
func (t *tracer) unchanged(work []applying, events []result.Event) {
	next := 0 // events are in the order of the transactions
	for _, w := range work {
		for next < len(events) && events[next].Position.Compare(w.position) < 0 {
			next++
		}
		if next == len(events) || events[next].Position != w.position {
			t.traces.Applied(t.transaction(w.source, w.position), w.told)
		}
	}
}

// published tells of the events of a message that the result log has.
func (t *tracer) published(all []applying) {
	for _, a := range all {
		a.told.Published = time.Now()
		t.traces.Applied(t.transaction(a.source, a.position), a.told)
	}
}

// delivering is something on its way to a reaction's target; nil: it is not followed.
type delivering struct {
	tracer      *tracer
	transaction telemetry.Transaction
	told        telemetry.Delivery
}

func (t *tracer) delivering(name string, d reaction.Delivery) *delivering {
	if t == nil || d.Event.Snapshot || !t.follows(d.Event.Source, d.Event.Position) {
		return nil
	}
	return &delivering{t, t.transaction(d.Event.Source, d.Event.Position), telemetry.Delivery{
		Reaction: name, Query: d.Query, Key: d.Key, Log: resultLog(t.instance, d.Query), Sequence: d.Event.Sequence, Began: time.Now(),
	}}
}

// context lets the reaction tell its target which trace the delivery belongs to.
func (d *delivering) context(ctx context.Context) context.Context {
	if d == nil {
		return ctx
	}
	return d.transaction.DeliveryContext(ctx, d.told.Key)
}

// tried notes one try and how it ended.
func (d *delivering) tried(err error) {
	if d == nil {
		return
	}
	d.told.Attempts++
	if err != nil {
		d.told.Failures = append(d.told.Failures, telemetry.FailedTry{At: time.Now(), Code: failure.CodeOf(err).ID})
	}
}

// ended tells how the delivery ended.
func (d *delivering) ended(outcome string) {
	if d == nil {
		return
	}
	d.told.Ended, d.told.Outcome = time.Now(), outcome
	d.tracer.traces.Ended(d.transaction, d.told)
}
