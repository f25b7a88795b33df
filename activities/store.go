package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// Buckets of the control plane.
const (
	controlBucket   = "control"   // <component> or <bootstrap>: what its loop, or its holder, is asked to do
	placementBucket = "placement" // <component>: its last generation and host; "deleted": the highest of those that are gone
	specsBucket     = "specs"     // <component>: spec of a provisioned source, or the reference to it
	hostsBucket     = "hosts"     // <host>: a worker process that is alive
)

// Buckets returns those whose keys begin with the id of a component or of a bootstrap.
func Buckets() []string { return []string{controlBucket, placementBucket, specsBucket} }

// HostTTL is how long a host counts as alive after it last said so.
const HostTTL = 30 * time.Second

// control is the value of the control bucket.
type control struct {
	Generation uint64 `json:"generation"`
	Wanted     string `json:"wanted"`
}

const wantedDrain = "drain"

// drains reports whether c asks the run of that generation to stop.
func (c control) drains(generation uint64) bool {
	return c.Wanted == wantedDrain && c.Generation >= generation
}

// placement is the value of the placement bucket.
type placement struct {
	Generation uint64 `json:"generation"`
	Host       string `json:"host,omitempty"`
}

// Store is the control plane's memory outside of workflow histories: what must outlive a workflow, or be known to more
// than one of them. It is safe for concurrent use.
type Store struct {
	conn *stream.Conn

	mu      sync.Mutex
	buckets map[string]*stream.Bucket
	specs   *stream.Objects
}

// NewStore returns the store on a stream server.
func NewStore(conn *stream.Conn) *Store {
	return &Store{conn: conn, buckets: make(map[string]*stream.Bucket)}
}

func (s *Store) bucket(ctx context.Context, name string) (*stream.Bucket, error) {
	s.mu.Lock()
	b := s.buckets[name]
	s.mu.Unlock()
	if b != nil {
		return b, nil
	}
	o := stream.BucketOptions{Name: name}
	if name == hostsBucket {
		o.TTL = HostTTL
	}
	b, err := s.conn.Bucket(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("opening bucket %s: %w", name, err)
	}
	s.mu.Lock()
	s.buckets[name] = b
	s.mu.Unlock()
	return b, nil
}

// read gets a JSON value into v. Revision 0 means that there is none.
func (s *Store) read(ctx context.Context, bucket, key string, v any) (revision uint64, err error) {
	b, err := s.bucket(ctx, bucket)
	if err != nil {
		return 0, err
	}
	e, err := b.Get(ctx, key)
	switch {
	case errors.Is(err, stream.ErrMissing):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("reading %s of bucket %s: %w", key, bucket, err)
	}
	if err := json.Unmarshal(e.Value, v); err != nil {
		return 0, failure.StateCorrupt.Errorf("decoding %s of bucket %s: %w", key, bucket, err)
	}
	return e.Revision, nil
}

func (s *Store) write(ctx context.Context, bucket, key string, v any) error {
	b, err := s.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s of bucket %s: %w", key, bucket, err)
	}
	if _, err := b.Put(ctx, key, value); err != nil {
		return fmt.Errorf("writing %s of bucket %s: %w", key, bucket, err)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, bucket, key string) error {
	b, err := s.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	if err := b.Delete(ctx, key); err != nil && !errors.Is(err, stream.ErrMissing) {
		return fmt.Errorf("deleting %s of bucket %s: %w", key, bucket, err)
	}
	return nil
}

// replace writes a value if nobody else did since it was read at that revision.
func (s *Store) replace(ctx context.Context, bucket, key string, v any, revision uint64) error {
	b, err := s.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s of bucket %s: %w", key, bucket, err)
	}
	if revision == 0 {
		_, err = b.Create(ctx, key, value)
	} else {
		_, err = b.Update(ctx, key, value, revision)
	}
	if err != nil {
		return fmt.Errorf("replacing %s of bucket %s: %w", key, bucket, err)
	}
	return nil
}

// deletedKey has, for all components that were deleted together, the highest generation that one of them had.
const deletedKey = "deleted"

// forget removes what is known of a component that is deleted. Of its generation the highest of all that are gone stays:
// if the component is created anew, attempts of the old one must still be outdated.
func (s *Store) forget(ctx context.Context, component string) error {
	return errors.Join(
		s.remove(ctx, specsBucket, component), s.remove(ctx, controlBucket, component), s.forgetPlacement(ctx, component), s.forgetSpecs(ctx, component),
	)
}

func (s *Store) forgetPlacement(ctx context.Context, component string) error {
	var last placement
	if revision, err := s.read(ctx, placementBucket, component, &last); err != nil || revision == 0 {
		return err
	}
	for {
		var deleted placement
		revision, err := s.read(ctx, placementBucket, deletedKey, &deleted)
		if err != nil {
			return err
		}
		if deleted.Generation >= last.Generation {
			return s.remove(ctx, placementBucket, component)
		}
		err = s.replace(ctx, placementBucket, deletedKey, placement{Generation: last.Generation}, revision)
		if err != nil && !errors.Is(err, stream.ErrConflict) {
			return err
		}
	}
}

// lastPlacement returns where and as what a component ran last. For one that never did, that is the generation above
// which a component that was deleted may be created anew.
func (s *Store) lastPlacement(ctx context.Context, component string) (last placement, revision uint64, err error) {
	revision, err = s.read(ctx, placementBucket, component, &last)
	if err == nil && revision == 0 {
		_, err = s.read(ctx, placementBucket, deletedKey, &last)
	}
	return last, revision, err
}

// removeBelow removes the keys that begin with a prefix.
func (s *Store) removeBelow(ctx context.Context, bucket, prefix string) error {
	b, err := s.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	keys, err := b.Keys(ctx, prefix)
	if err != nil {
		return fmt.Errorf("listing bucket %s: %w", bucket, err)
	}
	for _, key := range keys {
		err = errors.Join(err, s.remove(ctx, bucket, key))
	}
	return err
}

// AnnounceHost says that a worker process is alive and takes the loops of its host queue.
func (s *Store) AnnounceHost(ctx context.Context, hostID string) error {
	return s.write(ctx, hostsBucket, hostID, struct {
		At time.Time `json:"at"`
	}{time.Now().UTC()})
}

// WithdrawHost says that a worker process stops, so that nothing more is placed on it.
func (s *Store) WithdrawHost(ctx context.Context, hostID string) error {
	return s.remove(ctx, hostsBucket, hostID)
}

// hosts returns the hosts that are alive.
func (s *Store) hosts(ctx context.Context) ([]string, error) {
	b, err := s.bucket(ctx, hostsBucket)
	if err != nil {
		return nil, err
	}
	hosts, err := b.Keys(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("listing hosts: %w", err)
	}
	return hosts, nil
}
