package pipeline

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

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
}

func (r BootstrapRef) key() string { return bootstrapKey(r.Instance, r.Query, r.Source) }

func bootstrapKey(instance, query, source string) string {
	return instance + "." + query + "." + source
}

// bootstrapRecord is the value of bucket bootstrap at <instance>.<query>.<source>.
type bootstrapRecord struct {
	ID          string                    `json:"id"`
	Rebuild     bool                      `json:"rebuild,omitempty"`
	From        uint64                    `json:"from"` // first message of the change log that is needed
	Fingerprint string                    `json:"fingerprint,omitempty"`
	Generation  int                       `json:"generation"` // of the snapshot
	Snapshot    *source.Snapshot          `json:"snapshot,omitempty"`
	Planned     bool                      `json:"planned,omitempty"`
	Labels      map[string]graph.Position `json:"labels,omitempty"` // done with an earlier snapshot: its position
	Verified    bool                      `json:"verified,omitempty"`
	SealOffset  uint64                    `json:"sealOffset,omitempty"`  // the change log's last message when all of the snapshot was durable in it
	SealedAt    time.Time                 `json:"sealedAt,omitzero"`     // zero: not sealed
	LastMessage uint64                    `json:"lastMessage,omitempty"` // of the bootstrap log
	Rows        int64                     `json:"rows,omitempty"`
	Consumed    bool                      `json:"consumed,omitempty"` // the query's state has it all
}

// position returns the snapshot position that decides about a change: what is at or below it is in the copy.
func (r *bootstrapRecord) position(labels []string) graph.Position {
	for _, label := range labels {
		if p, ok := r.Labels[label]; ok {
			return p
		}
	}
	return r.Snapshot.Position
}

// chunkRecord is the value of bucket bootstrap at <instance>.<query>.<source>.chunk.<generation>-<number>.
type chunkRecord struct {
	Chunk   source.Chunk `json:"chunk"`
	State   chunkState   `json:"state"`
	Worker  string       `json:"worker,omitempty"`
	Until   time.Time    `json:"until,omitzero"` // end of the lease
	Attempt int          `json:"attempt,omitempty"`
	Rows    int64        `json:"rows,omitempty"`
	// Position is that of the snapshot it was copied from.
	Position graph.Position `json:"position,omitempty"`
}

type chunkState string

const (
	waiting chunkState = "waiting"
	leased  chunkState = "leased"
	copied  chunkState = "copied"
)

func chunkKey(bootstrap string, generation, number int) string {
	return fmt.Sprintf("%s.chunk.%d-%d", bootstrap, generation, number)
}

// copyOf identifies one attempt to copy one chunk. Messages of the bootstrap log carry it in their id, so that the query
// takes the rows of the attempt that was completed and of no other.
type copyOf struct{ generation, chunk, attempt int }

func (c copyOf) message(n int) string {
	return fmt.Sprintf("%d:%d:%d:%d", c.generation, c.chunk, c.attempt, n)
}

func parseCopy(id string) (copyOf, bool) {
	part := strings.Split(id, ":")
	if len(part) < 3 {
		return copyOf{}, false
	}
	var n [3]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(part[i]); err != nil {
			return copyOf{}, false
		}
	}
	return copyOf{n[0], n[1], n[2]}, true
}

// storedChunk is a chunk record with where it was found.
type storedChunk struct {
	chunkRecord
	key        string
	revision   uint64
	generation int
}

func (h *Host) chunks(ctx context.Context, b *stream.Bucket, bootstrap string) ([]storedChunk, error) {
	prefix := bootstrap + ".chunk."
	keys, err := b.Keys(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing chunks: %w", err)
	}
	all := make([]storedChunk, 0, len(keys))
	for _, key := range keys {
		c := storedChunk{key: key}
		generation, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "-")
		if c.generation, err = strconv.Atoi(generation); err != nil {
			continue // not one of ours
		}
		var found bool
		if c.revision, found, err = read(ctx, b, key, &c.chunkRecord); err != nil {
			return nil, err
		}
		if found {
			all = append(all, c)
		}
	}
	return all, nil
}
