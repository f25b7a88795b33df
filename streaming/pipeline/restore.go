package pipeline

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/stream"
)

// restoredSuffix begins what a store that is restored under another name has behind the name that it had first.
const restoredSuffix = "-restored"

// resume opens the state that is on record: what is on this disk, or else what a checkpoint of it holds. Which of the two
// is further along decides, as the query may have run elsewhere in between; the rest comes from the change logs. It
// returns nil when there is neither.
func (r *queryRun) resume(ctx context.Context, records *stream.Bucket, current *queryRecord) (*query.Query, error) {
	r.store, r.base, r.schemas = current.Store, current.Base, current.Schemas
	var kept []checkpoint
	if r.checkpoints != nil {
		kept = r.checkpoints.of(current.Store)
	}
	q, cause, err := r.openSound(ctx, r.plan, current.Store, query.Live)
	switch {
	case err != nil:
		return nil, err
	case q != nil && (len(kept) == 0 || !behind(q, kept[0])):
		return q, nil
	case q != nil:
		cause = errors.New("the state on this host is older than the checkpoint")
		if err := q.Close(); err != nil {
			return nil, fmt.Errorf("closing the index: %w", err)
		}
	case cause == nil && r.cause != nil: // the attempt has removed it
		cause = r.cause
	case cause == nil:
		cause = errors.New("there is no state on this host")
	}
	for _, from := range kept {
		q, err := r.restore(ctx, records, current, from)
		if failure.CodeOf(err) == failure.StateCorrupt || errors.Is(err, query.ErrFingerprint) {
			r.host.logFor(r.id).Warn("a checkpoint of the query's state cannot be used", zap.Time("at", from.At), zap.Error(err))
			cause = err
			if err := r.checkpoints.drop(ctx, from); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		r.restored(from, cause)
		return q, nil
	}
	// What is behind all checkpoints, of which none can be read, is still better than nothing.
	q, _, err = r.openSound(ctx, r.plan, current.Store, query.Live)
	return q, err
}

// behind reports whether a checkpoint has changes that a state has not.
func behind(q *query.Query, c checkpoint) bool {
	offsets := q.State().Offsets
	for source, offset := range c.Offsets {
		if offsets[source] < offset {
			return true
		}
	}
	return false
}

// openSound is openStore for a state that others can take the place of: one that is damaged is removed, and why is
// returned as its cause.
func (r *queryRun) openSound(ctx context.Context, plan *query.Plan, name string, least query.Phase) (q *query.Query, cause, err error) {
	q, err = r.openStore(ctx, plan, name, least)
	if failure.CodeOf(err) != failure.StateCorrupt {
		return q, nil, err
	}
	r.host.logFor(r.id).Error("the query's state on this host is damaged and removed", zap.String("store", name), zap.Error(err))
	if removeErr := r.host.index.Remove(name); removeErr != nil {
		return nil, nil, fmt.Errorf("removing a damaged index: %w", removeErr)
	}
	return nil, err, nil
}

// restore puts a checkpoint in the place of the state on this host and opens it.
//
// With one source, the changes after it lead to the very events that followed it, of which those that are published are
// not published again. With several, the order in which their changes were taken is lost with the index: see rejoin. Then
// it gets a store of another name, so that it is never taken for what it was restored from.
func (r *queryRun) restore(ctx context.Context, records *stream.Bucket, current *queryRecord, from checkpoint) (*query.Query, error) {
	if from.Format != checkpointFormat {
		return nil, failure.StateCorrupt.Errorf("the checkpoint has format %d, not %d", from.Format, checkpointFormat)
	}
	if from.Fingerprint != r.plan.Fingerprint() {
		return nil, fmt.Errorf("restoring the checkpoint: %w", query.ErrFingerprint)
	}
	r.attempt.Progress.Set(func(s *Status) { s.Phase = "restoring" })
	name, several := current.Store, len(r.spec.Sources) > 1
	if several {
		name = r.restoredName(name)
		if err := r.setNext(ctx, records, current, name); err != nil {
			return nil, err
		}
	}
	durable := r.host.index.(index.Durable) //nolint:forcetypeassert // or there would be no checkpoints
	err := durable.Restore(name, from.Bytes, func(dir string) error { return r.download(ctx, from, dir) })
	if err != nil {
		return nil, err
	}
	q, err := r.openStore(ctx, r.plan, name, query.Live)
	if err != nil {
		return nil, err
	}
	if q == nil {
		return nil, failure.StateCorrupt.Errorf("the checkpoint holds no state of the query")
	}
	if s := q.State(); s.Sequence+current.Base != from.Sequence || !maps.Equal(s.Offsets, from.Offsets) {
		return nil, errors.Join(failure.StateCorrupt.Errorf("the checkpoint is at event %d, not at %d", s.Sequence+current.Base, from.Sequence), q.Close())
	}
	if several {
		base, err := r.rejoin(ctx, q, from, current.Base)
		if err == nil {
			err = r.rename(ctx, records, current, from, q, base)
		}
		if err != nil {
			return nil, errors.Join(err, q.Close())
		}
	}
	return q, nil
}

// restoredName returns the name of a store that no other restore gives.
func (r *queryRun) restoredName(store string) string {
	at := strings.LastIndex(store, "/") + 1
	first, _, _ := strings.Cut(store[at:], restoredSuffix)
	return r.ownName(store[:at]+first+restoredSuffix) + "-" + strings.ToLower(rand.Text()[:6])
}

// rename puts a restored state, which is the next one on record, in the place of what it was restored from: with the same
// checkpoint, or as one that begins anew, which is what another base means.
func (r *queryRun) rename(ctx context.Context, records *stream.Bucket, current *queryRecord, from checkpoint, q *query.Query, base uint64) error {
	if err := q.Sync(); err != nil {
		return fmt.Errorf("syncing the index: %w", err)
	}
	if base == current.Base {
		from.Store = current.Next
		err := r.checkpoints.change(ctx, func(record *checkpointRecord) {
			record.Checkpoints = append([]checkpoint{from}, record.Checkpoints...)
		})
		if err != nil {
			return err
		}
	}
	before := current.Store
	current.Store, current.Next, current.Base = current.Next, "", base
	if err := r.put(ctx, records, *current); err != nil {
		return err
	}
	r.store, r.base = current.Store, current.Base
	if err := r.host.index.Remove(before); err != nil {
		return fmt.Errorf("removing the index that was restored: %w", err)
	}
	return nil
}

// download writes the files of a checkpoint into a directory.
func (r *queryRun) download(ctx context.Context, from checkpoint, dir string) error {
	files, err := r.checkpoints.list(ctx, from)
	if err != nil {
		return err
	}
	for _, stored := range files {
		if stored.Name != filepath.Base(stored.Name) || stored.Name == ".." || stored.Name == "." {
			return failure.StateCorrupt.Errorf("the checkpoint has a file of the name %q", stored.Name)
		}
		f, err := os.OpenFile(filepath.Join(dir, stored.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // it is in dir
		if err != nil {
			return fmt.Errorf("creating a file of a checkpoint: %w", err)
		}
		for _, p := range stored.Parts {
			var data []byte
			if data, err = fetch(ctx, r.checkpoints.objects, p); err == nil {
				_, err = f.Write(data)
			}
			if err != nil {
				break
			}
			r.attempt.Progress.Tick()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("writing %s of a checkpoint: %w", stored.Name, err)
		}
	}
	return nil
}

// restored says that a checkpoint has taken the place of the state that was on this host, and why.
func (r *queryRun) restored(from checkpoint, cause error) {
	r.metrics.Restores.Inc()
	say := r.host.logFor(r.id).Warn
	if r.checkpoints.ended() == from.Files.Object { // it only moved here
		say = r.host.logFor(r.id).Info
	}
	say("the query's state was restored from a checkpoint",
		zap.Time("at", from.At), zap.Uint64("sequence", from.Sequence), zap.Int64("bytes", from.Bytes), zap.NamedError("cause", cause))
	r.attempt.Progress.SetDetail("restored", "from the checkpoint of "+from.At.Format("2006-01-02T15:04:05Z07:00")+": "+cause.Error())
}

// drop takes a checkpoint that cannot be used out of the record.
func (c *checkpointer) drop(ctx context.Context, bad checkpoint) error {
	return c.change(ctx, func(record *checkpointRecord) {
		record.Checkpoints = slices.DeleteFunc(record.Checkpoints, func(one checkpoint) bool { return one.Files.Object == bad.Files.Object })
	})
}

// removeCheckpoints removes all checkpoints of a query.
func (h *Host) removeCheckpoints(ctx context.Context, id component.ID) error {
	b, err := h.bucket(ctx, checkpointsBucket)
	if err != nil {
		return err
	}
	if err := removeKeys(ctx, b, id.Instance+"."+id.Name); err != nil {
		return err
	}
	if err := h.conn.DeleteObjects(ctx, checkpointObjects(id.Instance, id.Name)); err != nil {
		return fmt.Errorf("deleting the checkpoints: %w", err)
	}
	return nil
}
