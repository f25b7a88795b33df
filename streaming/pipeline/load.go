package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// rowsPerSnapshotEvent is how many rows one event holds when a query starts with rows.
const rowsPerSnapshotEvent = 1000

// open finds or builds the query's state. It reports false when a bootstrap is needed first.
func (r *queryRun) open(ctx context.Context) (bool, error) {
	records, err := r.host.bucket(ctx, queriesBucket)
	if err != nil {
		return false, err
	}
	boots, err := r.sealed(ctx)
	if err != nil {
		return false, err
	}
	var current queryRecord
	key := r.id.Instance + "." + r.id.Name
	if _, _, err := read(ctx, records, key, &current); err != nil {
		return false, err
	}

	if boots == nil {
		if r.continues(current) {
			r.base, r.schemas = current.Base, current.Schemas
			q, err := r.openStore(ctx, current.Store, query.Live)
			if r.query = q; q != nil || err != nil {
				return q != nil, err
			}
		}
		if r.spec.Bootstrap != "none" {
			return false, nil
		}
	}
	wanted := r.record(boots)
	if boots == nil {
		wanted.Store += fmt.Sprintf("-%d-%d", r.attempt.Epoch.Generation, r.attempt.Epoch.Started) // nothing else tells one empty beginning from another
	}
	if err := r.choosePredecessor(ctx, boots, current, &wanted); err != nil {
		return false, err
	}
	defer func() {
		if r.old != nil {
			_ = r.old.Close() // it was only read
		}
	}()
	for _, store := range []string{current.Store, current.Previous} {
		if store == "" || store == wanted.Store || store == wanted.Previous {
			continue
		}
		if err := r.host.index.Remove(store); err != nil {
			return false, fmt.Errorf("removing the index of an earlier state: %w", err)
		}
	}
	if _, err := write(ctx, records, key, wanted); err != nil {
		return false, err
	}
	r.base, r.schemas = wanted.Base, wanted.Schemas
	if r.query, err = r.openStore(ctx, wanted.Store, query.Empty); r.query == nil {
		if err == nil {
			err = failure.StateCorrupt.Errorf("the index %s holds the state of another query", wanted.Store)
		}
		return false, err
	}
	if boots == nil {
		return true, r.begin(ctx)
	}
	if err := r.load(ctx, boots); err != nil {
		return false, err
	}
	if err := r.removePredecessor(ctx, records, key, wanted); err != nil {
		return false, err
	}
	return true, r.consumed(ctx, boots)
}

// continues reports whether a record is of a state of this plan on these sources.
func (r *queryRun) continues(record queryRecord) bool {
	return record.Fingerprint == r.plan.Fingerprint() && slices.Equal(record.Sources, r.spec.Sources)
}

// choosePredecessor opens the state that the wanted one takes the place of, so that only what differs is published, and
// settles where the numbers of events go on. Without one, because there is none of this plan on this host that has all
// that was published, or because the bootstrap is to begin anew, the events say that all rows are void.
func (r *queryRun) choosePredecessor(ctx context.Context, boots []*boot, current queryRecord, wanted *queryRecord) error {
	known, err := r.lastKnown(ctx)
	if err != nil {
		return err
	}
	begun := current.Store == wanted.Store
	candidates := []string{current.Store, current.Previous}
	if begun {
		candidates = candidates[1:]
	}
	again := slices.ContainsFunc(boots, func(b *boot) bool { return b.record.Rebuild })
	for _, store := range candidates {
		if store == "" || boots == nil || again || !r.continues(current) {
			continue
		}
		old, err := r.openStore(ctx, store, query.Live)
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
		r.old, wanted.Previous, wanted.Base = old, store, current.Base
		return nil
	}
	if begun && current.Previous == "" {
		wanted.Base = current.Base
		return nil
	}
	if begun { // what it has taken over so far is of no use without the rest
		if err := r.host.index.Remove(wanted.Store); err != nil {
			return fmt.Errorf("removing the index of a state whose predecessor is gone: %w", err)
		}
	}
	if wanted.Base = max(known, current.Base); current.Store != "" || wanted.Base > 0 {
		wanted.Base += rebuiltAfter // is the number of the event that says so
	}
	return nil
}

