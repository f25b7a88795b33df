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

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
)

func TestCodes(t *testing.T) {
	for _, c := range []struct {
		state, message string
		want           *failure.Code
	}{
		{"28P01", "password authentication failed", failure.AuthFailed},
		{"28000", "no pg_hba.conf entry", failure.AuthFailed},
		{"42501", "permission denied", failure.PermissionDenied},
		{"3D000", "database does not exist", failure.DatabaseMissing},
		{"42P01", "relation does not exist", failure.TableMissing},
		{"42703", "column does not exist", failure.ColumnMissing},
		{"42704", `replication slot "x" does not exist`, failure.SlotMissing},
		{"42704", `publication "x" does not exist`, failure.PublicationConflict},
		{"42704", `type "x" does not exist`, failure.Unclassified},
		{"55006", `replication slot "x" is active for PID 7`, failure.ServerBusy},
		{"55000", `can no longer get changes from replication slot "x"`, failure.SlotInvalidated},
		{"55000", "logical decoding requires wal_level >= logical", failure.WalLevelNotLogical},
		{"55000", "something else", failure.Unclassified},
		{"53300", "too many connections", failure.ServerBusy},
		{"53400", "all replication slots are in use", failure.SlotCapacity},
		{"57P01", "terminating connection due to administrator command", failure.ServerBusy},
		{"57P02", "crash shutdown", failure.ServerBusy},
		{"57P03", "the database system is starting up", failure.ServerBusy},
		{"57P04", "database dropped", failure.DatabaseMissing},
		{"57014", "canceling statement due to statement timeout", failure.Timeout},
		{"08006", "connection failure", failure.ConnectionLost},
		{"58P01", "requested WAL segment has already been removed", failure.SlotInvalidated},
		{"40P01", "deadlock detected", failure.ServerBusy},
		{"25006", "cannot execute CREATE PUBLICATION in a read-only transaction", failure.ServerRole},
		{"0A000", "feature not supported", failure.Unsupported},
		{"XX000", "internal error", failure.Unclassified},
		{"99999", "news to us", failure.Unclassified},
	} {
		cause := &pgconn.PgError{Code: c.state, Message: c.message, SchemaName: "s", TableName: "t"}
		err := wrap(fmt.Errorf("outer: %w", cause), "doing %s", "this")
		require.Equal(t, c.want.ID, failure.CodeOf(err).ID, "%s %s", c.state, c.message)
		require.ErrorIs(t, err, cause)
		require.Equal(t, map[string]string{"sqlstate": c.state, "table": "s.t"}, failure.Describe(err).Details)
		require.ErrorContains(t, err, "doing this: outer: ")
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
