package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// A checkpoint is a copy of a query's state on the stream server: the files of its index, cut into parts that are objects
// named by their content. Most files never change, so the next checkpoint shares their parts. A record in bucket
// checkpoints names the newest ones, and is written last.
const (
	checkpointFormat = 1
	// checkpointsKept is how many are kept: when the newest cannot be read, there is the one before.
	checkpointsKept = 2
	// checkpointChanges is after how many bytes of changes, or which part of what a change log may hold, there is a
	// checkpoint before its time: what comes after the oldest is kept in the change logs.
	checkpointChanges      = 256 << 20
	checkpointLogFraction  = 4
	checkpointShort        = 10 * time.Second // between two while the stream server is short of space
	checkpointRetry        = 30 * time.Second // after one that failed
	checkpointOnStopWithin = 3 * time.Second
	// uploadRate bounds, in bytes per second, how much of the server and the disk an upload takes from the queries.
	uploadRate = 64 << 20
)

// checkpointRecord is the value of bucket checkpoints.
type checkpointRecord struct {
	Owner       stream.Epoch `json:"owner"` // the newest attempt that ran the query
	Checkpoints []checkpoint `json:"checkpoints,omitempty"`
	// Ended is the object of the checkpoint that has all there was when the query ended in good order; empty once it went on.
	Ended string `json:"ended,omitempty"`
}

// checkpoint says where one is and what it is of. The newest is the first in the record.
type checkpoint struct {
	Format      int               `json:"format"`
	Store       string            `json:"store"`
	Fingerprint string            `json:"fingerprint"`
	Sequence    uint64            `json:"sequence"` // of the last event, as others know it
	Offsets     map[string]uint64 `json:"offsets"`  // by source: last message that is contained
	At          time.Time         `json:"at"`
	Bytes       int64             `json:"bytes"`
	Files       piece             `json:"files"` // a list of storedFile
}

// storedFile is a file of a checkpoint.
type storedFile struct {
	Name  string  `json:"name"`
	Parts []piece `json:"parts,omitempty"`
}