// removePredecessor drops the state whose place the new one has taken. The record goes first: it must not name what is
// gone.
func (r *queryRun) removePredecessor(ctx context.Context, records *stream.Bucket, key string, record queryRecord) error {
	if r.old == nil {
		return nil
	}
	old := r.old
	r.old = nil
	if err := old.Close(); err != nil {
		return fmt.Errorf("closing the index of the state before: %w", err)
	}
	store := record.Previous
	record.Previous = ""
	if _, err := write(ctx, records, key, record); err != nil {
		return err
	}
	if err := r.host.index.Remove(store); err != nil {
		return fmt.Errorf("removing the index of the state before: %w", err)
	}
	return nil
}

// record returns what bucket queries says when the state is built from these bootstraps.
func (r *queryRun) record(boots []*boot) queryRecord {
	hash := sha256.New()
	record := queryRecord{Fingerprint: r.plan.Fingerprint(), Sources: r.spec.Sources, Schemas: make(map[string]map[string]string)}
	hash.Write([]byte(record.Fingerprint))
	for _, b := range boots {
		record.Bootstraps = append(record.Bootstraps, b.record.ID)
		record.Schemas[b.source] = maps.Clone(b.record.Snapshot.Schema)
		for label := range b.record.Labels { // from an earlier snapshot
			delete(record.Schemas[b.source], label)
		}
		hash.Write([]byte("/" + b.record.ID))
	}
	record.Store = r.id.Instance + "/" + r.id.Name + "/" + hex.EncodeToString(hash.Sum(nil)[:6])
	return record
}

// openStore opens a store if its state belongs to the plan and is at least that far; else it returns nil.
func (r *queryRun) openStore(ctx context.Context, name string, least query.Phase) (*query.Query, error) {
	// The attempt before may be closing it still.
	store, err := retried(ctx, func() (index.Store, error) { return r.host.index.Open(name) })
	if err != nil {
		return nil, fmt.Errorf("opening the index: %w", err)
	}
	q, err := query.Open(r.plan, store)
	if errors.Is(err, query.ErrFingerprint) {
		return nil, errors.Join(store.Close(), r.host.index.Remove(name))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the query's state: %w", err), store.Close())
	}
	if q.Phase() < least {
		return nil, q.Close()
	}
	return q, nil
}

// boot is a sealed bootstrap of one source.
type boot struct {
	source string
	record bootstrapRecord
}

// sealed returns the bootstraps from which the query is to be built: one per source, sealed, for this plan and not used
// up. Without all of them there are none.
func (r *queryRun) sealed(ctx context.Context) ([]*boot, error) {
	b, err := r.host.bucket(ctx, bootstrapBucket)
	if err != nil {
		return nil, err
	}
	boots := make([]*boot, 0, len(r.spec.Sources))
	for _, name := range r.spec.Sources {
		one := &boot{source: name}
		key := bootstrapKey(r.id.Instance, r.id.Name, name)
		_, found, err := read(ctx, b, key, &one.record)
		if err != nil {
			return nil, err
		}
		if !found || one.record.SealedAt.IsZero() || one.record.Consumed || one.record.Pace == nil || one.record.Fingerprint != r.plan.Fingerprint() {
			return nil, nil
		}
		boots = append(boots, one)
	}
	return boots, nil
}

// begin makes an empty state live: the query starts with the changes from now on.
func (r *queryRun) begin(ctx context.Context) error {
	state := result.State{Positions: map[string]graph.Position{}, Offsets: map[string]uint64{}}
	for name, log := range r.logs {
		end, err := r.host.holdOn(ctx, log, subscriptionKey(r.id.Instance, name, r.id.Name), r.base)
		if err != nil {
			return fmt.Errorf("subscribing to source %s: %w", name, err)
		}
		state.Offsets[name] = end
	}
	if err := r.query.Begin(state); err != nil {
		return fmt.Errorf("beginning with an empty state: %w", err)
	}
	return r.query.Sync()
}

