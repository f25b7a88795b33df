package postgres_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestBadRows has a row with bytes that are no text. It goes to the dead letters, from the stream and from a snapshot, and
// the rows beside it come.
func TestBadRows(t *testing.T) {
	d := newDBIn(t, "SQL_ASCII")
	d.exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	var mu sync.Mutex
	var letters []source.DeadLetter
	settings := d.settings()
	settings.Reject = func(_ context.Context, letter source.DeadLetter) error {
		mu.Lock()
		defer mu.Unlock()
		letters = append(letters, letter)
		return nil
	}
	s := d.sourceWith(`"tables": [{"name": "t"}]`, settings)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec(`INSERT INTO t VALUES (1, 'a'), (2, E'\xfc'), (3, 'c')`)
	sourcetest.Eventually(t, "the good rows", func() bool { return len(sink.Graph()) == 2 })
	stop()
	require.True(t, slices.ContainsFunc(sink.Notes(), func(n string) bool { return strings.HasPrefix(n, "deadLetters: 1 since") }))

	snapshot, _ := hold(t, s)
	chunks := sourcetest.Chunks(t, s, snapshot, nil)
	rows := 0
	require.NoError(t, sourcetest.ReadChunk(t.Context(), s, snapshot, chunks[0], func(changes []graph.Change) error {
		rows += len(changes)
		return nil
	}))
	require.Equal(t, 2, rows)
	require.Len(t, letters, 2)
	for _, letter := range letters {
		details := failure.Describe(letter.Cause).Details
		require.Equal(t, []string{"public.t", "v"}, []string{letter.Scope, details["column"]})
		require.Contains(t, string(letter.Record), "\xfc")
		require.NotEmpty(t, letter.Position)
	}

	made, err := postgres.Factory{}.New(d.config(`"tables": [{"name": "t"}], "onBadRow": "stop"`), settings)
	require.NoError(t, err)
	d.exec(`UPDATE t SET v = v`)
	require.Equal(t, failure.BadRecord, failure.CodeOf(made.Run(t.Context(), sink.Durable(), sourcetest.NewSink(sink.Durable()))))
}
