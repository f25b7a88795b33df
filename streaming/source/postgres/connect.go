package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/perdure/perdure/streaming/failure"
)

const readBuffer = 64 << 10

// session holds the settings of every connection. What is text in the stream and in a snapshot depends on them, and a
// database or role may come with others.
var session = map[string]string{
	"client_encoding":                     "UTF8",
	"datestyle":                           "ISO",
	"intervalstyle":                       "postgres",
	"extra_float_digits":                  "3",
	"timezone":                            "UTC",
	"bytea_output":                        "hex",
	"lc_monetary":                         "C",
	"search_path":                         "pg_catalog",
	"standard_conforming_strings":         "on",
	"jit":                                 "off", // compiling takes longer than all that is asked of the catalog
	"row_security":                        "off", // a row that is hidden is an error
	"idle_in_transaction_session_timeout": "0",
}

// connectionConfig builds what both kinds of connections share. It is done for each connection, so that changed secrets
// and files are used from the next one on. What cannot be read is reported all at once.
func (s *Source) connectionConfig() (*pgx.ConnConfig, error) {
	c := &s.config
	d, err := s.parameters()
	password, passwordErr := c.Password.Resolve(s.settings.Secret)
	if passwordErr != nil {
		passwordErr = fmt.Errorf("resolving the password: %w", passwordErr)
	}
	certificates, tlsErr := s.readCertificates()
	if err := errors.Join(err, passwordErr, tlsErr); err != nil {
		return nil, err
	}
	if password == "" {
		password = d["password"]
	}
	delete(d, "password") // so that no error can repeat it
	config, err := pgx.ParseConfig(d.String())
	switch {
	case err != nil && !c.URL.secret.IsZero():
		return nil, errSecretURL
	case err != nil:
		return nil, failure.ConfigInvalid.Errorf("building the connection settings: %w", err)
	case config.Database == "":
		return nil, failure.ConfigInvalid.Errorf("database: is required")
	}
	if password != "" {
		config.Password = password
	}
	certificates.apply(&config.Config)
	if config.ValidateConnect == nil && d["target_session_attrs"] != "any" && os.Getenv("PGTARGETSESSIONATTRS") != "any" {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	}
	for name, value := range session {
		config.RuntimeParams[name] = value
	}
	config.RuntimeParams["application_name"] = s.applicationName()
	config.ConnectTimeout = c.ConnectTimeout
	dialer := &net.Dialer{
		// A name's next address, such as one of IPv4, must have its turn within the host's time.
		Timeout:         c.ConnectTimeout / 2,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
	}
	config.DialFunc = dialer.DialContext
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, readBuffer), w)
	}
	return config, nil
}

// connecting bounds the attempts at all hosts. pgconn bounds each of them, but not looking up their names.
func (s *Source) connecting(ctx context.Context, config *pgconn.Config) (context.Context, context.CancelFunc) {
	hosts := map[string]bool{net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))): true}
	for _, f := range config.Fallbacks {
		hosts[net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))] = true
	}
	return context.WithTimeout(ctx, time.Duration(len(hosts))*s.config.ConnectTimeout)
}

// applicationName tells attempts apart in pg_stat_activity: perdure/<slot>/<generation>. The slot stands for the
// component, whose own name could be cut off by the server.
func (s *Source) applicationName() string {
	slot := s.slot
	if most := maxIdentifier - len("perdure//") - 20; len(slot) > most {
		slot = slot[:most]
	}
	return fmt.Sprintf("perdure/%s/%d", slot, s.settings.Generation)
}

// olderAttempt reports whether a backend with this application name belongs to an earlier generation of this source.
func (s *Source) olderAttempt(applicationName string) bool {
	mine := s.applicationName()
	prefix := mine[:strings.LastIndexByte(mine, '/')+1]
	number, ours := strings.CutPrefix(applicationName, prefix)
	generation, err := strconv.ParseUint(number, 10, 64)
	return ours && err == nil && generation < s.settings.Generation
}

// connect opens an ordinary connection.
func (s *Source) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := s.connectionConfig()
	if err != nil {
		return nil, err
	}
	for name, limit := range map[string]time.Duration{
		"statement_timeout":                   s.config.StatementTimeout,
		"lock_timeout":                        s.config.LockTimeout,
		"idle_in_transaction_session_timeout": s.config.IdleTimeout,
	} {
		config.RuntimeParams[name] = strconv.FormatInt(limit.Milliseconds(), 10)
	}
	bounded, cancel := s.connecting(ctx, &config.Config)
	defer cancel()
	conn, err := pgx.ConnectConfig(bounded, config)
	if err != nil {
		return nil, wrapConnect(ctx, err, "connecting")
	}
	if err = checkSession(bounded, conn.PgConn()); err == nil {
		err = takeRawText(bounded, conn.PgConn())
	}
	if err != nil {
		hangUp(ctx, conn)
		return nil, err
	}
	return conn, nil
}

// connectReplication opens a connection that understands the replication commands.
func (s *Source) connectReplication(ctx context.Context) (*pgconn.PgConn, error) {
	config, err := s.connectionConfig()
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["replication"] = "database"
	// The server's side of a stream is one statement without end; receiveTimeout watches it.
	config.RuntimeParams["statement_timeout"], config.RuntimeParams["lock_timeout"] = "0", "0"
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(&gatherer{from: r}, readBuffer), w)
	}
	bounded, cancel := s.connecting(ctx, &config.Config)
	defer cancel()
	conn, err := pgconn.ConnectConfig(bounded, &config.Config)
	if err != nil {
		return nil, wrapConnect(ctx, err, "connecting for replication")
	}
	if err := takeRawText(bounded, conn); err != nil {
		hangUp(ctx, conn)
		return nil, err
	}
	return conn, nil
}

// takeRawText has text of a database whose encoding is SQL_ASCII sent as it is. The server would refuse to send what is
// not UTF-8, and say neither which row it is nor let us go on; decoding says that.
func takeRawText(ctx context.Context, conn *pgconn.PgConn) error {
	if conn.ParameterStatus("server_encoding") != "SQL_ASCII" {
		return nil
	}
	_, err := conn.Exec(ctx, "SET client_encoding = 'SQL_ASCII'").ReadAll()
	return wrap(err, "setting the encoding")
}

// bounded limits one short conversation with the server, a little above what the server limits itself.
func (s *Source) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.config.StatementTimeout+statementMargin)
}

const (
	statementMargin = 5 * time.Second
	closeTimeout    = 2 * time.Second
)

// closer is satisfied by both kinds of connections.
type closer interface {
	Close(ctx context.Context) error
}

// hangUp closes a connection within a bound, also when the caller's context has ended.
func hangUp(ctx context.Context, conn closer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on the farewell
}
