package e2e

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
)

const orderBootstrap = "bootstrap.default.open-orders.shop.1"

// limitedRole has the source come as a role that may read what it was granted, and nothing else.
func limitedRole(s *system) {
	u, err := url.Parse(s.postgres.URL())
	require.NoError(s.t, err)
	u.User = url.User("reader")
	s.env = append(s.env, "PERDURE_E2E_READER="+u.String())
}

// startLimited starts the source under its role, and returns what a superuser sees.
func (s *system) startLimited(rowsPerSecond int) *pgx.Conn {
	s.t.Helper()
	conn := s.connect()
	execSQL(s.t, conn, schema+`
		CREATE PUBLICATION given FOR TABLE customers, orders;
		CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON customers, orders TO reader`)
	source := sourceInput(s)
	config := source["spec"].(object)["config"].(object)
	config["url"], config["publication"] = object{"$secret": "env:PERDURE_E2E_READER"}, "given"
	if rowsPerSecond > 0 {
		config["snapshotRowsPerSecond"] = rowsPerSecond
	}
	s.startComponent("Source", "source.default.shop", source)
	s.awaitPhase("source.default.shop", "Running", 60*time.Second)
	return conn
}

type bootstrapStatus struct {
	Phase    string
	Snapshot int
	RowsDone int64 `json:",string"`
	Failed   []struct {
		Table   string
		Failure struct{ Code, Message, Fix string }
	}
	Commands []struct{ Name, Outcome, Error string }
}

// awaitBootstrap waits until a bootstrap's status is as wanted.
func (s *system) awaitBootstrap(id, what string, is func(bootstrapStatus) bool) (st bootstrapStatus) {
	s.t.Helper()
	eventually(s.t, 90*time.Second, what, func() error {
		st = bootstrapStatus{}
		err := s.statusInto(id, &st)
		if err == nil && !is(st) {
			err = fmt.Errorf("status is %+v", st)
		}
		return err
	})
	return st
}

// snapshots counts the transactions that hold back vacuum, and the slots of snapshots.
func snapshots(s *system, conn *pgx.Conn) (n int) {
	s.t.Helper()
	require.NoError(s.t, conn.QueryRow(s.context(10*time.Second), `SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND state LIKE 'idle in transaction%')
		+ (SELECT count(*) FROM pg_replication_slots WHERE temporary)`).Scan(&n))
	return n
}

// TestTableThatMayNotBeRead: the other table is copied, the snapshot is released, and status, metrics and the list of workflows
// say what to do; then the missing table alone is copied. A query that is deleted instead leaves nothing.
func TestTableThatMayNotBeRead(t *testing.T) {
	s := newSystem(t, apart(t), limitedRole)
	conn := s.startLimited(0)
	execSQL(t, conn, `REVOKE SELECT ON orders FROM reader`)
	s.startComponent("Query", "query.default.open-orders", queryInput())
	st := s.awaitPhase("query.default.open-orders", "NeedsOperator", 90*time.Second)
	s.requireShown(st, "PermissionDenied")
	require.Contains(t, st.Breaker.LastError.Message, "cannot copy public.orders of source shop")
	require.Contains(t, st.Breaker.LastError.Fix, `GRANT SELECT ON "public"."orders" TO "reader"`)
	boot := s.awaitBootstrap(orderBootstrap, "it waits", func(b bootstrapStatus) bool { return b.Phase == "NeedsOperator" })
	require.Zero(t, snapshots(s, conn))
	require.Equal(t, int64(20), boot.RowsDone, "the customers")
	require.Len(t, boot.Failed, 1)
	require.Equal(t, "public.orders", boot.Failed[0].Table)
	require.Equal(t, "PermissionDenied", boot.Failed[0].Failure.Code)
	require.Contains(t, boot.Failed[0].Failure.Fix, `GRANT SELECT ON "public"."orders"`)
	s.requireSeries(`perdure_component_unwell{component="query.default.open-orders",health="failing",phase="NeedsOperator"}`,
		`perdure_component_unwell{component="`+orderBootstrap+`",health="failing",phase="NeedsOperator"}`)

	s.signal(orderBootstrap, "retryTable", `{"table": "public.customers"}`)
	s.signal(orderBootstrap, "retryTable", `["public.orders"]`)
	err := s.retryTable(object{"table": "public.customers"})
	const refusal = "public.customers is none of the tables that failed: public.orders"
	require.ErrorContains(t, err, refusal)
	boot = s.awaitBootstrap(orderBootstrap, "two refusals", func(b bootstrapStatus) bool { return len(b.Commands) == 2 })
	require.Equal(t, "NeedsOperator", boot.Phase)
	require.Equal(t, refusal, boot.Commands[0].Error)
	require.Contains(t, boot.Commands[1].Error, "decoding the payload")

	// Both tables go on meanwhile.
	execSQL(t, conn, `UPDATE customers SET name = name || '+' WHERE id % 2 = 0; INSERT INTO orders (customer_id, total) SELECT 1 + i % 20, i FROM generate_series(1, 50) i`)
	execSQL(t, conn, strings.TrimSuffix(strings.TrimPrefix(boot.Failed[0].Failure.Fix, "Run "), " then signal resume."))
	require.NoError(t, s.retryTable(object{"table": "public.orders", "requestId": "once"}))
	s.awaitPhase("query.default.open-orders", "Running", 90*time.Second)
	s.requireEqualsSQL(nil, 60*time.Second)
	require.NoError(t, s.statusInto(orderBootstrap, &boot))
	require.Equal(t, 2, boot.Snapshot)
	require.Equal(t, int64(20+550), boot.RowsDone, "customers are copied once")
	require.Equal(t, 1, s.bootstraps("query.default.open-orders"))

	execSQL(t, conn, `REVOKE SELECT ON orders FROM reader`)
	other := queryInput()
	other["spec"].(object)["name"] = "other"
	s.startComponent("Query", "query.default.other", other)
	s.awaitPhase("query.default.other", "NeedsOperator", 90*time.Second)
	s.signal("query.default.other", "delete")
	s.requireClosed("query.default.other")
	s.requireClosed("bootstrap.default.other.shop.1")
	s.requireNothingOf("other")
	require.Zero(t, snapshots(s, conn))
	s.requireEqualsSQL(nil, 60*time.Second)
}

