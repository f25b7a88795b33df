package postgres_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// missed returns what the sink was told of changes that are lost.
func missed(sink *sourcetest.Sink) (all []graph.SchemaChange) {
	for _, tx := range sink.Transactions() {
		for _, c := range tx.Schema {
			if c.Op == graph.SchemaMissed {
				all = append(all, c)
			}
		}
	}
	return all
}

// TestLostSlotIsRenewed loses the slot in all ways there are while the source is stopped and while it runs: it says what
// is lost, behind everything that came before, and goes on.
func TestLostSlotIsRenewed(t *testing.T) {
	c := clustertest.Own(t, map[string]string{
		"fsync": "off", "max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB", "checkpoint_timeout": "1h",
	})
	d := db{t, c.URL()}
	d.exec("CREATE TABLE other (t text)")
	s := d.ownSource(`, "statusInterval": "100ms", "onSlotLoss": "rebuild"`)
	require.NoError(t, s.Provision(t.Context()))
	sink := sourcetest.NewSink("")
	row := 0
	insert := func() {
		row++
		d.exec("INSERT INTO a VALUES (%d)", row)
	}
	streams := func() {
		t.Helper()
		id := graph.Int(int64(row))
		sourcetest.Eventually(t, fmt.Sprintf("row %d arrives", row), func() bool {
			for _, tx := range sink.Transactions() {
				if len(tx.Changes) == 1 && graph.Identical(tx.Changes[0].Element.Get("id"), id) {
					return true
				}
			}
			return false
		})
	}
	drop := func() {
		d.exec(`DO $$ BEGIN
			FOR i IN 1..1000 LOOP
				BEGIN
					PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active;
					PERFORM pg_sleep(0.01);
					PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots;
					RETURN;
				EXCEPTION WHEN object_in_use THEN NULL;
				END;
			END LOOP;
			RAISE 'the slot stays in use';
		END $$`)
	}
	lose := map[string]func(){
		"dropped": drop,
		"moved": func() {
			d.exec("SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots")
		},
		"invalidated": func() {
			for range 12 {
				d.exec("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
				d.exec("CHECKPOINT")
			}
			require.Equal(t, "lost", d.text("SELECT wal_status FROM pg_replication_slots"))
		},
	}
	for name, how := range lose {
		t.Run(name, func(t *testing.T) {
			stop := running(t, s, sink.Durable(), sink)
			insert()
			streams()
			stop()
			before, known := sink.Durable(), len(missed(sink))
			insert() // lost
			how()
			require.NoError(t, s.Provision(t.Context()))
			stop = running(t, s, sink.Durable(), sink)
			defer stop()
			sourcetest.Eventually(t, "what is lost is told of", func() bool { return len(missed(sink)) == known+1 })
			told := missed(sink)[known]
			require.Equal(t, graph.SchemaChange{Op: graph.SchemaMissed, From: string(before), To: graph.MissedRebuild}, told)
			insert()
			streams()
			require.Len(t, missed(sink), known+1)
		})
	}
	t.Run("dropped while it runs", func(t *testing.T) {
		stop := running(t, s, sink.Durable(), sink)
		defer stop()
		insert()
		streams()
		known := len(missed(sink))
		drop()
		sourcetest.Eventually(t, "what is lost is told of", func() bool { return len(missed(sink)) == known+1 })
		insert()
		streams()
	})
}

// TestPromotedServerThatLacksWhatWasRead goes on with a server that was promoted too early: behind all positions that were
// there before.
func TestPromotedServerThatLacksWhatWasRead(t *testing.T) {
	c := clustertest.Own(t, map[string]string{"fsync": "off"})
	d := db{t, c.URL()}
	s := d.ownSource(`, "onSlotLoss": "diff"`)
	require.NoError(t, s.Provision(t.Context()))
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec("INSERT INTO a DEFAULT VALUES")
	sequence(t, sink, 1)
	stop()
	first := sink.System()
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir(), "standby.signal"), nil, 0o600))
	require.NoError(t, c.Restart(t.Context(), false))
	d.exec("SELECT pg_promote()")
	sourcetest.Eventually(t, "the server is promoted", func() bool { return d.text("SELECT pg_is_in_recovery()") == "f" })

	ahead := graph.Position(d.text("SELECT pg_current_wal_lsn() + 20000000"))
	behind := sourcetest.NewSink(ahead)
	behind.Identify(first)
	stop = running(t, s, ahead, behind)
	sourcetest.Eventually(t, "what is lost is told of", func() bool { return len(missed(behind)) == 1 })
	d.exec("INSERT INTO a DEFAULT VALUES")
	sourcetest.Eventually(t, "the row arrives", func() bool { return len(behind.Transactions()) == 2 })
	stop()
	for _, tx := range behind.Transactions() {
		require.Positive(t, tx.Position.Compare(ahead))
	}
	require.NotEqual(t, first, behind.System())

	far := graph.Position(d.text("SELECT pg_current_wal_lsn() + 1000000000"))
	behind = sourcetest.NewSink(far)
	behind.Identify(first)
	require.Equal(t, failure.WrongSystem, failure.CodeOf(s.Run(t.Context(), far, behind)))
	behind.Identify("1234/1")
	require.Equal(t, failure.WrongSystem, failure.CodeOf(s.Run(t.Context(), sink.Durable(), behind)))
}

// TestLostSlotStops: somebody is to look at it first.
func TestLostSlotStops(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	s := d.source(`"tables": [{"name": "a"}], "onSlotLoss": "stop"`)
	d.exec("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '%s'", s.Describe()["slot"])
	require.Equal(t, failure.SlotMissing, failure.CodeOf(s.Provision(t.Context())))
	require.Equal(t, failure.SlotMissing, failure.CodeOf(s.Run(context.Background(), "0/1", sourcetest.NewSink("0/1"))))
}
