package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/perdure/perdure/streaming/failure"
)

// A pooler in front of the server refuses most settings of a connection and replication. Told to ignore them, it does so in
// silence: values would come in other forms, and commands of replication go to an ordinary connection. Where a pooler passes
// on both, nothing is wrong with it.

// pooled says that a pooler does not do what is needed.
func pooled(format string, args ...any) error {
	return failure.Unsupported.Errorf(format, args...).
		WithFix("Name the server itself in the spec, not a pooler in front of it, then send it again with the signal reconfigure.")
}

// refusedByPooler reports whether an error is what PgBouncer answers to a setting that it does not know.
func refusedByPooler(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.Code == "08P01" && strings.HasPrefix(server.Message, "unsupported startup parameter")
}

// mustHold are settings that text in the stream and in snapshots depends on, and that a server shows as they were set.
var mustHold = []string{"search_path", "bytea_output", "extra_float_digits", "intervalstyle", "lc_monetary", "row_security"}

// checkSession makes sure that the settings of a new connection came to the server.
func checkSession(ctx context.Context, conn *pgconn.PgConn) error {
	shown := make([]string, len(mustHold))
	for i, name := range mustHold {
		shown[i] = "current_setting(" + literal(name) + ")"
	}
	results, err := conn.Exec(ctx, "SELECT "+strings.Join(shown, ", ")).ReadAll()
	if err != nil {
		return wrap(err, "checking the connection's settings")
	}
	for i, value := range results[0].Rows[0] {
		if name := mustHold[i]; string(value) != session[name] {
			return pooled("checking the connection's settings: %s is %q and was set to %q: something between us and the server, such as a pooler, ignored it", name, value, session[name])
		}
	}
	return nil
}

// identifySystem asks who the server is, which only connections for replication understand.
func identifySystem(ctx context.Context, conn *pgconn.PgConn) (pglogrepl.IdentifySystemResult, error) {
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == "42601" {
		return system, pooled("identifying the server: the connection is not one for replication: something between us and the server, such as a pooler, made it an ordinary one: %w", err)
	}
	return system, wrap(err, "identifying the server")
}
