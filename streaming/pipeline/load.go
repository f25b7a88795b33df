package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// rowsPerSnapshotEvent is how many rows one event holds when a query starts with rows.
const rowsPerSnapshotEvent = 1000

// boot is a sealed bootstrap of one source.
type boot struct {
	source string
	record bootstrapRecord
}

// partial reports whether bootstraps read only a part of what the query needs.
func partial(boots []*boot) bool {
	return slices.ContainsFunc(boots, func(b *boot) bool { return len(b.record.Only) > 0 })
}

// schema returns what elements look like by label when the bootstrap is loaded, of which before tells that so far.
func (b *boot) schema(before map[string]string) map[string]string {
	schema := maps.Clone(b.record.Snapshot.Schema)
	for label := range b.record.Labels { // from an earlier snapshot
		if !slices.Contains(b.record.Continued, label) {
			delete(schema, label)
		}
	}
	if len(b.record.Only) == 0 {
		return schema
	}
	other := func(label, _ string) bool { return !b.record.reads([]string{label}) }
	maps.DeleteFunc(schema, other)
	for label, state := range before {
		if other(label, state) {
			schema[label] = state
		}
	}
	return schema
}

// sealed returns the bootstraps from which the query is to be built: sealed, for this plan and not used up. There is one
// per source, whose change log is there and open, or else none, unless one is of some labels only and the state before has
// the others, of the same sources.
func (r *queryRun) sealed(ctx context.Context) ([]*boot, error) {
	b, err := r.host.bucket(ctx, bootstrapBucket)
	if err != nil {
		return nil, err
	}
	var boots []*boot
	for _, name := range r.spec.Sources {
		one := &boot{source: name}
		key := bootstrapKey(r.id.Instance, r.id.Name, name)
		_, found, err := read(ctx, b, key, &one.record)
		if err != nil {
			return nil, err
		}
		if !found || one.record.SealedAt.IsZero() || one.record.Consumed || one.record.Pace == nil || one.record.Fingerprint != r.plan.Fingerprint() ||
			r.whole && len(one.record.Only) > 0 {
			continue
		}
		boots = append(boots, one)
	}
	if len(boots) < len(r.spec.Sources) && !partial(boots) {
		return nil, nil
	}
	if missing, err := r.openLogs(ctx); missing != nil || err != nil {
		return nil, err
	}
	return boots, nil
}