// piece is a part of a file: an object.
type piece struct {
	Object string `json:"object"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

// moved reports whether a state has changes that the checkpoint has not.
func (c *checkpoint) moved(s result.State) bool { return !maps.Equal(c.Offsets, s.Offsets) }

// checkpointer makes the checkpoints of one attempt. Its methods are for the goroutine that applies changes, except where
// they say otherwise. A nil one makes none.
type checkpointer struct {
	run     *queryRun
	log     *zap.Logger
	every   time.Duration
	changes int // bytes of changes after which there is one before its time
	bucket  *stream.Bucket
	objects *stream.Objects
	key     string
	made    chan madeCheckpoint

	since int // bytes of changes since the last one began

	// Of run's goroutine.
	fixed map[string]storedFile   // files that do not change, as they were stored
	lists map[string][]storedFile // of the checkpoints that are kept, by object

	mu     sync.Mutex
	record checkpointRecord
	making *checkpoint   // being stored
	idle   chan struct{} // closed when it is not any more
	next   time.Time     // when the next may begin, after one that failed
}

// madeCheckpoint is one that is to be stored.
type madeCheckpoint struct {
	checkpoint
	files *index.Checkpoint
}

// openCheckpoints claims the checkpoints of the query for the attempt, so that no older one adds to them any more. It
// returns nil when the index keeps no files.
func (r *queryRun) openCheckpoints(ctx context.Context) (*checkpointer, error) {
	if _, ok := r.host.index.(index.Durable); !ok {
		return nil, nil
	}
	c := &checkpointer{
		run: r, log: r.host.logFor(r.id), every: time.Duration(r.spec.Checkpoint.Seconds) * time.Second,
		changes: checkpointChanges, key: r.key(), made: make(chan madeCheckpoint, 1),
		fixed: make(map[string]storedFile), lists: make(map[string][]storedFile),
	}
	if c.every == 0 {
		c.every = 5 * time.Minute
	}
	var err error
	if c.bucket, err = r.host.bucket(ctx, checkpointsBucket); err != nil {
		return nil, err
	}
	c.objects, err = r.host.conn.Objects(ctx, checkpointObjects(r.id.Instance, r.id.Name), "checkpoints of "+r.id.String())
	if err != nil {
		return nil, fmt.Errorf("opening the checkpoints: %w", err)
	}
	if err := c.change(ctx, func(*checkpointRecord) {}); err != nil {
		return nil, err
	}
	// What an older attempt may still be storing does not get into the record any more.
	if err := c.objects.Clean(ctx); err != nil {
		return nil, fmt.Errorf("cleaning the checkpoints: %w", err)
	}
	return c, nil
}

// fit has checkpoints come often enough for the bounds of the change logs.
func (c *checkpointer) fit(ctx context.Context) error {
	if c == nil {
		return nil
	}
	for _, log := range c.run.logs {
		state, err := log.State(ctx)
		if err != nil {
			return fmt.Errorf("asking for the bounds of a change log: %w", err)
		}
		if state.MaxBytes > 0 {
			c.changes = int(min(uint64(c.changes), state.MaxBytes/checkpointLogFraction)) //nolint:gosec // it is no larger than the constant
		}
	}
	return nil
}

// change changes the record, unless a newer attempt has claimed it.
func (c *checkpointer) change(ctx context.Context, change func(*checkpointRecord)) error {
	mine := c.run.attempt.Epoch
	for {
		var record checkpointRecord
		revision, _, err := read(ctx, c.bucket, c.key, &record)
		if err != nil {
			return err
		}
		if record.Owner.Compare(mine) > 0 {
			return failure.FencedOff.Errorf("attempt %s has taken over the checkpoints of %s", record.Owner, c.key)
		}
		record.Owner = mine
		change(&record)
		_, err = replace(ctx, c.bucket, c.key, record, revision)
		if errors.Is(err, stream.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.record = record
		c.mu.Unlock()
		return nil
	}
}

// of returns the checkpoints of a store, the newest first. It is safe for concurrent use.
func (c *checkpointer) of(store string) []checkpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.of(store)
}

func (r *checkpointRecord) of(store string) []checkpoint {
	var list []checkpoint
	for _, one := range r.Checkpoints {
		if one.Store == store {
			list = append(list, one)
		}
	}
	return list
}

// needed returns up to which message of a source nothing is needed any more, neither by the query, which has got to
// offset, nor by whoever restores it. While the stream server is short of space, that has to do with the newest checkpoint:
// a source that waits for room sends nothing that would have the older ones replaced. It is safe for concurrent use.
func (c *checkpointer) needed(source string, offset uint64) uint64 {
	if c == nil {
		return offset
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.record.of(c.run.store) {
		offset = min(offset, one.Offsets[source])
		if c.run.host.conn.ShortOfSpace() {
			break
		}
	}
	if c.making != nil {
		offset = min(offset, c.making.Offsets[source])
	}
	return offset
}

// ifDue begins a checkpoint when it is time.
func (c *checkpointer) ifDue() error {
	if c == nil {
		return nil
	}
	kept := c.of(c.run.store)
	var newest checkpoint
	if len(kept) > 0 {
		newest = kept[0]
	}
	c.run.metrics.Checkpoint(newest.At, newest.Bytes)
	if len(kept) > 0 && !c.due(time.Since(newest.At).Abs()) || c.waits() { // clocks differ
		return nil
	}
	_, err := c.begin()
	return err
}

// due reports whether there is to be a checkpoint when the newest has an age: one that lets change logs be trimmed is
// wanted early where that is what everybody waits for.
func (c *checkpointer) due(age time.Duration) bool {
	return age >= c.every || c.since >= c.changes || age >= checkpointShort && c.run.host.conn.ShortOfSpace()
}

// took counts bytes of changes.
func (c *checkpointer) took(bytes int) {
	if c != nil {
		c.since += bytes
	}
}

// waits reports whether one has failed lately.
func (c *checkpointer) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.next)
}

// onStop has what was applied in a checkpoint before the attempt ends in good order, and puts down that this is all. It
// does without when that takes long: the last one and the change log are enough.
func (c *checkpointer) onStop(ctx context.Context) error {
	if c == nil {
		return nil
	}
	if err := c.storeLast(ctx); err != nil {
		return err
	}
	state, kept := c.run.state(), c.of(c.run.store)
	if len(kept) == 0 || kept[0].moved(state) || kept[0].Sequence != state.Sequence {
		return nil
	}
	return c.end(ctx, kept[0].Files.Object)
}

// ended returns the object of the checkpoint that has all there was when the query ended; "" when none has. It is safe for
// concurrent use.
func (c *checkpointer) ended() string {
	if c == nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Ended
}

// end puts down with which checkpoint the query ended, or that it goes on.
func (c *checkpointer) end(ctx context.Context, with string) error {
	if c.ended() == with {
		return nil
	}
	return c.change(ctx, func(record *checkpointRecord) { record.Ended = with })
}

// storeLast makes the last checkpoint, after what is under way.
func (c *checkpointer) storeLast(ctx context.Context) error {
	late := time.NewTimer(checkpointOnStopWithin)
	defer late.Stop()
	for {
		c.mu.Lock()
		idle := c.idle
		c.mu.Unlock()
		if idle == nil {
			begun, err := c.begin()
			if err != nil || !begun {
				return err
			}
			continue
		}
		select {
		case <-idle:
		case <-late.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if c.waits() {
			return nil
		}
	}
}

// begin copies the files of the index and leaves the rest to run. It reports false when there is nothing to do.
func (c *checkpointer) begin() (bool, error) {
	r := c.run
	state := r.state()
	if kept := c.of(r.store); len(kept) > 0 && !kept[0].moved(state) {
		return false, nil
	}
	c.mu.Lock()
	busy := c.idle != nil
	c.mu.Unlock()
	if busy {
		return false, nil
	}
	files, err := r.query.Checkpoint()
	if errors.Is(err, index.ErrDamaged) {
		return false, err
	}
	if err != nil {
		c.failed(err)
		return false, nil
	}
	m := madeCheckpoint{files: files, checkpoint: checkpoint{
		Format: checkpointFormat, Store: r.store, Fingerprint: r.plan.Fingerprint(), Sequence: state.Sequence,
		Offsets: state.Offsets, At: time.Now().UTC(),
	}}
	c.since = 0
	c.mu.Lock()
	c.making, c.idle = &m.checkpoint, make(chan struct{})
	c.mu.Unlock()
	c.made <- m // has room: none is under way
	return true, nil
}

// failed is safe for concurrent use.
func (c *checkpointer) failed(err error) {
	c.mu.Lock()
	c.next = time.Now().Add(checkpointRetry)
	c.mu.Unlock()
	c.run.metrics.CheckpointFailures.Inc()
	c.log.Warn("a checkpoint of the query's state failed and is tried again later", zap.Error(err))
}