// retryTable is the update of this name.
func (s *system) retryTable(payload object) error {
	handle, err := s.client().UpdateWorkflow(s.context(30*time.Second), client.UpdateWorkflowOptions{
		WorkflowID: orderBootstrap, UpdateName: "retryTable", Args: []any{payload}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return err
	}
	return handle.Get(s.context(30*time.Second), nil)
}

// requireNothingOf looks in streams and buckets for what a query has left.
func (s *system) requireNothingOf(query string) {
	s.t.Helper()
	nc, err := nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", s.nats))
	require.NoError(s.t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(s.t, err)
	streams := js.StreamNames(s.context(20 * time.Second))
	for name := range streams.Name() {
		require.NotContains(s.t, name, query)
	}
	require.NoError(s.t, streams.Err())
	for _, bucket := range []string{"bootstrap", "subscriptions", "queries", "positions"} {
		kv, err := js.KeyValue(s.context(10*time.Second), bucket)
		require.NoError(s.t, err)
		keys, err := kv.ListKeys(s.context(10 * time.Second))
		require.NoError(s.t, err)
		for key := range keys.Keys() {
			require.NotContains(s.t, key, "."+query)
		}
	}
}

// TestTableIsRetriedWhileOthersAreCopied, in the same snapshot; the query tells of it meanwhile, and is told to go on.
func TestTableIsRetriedWhileOthersAreCopied(t *testing.T) {
	s := newSystem(t, apart(t), limitedRole)
	conn := s.startLimited(1000)
	execSQL(t, conn, `INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(21, 15000) i; REVOKE SELECT ON orders FROM reader`)
	s.startComponent("Query", "query.default.open-orders", queryInput())
	s.awaitBootstrap(orderBootstrap, "a table failed", func(b bootstrapStatus) bool { return b.Phase == "Copying" && len(b.Failed) == 1 })
	var st struct {
		Phase, Health string
		Bootstrap     struct{ Trouble []struct{ Tables []string } }
	}
	eventually(t, 10*time.Second, "the query tells", func() error {
		err := s.statusInto("query.default.open-orders", &st)
		if err == nil && st.Health != "degraded" {
			err = fmt.Errorf("status is %+v", st)
		}
		return err
	})
	require.Equal(t, "Bootstrapping", st.Phase)
	require.Equal(t, []string{"public.orders"}, st.Bootstrap.Trouble[0].Tables)
	execSQL(t, conn, `GRANT SELECT ON orders TO reader`)
	s.signal("query.default.open-orders", "resume")
	s.awaitPhase("query.default.open-orders", "Running", 2*time.Minute)
	s.requireEqualsSQL(nil, 60*time.Second)
	var boot bootstrapStatus
	require.NoError(t, s.statusInto(orderBootstrap, &boot))
	require.Equal(t, 1, boot.Snapshot)
	require.Equal(t, "applied", boot.Commands[0].Outcome)
}
