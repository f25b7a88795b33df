package postgres_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
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

// clockedSink notes when it was told that columns wait for transactions.
type clockedSink struct {
	*sourcetest.Sink
	mu    sync.Mutex
	waits []time.Time
}

func (s *clockedSink) Note(name, text string) {
	s.Sink.Note(name, text)
	if strings.HasPrefix(text, "columns and rows come when the transactions have ended") {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waits = append(s.waits, time.Now())
	}
}

func (s *clockedSink) waited() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.waits)
}

// TestOldTransactionsAreAwaitedWithPatience: each look is a connection, and a transaction may be open for hours.
func TestOldTransactionsAreAwaitedWithPatience(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec("CREATE TABLE b (id int PRIMARY KEY, v text)")
	const spec = `"publish": "needed", "tables": [{"name": "b"}], "statusInterval": `
	sink := &clockedSink{Sink: sourcetest.NewSink("")}
	stop := running(t, d.source(spec+`"100ms"`), "", sink)
	sink.Want(source.Wanted{})
	d.becomesPublished("b {id}")
	sourcetest.Eventually(t, "it is told of", func() bool { return len(sink.SchemaChanges()) == 1 })
	stop()

	old, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, old.Close(context.Background())) })
	_, err = old.Exec(t.Context(), "BEGIN; INSERT INTO b VALUES (1, 'v')")
	require.NoError(t, err)
	again := &clockedSink{Sink: withholding(t, sink.Sink, source.Wanted{})}
	wanted := source.Wanted{"b": reads("v")}
	again.Want(wanted)
	running(t, d.unprovisioned(spec+`"1h"`), sink.Durable(), again)
	sourcetest.Eventually(t, "it looks now and then", func() bool { return len(again.waited()) >= 4 })
	looks := again.waited()
	require.GreaterOrEqual(t, looks[3].Sub(looks[2]), 2*500*time.Millisecond)
	_, err = old.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	sourcetest.Eventually(t, "it is served", func() bool { return again.Serves(wanted) })
}
