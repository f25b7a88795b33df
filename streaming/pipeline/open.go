package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/stream"
)

// open finds or builds the query's state. It reports false when a bootstrap is needed first.
func (r *queryRun) open(ctx context.Context) (bool, error) {
	records, err := r.host.bucket(ctx, queriesBucket)
	if err != nil {
		return false, err
	}
	current, err := r.claim(ctx, records)
	if err != nil {
		return false, err
	}
	r.comesAfter(current.Sources)
	boots, err := r.sealed(ctx)
	if err != nil {
		return false, err
	}
	if current.Former != nil {
		back := !r.begun(boots, current)
		if !back {
			if back, err = r.isElsewhere(ctx, boots, *current.Former); err != nil {
				return false, err
			}
		}
		if back {
			if boots, err = r.goBack(ctx, records, &current); err != nil {
				return false, err
			}
		}
	}
	elsewhere, err := r.isElsewhere(ctx, boots, current)
	if err != nil {
		return false, err
	}
	if boots == nil || elsewhere {
		if q, err := r.goOn(ctx, records, &current, boots); q != nil || err != nil {
			r.query = q
			return q != nil, err
		}
		if missing, err := r.openLogs(ctx); missing != nil || err != nil {
			return false, cmp.Or(err, missing)
		}
	}
	if boots == nil {
		if r.spec.Bootstrap != "none" {
			return false, nil
		}
		if (current.Begun || len(current.Bootstraps) > 0) && r.asksFor(current) { // an empty one would look right
			return false, failure.StateLost.Errorf("the state is neither on this host nor in a checkpoint, and the query is declared with bootstrap none")
		}
	}
	if err := r.want(ctx); err != nil {
		return false, err
	}
	if boots == nil {
		r.comesAfter(nil) // as of one that begins without any
	}
	wanted := r.record(boots, current)
	if boots == nil {
		wanted.Store = r.ownName(wanted.Store) // nothing else tells one empty beginning from another
	}
	if err := r.choosePredecessor(ctx, boots, current, &wanted); err != nil {
		return false, err
	}
	defer func() {
		if r.old != nil {
			_ = r.old.Close() // it was only read
		}
	}()
	for _, store := range current.stores() {
		if slices.Contains(wanted.stores(), store) {
			continue
		}
		if err := r.host.index.Remove(store); err != nil {
			return false, fmt.Errorf("removing the index of an earlier state: %w", err)
		}
	}
	if err := r.put(ctx, records, wanted); err != nil {
		return false, err
	}
	r.store, r.built, r.base, r.schemas = wanted.Store, wanted.Bootstraps, wanted.Base, wanted.Schemas
	q, cause, err := r.openSound(ctx, r.plan, wanted.Store, query.Empty)
	if cause != nil { // it is loaded anew
		q, err = r.openStore(ctx, r.plan, wanted.Store, query.Empty)
	}
	if r.query = q; q == nil {
		if err == nil {
			err = failure.StateCorrupt.Errorf("the index %s holds the state of another query", wanted.Store)
		}
		return false, err
	}
	if boots == nil {
		if err := r.begin(ctx); err != nil {
			return false, err
		}
		wanted.Begun = true
		return true, r.put(ctx, records, wanted)
	}
	if err := r.load(ctx, boots); err != nil {
		return false, err
	}
	if err := r.removePredecessor(ctx, records, wanted); err != nil {
		return false, err
	}
	return true, r.consumed(ctx, boots)
}

// begun reports whether the state on record is the one that is to be built from these bootstraps.
func (r *queryRun) begun(boots []*boot, current queryRecord) bool {
	return boots != nil && r.asksFor(current) &&
		slices.EqualFunc(current.Bootstraps, boots, func(id string, b *boot) bool { return id == b.record.ID })
}

// goBack gives a state that is not whole up for the one whose place it was to take, which another one will take now. Nothing
// of it was published. It returns the bootstraps from which that is to be built.
func (r *queryRun) goBack(ctx context.Context, records *stream.Bucket, current *queryRecord) ([]*boot, error) {
	former := *current.Former
	former.Next = current.Store
	*current = former
	if err := r.setNext(ctx, records, current, ""); err != nil {
		return nil, err
	}
	r.comesAfter(current.Sources)
	return r.sealed(ctx)
}

// isElsewhere reports whether the state whose place another one is to take, so that only what differs is published, is not
// on this host, or not all of it, while a checkpoint has it. Then the query goes on with that first.
func (r *queryRun) isElsewhere(ctx context.Context, boots []*boot, before queryRecord) (bool, error) {
	plan := r.planOf(before)
	if boots == nil || beginsAnew(boots) || plan == nil || !slices.Equal(plan.Columns(), r.plan.Columns()) || r.attempt.Need == nil || r.checkpoints == nil {
		return false, nil
	}
	kept := r.checkpoints.of(before.Store)
	if len(kept) == 0 {
		return false, nil
	}
	q, _, err := r.openSound(ctx, plan, before.Store, query.Live)
	if q == nil || err != nil {
		return err == nil, err
	}
	elsewhere := behind(q, kept[0])
	if err := q.Close(); err != nil {
		return false, fmt.Errorf("closing the index: %w", err)
	}
	return elsewhere, nil
}

