package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	sdkpb "go.temporal.io/api/sdk/v1"

	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/workflows"
)

const (
	wrongPassword = "horse-wrong-battery"
	rightPassword = "horse-right-battery"
)

// Each case is a mistake that no retry can mend: the workflow parks in NeedsOperator with a stable code, causes and a fix,
// wherever an operator looks, and leaves neither slot nor publication behind.
func TestMistakesParkTheWorkflowWithCodeAndFix(t *testing.T) {
	s := newSystem(t, ownPostgres(nil))
	conn := s.connect()
	execSQL(t, conn, schema+`
		CREATE TABLE keyless (a int);
		CREATE ROLE plain LOGIN;
		GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain;
		CREATE ROLE guarded LOGIN REPLICATION PASSWORD '`+rightPassword+`';`)
	requirePassword(t, s, "guarded")
	physical := clustertest.Own(t, map[string]string{"fsync": "off", "wal_level": "replica"})
	clustertest.Exec(t, physical.URL(), schema)
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte(wrongPassword+"\n"), 0o600))

	tables := []object{{"name": "public.customers", "label": "Customer"}}
	source := func(change object) object {
		config := object{"host": "127.0.0.1", "port": s.postgres.Port(), "database": "postgres", "user": "postgres", "sslMode": "disable", "tables": tables}
		for k, v := range change {
			config[k] = v
		}
		return object{"kind": "postgres", "config": config}
	}
	for _, c := range []struct {
		workflowType, name string
		spec               object
		code, class        string
		sqlstate           string // with which the server refuses the connection, if it does
	}{
		{"Source", "unknown-table", source(object{"tables": []object{{"name": "public.nowhere"}}}), "TableMissing", "configuration", ""},
		{"Source", "no-primary-key", source(object{"tables": []object{{"name": "public.keyless"}}}), "KeyMissing", "configuration", ""},
		{"Source", "no-replication", source(object{"user": "plain"}), "PermissionDenied", "authorisation", ""},
		{"Source", "wal-level", source(object{"port": physical.Port()}), "WalLevelNotLogical", "configuration", ""},
		{"Source", "wrong-password", source(object{"user": "guarded", "password": object{"$secret": "file:" + secret}}), "AuthFailed", "authorisation", "28P01"},
		{"Source", "unknown-role", source(object{"user": "nobody"}), "AuthFailed", "authorisation", "28000"},
		{"Source", "missing-secret", source(object{"password": object{"$secret": "env:PERDURE_E2E_UNSET"}}), "SecretMissing", "configuration", ""},
		{"Source", "literal-password", source(object{"password": "hunter2"}), "ConfigInvalid", "configuration", ""},
		{"Source", "unknown-field", source(object{"tabels": tables}), "ConfigInvalid", "configuration", ""},
		{"Query", "unknown-field", object{"query": "MATCH (o:Order) RETURN o.id AS id", "sources": []string{"shop"}, "source": "shop"}, "ConfigInvalid", "configuration", ""},
		{"Query", "does-not-parse", object{"query": "MATCH (o:Order RETURN o", "sources": []string{"shop"}}, "QueryInvalid", "configuration", ""},
	} {
		id := strings.ToLower(c.workflowType) + ".default." + c.name
		t.Run(id, func(t *testing.T) {
			c.spec["name"] = c.name
			s.startComponent(c.workflowType, id, object{"spec": c.spec})
			st := s.awaitPhase(id, "NeedsOperator", 60*time.Second)
			s.requireShown(st, c.code)
			require.Equal(t, id, st.Component)
			require.Equal(t, c.class, st.Breaker.LastError.Class)
			if c.sqlstate != "" {
				causes := st.Breaker.LastError.Causes
				require.Greater(t, len(causes), 2, "what was done, the connection, the server's answer")
				require.Regexp(t, `^FATAL: .* \(SQLSTATE `+c.sqlstate+`\)$`, causes[len(causes)-1])
				require.Equal(t, c.sqlstate, st.Breaker.LastError.Details["sqlstate"])
			}
		})
	}
	requireNothingLeft(t, s.postgres.URL())
	requireNothingLeft(t, physical.URL())
	// None of them has a loop, nor will anything happen to it before somebody comes: alerts must know of it all the same.
	s.requireSeries(
		`perdure_component_failures_total{code="AuthFailed",component="source.default.wrong-password"}`,
		`perdure_component_failures_total{code="QueryInvalid",component="query.default.does-not-parse"}`,
	)
	s.dev.terminate(t, 60*time.Second)
	s.startDev()
	s.requireSeries(
		"perdure_component_health_known",
		`perdure_component_unwell{component="source.default.wrong-password",health="failing",phase="NeedsOperator"}`,
		`perdure_component_unwell{component="query.default.does-not-parse",health="failing",phase="NeedsOperator"}`,
	)
}

