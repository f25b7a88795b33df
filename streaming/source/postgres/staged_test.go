package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestTransactionThatWasTakenIsNotStaged commits one before the position from which the stream goes on.
func TestTransactionThatWasTakenIsNotStaged(t *testing.T) {
	sink := sourcetest.NewSink("")
	for _, taken := range []bool{true, false} {
		require.NoError(t, sink.Stage(t.Context(), 7, []graph.Change{{Op: graph.OpTruncate, Element: graph.Element{Labels: []string{"a"}}}}))
		st := &stream{sink: sink, assembler: assembler{taken: taken}}
		require.NoError(t, st.appendStaged(t.Context(), &unfinished{xid: 7}))
		inProgress, appended := sink.Staged()
		require.Zero(t, inProgress)
		require.Equal(t, taken, appended == 0)
		require.Equal(t, taken, st.assembler.parts == 0)
	}
}
