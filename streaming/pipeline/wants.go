package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
)

// A source may leave out of its change log what no query reads. Queries and source agree on that by one record, which is
// replaced as a whole: a query that puts down what it reads sees at once whether the log has it, and a source that is about
// to leave something out sees whether a query came in between. A query that reads more than the log has waits for the
// source before it takes a snapshot or begins; what is in the log before that, it never looks at.

// wantsRecord is the value of bucket positions at <instance>.<source>.wants.
type wantsRecord struct {
	// Wants are what queries read, by <query>[.bootstrap], as subscriptions are.
	Wants map[string]source.Wanted `json:"wants,omitempty"`
	// Served is what the change log has at least from its end on; null: everything.
	Served source.Wanted `json:"served"`
	// Owner is the attempt at the source that said so.
	Owner stream.Epoch `json:"owner"`
}

func (r *wantsRecord) union() source.Wanted {
	return source.Union(slices.Collect(maps.Values(r.Wants))...)
}

// needsOf returns what a plan reads of a source.
func needsOf(p *query.Plan) source.Wanted {
	w := make(source.Wanted)
	for label, properties := range p.Needs() {
		r := source.Reads{Properties: properties}
		for i, place := range p.Restrictions(label) {
			if r.Only = r.Only.Or(place); i == 0 {
				r.Only = place
			}
		}
		w[label] = r
	}
	return w
}

// wantsSuffix ends the key of a wantsRecord.
const wantsSuffix = ".wants"

// servedWithin bounds the wait for a source to send what a query reads, and so for the transactions that run meanwhile.
const servedWithin = 15 * time.Minute