// requireShown demands that a component's failure shows in the status, in the Temporal UI, in its list and in the log.
func (s *system) requireShown(st status, code string) {
	s.t.Helper()
	failed := st.Breaker.LastError
	require.NotNil(s.t, failed, "%+v", st)
	require.Equal(s.t, code, failed.Code, "%+v", failed)
	require.NotEmpty(s.t, failed.Message)
	require.NotEmpty(s.t, failed.Fix)

	// The UI shows the details that this query answers.
	value, err := s.client().QueryWorkflow(s.context(10*time.Second), st.Component, "", "__temporal_workflow_metadata")
	require.NoError(s.t, err)
	var metadata sdkpb.WorkflowMetadata
	require.NoError(s.t, value.Get(&metadata))
	for _, want := range []string{st.Phase, code, failed.Message, failed.Fix} {
		require.Contains(s.t, metadata.CurrentDetails, want)
	}
	// The list follows the workflow after a moment.
	eventually(s.t, 10*time.Second, st.Component+" in the list of phase "+st.Phase, func() error {
		out, err := s.tctl("workflow", "list", "--query", fmt.Sprintf(`PerdurePhase = %q AND WorkflowId = %q`, st.Phase, st.Component))
		if err == nil && !strings.Contains(out, st.Component) {
			err = fmt.Errorf("it is not listed: %s", out)
		}
		return err
	})
	require.Contains(s.t, s.dev.output.tail(1<<20),
		fmt.Sprintf(`"component": %q, "phase": %q, "code": %q`, st.Component, st.Phase, code), "in the log")
}

func requireNothingLeft(t *testing.T, url string) {
	t.Helper()
	require.Equal(t, "0", clustertest.Text(t, url, `SELECT count(*) FROM pg_replication_slots`), "half-created slots")
	require.Equal(t, "0", clustertest.Text(t, url, `SELECT count(*) FROM pg_publication`), "half-created publications")
}

// requirePassword makes the test's own server ask a role for its password.
func requirePassword(t *testing.T, s *system, role string) {
	t.Helper()
	rules := filepath.Join(s.postgres.Dir(), "pg_hba.conf")
	old, err := os.ReadFile(rules)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(rules, append([]byte("host all "+role+" 127.0.0.1/32 scram-sha-256\n"), old...), 0o600))
	execSQL(t, s.connect(), `SELECT pg_reload_conf()`)
	eventually(t, 10*time.Second, "a server that asks for passwords", func() error {
		conn, err := pgx.Connect(s.context(10*time.Second), s.postgres.URLFor("postgres", role))
		if err == nil {
			_ = conn.Close(context.Background())
			return fmt.Errorf("%s connected without one", role)
		}
		return nil
	})
}

