package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
)

// BootstrapRef names a bootstrap of one source of a query. A bootstrap keeps its ID for its whole life; each snapshot
// that it needs has the next generation.
type BootstrapRef struct {
	ID                 string `json:"id"`
	Instance           string `json:"instance"`
	Query              string `json:"query"`
	Source             string `json:"source"`
	SnapshotGeneration int    `json:"snapshotGeneration"`
	// Rebuild has the query begin anew: it declares all rows void and publishes those that there are, and not what
	// differs from before.
	Rebuild bool `json:"rebuild,omitempty"`
	// Labels, if any, are those whose elements alone are read. The others, and those of sources that have no bootstrap, the
	// query takes over from the state that it has, with the changes since.
	Labels []string `json:"labels,omitempty"`
}

func (r BootstrapRef) key() string { return bootstrapKey(r.Instance, r.Query, r.Source) }

func bootstrapKey(instance, query, source string) string {
	return instance + "." + query + "." + source
}

// bootstrapRecord is the value of bucket bootstrap at <instance>.<query>.<source>.
type bootstrapRecord struct {
	ID          string           `json:"id"`
	Rebuild     bool             `json:"rebuild,omitempty"`
	Only        []string         `json:"only,omitempty"` // labels; see BootstrapRef.Labels
	From        uint64           `json:"from"`           // first message of the change log that is needed
	Fingerprint string           `json:"fingerprint,omitempty"`
	Generation  int              `json:"generation"` // of the snapshot
	Snapshot    *source.Snapshot `json:"snapshot,omitempty"`
	Pace        *source.Pace     `json:"pace,omitempty"` // nil: what to copy is not planned yet
	// Labels of which something was copied from earlier snapshots have the position of the first of those.
	Labels      map[string]graph.Position `json:"labels,omitempty"`
	Continued   []string                  `json:"continued,omitempty"` // those of Labels whose elements look as they did then
	Verified    bool                      `json:"verified,omitempty"`
	SealOffset  uint64                    `json:"sealOffset,omitempty"`  // the change log's last message when all of the snapshot was durable in it
	SealedAt    time.Time                 `json:"sealedAt,omitzero"`     // zero: not sealed
	LastMessage uint64                    `json:"lastMessage,omitempty"` // of the bootstrap log
	Rows        int64                     `json:"rows,omitempty"`
	Consumed    bool                      `json:"consumed,omitempty"` // the query's state has it all
}

// reads reports whether elements with these labels, or relationships of such a type, come from a snapshot.
func (r *bootstrapRecord) reads(labels []string) bool {
	return len(r.Only) == 0 || slices.ContainsFunc(labels, func(l string) bool { return slices.Contains(r.Only, l) })
}

// position returns the snapshot position that decides about a change: what is at or below it is in the copy. Of elements
// that are not read that is nothing.
func (r *bootstrapRecord) position(labels []string) graph.Position {
	if !r.reads(labels) {
		return ""
	}
	for _, label := range labels {
		if p, ok := r.Labels[label]; ok {
			return p
		}
	}
	return r.Snapshot.Position
}

// scopeRecord is the value of bucket bootstrap at <instance>.<query>.<source>.scope.<generation>-<number>: a scope of the
// snapshot of that generation, and how far it is copied.
type scopeRecord struct {
	source.Scope
	Position graph.Position `json:"position"` // of the snapshot
	// Chunks have the scope's places one after the other. What follows the last one was not handed out yet.
	Chunks []chunkRecord `json:"chunks,omitempty"`
	Rate   float64       `json:"rate,omitempty"` // places that a worker copied per second, as measured last
	// Continued says that there is a scope of a later snapshot that goes on with this one, which has what was copied only.
	Continued bool         `json:"continued,omitempty"`
	Failed    *FailedScope `json:"failed,omitempty"` // nobody copies it until somebody says so
}

// chunkRecord is a chunk that was handed out to be copied.
type chunkRecord struct {
	To      int64  `json:"to"` // the place after its last one
	Attempt int    `json:"attempt"`
	Rows    int64  `json:"rows,omitempty"` // copied so far
	Copied  bool   `json:"copied,omitempty"`
	Worker  string `json:"worker,omitempty"`
	// Renewals counts the lease and its renewals; 0: nobody copies it.
	Renewals int `json:"renewals,omitempty"`
	// Since, if any, is the mark of an earlier snapshot from which it was copied: see source.Chunk.
	Since string `json:"since,omitempty"`
}

// from returns the first place of a chunk, and of what was not handed out yet.
func (s *scopeRecord) from(chunk int) int64 {
	if chunk == 0 {
		return 0
	}
	return s.Chunks[chunk-1].To
}

func (s *scopeRecord) left() int64 { return s.Places - s.from(len(s.Chunks)) }

// copied reports whether nothing of the scope is left to copy.
func (s *scopeRecord) copied() bool {
	return s.left() <= 0 && !slices.ContainsFunc(s.Chunks, func(c chunkRecord) bool { return !c.Copied })
}

// rows returns how many rows were copied.
func (s *scopeRecord) rows() (n int64) {
	for _, c := range s.Chunks {
		n += c.Rows
	}
	return n
}

// leases returns how many chunks are being copied.
func (s *scopeRecord) leases() (n int) {
	for _, c := range s.Chunks {
		if !c.Copied && c.Renewals > 0 {
			n++
		}
	}
	return n
}