// editWants changes the record of a source, however many others do so at the same time. It writes nothing when change
// reports false. Those of one process take turns: a thousand queries that start at once would else read and replace in vain
// almost always.
func (h *Host) editWants(ctx context.Context, key string, change func(*wantsRecord) (bool, error)) error {
	b, err := h.bucket(ctx, positionsBucket)
	if err != nil {
		return err
	}
	select {
	case h.wanting <- struct{}{}:
		defer func() { <-h.wanting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		var record wantsRecord
		revision, _, err := read(ctx, b, key+wantsSuffix, &record)
		if err != nil {
			return err
		}
		if changed, err := change(&record); err != nil || !changed {
			return err
		}
		if _, err = replace(ctx, b, key+wantsSuffix, record, revision); !errors.Is(err, stream.ErrConflict) {
			return err
		}
	}
}

// want puts down what a query, or its bootstrap, reads of a source.
func (h *Host) want(ctx context.Context, instance, src, name string, needs source.Wanted) error {
	return h.editWants(ctx, instance+"."+src, func(r *wantsRecord) (bool, error) {
		if before, is := r.Wants[name]; is && before.Covers(needs) && needs.Covers(before) {
			return false, nil
		}
		if r.Wants == nil {
			r.Wants = make(map[string]source.Wanted)
		}
		r.Wants[name] = needs
		return true, nil
	})
}

// unwant removes what want put down.
func (h *Host) unwant(ctx context.Context, instance, src string, names ...string) error {
	return h.editWants(ctx, instance+"."+src, func(r *wantsRecord) (bool, error) {
		before := len(r.Wants)
		for _, name := range names {
			delete(r.Wants, name)
		}
		return len(r.Wants) < before, nil
	})
}

// unwantAll removes what a query, and its bootstraps, read of all sources except those to keep.
func (h *Host) unwantAll(ctx context.Context, id component.ID, keep []string) error {
	b, err := h.bucket(ctx, positionsBucket)
	if err != nil {
		return err
	}
	keys, err := b.Keys(ctx, id.Instance+".")
	if err != nil {
		return fmt.Errorf("listing sources: %w", err)
	}
	for _, key := range keys {
		src, is := strings.CutSuffix(strings.TrimPrefix(key, id.Instance+"."), wantsSuffix)
		if !is || slices.Contains(keep, src) {
			continue
		}
		if err := h.unwant(ctx, id.Instance, src, id.Name, id.Name+bootstrapSuffix); err != nil {
			return err
		}
	}
	return nil
}

// awaitServed waits until the change log has, from its end on, what a query has put down.
func (h *Host) awaitServed(ctx context.Context, instance, src, name string, alive func()) error {
	b, err := h.bucket(ctx, positionsBucket)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(servedWithin)
	for {
		var record wantsRecord
		if _, _, err := read(ctx, b, instance+"."+src+wantsSuffix, &record); err != nil {
			return err
		}
		if needs, is := record.Wants[name]; !is || record.Served.Covers(needs) {
			return nil
		}
		if time.Now().After(deadline) {
			return failure.Timeout.Errorf("waiting for source %s to send what the query reads and nobody has read so far: it did not within %s", src, servedWithin).
				WithFix("Nothing: it is tried again. The source must run, and says in its status what it waits for.")
		}
		alive()
		select {
		case <-time.After(verifyEvery):
		case <-ctx.Done():
			return fmt.Errorf("waiting for source %s to send what the query reads: %w", src, ctx.Err())
		}
	}
}

// wantsKeeper is the source's side of the record.
type wantsKeeper struct {
	host  *Host
	key   string
	epoch stream.Epoch
	sink  *sink

	listed time.Time  // when subscriptions were last looked at
	mu     sync.Mutex // one change of what is served at a time
}

// keep passes on to the source what is read of it, and to the queries what it serves.
func (k *wantsKeeper) keep(ctx context.Context) error {
	var record wantsRecord
	if err := k.host.editWants(ctx, k.key, func(r *wantsRecord) (bool, error) { record = *r; return false, nil }); err != nil {
		return err
	}
	union := record.union()
	if k.sink.Wanted().Covers(union) && union.Covers(k.sink.Wanted()) && time.Since(k.listed) < trimEvery {
		return k.serve(ctx)
	}
	all, err := k.host.putDown(ctx, k.key, record)
	if err != nil {
		return err
	}
	k.listed = time.Now()
	if !all {
		union = nil
	}
	k.sink.want(union)
	return k.serve(ctx)
}

// putDown reports whether all that read a source have put down what. One that was made by an earlier version has not.
func (h *Host) putDown(ctx context.Context, key string, record wantsRecord) (bool, error) {
	b, err := h.bucket(ctx, subscriptionsBucket)
	if err != nil {
		return false, err
	}
	keys, err := b.Keys(ctx, key+".")
	if err != nil {
		return false, fmt.Errorf("listing subscriptions: %w", err)
	}
	return !slices.ContainsFunc(keys, func(subscription string) bool {
		_, is := record.Wants[strings.TrimPrefix(subscription, key+".")]
		return !is
	}), nil
}

// serve records what the source has said to serve, when that is durable. It is less by now if others were deleted.
func (k *wantsKeeper) serve(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	serving := k.sink.durablyServed()
	if serving == nil {
		return nil
	}
	if err := k.host.editWants(ctx, k.key, func(r *wantsRecord) (bool, error) {
		if r.Served.Covers(*serving) {
			return false, nil
		}
		r.Served = *serving
		return true, k.own(r)
	}); err != nil {
		return err
	}
	k.sink.served(serving)
	return nil
}

// withhold is source.Sink.Withhold.
func (k *wantsKeeper) withhold(ctx context.Context, wanted source.Wanted) (done bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sink.served(nil)
	err = k.host.editWants(ctx, k.key, func(r *wantsRecord) (bool, error) {
		if done = wanted.Covers(r.union()); !done {
			return false, nil
		}
		r.Served = wanted
		return true, k.own(r)
	})
	if err != nil || !done {
		return false, err
	}
	return true, nil
}

func (k *wantsKeeper) own(r *wantsRecord) error {
	if r.Owner.Compare(k.epoch) > 0 {
		return failure.FencedOff.Errorf("attempt %s has taken over what %s serves", r.Owner, k.key)
	}
	r.Owner = k.epoch
	return nil
}

// want makes something what the source is told to be wanted.
func (s *sink) want(wanted source.Wanted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wants.Covers(wanted) && wanted.Covers(s.wants) {
		return
	}
	s.wants = wanted
	select {
	case s.wantsChanged <- struct{}{}:
	default:
	}
}

// Wanted implements source.Sink.
func (s *sink) Wanted() source.Wanted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wants
}

// WantedChanged implements source.Sink.
func (s *sink) WantedChanged() <-chan struct{} { return s.wantsChanged }

// Withhold implements source.Sink.
func (s *sink) Withhold(ctx context.Context, wanted source.Wanted) (bool, error) {
	return s.withhold(ctx, wanted)
}

// Serve implements source.Sink.
func (s *sink) Serve(wanted source.Wanted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving, s.servingAt = &wanted, s.appended
}

// durablyServed returns what Serve said when that is durable, nil when there is nothing new.
func (s *sink) durablyServed() *source.Wanted {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving == nil || s.durable.Compare(s.servingAt) < 0 {
		return nil
	}
	return s.serving
}

// served forgets what Serve said, nil being whatever it was.
func (s *sink) served(done *source.Wanted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if done == nil || s.serving == done {
		s.serving = nil
	}
}
