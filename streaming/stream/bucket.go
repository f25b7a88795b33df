package stream

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
)

// BucketOptions say what a bucket is.
type BucketOptions struct {
	Name string
	// TTL is how long an entry is kept after it was written, 0: for ever. It counts when the bucket is created.
	TTL time.Duration
}

// Bucket is a small durable set of keys that processes share. Keys consist of letters, digits and "-_/=.", a dot
// separating the parts that patterns match.
type Bucket struct {
	conn *Conn
	kv   jetstream.KeyValue
	name string
}

// Entry is one key of a bucket.
type Entry struct {
	Key      string
	Value    []byte // nil in a Watch when the key was deleted
	Revision uint64
}

// Bucket opens a bucket, creating it when missing.
func (c *Conn) Bucket(ctx context.Context, o BucketOptions) (*Bucket, error) {
	bounded, cancel := c.bound(ctx)
	defer cancel()
	kv, err := c.js.KeyValue(bounded, o.Name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = c.js.CreateKeyValue(bounded, jetstream.KeyValueConfig{
			Bucket: o.Name, TTL: o.TTL, History: 1, Storage: jetstream.FileStorage, Replicas: c.options.Replicas, LimitMarkerTTL: markerTTL,
		})
		if errors.Is(err, jetstream.ErrBucketExists) { // somebody else was quicker, with other options
			kv, err = c.js.KeyValue(bounded, o.Name)
		}
	}
	if err == nil {
		kv, err = c.forgetMarkers(bounded, kv)
	}
	if err != nil {
		return nil, classify(ctx, err, "opening bucket %s", o.Name)
	}
	return &Bucket{conn: c, kv: kv, name: o.Name}, nil
}

// markerTTL is how long a bucket remembers that a key was deleted.
const markerTTL = time.Minute

// forgetMarkers makes a bucket forget, after a while, which keys were deleted. One that an earlier version created
// remembers all of them for ever.
func (c *Conn) forgetMarkers(ctx context.Context, kv jetstream.KeyValue) (jetstream.KeyValue, error) {
	status, err := kv.Status(ctx)
	if err != nil || status.LimitMarkerTTL() > 0 {
		return kv, err
	}
	config := status.Config()
	config.LimitMarkerTTL = markerTTL
	return c.js.UpdateKeyValue(ctx, config)
}

// Get returns a key's entry; the error is ErrMissing when there is none.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	bounded, cancel := b.conn.bound(ctx)
	defer cancel()
	e, err := b.kv.Get(bounded, key)
	if err != nil {
		return Entry{}, classify(ctx, err, "reading key %s of bucket %s", key, b.name)
	}
	return entryOf(e), nil
}

// Put sets a key whatever it was and returns its revision.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return b.write(ctx, key, func(ctx context.Context) (uint64, error) { return b.kv.Put(ctx, key, value) })
}

// Create sets a key that does not exist; otherwise the error is ErrConflict.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return b.write(ctx, key, func(ctx context.Context) (uint64, error) { return b.kv.Create(ctx, key, value) })
}

// Update sets a key whose revision is the given one; otherwise the error is ErrConflict.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return b.write(ctx, key, func(ctx context.Context) (uint64, error) { return b.kv.Update(ctx, key, value, revision) })
}

// Delete removes a key and, a minute later, that it ever was. It is no error when there is none.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	_, err := b.write(ctx, key, func(ctx context.Context) (uint64, error) {
		return 0, b.kv.Purge(ctx, key, jetstream.PurgeTTL(markerTTL))
	})
	return err
}

func (b *Bucket) write(ctx context.Context, key string, write func(context.Context) (uint64, error)) (uint64, error) {
	bounded, cancel := b.conn.bound(ctx)
	defer cancel()
	revision, err := write(bounded)
	if err != nil {
		return 0, classify(ctx, err, "writing key %s of bucket %s", key, b.name)
	}
	return revision, nil
}

// Keys returns the keys that begin with prefix, in order.
func (b *Bucket) Keys(ctx context.Context, prefix string) ([]string, error) {
	bounded, cancel := b.conn.bound(ctx)
	defer cancel()
	filter := ">"
	if i := strings.LastIndexByte(prefix, '.'); i > 0 { // let the server leave out what it can
		filter = prefix[:i] + ".>"
	}
	w, err := b.kv.Watch(bounded, filter, jetstream.IgnoreDeletes(), jetstream.MetaOnly())
	if err != nil {
		return nil, classify(ctx, err, "listing bucket %s", b.name)
	}
	defer func() { _ = w.Stop() }() // the connection is closing; nothing is left to stop
	var keys []string
	for {
		select {
		case e, open := <-w.Updates():
			if e == nil && open { // that was all
				slices.Sort(keys)
				return keys, nil
			}
			if !open {
				return nil, classify(ctx, jetstream.ErrConnectionClosed, "listing bucket %s", b.name)
			}
			if strings.HasPrefix(e.Key(), prefix) {
				keys = append(keys, e.Key())
			}
		case <-bounded.Done():
			return nil, classify(ctx, bounded.Err(), "listing bucket %s", b.name)
		}
	}
}

// Watch returns the entries of a key, or of all keys that a pattern such as "orders.*" or ">" matches: first as they
// are, then as they change. The channel is closed when ctx ends or the connection is closed.
func (b *Bucket) Watch(ctx context.Context, keyOrPattern string) (<-chan Entry, error) {
	w, err := b.kv.Watch(ctx, keyOrPattern)
	if err != nil {
		return nil, classify(ctx, err, "watching %s of bucket %s", keyOrPattern, b.name)
	}
	out := make(chan Entry)
	failure.Go(func() error {
		defer close(out)
		defer func() { _ = w.Stop() }()
		if err := failure.Guard(func() error { return pass(ctx, w, out) }); err != nil {
			b.conn.log.Error("a bucket is not watched any more", zap.String("bucket", b.name), zap.Any("failure", failure.Describe(err)))
		}
		return nil
	})
	return out, nil
}

// pass passes entries on until ctx ends or there will be no more.
func pass(ctx context.Context, w jetstream.KeyWatcher, out chan<- Entry) error {
	for {
		select {
		case e, open := <-w.Updates():
			if !open {
				return nil
			}
			if e == nil { // the current values end here
				continue
			}
			select {
			case out <- entryOf(e):
			case <-ctx.Done():
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func entryOf(e jetstream.KeyValueEntry) Entry {
	entry := Entry{Key: e.Key(), Revision: e.Revision()}
	if e.Operation() == jetstream.KeyValuePut {
		entry.Value = e.Value()
		if entry.Value == nil {
			entry.Value = []byte{}
		}
	}
	return entry
}
