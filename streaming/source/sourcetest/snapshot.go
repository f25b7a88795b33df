package sourcetest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// Chunks divides what is wanted of a snapshot into chunks as small as the source advises.
func Chunks(t testing.TB, s source.Snapshotter, snapshot source.Snapshot, wanted source.Wanted) []source.Chunk {
	t.Helper()
	plan, err := s.PlanSnapshot(t.Context(), snapshot, wanted)
	require.NoError(t, err)
	require.Positive(t, plan.Pace.Parallelism)
	require.Positive(t, plan.Pace.ChunkTime)
	var chunks []source.Chunk
	for _, scope := range plan.Scopes {
		require.NotEmpty(t, scope.Labels)
		require.True(t, wanted.Any(scope.Labels...))
		require.Positive(t, scope.Least)
		for from := int64(0); from < scope.Places; from += scope.Least {
			chunks = append(chunks, source.Chunk{Scope: scope, From: from, To: from + scope.Least})
		}
	}
	return chunks
}

// ReadChunk reads one chunk and hands its changes to emit at each pause.
func ReadChunk(ctx context.Context, s source.Snapshotter, snapshot source.Snapshot, chunk source.Chunk, emit func([]graph.Change) error) error {
	reader, err := s.OpenSnapshot(ctx, snapshot)
	if err != nil {
		return err
	}
	defer reader.Close()
	return reader.ReadChunk(ctx, chunk, &chunkSink{emit: emit})
}

// chunkSink collects changes until the next pause.
type chunkSink struct {
	changes []graph.Change
	emit    func([]graph.Change) error
}

// Take implements source.ChunkSink.
func (s *chunkSink) Take(c *graph.Change) {
	own, _, err := graph.DecodeElement(graph.AppendElement(nil, &c.Element))
	if err != nil {
		panic(err) // AppendElement writes what DecodeElement reads
	}
	s.changes = append(s.changes, graph.Change{Op: c.Op, Element: *own})
	c.Element = graph.Element{} // whoever uses what was taken again finds nothing
}

// Pause implements source.ChunkSink.
func (s *chunkSink) Pause() error {
	changes := s.changes
	s.changes = nil
	return s.emit(changes)
}

// Discard is a source.ChunkSink that keeps nothing.
type Discard struct{}

// Take implements source.ChunkSink.
func (Discard) Take(*graph.Change) {}

// Pause implements source.ChunkSink.
func (Discard) Pause() error { return nil }

// ReadSnapshot reads all of what is wanted of a snapshot.
func ReadSnapshot(t testing.TB, s source.Snapshotter, snapshot source.Snapshot, wanted source.Wanted) []graph.Element {
	t.Helper()
	reader, err := s.OpenSnapshot(t.Context(), snapshot)
	require.NoError(t, err)
	defer reader.Close()
	var (
		elements []graph.Element
		encoder  graph.Encoder
	)
	for _, chunk := range Chunks(t, s, snapshot, wanted) {
		require.NoError(t, reader.ReadChunk(t.Context(), chunk, &chunkSink{emit: func(changes []graph.Change) error {
			for _, c := range changes {
				require.Equal(t, graph.OpInsert, c.Op)
				elements = append(elements, c.Element)
			}
			encoder.Begin()
			encoder.Add(&graph.Transaction{Changes: changes[:max(0, len(changes)-1)]}) // the last may be large
			require.LessOrEqual(t, encoder.Size(), 4*source.BatchBytes)
			return nil
		}}))
	}
	return elements
}
