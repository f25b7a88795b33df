package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/perdure/perdure/streaming/failure"
)

// codes says what a SQLSTATE means to a source; five characters go before two, which are a whole class. What is not
// listed is Unclassified and retried.
var codes = map[string]*failure.Code{
	"08":    failure.ConnectionLost,
	"0A":    failure.Unsupported,
	"28":    failure.AuthFailed,
	"42501": failure.PermissionDenied,
	"3D000": failure.DatabaseMissing,
	"3F000": failure.TableMissing, // the schema is missing
	"42P01": failure.TableMissing,
	"42703": failure.ColumnMissing,
	"42704": failure.SlotMissing,        // undefined object: where it is a publication, provision says so
	"53":    failure.ServerBusy,         // out of connections, memory, disk
	"53400": failure.SlotCapacity,       // configuration limit exceeded: all replication slots are in use
	"55000": failure.Unclassified,       // prerequisite missing: refined below by what the server says about the slot
	"55006": failure.ServerBusy,         // the slot is active
	"55P03": failure.ServerBusy,         // lock not available
	"57014": failure.Timeout,            // statement timeout
	"57P":   failure.ServerBusy,         // shutting down, crashed, cannot connect now, database dropped
	"58P01": failure.SlotInvalidated,    // requested WAL segment has already been removed
	"XX":    failure.Unclassified,       // internal error of the server
	"42710": failure.SlotTaken,          // duplicate object
	"40":    failure.ServerBusy,         // serialisation failure, deadlock
	"25006": failure.ServerRole,         // read-only transaction: the server has become a standby, or is set to read only
	"25P03": failure.ConnectionLost,     // idle-in-transaction timeout
	"25P04": failure.ConnectionLost,     // transaction timeout
	"57P05": failure.ConnectionLost,     // idle session timeout
	"57P04": failure.DatabaseMissing,    // database dropped while connected
	"22021": failure.Unsupported,        // the database's encoding cannot be converted to UTF8
	"42883": failure.Unsupported,        // undefined function or operator: refined below where a type lacks its binary form
	"55P02": failure.WalLevelNotLogical, // a parameter that only a restart can change
}

func codeOfState(state string) *failure.Code {
	for _, n := range []int{5, 3, 2} {
		if len(state) >= n {
			if code, ok := codes[state[:n]]; ok {
				return code
			}
		}
	}
	return failure.Unclassified
}

// wrap says what was being done when err happened and gives err its code, unless it has one. The chain is kept.
func wrap(err error, doing string, args ...any) error {
	if err == nil {
		return nil
	}
	doing = fmt.Sprintf(doing, args...)
	if failure.Of(err) != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	var server *pgconn.PgError
	if errors.As(err, &server) {
		e := codeOfServer(server).Errorf("%s: %w", doing, err).WithDetail("sqlstate", server.Code)
		if server.TableName != "" {
			e = e.WithDetail("table", server.SchemaName+"."+server.TableName)
		}
		return e
	}
	return codeOfTransport(err).Errorf("%s: %w", doing, err)
}

// unsendable are the server's routines that miss the function that writes a type's binary form. Their names stand in the
// error whatever its language is.
var unsendable = []string{"getTypeBinaryOutputInfo", "array_send", "get_range_io_data", "get_multirange_io_data"}

// codeOfServer refines what the SQLSTATE alone leaves open. The texts are the server's, in English since lc_messages
// is ours to set only for superusers; where it is another language, the general code applies.
func codeOfServer(e *pgconn.PgError) *failure.Code {
	switch {
	case e.Code == "42883" && slices.Contains(unsendable, e.Routine):
		return failure.TypeUnsupported
	case e.Code == "42704" && strings.Contains(e.Message, "publication"):
		return failure.PublicationConflict
	case e.Code == "42704" && !strings.Contains(e.Message, "slot"):
		return failure.Unclassified
	case e.Code == "55000" && strings.Contains(e.Message, "replication slot"):
		return failure.SlotInvalidated
	case e.Code == "55000" && strings.Contains(e.Message, "wal_level"):
		return failure.WalLevelNotLogical
	}
	return codeOfState(e.Code)
}

func codeOfTransport(err error) *failure.Code {
	var (
		dns       *net.DNSError
		op        *net.OpError
		unknown   x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		untrusted *tls.CertificateVerificationError
		network   net.Error
	)
	switch {
	case errors.Is(err, context.Canceled):
		return failure.Cancelled
	case errors.Is(err, pgconn.ErrStandbyConnection), errors.Is(err, pgconn.ErrPrimaryConnection),
		errors.Is(err, pgconn.ErrReadOnlyConnection), errors.Is(err, pgconn.ErrReadWriteConnection):
		return failure.ServerRole
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &untrusted), errors.As(err, &invalid):
		return failure.ServerUntrusted
	case errors.As(err, &op) && op.Op == "remote error": // a TLS alert: the server refuses our certificate
		return failure.AuthFailed
	case errors.As(err, &dns), errors.As(err, &op) && op.Op == "dial", errors.Is(err, syscall.ECONNREFUSED):
		return failure.Unreachable
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return failure.Timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.As(err, &op):
		return failure.ConnectionLost
	}
	return failure.Unclassified
}

// wrapConnect is wrap for opening a connection, where running out of time means that nobody answers.
func wrapConnect(parent context.Context, err error, doing string, args ...any) error {
	if err == nil {
		return nil
	}
	if refusedByPooler(err) {
		return pooled("%s: a pooler refuses a setting that is needed: %w", fmt.Sprintf(doing, args...), err)
	}
	var server *pgconn.PgError
	answered := errors.As(err, &server)                            // with sslMode prefer there may be an error of each kind: the answer counts
	if !answered && codeOfTransport(err) == failure.Unclassified { // else the attempt without TLS, or at another host, counts
		for _, r := range refusals {
			if strings.Contains(err.Error(), r.text) {
				return r.code.Errorf("%s: %w", fmt.Sprintf(doing, args...), err).WithFix("%s", r.fix)
			}
		}
	}
	if !answered && parent.Err() == nil && codeOfTransport(err) == failure.Timeout && failure.Of(err) == nil {
		return failure.Unreachable.Errorf("%s: %w", fmt.Sprintf(doing, args...), err)
	}
	return wrap(err, doing, args...)
}

// refusals are errors for which pgconn has no type.
var refusals = []struct {
	text string
	code *failure.Code
	fix  string
}{
	{"server refused TLS connection", failure.Unsupported, "Turn TLS on at the server (ssl = on) or choose another sslMode in the spec, then signal resume."},
	{"channel binding required", failure.AuthFailed, "Use TLS (sslMode) and a password kept as SCRAM-SHA-256, or choose another channelBinding in the spec, then signal resume."},
	{"require_auth check failed", failure.AuthFailed, "Let the server ask for a method that require_auth allows, then signal resume."},
}