// beginsAnew reports whether all rows are to be published anew.
func beginsAnew(boots []*boot) bool {
	return slices.ContainsFunc(boots, func(b *boot) bool { return b.record.Rebuild })
}

// choosePredecessor opens the state that the wanted one takes the place of, so that only what differs is published, and
// settles where the numbers of events go on. Without one, because there is none with these columns on this host that has
// all that was published, or because the bootstrap is to begin anew, the events say that all rows are void.
func (r *queryRun) choosePredecessor(ctx context.Context, boots []*boot, current queryRecord, wanted *queryRecord) error {
	known, err := r.lastKnown(ctx)
	if err != nil {
		return err
	}
	begun, before := r.begun(boots, current), current
	if begun && current.Former != nil {
		before = *current.Former
	}
	name := wanted.Store
	if begun {
		wanted.Store = current.Store
	}
	candidates := []string{current.Store, current.Previous}
	if begun {
		candidates = candidates[1:]
	}
	again := beginsAnew(boots)
	plan := r.planOf(before)
	if plan != nil && !slices.Equal(plan.Columns(), r.plan.Columns()) {
		plan = nil // there is no difference to tell
	}
	for _, store := range candidates {
		if store == "" || boots == nil || again || plan == nil {
			continue
		}
		old, _, err := r.openSound(ctx, plan, store, query.Live)
		if err != nil {
			return err
		}
		if old == nil {
			continue
		}
		if old.State().Sequence+current.Base < known { // a crash of the machine took its end
			if err := old.Close(); err != nil {
				return fmt.Errorf("closing the index: %w", err)
			}
			continue
		}
		r.old, r.previous, wanted.Previous, wanted.Base = old, store, store, current.Base
		if store == before.Store {
			before.Previous, before.Next, before.Former = "", "", nil
			wanted.Former = &before
		}
		return nil
	}
	if begun && current.Previous == "" {
		whole := known <= current.Base // it begins beyond all that was published
		if !whole {
			if whole, err = r.reaches(ctx, current, known); err != nil {
				return err
			}
		}
		if whole {
			wanted.Base = current.Base
			return nil
		}
	}
	if begun { // without the rest it is of no use here; where all of it is, it has other numbers
		wanted.Store = r.ownName(name)
	}
	if wanted.Base = max(known, current.Base); current.Store != "" || wanted.Base > 0 {
		wanted.Base += rebuiltAfter // is the number of the event that says so
	}
	return nil
}

// reaches reports whether this host has the state on record, live and with all that was published.
func (r *queryRun) reaches(ctx context.Context, current queryRecord, known uint64) (bool, error) {
	q, _, err := r.openSound(ctx, r.plan, current.Store, query.Live)
	if q == nil || err != nil {
		return false, err
	}
	reaches := q.State().Sequence+current.Base >= known
	if err := q.Close(); err != nil {
		return false, fmt.Errorf("closing the index: %w", err)
	}
	return reaches, nil
}

// ownName makes the name of a store one that no other attempt gives.
func (r *queryRun) ownName(store string) string {
	return fmt.Sprintf("%s-%d-%d", store, r.attempt.Epoch.Generation, r.attempt.Epoch.Started)
}

// removePredecessor drops the state whose place the new one has taken. The record goes first: it must not name what is
// gone.
func (r *queryRun) removePredecessor(ctx context.Context, records *stream.Bucket, record queryRecord) error {
	if r.old == nil {
		return nil
	}
	old := r.old
	r.old = nil
	if err := old.Close(); err != nil {
		return fmt.Errorf("closing the index of the state before: %w", err)
	}
	store := record.Previous
	record.Previous, record.Former = "", nil
	if err := r.put(ctx, records, record); err != nil {
		return err
	}
	if err := r.host.index.Remove(store); err != nil {
		return fmt.Errorf("removing the index of the state before: %w", err)
	}
	return nil
}

