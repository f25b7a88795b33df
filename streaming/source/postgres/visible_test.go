package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestWaitsToSee: a transaction may come long before others see it. What has to be read from the table waits for that.
func TestWaitsToSee(t *testing.T) {
	d := db{t, clustertest.Own(t, map[string]string{"fsync": "off"}).URL()}
	d.exec(`CREATE TABLE doc (id int PRIMARY KEY, n int, body text); CREATE TABLE log (n int); ALTER TABLE log REPLICA IDENTITY FULL`)
	s := d.source(`"tables": [{"name": "doc"}, {"name": "log", "wholeRow": true}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO doc VALUES (1, 1, %s); INSERT INTO log VALUES (1)", incompressible)
	sourcetest.Eventually(t, "the rows", func() bool { return len(sink.Graph()) == 2 })

	d.exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	d.exec("SELECT pg_reload_conf()")
	sourcetest.Eventually(t, "the setting", func() bool { return d.text("SHOW synchronous_standby_names") == "nobody" })
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		clustertest.Exec(t, d.url, "BEGIN; UPDATE doc SET id = 2; DELETE FROM log; COMMIT")
	}()
	sourcetest.Eventually(t, "the commit waits", func() bool {
		return d.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1"
	})
	// The source asks whether the transaction is visible until it is.
	sourcetest.Eventually(t, "the source waits", func() bool {
		return d.text("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'perdure/%%' AND query LIKE '%%pg_current_snapshot%%'") == "1"
	})
	require.Len(t, sink.Graph(), 2)
	d.exec("ALTER SYSTEM RESET synchronous_standby_names")
	d.exec("SELECT pg_reload_conf()")
	<-committed
	sourcetest.Eventually(t, "the transaction", func() bool { return len(sink.Graph()) == 1 })
	e := sink.Graph()["doc:2"]
	require.Equal(t, d.text("SELECT body FROM doc"), e.Get("body").AsString())
}
