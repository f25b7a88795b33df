package stream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/perdure/perdure/streaming/failure"
)

// Epoch orders the attempts at running a component.
type Epoch struct {
	Generation uint64
	Started    int64 // Unix nanoseconds of the attempt's start by the control plane's clock
}

// Compare orders epochs: -1, 0 or +1.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(cmp.Compare(e.Generation, o.Generation), cmp.Compare(e.Started, o.Started))
}

// String returns "generation.started".
func (e Epoch) String() string {
	return strconv.FormatUint(e.Generation, 10) + "." + strconv.FormatInt(e.Started, 10)
}

// Fence is an attempt's claim to a component: newer attempts take it away.
type Fence struct {
	conn      *Conn
	component string
	record    fenceRecord
}

// fenceRecord is what the bucket holds of a component.
type fenceRecord struct {
	Generation uint64 `json:"generation"`
	Started    int64  `json:"started"`
	Holder     string `json:"holder"` // "" when an epoch was shut out
}

func (r fenceRecord) epoch() Epoch { return Epoch{r.Generation, r.Started} }

// Acquire claims a component for an attempt. It fails with FencedOff when a newer attempt has claimed it, or another
// holder has with the same epoch, or the epoch was shut out. The holder is the worker's identity, not empty.
func (c *Conn) Acquire(ctx context.Context, component string, e Epoch, holder string) (*Fence, error) {
	if holder == "" {
		return nil, failure.Panic.Errorf("claiming %s: a holder must be given", component)
	}
	record := fenceRecord{e.Generation, e.Started, holder}
	if err := c.raiseFence(ctx, component, record); err != nil {
		return nil, err
	}
	return &Fence{conn: c, component: component, record: record}, nil
}

// BumpFence shuts out the attempts at or below an epoch, which is that of an attempt given up or any up to the next
// attempt's: those can neither claim the component any more nor pass Check. Where a newer attempt has claimed it
// already it does nothing.
func (c *Conn) BumpFence(ctx context.Context, component string, e Epoch) error {
	err := c.raiseFence(ctx, component, fenceRecord{e.Generation, e.Started, ""})
	if failure.CodeOf(err) == failure.FencedOff {
		return nil
	}
	return err
}

// raiseFence stores the record unless a stronger one is there: a later epoch, or the same with another holder. Shutting
// out, which has no holder, is stronger than any holder of the same epoch.
func (c *Conn) raiseFence(ctx context.Context, component string, record fenceRecord) error {
	bucket, err := c.fenceBucket(ctx)
	if err != nil {
		return err
	}
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encoding fence: %w", err)
	}
	for {
		entry, err := bucket.Get(ctx, component)
		switch {
		case errors.Is(err, ErrMissing):
			_, err = bucket.Create(ctx, component, value)
		case err != nil:
			return fmt.Errorf("claiming %s: %w", component, err)
		default:
			var stored fenceRecord
			if stored, err = decodeFence(component, entry.Value); err != nil {
				return err
			}
			if stored == record {
				return nil
			}
			if !record.beats(stored) {
				return fenced(component, record, stored)
			}
			_, err = bucket.Update(ctx, component, value, entry.Revision)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrConflict) { // otherwise somebody was quicker: look again
			return fmt.Errorf("claiming %s: %w", component, err)
		}
	}
}

func (r fenceRecord) beats(stored fenceRecord) bool {
	c := r.epoch().Compare(stored.epoch())
	return c > 0 || c == 0 && r.Holder == ""
}

func decodeFence(component string, value []byte) (fenceRecord, error) {
	var r fenceRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return r, failure.StateCorrupt.Errorf("decoding fence of %s: %w", component, err)
	}
	return r, nil
}

func fenced(component string, mine, theirs fenceRecord) error {
	return failure.FencedOff.Errorf("attempt %s at %s gives way to %s", mine.epoch(), component, theirs.epoch()).
		WithDetail("holder", theirs.Holder)
}

// fenceBucket opens the bucket when it is first used, by several at once if need be: the lock is not held meanwhile.
func (c *Conn) fenceBucket(ctx context.Context) (*Bucket, error) {
	c.mu.Lock()
	bucket := c.fences
	c.mu.Unlock()
	if bucket != nil {
		return bucket, nil
	}
	bucket, err := c.Bucket(ctx, BucketOptions{Name: "fences"})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.fences = bucket
	c.mu.Unlock()
	return bucket, nil
}

// Epoch returns the epoch of the claim.
func (f *Fence) Epoch() Epoch { return f.record.epoch() }

// Check fails with FencedOff when the claim is not the newest any more. It is a look at this moment only: what keeps an
// old attempt out of a log is its Writer.
func (f *Fence) Check(ctx context.Context) error {
	bucket, err := f.conn.fenceBucket(ctx)
	if err != nil {
		return err
	}
	entry, err := bucket.Get(ctx, f.component)
	if errors.Is(err, ErrMissing) {
		return failure.FencedOff.Errorf("the claim of attempt %s to %s is gone", f.Epoch(), f.component)
	}
	if err != nil {
		return fmt.Errorf("checking the claim to %s: %w", f.component, err)
	}
	stored, err := decodeFence(f.component, entry.Value)
	if err != nil {
		return err
	}
	if stored != f.record {
		return fenced(f.component, f.record, stored)
	}
	return nil
}
