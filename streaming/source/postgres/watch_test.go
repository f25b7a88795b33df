package postgres_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestSlotIsWatched confirms nothing while WAL is written, until the server gives up the slot.
func TestSlotIsWatched(t *testing.T) {
	c := clustertest.Own(t, map[string]string{"fsync": "off", "max_slot_wal_keep_size": "48MB", "min_wal_size": "32MB", "max_wal_size": "64MB"})
	d := db{t, c.URL()}
	d.exec("CREATE TABLE other (t text)")
	s := d.ownSource(`, "statusInterval": "100ms", "onSlotLoss": "stop"`)
	sink := sourcetest.NewSink("")
	sink.Hold()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { done <- s.Run(ctx, "", sink) }()
	noted := func(text string) func() bool {
		return func() bool {
			return slices.ContainsFunc(sink.Notes(), func(n string) bool {
				return strings.HasPrefix(n, "retainedWAL: ") && strings.Contains(n, text)
			})
		}
	}
	sourcetest.Eventually(t, "how much is left", noted("the server gives the slot up after"))
	d.exec("INSERT INTO a DEFAULT VALUES")
	d.exec("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
	sourcetest.Eventually(t, "growth", noted("max_slot_wal_keep_size is reached in"))
	sourcetest.Eventually(t, "numbers", func() bool {
		m := sink.Measures()
		return m["lag_bytes"] > 20e6 && m["wal_retained_bytes"] >= m["lag_bytes"] && m["wal_growth_bytes_per_second"] > 0 &&
			m["wal_safe_bytes"] > 0 && m["wal_safe_seconds"] > 0
	})
	for range 8 {
		d.exec("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
		d.exec("CHECKPOINT")
	}
	err := <-done
	require.Equal(t, failure.SlotInvalidated, failure.CodeOf(err), "%v", err)
}
