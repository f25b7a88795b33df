package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// subscription is the value of bucket subscriptions.
type subscription struct {
	Offset   uint64 `json:"offset"`             // messages up to it are no longer needed
	Sequence uint64 `json:"sequence,omitempty"` // of the query's last event then
}

// bootstrapSuffix ends the key of the subscription that holds on to changes for a bootstrap.
const bootstrapSuffix = ".bootstrap"

// keep tells the sources what is no longer needed, and stops the attempt when a newer one took over.
func (r *queryRun) keep(ctx context.Context, synced <-chan result.State) error {
	beat := time.NewTicker(fenceEvery)
	defer beat.Stop()
	told := make(map[string]subscription)
	var newest *result.State
	healthy := time.Now()
	for {
		var err error
		select {
		case state := <-synced:
			newest = &state
		case <-beat.C:
			err = r.fence.Check(ctx)
		case <-ctx.Done():
			return nil
		}
		if err == nil && newest != nil { // at each beat: what failed is told again, and what checkpoints need moves by itself
			err = r.tell(ctx, *newest, told)
		}
		if err == nil {
			healthy = time.Now()
		} else if ctx.Err() == nil && (!failure.ClassOf(err).Retryable() || time.Since(healthy) > patience) {
			return err
		}
	}
}

func (r *queryRun) tell(ctx context.Context, state result.State, told map[string]subscription) error {
	b, err := r.host.bucket(ctx, subscriptionsBucket)
	if err != nil {
		return err
	}
	for name := range r.logs {
		now := subscription{Offset: r.checkpoints.needed(name, state.Offsets[name]), Sequence: state.Sequence}
		if last, ok := told[name]; ok && last == now {
			continue
		}
		key := subscriptionKey(r.id.Instance, name, r.id.Name)
		if _, err := write(ctx, b, key, now); err != nil {
			return err
		}
		if _, ok := told[name]; !ok { // from here on the query holds on to what it needs by itself
			if err := r.releaseBootstrap(ctx, name); err != nil {
				return err
			}
		}
		told[name] = now
	}
	return nil
}

// releaseBootstrap removes what held on to changes for the bootstrap of a source, unless one is under way. One that is
// sealed and of another question than this attempt asks, or that the state has already, nobody will use.
func (r *queryRun) releaseBootstrap(ctx context.Context, source string) error {
	boots, err := r.host.bucket(ctx, bootstrapBucket)
	if err != nil {
		return err
	}
	var record bootstrapRecord
	_, found, err := read(ctx, boots, bootstrapKey(r.id.Instance, r.id.Name, source), &record)
	if err != nil {
		return err
	}
	if found && !record.Consumed {
		asked := record.Fingerprint == r.plan.Fingerprint() || r.next != nil && record.Fingerprint == r.next.plan.Fingerprint()
		asked = asked && !slices.Contains(r.built, record.ID) // it was cut off while it put down that they are used up
		if record.SealedAt.IsZero() || asked {
			return nil
		}
		if err := r.fence.Check(ctx); err != nil { // a newer attempt may ask it
			return err
		}
		return r.host.AbandonBootstrap(ctx, BootstrapRef{ID: record.ID, Instance: r.id.Instance, Query: r.id.Name, Source: source})
	}
	subscriptions, err := r.host.bucket(ctx, subscriptionsBucket)
	if err != nil {
		return err
	}
	err = subscriptions.Delete(ctx, subscriptionKey(r.id.Instance, source, r.id.Name)+bootstrapSuffix)
	if err != nil && !errors.Is(err, stream.ErrMissing) {
		return fmt.Errorf("deleting the subscription of the bootstrap: %w", err)
	}
	return r.host.unwant(ctx, r.id.Instance, source, r.id.Name+bootstrapSuffix)
}

// forgetSources removes what the query has of sources that neither this state reads nor the one that is to come: of the last
// state, or of one that is not to come any more.
func (r *queryRun) forgetSources(ctx context.Context) error {
	read := r.spec.Sources
	if r.next != nil {
		read = slices.Concat(read, r.next.spec.Sources)
	}
	if err := r.fence.Check(ctx); err != nil { // a newer attempt may read others
		return err
	}
	boots, err := r.host.bucket(ctx, bootstrapBucket)
	if err != nil {
		return err
	}
	keys, err := boots.Keys(ctx, r.key()+".")
	if err != nil {
		return fmt.Errorf("listing the bootstraps: %w", err)
	}
	for _, key := range keys {
		source, _, _ := strings.Cut(strings.TrimPrefix(key, r.key()+"."), ".")
		if slices.Contains(read, source) {
			continue
		}
		if err := r.host.conn.DeleteLog(ctx, bootstrapLog(r.id.Instance, r.id.Name, source)); err != nil {
			return fmt.Errorf("deleting the bootstrap log: %w", err)
		}
		if err := boots.Delete(ctx, key); err != nil && !errors.Is(err, stream.ErrMissing) {
			return fmt.Errorf("deleting %s: %w", key, err)
		}
	}
	return r.host.unsubscribe(ctx, r.id, read)
}

func subscriptionKey(instance, source, query string) string {
	return instance + "." + source + "." + query
}
