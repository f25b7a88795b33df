package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(clustertest.M(m)) }

// db is a test's database.
type db struct {
	testing.TB
	url string
}

func newDB(t testing.TB) db { return db{t, clustertest.Database(t)} }

func (d db) exec(format string, args ...any) {
	d.Helper()
	clustertest.Exec(d, d.url, fmt.Sprintf(format, args...))
}

func (d db) text(format string, args ...any) string {
	d.Helper()
	return clustertest.Text(d, d.url, fmt.Sprintf(format, args...))
}

// config returns a spec's config for the database with more members, given as JSON without braces.
func (d db) config(members string) json.RawMessage {
	u, err := url.Parse(d.url)
	require.NoError(d, err)
	return json.RawMessage(fmt.Sprintf(`{"host": %q, "port": %s, "database": %q, "user": %q, "sslMode": "disable", %s}`,
		u.Hostname(), u.Port(), u.Path[1:], u.User.Username(), members))
}

func (d db) settings() source.Settings {
	u, err := url.Parse(d.url)
	require.NoError(d, err)
	name := "t" + u.Path[len("/test_"):] // slots belong to the whole cluster
	return source.Settings{Instance: "default", Name: name, Generation: 1, Log: zaptest.NewLogger(d)}
}

type fullSource interface {
	source.Source
	source.Snapshotter
}

// source makes and provisions a source.
func (d db) source(members string) fullSource {
	d.Helper()
	return d.sourceWith(members, d.settings())
}

func (d db) sourceWith(members string, settings source.Settings) fullSource {
	d.Helper()
	s, err := postgres.Factory{}.New(d.config(members), settings)
	require.NoError(d, err)
	require.NoError(d, s.Provision(d.Context()))
	d.Cleanup(func() { require.NoError(d, s.Teardown(context.Background())) })
	return s.(fullSource)
}

func (d db) unprovisioned(members string) fullSource {
	d.Helper()
	s, err := postgres.Factory{}.New(d.config(members), d.settings())
	require.NoError(d, err)
	return s.(fullSource)
}

// running runs a source; the function it returns stops it and waits.
func running(t testing.TB, s source.Source, from graph.Position, sink source.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, from, sink) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

func (d db) slot(s source.Source, column string) string {
	d.Helper()
	return d.text("SELECT %s FROM pg_replication_slots WHERE slot_name = '%s'", column, s.Describe()["slot"])
}

func wantTexts(t testing.TB, sink *sourcetest.Sink, want map[graph.ElementID]string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *collect) { require.Equal(c, want, sink.Graph().Texts()) }, sourcetest.Patience, tick)
}

func TestStream(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE customer (id int PRIMARY KEY, name text);
		CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int REFERENCES customer, total numeric(10, 2), note text)`)
	s := d.source(`"tables": [{"name": "customer", "label": "Customer"}, {"name": "orders", "label": "Order"}],
		"relationships": [{"type": "OF", "table": "orders", "columns": ["customer_id"], "references": "customer"}]`)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec(`INSERT INTO customer VALUES (1, 'ada'), (2, NULL); INSERT INTO orders VALUES (10, 1, 12.50, 'first'), (11, NULL, 0, '')`)
	wantTexts(t, sink, map[graph.ElementID]string{
		"Customer:1": `Customer id=1 name="ada"`,
		"Customer:2": `Customer id=2`,
		"Order:10":   `Order customer_id=1 id=10 note="first" total=decimal 12.50`,
		"Order:11":   `Order id=11 note="" total=decimal 0.00`,
		"OF:10":      `OF (Order:10)->(Customer:1)`,
	})
	require.Len(t, sink.Transactions(), 1, "one transaction stays one")
	d.exec(`BEGIN; UPDATE orders SET customer_id = 2, note = NULL WHERE id = 11; UPDATE orders SET customer_id = NULL WHERE id = 10;
		UPDATE orders SET id = 12 WHERE id = 11; DELETE FROM orders WHERE id = 10; COMMIT`)
	wantTexts(t, sink, map[graph.ElementID]string{
		"Customer:1": `Customer id=1 name="ada"`,
		"Customer:2": `Customer id=2`,
		"Order:12":   `Order customer_id=2 id=12 total=decimal 0.00`,
		"OF:12":      `OF (Order:12)->(Customer:2)`,
	})
	d.exec(`TRUNCATE orders`)
	wantTexts(t, sink, map[graph.ElementID]string{
		"Customer:1": `Customer id=1 name="ada"`,
		"Customer:2": `Customer id=2`,
	})
	stop()
	require.Equal(t, "f", d.slot(s, "active"))
	require.Equal(t, string(sink.Durable()), d.slot(s, "confirmed_flush_lsn"))
	require.Zero(t, sink.Repeated())

	d.exec(`INSERT INTO customer VALUES (3, 'eve')`)
	again := sourcetest.NewSink(sink.Durable())
	running(t, s, sink.Durable(), again)
	wantTexts(t, again, map[graph.ElementID]string{"Customer:3": `Customer id=3 name="eve"`})
	require.Zero(t, again.Repeated())
}
