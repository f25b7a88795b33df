package postgres

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

func TestCodes(t *testing.T) {
	expected := make(map[string]bool) // entries of codes
	for _, c := range []struct {
		state, message string
		want           *failure.Code
		routine        string
	}{
		{"28P01", "password authentication failed", failure.AuthFailed, ""},
		{"28000", "no pg_hba.conf entry", failure.AuthFailed, ""},
		{"42501", "permission denied", failure.PermissionDenied, ""},
		{"3D000", "database does not exist", failure.DatabaseMissing, ""},
		{"42P01", "relation does not exist", failure.TableMissing, ""},
		{"42703", "column does not exist", failure.ColumnMissing, ""},
		{"42704", `replication slot "x" does not exist`, failure.SlotMissing, ""},
		{"42704", `publication "x" does not exist`, failure.PublicationConflict, ""},
		{"42704", `type "x" does not exist`, failure.Unclassified, ""},
		{"55006", `replication slot "x" is active for PID 7`, failure.ServerBusy, ""},
		{"55000", `can no longer get changes from replication slot "x"`, failure.SlotInvalidated, ""},
		{"55000", "logical decoding requires wal_level >= logical", failure.WalLevelNotLogical, ""},
		{"55000", "something else", failure.Unclassified, ""},
		{"53300", "too many connections", failure.ServerBusy, ""},
		{"53400", "all replication slots are in use", failure.SlotCapacity, ""},
		{"57P01", "terminating connection due to administrator command", failure.ServerBusy, ""},
		{"57P02", "crash shutdown", failure.ServerBusy, ""},
		{"57P03", "the database system is starting up", failure.ServerBusy, ""},
		{"57P04", "database dropped", failure.DatabaseMissing, ""},
		{"57014", "canceling statement due to statement timeout", failure.Timeout, ""},
		{"08006", "connection failure", failure.ConnectionLost, ""},
		{"58P01", "requested WAL segment has already been removed", failure.SlotInvalidated, ""},
		{"40P01", "deadlock detected", failure.ServerBusy, ""},
		{"25006", "cannot execute CREATE PUBLICATION in a read-only transaction", failure.ServerRole, ""},
		{"0A000", "feature not supported", failure.Unsupported, ""},
		{"42883", "no binary output function available for type aclitem", failure.TypeUnsupported, "getTypeBinaryOutputInfo"},
		{"42883", "keine binäre Ausgabefunktion verfügbar für Typ aclitem", failure.TypeUnsupported, "array_send"},
		{"42883", "no binary output function available for type x", failure.TypeUnsupported, "get_range_io_data"},
		{"42883", "operator does not exist: ltree = ltree", failure.Unsupported, "op_error"},
		{"42883", "function pg_current_snapshot() does not exist", failure.Unsupported, "ParseFuncOrColumn"},
		{"3F000", `schema "x" does not exist`, failure.TableMissing, ""},
		{"55P03", "could not obtain lock on relation", failure.ServerBusy, ""},
		{"42710", `replication slot "x" already exists`, failure.SlotTaken, ""},
		{"25P03", "terminating connection due to idle-in-transaction timeout", failure.ConnectionLost, ""},
		{"25P04", "terminating connection due to transaction timeout", failure.ConnectionLost, ""},
		{"57P05", "terminating connection due to idle-session timeout", failure.ConnectionLost, ""},
		{"22021", `invalid byte sequence for encoding "UTF8": 0xff`, failure.Unsupported, ""},
		{"55P02", `parameter "wal_level" cannot be changed without restarting the server`, failure.WalLevelNotLogical, ""},
		{"XX000", "internal error", failure.Unclassified, ""},
		{"99999", "news to us", failure.Unclassified, ""},
	} {
		cause := &pgconn.PgError{Code: c.state, Message: c.message, Routine: c.routine, SchemaName: "s", TableName: "t"}
		err := wrap(fmt.Errorf("outer: %w", cause), "doing %s", "this")
		require.Equal(t, c.want.ID, failure.CodeOf(err).ID, "%s %s", c.state, c.message)
		require.ErrorIs(t, err, cause)
		require.Equal(t, map[string]string{"sqlstate": c.state, "table": "s.t"}, failure.Describe(err).Details)
		require.ErrorContains(t, err, "doing this: outer: ")
		for _, n := range []int{5, 3, 2} {
			if _, ok := codes[c.state[:n]]; ok {
				expected[c.state[:n]] = true
				break
			}
		}
	}
	for state := range codes {
		require.True(t, expected[state], "SQLSTATE %s stands in the table of codes and not in this one", state)
	}
}

func TestTransportCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want *failure.Code
	}{
		{&net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}, failure.Unreachable},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, failure.Unreachable},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, failure.ConnectionLost},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, failure.Timeout},
		{io.ErrUnexpectedEOF, failure.ConnectionLost},
		{net.ErrClosed, failure.ConnectionLost},
		{fmt.Errorf("tls error: %w", x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}), failure.ServerUntrusted},
		{x509.CertificateInvalidError{Reason: x509.Expired}, failure.ServerUntrusted},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: unknown certificate authority")}, failure.AuthFailed},
		{errors.Join(errors.New("a"), pgconn.ErrStandbyConnection), failure.ServerRole},
		{context.Canceled, failure.Cancelled},
		{context.DeadlineExceeded, failure.Timeout},
		{errors.New("odd"), failure.Unclassified},
	} {
		require.Equal(t, c.want.ID, failure.CodeOf(wrap(c.err, "doing")).ID, "%v", c.err)
	}
	require.NoError(t, wrap(nil, "doing"))
	coded := failure.SlotTaken.Errorf("taken")
	require.Equal(t, failure.SlotTaken, failure.CodeOf(wrap(coded, "doing")))
	require.Equal(t, failure.Unreachable, failure.CodeOf(wrapConnect(t.Context(), context.DeadlineExceeded, "connecting")))
}

// TestUndefinedFunctions: the server says with the same SQLSTATE that a type has no binary form and that a function is missing.
func TestUndefinedFunctions(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), clustertest.Database(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	for statement, want := range map[string]*failure.Code{
		"SELECT relacl FROM pg_class WHERE relname = 'pg_class'": failure.TypeUnsupported,
		"SELECT ROW(acldefault('r', 10), 1)":                     failure.TypeUnsupported,
		"SELECT makeaclitem(10, 10, 'SELECT', false)":            failure.TypeUnsupported,
		"SELECT no_such()":                                       failure.Unsupported,
		"SELECT json '1' = json '1'":                             failure.Unsupported,
	} {
		err := conn.PgConn().ExecParams(t.Context(), statement, nil, nil, nil, []int16{pgx.BinaryFormatCode}).Read().Err
		var server *pgconn.PgError
		require.ErrorAs(t, err, &server, statement)
		require.Equal(t, "42883", server.Code, statement)
		require.Equal(t, want, failure.CodeOf(wrap(err, "reading")), "%s: %s", statement, server.Routine)
	}
}
