package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// sequence wants exactly the rows 1 to n, each in a transaction of its own, in order.
func sequence(t testing.TB, sink *sourcetest.Sink, n int) {
	t.Helper()
	var got []int64
	sourcetest.Eventually(t, fmt.Sprintf("%d rows", n), func() bool { return len(sink.Transactions()) >= n })
	for _, tx := range sink.Transactions() {
		require.Len(t, tx.Changes, 1)
		got = append(got, tx.Changes[0].Element.Get("id").AsInt())
	}
	for i, id := range got {
		require.Equal(t, int64(i+1), id)
	}
	require.Len(t, got, n)
}

func TestServerCrash(t *testing.T) {
	c := clustertest.Own(t, nil)
	d := db{t, c.URL()}
	s := d.ownSource("")
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	for range 3 {
		for range 20 {
			d.exec("INSERT INTO a DEFAULT VALUES")
		}
		require.NoError(t, c.Restart(t.Context(), true))
		d.exec("SELECT setval('a_id_seq', max(id)) FROM a") // a crash skips values of sequences
	}
	sequence(t, sink, 60)
	stop()
	require.Equal(t, "f", d.slot(s, "active"))
}

// TestCut cuts the network between source and server, stops the packets, and lets it go on.
func TestCut(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	u, err := url.Parse(d.url)
	require.NoError(t, err)
	log := zerolog.Nop()
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), log), "pg", "127.0.0.1:0", u.Host)
	require.NoError(t, proxy.Start())
	defer proxy.Stop()
	_, port, err := net.SplitHostPort(proxy.Listen)
	require.NoError(t, err)
	config := strings.Replace(string(d.config(`"tables": [{"name": "a"}], "receiveTimeout": "2s"`)), u.Port(), port, 1)
	made, err := postgres.Factory{}.New(json.RawMessage(config), d.settings())
	require.NoError(t, err)
	s := made.(fullSource)
	require.NoError(t, s.Provision(t.Context()))
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	for range 10 {
		d.exec("INSERT INTO a DEFAULT VALUES")
	}
	sequence(t, sink, 10)

	proxy.Stop()
	d.exec("INSERT INTO a DEFAULT VALUES")
	require.NoError(t, proxy.Start())
	sequence(t, sink, 11)

	_, err = proxy.Toxics.AddToxicJson(strings.NewReader(`{"name": "hole", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`))
	require.NoError(t, err)
	d.exec("INSERT INTO a DEFAULT VALUES")
	before := sink.Ticks()
	sourcetest.Eventually(t, "the loop stays alive", func() bool { return sink.Ticks() > before+8 })
	require.NoError(t, proxy.Toxics.RemoveToxic(t.Context(), "hole"))
	sequence(t, sink, 12)
	stop()
	require.Equal(t, "f", d.slot(s, "active"))
	require.Zero(t, sink.Repeated())
	require.NoError(t, s.Teardown(t.Context()))
	http.DefaultClient.CloseIdleConnections()
}

// TestDurableGates shows that nothing is confirmed before the sink says so, and that writes to a table that is not
// watched are confirmed too, so that they do not pin the server's WAL.
func TestDurableGates(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY); CREATE TABLE other (v text)")
	s := d.source(`"tables": [{"name": "a"}]`)
	confirmed := func() graph.Position { return graph.Position(d.slot(s, "confirmed_flush_lsn")) }
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec("INSERT INTO a DEFAULT VALUES")
	sequence(t, sink, 1)
	sourcetest.Eventually(t, "confirmed", func() bool { return confirmed().Compare(sink.Transactions()[0].Position) >= 0 })

	sink.Hold()
	before := sink.Durable()
	d.exec("INSERT INTO a DEFAULT VALUES")
	sequence(t, sink, 2)
	ticks := sink.Ticks()
	sourcetest.Eventually(t, "some time passes", func() bool { return sink.Ticks() > ticks+4 })
	require.LessOrEqual(t, confirmed().Compare(before), 0)
	sink.Release()
	sourcetest.Eventually(t, "confirmed", func() bool { return confirmed().Compare(sink.Transactions()[1].Position) >= 0 })

	d.exec("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
	end := graph.Position(d.text("SELECT pg_current_wal_lsn()"))
	sourcetest.Eventually(t, "idle slot advances", func() bool { return confirmed().Compare(end) >= 0 })
	require.Len(t, sink.Transactions(), 2)
	stop()
	require.Equal(t, string(sink.Durable()), string(confirmed()))
}

