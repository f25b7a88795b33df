package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/stream"
)

// RemoveOrphans removes the state on this host that no query will use any more: of queries that were deleted, or built
// their state anew elsewhere, while this host was away. It may be called while queries run. Where no record tells whose
// a state is, exists is asked whether there is such a query: a host that is connected to the wrong servers must not
// lose what it has.
func (h *Host) RemoveOrphans(ctx context.Context, exists func(context.Context, component.ID) (bool, error)) error {
	if durable, ok := h.index.(index.Durable); ok {
		if err := durable.Clean(); err != nil {
			return err
		}
	}
	// In this order: a store is on record before it is created.
	stores, err := h.index.Names()
	if err != nil || len(stores) == 0 {
		return err
	}
	records, err := h.bucket(ctx, queriesBucket)
	if err != nil {
		return err
	}
	for _, store := range stores {
		orphan, err := isOrphan(ctx, records, store, exists)
		if err != nil {
			return fmt.Errorf("looking for the owner of index %s: %w", store, err)
		}
		if !orphan {
			continue
		}
		switch err := h.index.Remove(store); {
		case failure.CodeOf(err) == failure.IndexLocked: // an attempt that was shut out has yet to notice
		case err != nil:
			return fmt.Errorf("removing index %s: %w", store, err)
		default:
			h.log.Info("removed the state of a query that is gone", zap.String("index", store))
		}
	}
	return nil
}

func isOrphan(ctx context.Context, records *stream.Bucket, store string, exists func(context.Context, component.ID) (bool, error)) (bool, error) {
	part := strings.Split(store, "/")
	if len(part) != 3 || !component.ValidName(part[0]) || !component.ValidName(part[1]) {
		return false, nil // not one of ours
	}
	id := component.ID{Kind: component.Query, Instance: part[0], Name: part[1]}
	var record queryRecord
	_, found, err := read(ctx, records, id.Instance+"."+id.Name, &record)
	if err != nil || found {
		return err == nil && !slices.Contains(record.stores(), store), err
	}
	there, err := exists(ctx, id)
	return !there, err
}