// lastKnown returns the highest sequence that the query's events had so far, whatever state they came from.
func (r *queryRun) lastKnown(ctx context.Context) (uint64, error) {
	b, err := r.host.bucket(ctx, subscriptionsBucket)
	if err != nil {
		return 0, err
	}
	if r.published > 0 {
		return r.published, nil
	}
	// The log of a query that was idle for long is empty. The sources may be others by now.
	bySource, err := subscriptionsOf(ctx, b, r.id)
	if err != nil {
		return 0, err
	}
	var last uint64
	for _, keys := range bySource {
		for _, key := range keys {
			var s subscription
			if _, _, err := read(ctx, b, key, &s); err != nil {
				return 0, err
			}
			last = max(last, s.Sequence)
		}
	}
	return last, nil
}

// load fills the state from the bootstraps and makes it live. It goes on where an earlier attempt was interrupted.
func (r *queryRun) load(ctx context.Context, boots []*boot) error {
	progress := r.attempt.Progress
	progress.Set(func(s *Status) { s.Phase = "loading" })
	if r.query.Phase() != query.Live {
		state := result.State{Positions: map[string]graph.Position{}, Offsets: map[string]uint64{}}
		for _, b := range boots {
			if err := r.loadSource(ctx, b, &state); err != nil {
				return err
			}
		}
		if err := r.query.Sync(); err != nil {
			return fmt.Errorf("syncing the index: %w", err)
		}
		progress.Set(func(s *Status) { s.Phase = "sealing" })
		seal := func() error { return r.query.Seal(state, rowsPerSnapshotEvent) }
		if r.old != nil {
			seal = func() error { return r.query.Resync(r.old, state) }
		}
		if err := ticking(ctx, progress, seal); err != nil {
			return fmt.Errorf("sealing the loaded state: %w", err)
		}
		if err := r.query.Sync(); err != nil { // before anything of it is published
			return fmt.Errorf("syncing the index: %w", err)
		}
	}
	return nil
}

