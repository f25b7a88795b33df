package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each case is a mistake that no retry can mend: the workflow parks in NeedsOperator with a stable code and a fix, and
// leaves neither slot nor publication behind.
func TestMistakesParkTheWorkflowWithCodeAndFix(t *testing.T) {
	s := newSystem(t)
	conn := s.connect()
	execSQL(t, conn, schema+`
		CREATE TABLE keyless (a int);
		DROP ROLE IF EXISTS perdure_e2e_plain;
		CREATE ROLE perdure_e2e_plain LOGIN PASSWORD 'x';`)
	t.Cleanup(func() { execSQL(t, conn, `DROP OWNED BY perdure_e2e_plain; DROP ROLE perdure_e2e_plain`) })
	execSQL(t, conn, `GRANT SELECT ON ALL TABLES IN SCHEMA public TO perdure_e2e_plain`)
	host, port, database := conn.Config().Host, conn.Config().Port, conn.Config().Database

	tables := []object{{"name": "public.customers", "label": "Customer"}}
	source := func(change object) object {
		config := object{"url": object{"$secret": "env:PERDURE_E2E_DATABASE"}, "tables": tables}
		for k, v := range change {
			if v == nil {
				delete(config, k)
			} else {
				config[k] = v
			}
		}
		return config
	}
	at := func(user string) object {
		return source(object{"url": nil, "host": host, "port": port, "database": database, "user": user})
	}
	for _, c := range []struct {
		name   string
		config object
		code   string
	}{
		{"unknown-table", source(object{"tables": []object{{"name": "public.nowhere"}}}), "TableMissing"},
		{"no-primary-key", source(object{"tables": []object{{"name": "public.keyless"}}}), "KeyMissing"},
		{"no-replication", at("perdure_e2e_plain"), "PermissionDenied"},
		{"unknown-role", at("perdure_e2e_nobody"), "AuthFailed"},
		{"unknown-field", source(object{"tabels": tables}), "ConfigInvalid"},
		{"literal-password", source(object{"password": "hunter2"}), "ConfigInvalid"},
		{"missing-secret", source(object{"url": object{"$secret": "env:PERDURE_E2E_UNSET"}}), "SecretMissing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := "source.default." + c.name
			s.startComponent("Source", id, object{"spec": object{"name": c.name, "kind": "postgres", "config": c.config}})
			st := s.awaitPhase(id, "NeedsOperator", 60*time.Second)
			requireError(t, st, c.code)
			require.Contains(t, s.dev.output.tail(1<<20), `"component": "`+id+`", "phase": "NeedsOperator", "code": "`+c.code+`"`, "in the log")
		})
	}
	t.Run("query-that-does-not-parse", func(t *testing.T) {
		id := "query.default.broken"
		s.startComponent("Query", id, object{"spec": object{"name": "broken", "query": "MATCH (o:Order RETURN o", "sources": []string{"shop"}}})
		requireError(t, s.awaitPhase(id, "NeedsOperator", 60*time.Second), "QueryInvalid")
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var slots, publications int
	require.NoError(t, conn.QueryRow(ctx, `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`).Scan(&slots))
	require.NoError(t, conn.QueryRow(ctx, `SELECT count(*) FROM pg_publication`).Scan(&publications))
	require.Zero(t, slots, "half-created slots")
	require.Zero(t, publications, "half-created publications")
}

func requireError(t *testing.T, st status, code string) {
	t.Helper()
	require.NotNil(t, st.Breaker.LastError, "%+v", st)
	require.Equal(t, code, st.Breaker.LastError.Code, "%+v", st.Breaker.LastError)
	require.NotEmpty(t, st.Breaker.LastError.Message)
	require.NotEmpty(t, st.Breaker.LastError.Fix)
}

func TestWalLevelNotLogicalIsMendedByTheOperator(t *testing.T) {
	s := newSystem(t, ownPostgres(map[string]string{"wal_level": "replica"}))
	execSQL(t, s.connect(), schema)
	s.startComponent("Source", "source.default.shop", sourceInput(s))
	st := s.awaitPhase("source.default.shop", "NeedsOperator", 60*time.Second)
	requireError(t, st, "WalLevelNotLogical")

	s.restartPostgres(nil) // whose default is logical
	s.signal("source.default.shop", "resume")
	s.awaitPhase("source.default.shop", "Running", 60*time.Second)
}

func TestUnreachableHostIsRetriedUntilItAnswers(t *testing.T) {
	s := newSystem(t, ownPostgres(nil))
	execSQL(t, s.connect(), schema)
	s.stopPostgres()
	s.startComponent("Source", "source.default.shop", sourceInput(s))
	var attempts int
	eventually(t, 60*time.Second, "retries that are visible", func() error {
		out, err := s.tctl("workflow", "describe", "-w", "source.default.shop")
		if err != nil {
			return err
		}
		attempts++
		st, err := s.status("source.default.shop")
		if err != nil {
			return err
		}
		if st.Phase == "NeedsOperator" {
			t.Fatalf("an unreachable host must be retried: %+v", st.Breaker.LastError)
		}
		if attempts < 3 {
			return fmt.Errorf("waiting for retries: %.300s", out)
		}
		return nil
	})
	s.restartPostgres(nil)
	s.awaitPhase("source.default.shop", "Running", 90*time.Second)
}
