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

// ReadChunk reads one chunk.
func ReadChunk(ctx context.Context, s source.Snapshotter, snapshot source.Snapshot, chunk source.Chunk, emit func([]graph.Change) error) error {
	reader, err := s.OpenSnapshot(ctx, snapshot)
	if err != nil {
		return err
	}
	defer reader.Close()
	return reader.ReadChunk(ctx, chunk, emit)
}

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
		require.NoError(t, reader.ReadChunk(t.Context(), chunk, func(changes []graph.Change) error {
			for _, c := range changes {
				require.Equal(t, graph.OpInsert, c.Op)
				own, _, err := graph.DecodeElement(graph.AppendElement(nil, &c.Element)) // its memory is used again
				require.NoError(t, err)
				elements = append(elements, *own)
			}
			encoder.Begin()
			encoder.Add(&graph.Transaction{Changes: changes})
			if len(changes) > 1 {
				require.LessOrEqual(t, encoder.Size(), 2*source.BatchBytes)
			}
			return nil
		}))
	}
	return elements
}