// The operator writes the right password where the reference points, and says so. Neither password ever comes to be where
// people or programs read along.
func TestWrongPasswordIsMendedByTheOperator(t *testing.T) {
	const id = "source.default.shop"
	s := newSystem(t, ownPostgres(nil))
	execSQL(t, s.connect(), schema+`CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '`+rightPassword+`';`)
	requirePassword(t, s, "guarded")
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte(wrongPassword+"\n"), 0o600))

	s.startComponent("Source", id, object{"spec": object{"name": "shop", "kind": "postgres", "config": object{
		"host": "127.0.0.1", "port": s.postgres.Port(), "database": "postgres", "user": "guarded", "sslMode": "disable",
		"password": object{"$secret": "file:" + secret}, "tables": []object{{"name": "public.customers"}, {"name": "public.orders"}},
	}}})
	s.requireShown(s.awaitPhase(id, "NeedsOperator", 60*time.Second), "AuthFailed")
	requireNothingLeft(t, s.postgres.URL())

	require.NoError(t, os.WriteFile(secret, []byte(rightPassword+"\n"), 0o600))
	s.signal(id, "resume")
	s.awaitPhase(id, "Running", 60*time.Second)
	eventually(t, 60*time.Second, "a slot in use", func() error {
		if n := clustertest.Text(t, s.postgres.URL(), `SELECT count(*) FROM pg_replication_slots WHERE active`); n != "1" {
			return fmt.Errorf("%s slots are active", n)
		}
		return nil
	})

	said := s.dev.output.tail(1 << 20)
	described, err := s.client().DescribeWorkflowExecution(s.context(10*time.Second), id, "")
	require.NoError(t, err)
	said += described.String()
	events := s.client().GetWorkflowHistory(s.context(10*time.Second), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(t, err)
		content, err := event.Marshal()
		require.NoError(t, err)
		said += string(content)
	}
	require.Contains(t, said, secret, "the reference, which shows that payloads are looked into")
	require.NotContains(t, said, wrongPassword)
	require.NotContains(t, said, rightPassword)
}

func TestWalLevelNotLogicalIsMendedByTheOperator(t *testing.T) {
	s := newSystem(t, ownPostgres(map[string]string{"wal_level": "replica"}))
	execSQL(t, s.connect(), schema)
	s.startComponent("Source", "source.default.shop", sourceInput(s))
	s.requireShown(s.awaitPhase("source.default.shop", "NeedsOperator", 60*time.Second), "WalLevelNotLogical")

	s.restartPostgres(nil) // whose default is logical
	s.signal("source.default.shop", "resume")
	s.awaitPhase("source.default.shop", "Running", 60*time.Second)
}

// A host that never answered needs an operator, since its address may be wrong, and is tried again all the same. The long
// form waits for that; the short one signals resume.
func TestUnreachableHostIsRetriedUntilItAnswers(t *testing.T) {
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	s.stopPostgres()
	s.startComponent("Source", "source.default.shop", sourceInput(s))
	st := s.awaitPhase("source.default.shop", "NeedsOperator", 60*time.Second)
	s.requireShown(st, "Unreachable")
	require.Equal(t, "source.default.shop", st.Component)
	require.Equal(t, "transient", st.Breaker.LastError.Class)
	causes := st.Breaker.LastError.Causes
	require.Equal(t, "connection refused", causes[len(causes)-1], "from the system call on")
	require.WithinDuration(t, time.Now(), st.Breaker.OpenUntil, 2*time.Minute, "the next try")

	s.restartPostgres(nil)
	if !full() {
		s.signal("source.default.shop", "resume")
	}
	s.awaitPhase("source.default.shop", "Running", 3*time.Minute)
}

// TestPostgresThatIsAwayIsSeen wherever an operator looks, while its source goes on trying, and so is that it is back.
func TestPostgresThatIsAwayIsSeen(t *testing.T) {
	const id = "source.default.shop"
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	s.startComponent("Source", id, sourceInput(s))
	s.awaitPhase(id, "Running", 60*time.Second)
	becomes := func(health string) (st workflows.Status) {
		t.Helper()
		eventually(t, 100*time.Second, health, func() error { // a change is told once a minute at most
			st = workflows.Status{}
			err := s.statusInto(id, &st)
			if err == nil && st.Health != health {
				err = fmt.Errorf("%+v", st)
			}
			return err
		})
		return st
	}
	s.stopPostgres()
	st := becomes("degraded")
	require.Equal(t, workflows.PhaseRunning, st.Phase)
	require.Equal(t, "Unreachable", st.Interruption.LastError.Code)
	require.NotEmpty(t, st.Interruption.LastError.Fix)
	require.Greater(t, st.Interruption.Failures, 1)
	require.Contains(t, s.metrics(), `perdure_component_interrupted_seconds{code="Unreachable",component="source.default.shop"} `)

	s.restartPostgres(nil)
	require.Nil(t, becomes("healthy").Interruption)
	require.NotContains(t, s.metrics(), "perdure_component_interrupted_seconds{")
	require.Less(t, becomes("healthy").History.Events, 60)
}
