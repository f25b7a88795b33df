package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestOtherServer puts another server, or another timeline of the same one, in the place of the one that was read.
func TestOtherServer(t *testing.T) {
	c := clustertest.Own(t, map[string]string{"fsync": "off"})
	d := db{t, c.URL()}
	s := d.ownSource(`, "onSlotLoss": "stop"`)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec("INSERT INTO a DEFAULT VALUES")
	sequence(t, sink, 1)
	stop()
	first := sink.System()
	require.True(t, strings.HasSuffix(first, "/1"), first)

	require.NoError(t, os.WriteFile(filepath.Join(c.Dir(), "standby.signal"), nil, 0o600))
	require.NoError(t, c.Restart(t.Context(), false))
	d.exec("SELECT pg_promote()")
	stop = running(t, s, sink.Durable(), sink)
	d.exec("INSERT INTO a VALUES (2)")
	sequence(t, sink, 2)
	stop()
	second := sink.System()
	require.Equal(t, strings.TrimSuffix(first, "1")+"2", second, "a promoted server that has everything is gone on with")

	behind := sourcetest.NewSink("")
	behind.Identify(first) // as if it had been read beyond the promotion
	at := graph.Position(d.text("SELECT pg_current_wal_lsn()"))
	require.Equal(t, failure.TimelineDiverged, failure.CodeOf(s.Run(t.Context(), at, behind)))
	behind.Identify(strings.TrimSuffix(first, "1") + "7")
	require.Equal(t, failure.TimelineDiverged, failure.CodeOf(s.Run(t.Context(), at, behind)))
	behind.Identify("1234/1")
	require.Equal(t, failure.WrongSystem, failure.CodeOf(s.Run(t.Context(), at, behind)))
}