// record returns what bucket queries says when the state is built from these bootstraps, and perhaps from the one that
// there is.
func (r *queryRun) record(boots []*boot, current queryRecord) queryRecord {
	hash := sha256.New()
	record := queryRecord{
		Fingerprint: r.plan.Fingerprint(), Sources: r.spec.Sources, Schemas: make(map[string]map[string]string),
		Spec: &r.spec, Reload: r.attempt.Reload,
	}
	hash.Write([]byte(record.Fingerprint))
	if partial(boots) {
		for source, schema := range current.Schemas {
			record.Schemas[source] = maps.Clone(schema)
		}
	}
	for _, b := range boots {
		record.Bootstraps = append(record.Bootstraps, b.record.ID)
		record.Schemas[b.source] = b.schema(record.Schemas[b.source])
		hash.Write([]byte("/" + b.source + "/" + b.record.ID))
	}
	record.Store = r.id.Instance + "/" + r.id.Name + "/" + hex.EncodeToString(hash.Sum(nil)[:6])
	return record
}

// openStore opens a store if its state belongs to a plan and is at least that far; else it returns nil.
func (r *queryRun) openStore(ctx context.Context, plan *query.Plan, name string, least query.Phase) (*query.Query, error) {
	// The attempt before may be closing it still.
	store, err := retried(ctx, func() (index.Store, error) { return r.host.index.Open(name) })
	if err != nil {
		return nil, fmt.Errorf("opening the index: %w", err)
	}
	q, err := query.Open(plan, store)
	if errors.Is(err, query.ErrFingerprint) {
		return nil, errors.Join(store.Close(), r.host.index.Remove(name))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the query's state: %w", err), store.Close())
	}
	if q.Phase() < least {
		return nil, q.Close()
	}
	q.Watch(r.tick)
	return q, nil
}

// queryRecord is the value of bucket queries: which store holds the state of a query. A query that is built anew gets
// a new store, so that what another host, or an earlier life of this one, still has on its disk is never taken for it.
type queryRecord struct {
	Owner       stream.Epoch `json:"owner"` // the newest attempt that ran the query
	Store       string       `json:"store"`
	Fingerprint string       `json:"fingerprint"`
	Sources     []string     `json:"sources"` // whose elements the store holds, in order
	// Previous is the store of the state whose place this one takes, until this one is complete.
	Previous string `json:"previous,omitempty"`
	// Former is the record of that state; nil in old records.
	Former *queryRecord `json:"former,omitempty"`
	// Next is the store of a state that is being loaded while this one is followed, or restored.
	Next string `json:"next,omitempty"`
	// Spec is of the state, which is followed with it until one of another plan is complete; nil in old records.
	Spec *component.QuerySpec `json:"spec,omitempty"`
	// Reload names the last request to read the sources again that was done.
	Reload string `json:"reload,omitempty"`
	// Base is what is added to the sequences of this state: those of a query never begin anew, so that a client that
	// comes back after the state was built anew is not given other events under the numbers that it knows.
	Base       uint64   `json:"base,omitempty"`
	Begun      bool     `json:"begun,omitempty"`      // a state without bootstraps is there, and can be lost
	Bootstraps []string `json:"bootstraps,omitempty"` // ids of the bootstraps it was built from, in order of the sources
	// Schemas are what elements looked like in those, by source and label: a change of the schema that led there is part of
	// the copy, whatever its position, which may be behind the moment at which it happened.
	Schemas map[string]map[string]string `json:"schemas,omitempty"`
}

// stores returns the names of all stores that a record names.
func (r *queryRecord) stores() []string {
	return slices.DeleteFunc([]string{r.Store, r.Previous, r.Next}, func(name string) bool { return name == "" })
}

// claim reads the record and makes it this attempt's, so that no older one that wakes up puts back what it knew. A record
// that is not there yet belongs to nobody.
func (r *queryRun) claim(ctx context.Context, records *stream.Bucket) (queryRecord, error) {
	for {
		var record queryRecord
		revision, found, err := read(ctx, records, r.key(), &record)
		if err != nil {
			return record, err
		}
		if record.Owner.Compare(r.attempt.Epoch) > 0 {
			return record, r.outdated(record)
		}
		if r.revision = revision; !found || record.Owner == r.attempt.Epoch {
			return record, nil
		}
		record.Owner = r.attempt.Epoch
		r.revision, err = replace(ctx, records, r.key(), record, revision)
		if !errors.Is(err, stream.ErrConflict) {
			return record, err
		}
	}
}

// put replaces the record as it was claimed.
func (r *queryRun) put(ctx context.Context, records *stream.Bucket, record queryRecord) error {
	record.Owner = r.attempt.Epoch
	revision, err := replace(ctx, records, r.key(), record, r.revision)
	if err == nil {
		r.revision = revision
		return nil
	}
	var there queryRecord
	if _, _, readErr := read(ctx, records, r.key(), &there); readErr == nil && there.Owner.Compare(r.attempt.Epoch) > 0 {
		return r.outdated(there)
	}
	return err
}

func (r *queryRun) outdated(record queryRecord) error {
	return failure.FencedOff.Errorf("attempt %s has taken over the state of %s", record.Owner, r.id)
}

// key is that of the query's own records.
func (r *queryRun) key() string { return r.id.Instance + "." + r.id.Name }
