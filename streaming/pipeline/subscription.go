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

// releaseBootstrap removes what held on to changes for the bootstrap of a source, unless there is one that is not used up.
func (r *queryRun) releaseBootstrap(ctx context.Context, source string) error {
	boots, err := r.host.bucket(ctx, bootstrapBucket)
	if err != nil {
		return err
	}
	var record bootstrapRecord
	_, found, err := read(ctx, boots, bootstrapKey(r.id.Instance, r.id.Name, source), &record)
	if err != nil || found && !record.Consumed {
		return err
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

// forget removes what the query has of bootstraps that nobody will use, and of sources that neither this state reads nor the
// one that is to come: of the last state, or of one that is not to come any more. It comes before anything is asked for.
func (r *queryRun) forget(ctx context.Context) error {
	if err := r.fence.Check(ctx); err != nil { // a newer attempt may ask for others
		return err
	}
	reads := r.spec.Sources
	if r.next != nil {
		reads = slices.Concat(reads, r.next.spec.Sources)
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
		source, scope, _ := strings.Cut(strings.TrimPrefix(key, r.key()+"."), ".")
		switch {
		case !slices.Contains(reads, source):
			err = r.host.conn.DeleteLog(ctx, bootstrapLog(r.id.Instance, r.id.Name, source))
			if err == nil {
				err = boots.Delete(ctx, key)
			}
			if errors.Is(err, stream.ErrMissing) {
				err = nil
			}
		case scope == "":
			err = r.forgetBootstrap(ctx, boots, source)
		}
		if err != nil {
			return fmt.Errorf("removing bootstrap %s: %w", key, err)
		}
	}
	return r.host.unsubscribe(ctx, r.id, reads)
}

// forgetBootstrap removes a bootstrap that is sealed and of another question than this attempt asks, or that the state has
// already: what put that down was cut off.
func (r *queryRun) forgetBootstrap(ctx context.Context, boots *stream.Bucket, source string) error {
	var record bootstrapRecord
	_, found, err := read(ctx, boots, bootstrapKey(r.id.Instance, r.id.Name, source), &record)
	if err != nil || !found || record.Consumed || record.SealedAt.IsZero() {
		return err
	}
	asked := record.Fingerprint == r.plan.Fingerprint() || r.next != nil && record.Fingerprint == r.next.plan.Fingerprint()
	if asked && !slices.Contains(r.built, record.ID) {
		return nil
	}
	return r.host.AbandonBootstrap(ctx, BootstrapRef{ID: record.ID, Instance: r.id.Instance, Query: r.id.Name, Source: source})
}

func subscriptionKey(instance, source, query string) string {
	return instance + "." + source + "." + query
}