// TestOlderAttempt: a newer generation ends an older one that still holds the slot; the same generation waits.
func TestOlderAttempt(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	old := d.source(`"tables": [{"name": "a"}]`)
	oldSink := sourcetest.NewSink("")
	stopOld := running(t, old, "", oldSink)
	sourcetest.Eventually(t, "the old one runs", func() bool { return d.slot(old, "active") == "t" })
	pid := d.slot(old, "active_pid")

	settings := d.settings()
	settings.Generation = 2
	newer, err := postgres.Factory{}.New(d.config(`"tables": [{"name": "a"}]`), settings)
	require.NoError(t, err)
	sink := sourcetest.NewSink("")
	running(t, newer, "", sink)
	sourcetest.Eventually(t, "the old one is ended", func() bool { p := d.slot(old, "active_pid"); return p != "" && p != pid })
	stopOld()
	d.exec("INSERT INTO a DEFAULT VALUES")
	sequence(t, sink, 1)
}

// TestStopInTime stops while a large transaction is on its way, and while the sink is full.
func TestStopInTime(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	s := d.source(`"tables": [{"name": "a"}]`)
	d.exec("INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1, 200000) i")
	ctx, cancel := context.WithCancel(t.Context())
	sink := blockedSink{sourcetest.NewSink(""), make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, "", sink) }()
	<-sink.blocked
	begin := time.Now()
	cancel()
	require.NoError(t, <-done)
	require.Less(t, time.Since(begin), 12*time.Second)
	sourcetest.Eventually(t, "the server has let go of the slot", func() bool { return d.slot(s, "active") == "f" })
}

type blockedSink struct {
	*sourcetest.Sink
	blocked chan struct{}
}

func (s blockedSink) Append(ctx context.Context, _ *graph.Transaction) error {
	s.blocked <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func (s blockedSink) AppendPart(ctx context.Context, part *graph.Transaction, _ int, _ bool) error {
	return s.Append(ctx, part)
}

func (s blockedSink) Stage(ctx context.Context, _ uint64, _ []graph.Change) error {
	return s.Append(ctx, nil)
}

// TestProvisionFailsLate: what was made before the last step of provisioning failed is unmade.
func TestProvisionFailsLate(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE a (id serial PRIMARY KEY); CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
		BEGIN IF EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database()) THEN RAISE 'no'; END IF; END $$;
		CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('COMMENT') EXECUTE FUNCTION refuse()`)
	m := &memo{}
	s := d.with(m, `"tables": [{"name": "a"}]`)
	require.ErrorContains(t, s.Provision(t.Context()), "noting the slot's creation")
	d.nothingLeft()
	require.Empty(t, m.made)
	d.exec("DROP EVENT TRIGGER refuse")
	require.NoError(t, s.Provision(t.Context()))
	require.NoError(t, s.Teardown(t.Context()))
	d.nothingLeft()
}

// TestInterruptionIsTold until a stream lasts: while the server is away, and while each stream breaks as soon as it is there.
func TestInterruptionIsTold(t *testing.T) {
	c := clustertest.Own(t, nil)
	d := db{t, c.URL()}
	s := d.ownSource("")
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO a DEFAULT VALUES")
	sequence(t, sink, 1)
	told := func(code *failure.Code) {
		t.Helper()
		sourcetest.Eventually(t, code.ID, func() bool {
			why := sink.Interruption()
			return why != nil && failure.CodeOf(why) == code
		})
	}
	well := func() {
		t.Helper()
		sourcetest.Eventually(t, "it streams", func() bool { return sink.Interruption() == nil })
	}
	require.NoError(t, sink.Interruption())

	require.NoError(t, c.Stop(t.Context()))
	told(failure.Unreachable)
	require.NoError(t, c.Restart(t.Context(), false))
	well()

	d.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'")
	sourcetest.Eventually(t, "the interruption", func() bool { return sink.Interruption() != nil })
	for end := time.Now().Add(7 * time.Second); time.Now().Before(end); { // longer than a stream must last
		d.exec("SELECT pg_sleep(0.1); SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE state = 'streaming'")
		require.Error(t, sink.Interruption())
	}
	well()
}