// begin makes an empty state live: the query starts with the changes from now on.
func (r *queryRun) begin(ctx context.Context) error {
	state := result.State{Positions: map[string]graph.Position{}, Offsets: map[string]uint64{}}
	progress := r.attempt.Progress
	for name, log := range r.logs {
		progress.SetDetail("waitsFor", "source "+name+", to send what the query reads")
		if err := r.host.awaitServed(ctx, r.id.Instance, name, r.id.Name, progress.Tick); err != nil {
			return err
		}
		progress.SetDetail("waitsFor", "")
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

// load fills the state from the bootstraps, and from the state before what they do not have, and makes it live. It goes on
// where an earlier attempt was interrupted.
func (r *queryRun) load(ctx context.Context, boots []*boot) error {
	progress := r.attempt.Progress
	progress.Set(func(s *Status) { s.Phase = "loading" })
	if r.query.Phase() != query.Live {
		if partial(boots) && r.old == nil {
			return &missedError{} // the rest went with the state before
		}
		state := result.State{Positions: map[string]graph.Position{}, Offsets: map[string]uint64{}}
		for _, name := range r.spec.Sources {
			load := r.loadOld
			if at := slices.IndexFunc(boots, func(b *boot) bool { return b.source == name }); at >= 0 {
				load = func(ctx context.Context, _ string) (token, error) { return r.loadSource(ctx, boots[at]) }
			}
			at, err := load(ctx, name)
			if err != nil {
				return err
			}
			state.Positions[name], state.Offsets[name] = at.Position, at.Offset
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
	err := failure.Guard(f)
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
	for _, one := range boots { // first: what is on record as not consumed must be there, whatever happens
		one.record.Consumed = true
		if _, err := write(ctx, b, bootstrapKey(r.id.Instance, r.id.Name, one.source), one.record); err != nil {
			return err
		}
	}
	for _, one := range boots { // what is left after an interruption, the next bootstrap removes
		if err := removeKeys(ctx, b, bootstrapKey(r.id.Instance, r.id.Name, one.source)+".scope"); err != nil {
			return err
		}
		if err := r.host.conn.DeleteLog(ctx, bootstrapLog(r.id.Instance, r.id.Name, one.source)); err != nil {
			return fmt.Errorf("deleting the bootstrap log: %w", err)
		}
	}
	return nil
}

// loadOld takes over all of one source from the state before. It returns where that ends.
func (r *queryRun) loadOld(ctx context.Context, source string) (token, error) {
	state := r.old.State()
	end := token{Stage: loaded, Offset: state.Offsets[source], Position: state.Positions[source]}
	if len(r.query.Token(source)) > 0 {
		return end, nil
	}
	return end, r.takeOver(ctx, source, end, nil)
}

// takeOver loads what the state before has of a source, but for elements with some labels.
func (r *queryRun) takeOver(ctx context.Context, source string, end token, but []string) error {
	err := ticking(ctx, r.attempt.Progress, func() error { return r.query.LoadFrom(r.old, source, end.bytes(), but) })
	if err != nil {
		return fmt.Errorf("loading what the state before has of source %s: %w", source, err)
	}
	return nil
}

// loadSource loads one source. It returns where that ends: not before the end of the state whose place this one takes, whose
// last events would be taken back otherwise.
func (r *queryRun) loadSource(ctx context.Context, b *boot) (token, error) {
	end := b.record.SealOffset
	if r.old != nil {
		last, err := r.changesEnd(ctx, b.source)
		if err != nil {
			return token{}, err
		}
		// A log that ends before is another one: the source was deleted and made anew.
		end = max(end, min(last, r.old.State().Offsets[b.source]))
	}
	at, err := r.loadUpTo(ctx, b, end)
	if err != nil || at.Stage == loaded {
		return at, err
	}
	at.Stage = loaded
	if err := r.query.Load(b.source, at.bytes(), nil); err != nil {
		return at, fmt.Errorf("loading the last of source %s: %w", b.source, err)
	}
	return at, nil
}

// loadUpTo loads first, if the copy is of some labels, the other elements of the state before; then the copied rows, then
// the changes since up to a message, except those that the copy contains. It returns where they end.
func (r *queryRun) loadUpTo(ctx context.Context, b *boot, end uint64) (token, error) {
	at, err := parseToken(r.query.Token(b.source))
	if err != nil {
		return at, err
	}
	since := b.record.From - 1
	if len(b.record.Only) > 0 {
		since = r.old.State().Offsets[b.source]
		if len(r.query.Token(b.source)) == 0 {
			if err := r.takeOver(ctx, b.source, at, b.record.Only); err != nil {
				return at, err
			}
		}
	}
	if at.Stage == loadingCopy {
		if err := r.loadCopy(ctx, b, at); err != nil {
			return at, err
		}
		at = token{Stage: loadingChanges, Offset: since, Position: b.record.Snapshot.Position}
	}
	if at.Stage == loadingChanges && at.Offset < end {
		return r.loadChanges(ctx, b, at, end)
	}
	return at, nil
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
	wanted, rows := make(map[copyOf]bool), int64(0)
	for _, s := range scopes {
		rows += s.rows()
		for i, c := range s.Chunks { // all are copied, or the bootstrap would not have been verified
			wanted[copyOf{hashOf(b.record.ID), s.generation, s.number, i, c.Attempt}] = true
		}
	}
	log, err := r.host.conn.OpenLog(ctx, bootstrapLog(r.id.Instance, r.id.Name, b.source))
	if errors.Is(err, stream.ErrMissing) || rows != b.record.Rows {
		return &missedError{} // what was copied is gone, or a part of it
	}
	if err != nil {
		return fmt.Errorf("opening the bootstrap log: %w", err)
	}
	reader, err := log.ReadTo(ctx, at.Offset+1, b.record.LastMessage)
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
			// A row is read with its relationships, also when some of them only are wanted.
			changes := slices.DeleteFunc(batch.Transactions[i].Changes, func(c graph.Change) bool { return !b.record.reads(c.Element.Labels) })
			if err := r.query.Load(b.source, at.bytes(), changes); err != nil {
				return fmt.Errorf("loading message %d of the bootstrap log: %w", m.Sequence, err)
			}
		}
		r.attempt.Progress.Tick()
	}
	return nil
}

// loadChanges applies the changes up to a message. It returns where that ends.
func (r *queryRun) loadChanges(ctx context.Context, b *boot, at token, end uint64) (token, error) {
	// The snapshot was taken after the place to begin was chosen, so it has the transaction within which that may be.
	anew := at.Offset+1 == b.record.From
	err := r.feed(b.source, anew).run(ctx, at.Offset+1, func(m message) error {
		r.attempt.Progress.Tick()
		if err := r.fits(m, b.record.position); err != nil {
			return b.again(err)
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
		if m.sequence >= end {
			return errLoaded
		}
		return nil
	})
	if !errors.Is(err, errLoaded) {
		return at, err
	}
	return at, nil
}

// again has the bootstrap that is needed after this one, if changes are lost that it cannot make up for, read what this one
// does, too: nothing of it is live.
func (b *boot) again(err error) error {
	if lost := lossOf(err); lost != nil && lost.missing != nil {
		if len(b.record.Only) == 0 {
			lost.missing = nil
		} else {
			lost.missing.add(b.record.Only)
		}
	}
	return err
}

var errLoaded = errors.New("loaded")