// ticking says that the loop is alive while f, which cannot say so itself, computes.
func ticking(ctx context.Context, p *Progress, f func() error) error {
	ctx, done := context.WithCancel(ctx)
	g := newGroup(ctx)
	g.run(func(ctx context.Context) error {
		beat := time.NewTicker(time.Second)
		defer beat.Stop()
		for {
			p.Tick()
			select {
			case <-beat.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
	err := guard(f)
	done()
	_ = g.wait() // has no errors of its own
	return err
}

// consumed removes what the bootstraps left, now that the query's state has it.
func (r *queryRun) consumed(ctx context.Context, boots []*boot) error {
	b, err := r.host.bucket(ctx, bootstrapBucket)
	if err != nil {
		return err
	}
	for _, one := range boots {
		if err := removeKeys(ctx, b, bootstrapKey(r.id.Instance, r.id.Name, one.source)+".scope"); err != nil {
			return err
		}
		if err := r.host.conn.DeleteLog(ctx, bootstrapLog(r.id.Instance, r.id.Name, one.source)); err != nil {
			return fmt.Errorf("deleting the bootstrap log: %w", err)
		}
	}
	for _, one := range boots { // last, since from then on nobody looks for what is left
		one.record.Consumed = true
		if _, err := write(ctx, b, bootstrapKey(r.id.Instance, r.id.Name, one.source), one.record); err != nil {
			return err
		}
	}
	return nil
}

// loadSource loads one source: first the copied rows, then the changes since, except those that the copy contains.
func (r *queryRun) loadSource(ctx context.Context, b *boot, state *result.State) error {
	at, err := parseToken(r.query.Token(b.source))
	if err != nil {
		return err
	}
	if at.Stage == loadingCopy {
		if err := r.loadCopy(ctx, b, at); err != nil {
			return err
		}
		at = token{Stage: loadingChanges, Offset: b.record.From - 1, Position: b.record.Snapshot.Position}
	}
	if at.Stage == loadingChanges && at.Offset < b.record.SealOffset {
		if at, err = r.loadChanges(ctx, b, at); err != nil {
			return err
		}
	}
	if at.Stage != loaded {
		at.Stage = loaded
		if err := r.query.Load(b.source, at.bytes(), nil); err != nil {
			return fmt.Errorf("loading the last of source %s: %w", b.source, err)
		}
	}
	state.Positions[b.source], state.Offsets[b.source] = at.Position, at.Offset
	return nil
}

func (r *queryRun) loadCopy(ctx context.Context, b *boot, at token) error {
	if at.Offset >= b.record.LastMessage {
		return nil
	}
	bucket, err := r.host.bucket(ctx, bootstrapBucket)
	if err != nil {
		return err
	}
	scopes, err := r.host.scopes(ctx, bucket, bootstrapKey(r.id.Instance, r.id.Name, b.source))
	if err != nil {
		return err
	}
	wanted := make(map[copyOf]bool)
	for _, s := range scopes {
		for i, c := range s.Chunks { // all are copied, or the bootstrap would not have been verified
			wanted[copyOf{s.generation, s.number, i, c.Attempt}] = true
		}
	}
	log, err := r.host.conn.OpenLog(ctx, bootstrapLog(r.id.Instance, r.id.Name, b.source))
	if err != nil {
		return fmt.Errorf("opening the bootstrap log: %w", err)
	}
	reader, err := log.Read(ctx, at.Offset+1)
	if err != nil {
		return fmt.Errorf("reading the bootstrap log: %w", err)
	}
	defer reader.Close()
	var decoder graph.Decoder
	for at.Offset < b.record.LastMessage {
		m, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading the bootstrap log: %w", err)
		}
		at.Offset = m.Sequence
		from, ok := parseCopy(m.ID)
		if !ok || !wanted[from] {
			continue
		}
		batch, err := decoder.Decode(m.Data)
		if err != nil {
			return fmt.Errorf("decoding message %d of the bootstrap log: %w", m.Sequence, err)
		}
		for i := range batch.Transactions {
			if err := r.query.Load(b.source, at.bytes(), batch.Transactions[i].Changes); err != nil {
				return fmt.Errorf("loading message %d of the bootstrap log: %w", m.Sequence, err)
			}
		}
		r.attempt.Progress.Tick()
	}
	return nil
}

// loadChanges applies the changes from the subscription to the seal. It returns where that ends.
func (r *queryRun) loadChanges(ctx context.Context, b *boot, at token) (token, error) {
	err := (&feed{source: b.source, log: r.logs[b.source]}).run(ctx, at.Offset+1, func(m message) error {
		r.attempt.Progress.Tick()
		if err := r.fits(m, b.record.position); err != nil {
			return err
		}
		var kept []graph.Change
		keep := func(position graph.Position, changes []graph.Change) {
			for i := range changes {
				if position.Compare(b.record.position(changes[i].Element.Labels)) > 0 {
					kept = append(kept, changes[i])
				}
			}
		}
		for _, tx := range m.Transactions {
			keep(tx.Position, tx.Changes)
		}
		if m.Parts != nil { // what is loaded of it comes again after an interruption, and is then what it is already
			err := m.Parts(func(changes []graph.Change) error {
				r.attempt.Progress.Tick()
				kept = kept[:0]
				keep(m.Transactions[0].Position, changes)
				return r.query.Load(b.source, at.bytes(), kept)
			})
			if err != nil {
				return fmt.Errorf("loading a large transaction up to message %d: %w", m.Offset, err)
			}
			kept = nil
		}
		at.Offset = m.Offset
		if m.Position.Compare(at.Position) > 0 {
			at.Position = m.Position
		}
		if err := r.query.Load(b.source, at.bytes(), kept); err != nil {
			return fmt.Errorf("loading changes up to message %d: %w", m.Offset, err)
		}
		if m.sequence >= b.record.SealOffset {
			return errLoaded
		}
		return nil
	})
	if !errors.Is(err, errLoaded) {
		return at, err
	}
	return at, nil
}

var errLoaded = errors.New("loaded")

// token is how far loading of a source has come; it is stored with what was loaded.
type token struct {
	Stage    loadStage      `json:"stage"`
	Offset   uint64         `json:"offset"` // last message that is loaded: of the bootstrap log, then of the change log
	Position graph.Position `json:"position,omitempty"`
}

type loadStage int

const (
	loadingCopy loadStage = iota
	loadingChanges
	loaded
)

func (t token) bytes() []byte {
	b, _ := json.Marshal(t) // has nothing that cannot be encoded
	return b
}

func parseToken(b []byte) (token, error) {
	var t token
	if len(b) == 0 {
		return t, nil
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return t, failure.StateCorrupt.Errorf("decoding the loading token %q: %w", b, err)
	}
	return t, nil
}