// lease gives a worker a chunk to copy: one that was given back, or whose lease has ended, or that an earlier life of the
// worker had, else a new one; at last one that was copied from an earlier snapshot, as what was done about it is done again
// if this snapshot is lost, too. It returns -1 when there is none. It looks at all, so that the end of a lease is noticed.
func (s *scopeRecord) lease(worker string, ended func(int, chunkRecord) bool, pace source.Pace) int {
	if s.Failed != nil {
		return -1
	}
	at := -1
	for i, c := range s.Chunks {
		over := ended(i, c)
		if !c.Copied && (over || c.Worker == worker) && (at < 0 || c.Since == "" && s.Chunks[at].Since != "") {
			at = i
		}
	}
	if s.left() > 0 && (at < 0 || s.Chunks[at].Since != "") {
		at = len(s.Chunks)
		s.Chunks = append(s.Chunks, chunkRecord{To: s.from(at) + s.cut(pace)})
	}
	if at < 0 {
		return -1
	}
	c := &s.Chunks[at]
	c.Attempt++
	c.Worker, c.Renewals, c.Rows = worker, 1, 0
	return at
}

// leases is what a worker has seen of the leases of chunks. One ends when it was not renewed for as long as it lasts, by the
// clock of who sees it: the time of day may be another one where it is held.
type leases map[leasedChunk]lease

type leasedChunk struct {
	scope string
	at    int
}

// lease is the last that was seen of a lease, and when that was new.
type lease struct {
	attempt, renewals int
	since             time.Time
}

// of returns what looks at a chunk of a scope, and tells whether anybody may copy it.
func (l leases) of(scope string, now time.Time) func(at int, c chunkRecord) bool {
	return func(at int, c chunkRecord) bool {
		key := leasedChunk{scope, at}
		if last, ok := l[key]; !ok || last.attempt != c.Attempt || last.renewals != c.Renewals {
			l[key] = lease{c.Attempt, c.Renewals, now}
		}
		return c.Renewals == 0 || now.Sub(l[key].since) >= leaseFor
	}
}

// cut decides how many places the next chunk gets: as many as a worker copies in the time that a chunk should take, but
// so few that all workers end at about the same time.
func (s *scopeRecord) cut(pace source.Pace) int64 {
	left := s.left()
	n := min(int64(s.Rate*pace.ChunkTime.Seconds()), left/int64(2*max(pace.Parallelism, 1)))
	n = max(n, s.Least, 1)
	if left-n < s.Least { // leave no crumbs
		return left
	}
	return n
}

func scopeKey(bootstrap string, generation, number int) string {
	return fmt.Sprintf("%s.scope.%d-%d", bootstrap, generation, number)
}

// copyOf identifies one attempt to copy one chunk. Messages of the bootstrap log carry it in their id, so that the query
// takes the rows of the attempt that was completed and of no other. The log of a bootstrap has the name of the one before,
// whose workers may be late.
type copyOf struct {
	bootstrap                         string // a hash of its ID
	generation, scope, chunk, attempt int
}

func hashOf(bootstrap string) string {
	hash := sha256.Sum256([]byte(bootstrap))
	return hex.EncodeToString(hash[:6])
}

func (c copyOf) message(n int) string {
	return fmt.Sprintf("%s:%d:%d:%d:%d:%d", c.bootstrap, c.generation, c.scope, c.chunk, c.attempt, n)
}

func parseCopy(id string) (copyOf, bool) {
	part := strings.Split(id, ":")
	if len(part) < 5 {
		return copyOf{}, false
	}
	var n [4]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(part[i+1]); err != nil {
			return copyOf{}, false
		}
	}
	return copyOf{part[0], n[0], n[1], n[2], n[3]}, true
}

// storedScope is a scope's record with where it was found.
type storedScope struct {
	scopeRecord
	key                string
	revision           uint64
	generation, number int
}

// chunk returns what a source needs to know of a chunk.
func (s *storedScope) chunk(at int) source.Chunk {
	return source.Chunk{Scope: s.Scope, From: s.from(at), To: s.Chunks[at].To, Since: s.Chunks[at].Since}
}

// scopes returns what a bootstrap consists of, in order.
func (h *Host) scopes(ctx context.Context, b *stream.Bucket, bootstrap string) ([]*storedScope, error) {
	prefix := bootstrap + ".scope."
	keys, err := b.Keys(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing scopes: %w", err)
	}
	all := make([]*storedScope, 0, len(keys))
	for _, key := range keys {
		s := &storedScope{key: key}
		if _, err := fmt.Sscanf(strings.TrimPrefix(key, prefix), "%d-%d", &s.generation, &s.number); err != nil {
			return nil, failure.StateCorrupt.Errorf("reading the key %s: %w", key, err)
		}
		var found bool
		if s.revision, found, err = read(ctx, b, key, &s.scopeRecord); err != nil {
			return nil, err
		}
		if found {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *storedScope) int {
		return cmp.Or(a.generation-b.generation, a.number-b.number)
	})
	return all, nil
}

// update changes the record of a scope, however many others do so at the same time, and reads it anew for that where it
// must. When change fails nothing is written.
func (s *storedScope) update(ctx context.Context, b *stream.Bucket, change func(*scopeRecord) error) error {
	for {
		if err := change(&s.scopeRecord); err != nil {
			return err
		}
		revision, err := retried(ctx, func() (uint64, error) { return replace(ctx, b, s.key, s.scopeRecord, s.revision) })
		if err == nil {
			s.revision = revision
			return nil
		}
		if !errors.Is(err, stream.ErrConflict) {
			return err
		}
		var found bool
		s.scopeRecord = scopeRecord{}
		if s.revision, found, err = read(ctx, b, s.key, &s.scopeRecord); err != nil {
			return err
		}
		if !found {
			return failure.SnapshotLost.Errorf("the snapshot of generation %d is not copied any more", s.generation)
		}
	}
}
