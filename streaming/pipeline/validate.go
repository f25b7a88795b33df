package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// ValidateSource checks a source's spec without touching anything but the secrets it refers to.
func (h *Host) ValidateSource(_ context.Context, spec component.SourceSpec) error {
	return failure.Guard(func() error {
		_, err := h.newSource(spec, 0)
		return err
	})
}

// ValidateQuery compiles a query.
func (h *Host) ValidateQuery(_ context.Context, spec component.QuerySpec) error {
	return failure.Guard(func() error {
		_, err := compile(spec)
		return err
	})
}

// ValidateReaction checks a reaction's spec without touching anything but the secrets it refers to.
func (h *Host) ValidateReaction(ctx context.Context, spec component.ReactionSpec) error {
	return failure.Guard(func() error {
		re, err := h.newReaction(spec, 0)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		return re.Close(ctx)
	})
}

// TeardownQuery removes everything that a query keeps: its results, its state on this host, its subscriptions and what
// is left of its bootstraps.
func (h *Host) TeardownQuery(ctx context.Context, spec component.QuerySpec) error {
	id := spec.ID()
	records, err := h.bucket(ctx, queriesBucket)
	if err != nil {
		return err
	}
	key := id.Instance + "." + id.Name
	var record queryRecord
	if _, found, err := read(ctx, records, key, &record); err != nil {
		return err
	} else if found {
		for _, store := range record.stores() {
			if err := h.index.Remove(store); err != nil {
				return fmt.Errorf("removing the index: %w", err)
			}
		}
	}
	if err := h.conn.DeleteLog(ctx, resultLog(id.Instance, id.Name)); err != nil {
		return fmt.Errorf("deleting the result log: %w", err)
	}
	if err := h.removeCheckpoints(ctx, id); err != nil {
		return err
	}
	boots, err := h.bucket(ctx, bootstrapBucket)
	if err != nil {
		return err
	}
	if err := removeKeys(ctx, boots, key); err != nil {
		return err
	}
	logs, err := h.conn.LogNames(ctx, bootstrapLog(id.Instance, id.Name, "")) // of sources that it no longer reads too
	if err != nil {
		return fmt.Errorf("listing the bootstrap logs: %w", err)
	}
	for _, log := range logs {
		if err := h.conn.DeleteLog(ctx, log); err != nil {
			return fmt.Errorf("deleting the bootstrap log: %w", err)
		}
	}
	if err := h.unsubscribe(ctx, id, nil); err != nil {
		return err
	}
	if err := removeKeys(ctx, records, key); err != nil {
		return err
	}
	return h.unfence(ctx, id)
}

// subscriptionsOf returns the keys of a query's subscriptions, by source.
func subscriptionsOf(ctx context.Context, b *stream.Bucket, id component.ID) (map[string][]string, error) {
	keys, err := b.Keys(ctx, id.Instance+".")
	if err != nil {
		return nil, fmt.Errorf("listing subscriptions: %w", err)
	}
	bySource := make(map[string][]string)
	for _, key := range keys {
		part := strings.Split(key, ".") // instance, source, query and perhaps a suffix
		if len(part) >= 3 && part[2] == id.Name {
			bySource[part[1]] = append(bySource[part[1]], key)
		}
	}
	return bySource, nil
}

// unsubscribe removes a query's subscriptions except those of the sources to keep.
func (h *Host) unsubscribe(ctx context.Context, id component.ID, keep []string) error {
	b, err := h.bucket(ctx, subscriptionsBucket)
	if err != nil {
		return err
	}
	bySource, err := subscriptionsOf(ctx, b, id)
	if err != nil {
		return err
	}
	for source, keys := range bySource {
		if slices.Contains(keep, source) {
			continue
		}
		for _, key := range keys {
			if err := b.Delete(ctx, key); err != nil {
				return fmt.Errorf("deleting subscription %s: %w", key, err)
			}
		}
	}
	return h.unwantAll(ctx, id, keep)
}
