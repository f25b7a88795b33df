package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres/cluster"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// authority issues certificates.
type authority struct {
	t           *testing.T
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.certificate, a.key = a.issue("ca", &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes name.crt and name.key.
func (a *authority) issue(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	a.serial++
	c.SerialNumber = big.NewInt(a.serial)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	require.NoError(a.t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	for path, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		require.NoError(a.t, os.WriteFile(filepath.Join(a.dir, name+path), pem.EncodeToMemory(block), 0o600))
	}
	parsed, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return parsed, key
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// give puts a file into a server's data directory, as the server's own.
func give(t *testing.T, c *cluster.Cluster, name string, content []byte) {
	path := filepath.Join(c.Dir(), name)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	info, err := os.Stat(filepath.Join(c.Dir(), "PG_VERSION"))
	require.NoError(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	require.NoError(t, os.Chown(path, int(owner.Uid), int(owner.Gid)))
}

// guardedServer has TLS with a certificate for localhost, and roles that come in with a certificate (cert_role), a
// password (scram_role) and nothing (open_role).
func guardedServer(t *testing.T, a *authority) *cluster.Cluster {
	a.issue("server", &x509.Certificate{Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"localhost"}})
	a.issue("client", &x509.Certificate{Subject: pkix.Name{CommonName: "cert_role"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	a.issue("stranger", &x509.Certificate{Subject: pkix.Name{CommonName: "stranger"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	c := clustertest.Own(t, map[string]string{"fsync": "off"})
	for _, name := range []string{"ca.crt", "server.crt", "server.key"} {
		content, err := os.ReadFile(a.path(name))
		require.NoError(t, err)
		give(t, c, name, content)
	}
	hba, err := os.ReadFile(filepath.Join(c.Dir(), "pg_hba.conf"))
	require.NoError(t, err)
	give(t, c, "pg_hba.conf", append([]byte("hostssl all cert_role 127.0.0.1/32 cert\nhostnossl all cert_role 127.0.0.1/32 reject\nhost all scram_role 127.0.0.1/32 scram-sha-256\n"), hba...))
	clustertest.Exec(t, c.URL(), "CREATE ROLE cert_role LOGIN REPLICATION; CREATE ROLE open_role LOGIN REPLICATION; CREATE ROLE scram_role LOGIN REPLICATION PASSWORD 'it''s right'")
	for name, value := range map[string]string{"ssl": "on", "ssl_ca_file": "ca.crt"} {
		clustertest.Exec(t, c.URL(), fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", name, value))
	}
	require.NoError(t, c.Restart(t.Context(), false))
	return c
}

// plainEnvironment hides the settings of whoever runs the test.
func plainEnvironment(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "") // as good as not set
		}
	}
}

func newSource(t *testing.T, members string) *Source {
	t.Helper()
	s, err := Factory{}.New(json.RawMessage(`{`+members+`, "tables": [{"name": "t"}]}`), source.Settings{Instance: "default", Name: "orders", Generation: 3})
	require.NoError(t, err)
	return s.(*Source)
}

// who opens a connection of each kind and says as whom, whether with TLS and with which certificate: always the same.
func who(ctx context.Context, s *Source) (string, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer hangUp(ctx, conn)
	replication, err := s.connectReplication(ctx)
	if err != nil {
		return "", err
	}
	defer hangUp(ctx, replication)
	const statement = "SELECT usename || coalesce(' tls' || NULLIF(' ' || coalesce(client_dn, ''), ' '), CASE WHEN ssl THEN ' tls' END, '') FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = "
	result, err := replication.Exec(ctx, statement+fmt.Sprint(conn.PgConn().PID())).ReadAll()
	if err != nil {
		return "", err
	}
	var streaming string
	if err := conn.QueryRow(ctx, statement+fmt.Sprint(replication.PID())).Scan(&streaming); err != nil {
		return "", err
	}
	if one := string(result[0].Rows[0][0]); one != streaming {
		return "", fmt.Errorf("%s reads, %s streams", one, streaming)
	}
	return streaming, nil
}

// TestConnections: each case is what a spec says, in which environment, and who is connected then, or the failure.
func TestConnections(t *testing.T) {
	plainEnvironment(t)
	a, other := newAuthority(t, "ours"), newAuthority(t, "others")
	c := guardedServer(t, a)
	host := fmt.Sprintf(`"host": "127.0.0.1", "port": %d, "database": "postgres"`, c.Port())
	open := host + `, "user": "open_role"`
	local := strings.Replace(open, "127.0.0.1", "localhost", 1)
	scram := host + `, "user": "scram_role"`
	address := map[string]string{"PGHOST": "127.0.0.1", "PGPORT": fmt.Sprint(c.Port()), "PGDATABASE": "postgres", "PGUSER": "open_role"}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel and never answers
	require.NoError(t, err)
	defer silent.Close()

	files := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(files, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	passfile := file("pgpass", "elsewhere:*:*:*:wrong\n127.0.0.1:*:postgres:scram_role:it's right\n")
	services := file("services", fmt.Sprintf("[shop]\nhost=127.0.0.1\nport=%d\ndbname=postgres\nuser=scram_role\nsslmode=require\n", c.Port()))
	t.Setenv("RIGHT", "it's right")
	t.Setenv("WRONG", "wrong")
	t.Setenv("WHOLE", fmt.Sprintf(`host=127.0.0.1 port=%d dbname=postgres user=scram_role password='it\'s right' sslmode=disable keepalives_idle=5`, c.Port()))
	t.Setenv("WHOLE_URL", fmt.Sprintf("postgres://scram_role:it%%27s%%20right@127.0.0.1:%d/postgres?sslmode=require", c.Port()))
	pemOf := func(name string) string {
		content, err := os.ReadFile(a.path(name))
		require.NoError(t, err)
		return string(content)
	}
	t.Setenv("CLIENT_CERT", pemOf("client.crt"))
	t.Setenv("CLIENT_KEY", pemOf("client.key"))
	t.Setenv("ROOTS", pemOf("ca.crt"))
	certificate := func(authority *authority, name string) string {
		return fmt.Sprintf(`, "sslCert": %q, "sslKey": %q`, authority.path(name+".crt"), authority.path(name+".key"))
	}
	roots := fmt.Sprintf(`, "sslRootCert": %q`, a.path("ca.crt"))

	for name, at := range map[string]struct {
		members string
		env     map[string]string
		want    string
		code    *failure.Code
		says    string
	}{
		"members":                        {members: open, want: "open_role tls"},
		"url":                            {members: fmt.Sprintf(`"url": "postgresql://open_role@127.0.0.1:%d/postgres?sslmode=disable"`, c.Port()), want: "open_role"},
		"url, mode beside it":            {members: fmt.Sprintf(`"url": "postgresql://open_role@127.0.0.1:%d/postgres?sslmode=disable", "sslMode": "require"`, c.Port()), want: "open_role tls"},
		"url of several hosts":           {members: fmt.Sprintf(`"url": "postgres://open_role@127.0.0.1:%d,127.0.0.1:%d/postgres"`, free.Addr().(*net.TCPAddr).Port, c.Port()), want: "open_role tls"},
		"keywords":                       {members: fmt.Sprintf(`"url": "host = 127.0.0.1 port=%d dbname='postgres' user=open_role sslmode=disable connect_timeout=3"`, c.Port()), want: "open_role"},
		"secret keywords":                {members: `"url": {"$secret": "env:WHOLE"}`, want: "scram_role"},
		"secret url":                     {members: `"url": {"$secret": "env:WHOLE_URL"}`, want: "scram_role tls"},
		"variables":                      {members: `"sslMode": "disable"`, env: address, want: "open_role"},
		"variables for what is left":     {members: `"user": "open_role"`, env: map[string]string{"PGHOST": "127.0.0.1", "PGPORT": fmt.Sprint(c.Port()), "PGDATABASE": "postgres", "PGUSER": "nobody", "PGSSLMODE": "disable"}, want: "open_role"},
		"service":                        {members: fmt.Sprintf(`"service": "shop", "serviceFile": %q, "password": {"$secret": "env:RIGHT"}`, services), want: "scram_role tls"},
		"service, user beside it":        {members: fmt.Sprintf(`"service": "shop", "serviceFile": %q, "user": "open_role"`, services), want: "open_role tls"},
		"service by variables":           {members: `"sslMode": "disable", "password": {"$secret": "env:RIGHT"}`, env: map[string]string{"PGSERVICE": "shop", "PGSERVICEFILE": services}, want: "scram_role"},
		"no such service":                {members: fmt.Sprintf(`"service": "shelf", "serviceFile": %q`, services), code: failure.ConfigInvalid, says: "unable to find service: shelf"},
		"service without database":       {members: fmt.Sprintf(`"service": "half", "serviceFile": %q`, file("half", "[half]\nhost=127.0.0.1\n")), code: failure.ConfigInvalid, says: "database: is required"},
		"scram":                          {members: scram + `, "password": {"$secret": "env:RIGHT"}`, want: "scram_role tls"},
		"wrong password":                 {members: scram + `, "password": {"$secret": "env:WRONG"}`, code: failure.AuthFailed},
		"PGPASSWORD":                     {members: scram, env: map[string]string{"PGPASSWORD": "it's right"}, want: "scram_role tls"},
		"password before PGPASSWORD":     {members: scram + `, "password": {"$secret": "env:RIGHT"}`, env: map[string]string{"PGPASSWORD": "wrong"}, want: "scram_role tls"},
		"password file":                  {members: scram + fmt.Sprintf(`, "passFile": %q`, passfile), want: "scram_role tls"},
		"PGPASSFILE":                     {members: scram, env: map[string]string{"PGPASSFILE": passfile}, want: "scram_role tls"},
		"no password":                    {members: scram, code: failure.AuthFailed},
		"bound password":                 {members: scram + `, "password": {"$secret": "env:RIGHT"}, "channelBinding": "require"`, want: "scram_role tls"},
		"nothing to bind":                {members: open + `, "channelBinding": "require"`, code: failure.AuthFailed, says: "channel binding"},
		"other method than allowed":      {members: `"url": "host=127.0.0.1 dbname=postgres user=open_role require_auth=scram-sha-256"`, env: map[string]string{"PGPORT": fmt.Sprint(c.Port())}, code: failure.AuthFailed, says: "require_auth"},
		"client certificate":             {members: host + `, "user": "cert_role", "sslMode": "require"` + certificate(a, "client"), want: "cert_role tls /CN=cert_role"},
		"client certificate by variable": {members: host + `, "user": "cert_role"`, env: map[string]string{"PGSSLCERT": a.path("client.crt"), "PGSSLKEY": a.path("client.key")}, want: "cert_role tls /CN=cert_role"},
		"client certificate in secrets":  {members: strings.Replace(local, "open", "cert", 1) + `, "sslRootCert": {"$secret": "env:ROOTS"}, "sslCert": {"$secret": "env:CLIENT_CERT"}, "sslKey": {"$secret": "env:CLIENT_KEY"}`, want: "cert_role tls /CN=cert_role"},
		"no client certificate":          {members: host + `, "user": "cert_role"`, code: failure.AuthFailed},
		"another's client certificate":   {members: host + `, "user": "cert_role"` + certificate(a, "stranger"), code: failure.AuthFailed},
		"client of another authority":    {members: host + `, "user": "cert_role", "sslMode": "require"` + certificate(other, "ca"), code: failure.AuthFailed},
		"verified name":                  {members: local + roots, want: "open_role tls"},
		"wrong name":                     {members: open + roots, code: failure.ServerUntrusted, says: "127.0.0.1"},
		"name not looked at":             {members: open + `, "sslMode": "verify-ca"` + roots, want: "open_role tls"},
		"require with authorities":       {members: open + fmt.Sprintf(`, "sslMode": "require", "sslRootCert": %q`, other.path("ca.crt")), code: failure.ServerUntrusted},
		"another authority":              {members: local + fmt.Sprintf(`, "sslRootCert": %q`, other.path("ca.crt")), code: failure.ServerUntrusted},
		"authorities of the system":      {members: local + `, "sslMode": "verify-full"`, code: failure.ServerUntrusted},
		"PGSSLROOTCERT":                  {members: local + `, "sslMode": "verify-full"`, env: map[string]string{"PGSSLROOTCERT": a.path("ca.crt")}, want: "open_role tls"},
		"mode of a secret url":           {members: `"url": {"$secret": "env:WHOLE"}` + roots, code: failure.ConfigInvalid, says: "sslRootCert: has no effect with sslmode disable"},
		"everything that is missing": {members: scram + `, "password": {"$secret": "env:NOT_SET"}, "sslRootCert": "/no/ca", "sslCert": {"$secret": "env:RIGHT"}, "sslKey": {"$secret": "env:RIGHT"}`,
			code: failure.SecretMissing, says: "resolving the password: environment variable NOT_SET is not set\nreading sslRootCert: open /no/ca: no such file or directory\nsslCert and sslKey: tls: failed"},
		"first host is down":       {members: fmt.Sprintf(`"hosts": ["127.0.0.1:%d", "localhost:%d"], "database": "postgres", "user": "open_role"`, free.Addr().(*net.TCPAddr).Port, c.Port()), want: "open_role tls"},
		"first host is silent":     {members: fmt.Sprintf(`"hosts": ["127.0.0.1:%d", "127.0.0.1:%d"], "database": "postgres", "user": "open_role", "connectTimeout": "400ms"`, silent.Addr().(*net.TCPAddr).Port, c.Port()), want: "open_role tls"},
		"all hosts are down":       {members: fmt.Sprintf(`"hosts": ["127.0.0.1:%d", "no-such-host.invalid"], "database": "postgres", "user": "open_role"`, free.Addr().(*net.TCPAddr).Port), code: failure.Unreachable},
		"only a standby will do":   {members: open + `, "targetSessionAttrs": "standby"`, code: failure.ServerRole},
		"standby by variable":      {members: open, env: map[string]string{"PGTARGETSESSIONATTRS": "standby"}, code: failure.ServerRole},
		"attributes of a keyword":  {members: fmt.Sprintf(`"url": "host=127.0.0.1 port=%d dbname=postgres user=open_role target_session_attrs=read-only"`, c.Port()), code: failure.ServerRole},
		"database that is not":     {members: strings.Replace(open, `"postgres"`, `"nope"`, 1), code: failure.DatabaseMissing},
		"socket that is not there": {members: `"host": "/no/such/dir", "database": "postgres", "user": "open_role"`, code: failure.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range at.env {
				t.Setenv(variable, value)
			}
			got, err := who(t.Context(), newSource(t, at.members))
			require.Equal(t, at.want, got, "%v", err)
			if at.code != nil {
				require.Error(t, err)
				require.Equal(t, at.code.ID, failure.CodeOf(err).ID, "%v", err)
				require.ErrorContains(t, err, at.says)
				report, err := json.Marshal(failure.Describe(err))
				require.NoError(t, err)
				require.NotContains(t, string(report), "it's right")
			}
		})
	}
}

// TestSessions looks at the settings that a connection of each kind has at the server.
func TestSessions(t *testing.T) {
	plainEnvironment(t)
	at := clustertest.Database(t)
	t.Cleanup(func() { require.NoError(t, os.Unsetenv("PGOPTIONS")) }) // which would hit the database's removal
	t.Setenv("PGOPTIONS", "-c datestyle=German -c statement_timeout=1")
	t.Setenv("PGAPPNAME", "mine")
	t.Setenv("PGTZ", "Asia/Tokyo")
	s := sourceAt(t, at, `"statementTimeout": "7s", "lockTimeout": "3s", "idleTimeout": "90s"`)
	const statement = `SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN
		('application_name', 'DateStyle', 'TimeZone', 'statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout')`
	conn, err := s.connect(t.Context())
	require.NoError(t, err)
	defer hangUp(t.Context(), conn)
	var got string
	require.NoError(t, conn.QueryRow(t.Context(), statement).Scan(&got))
	require.Equal(t, "ISO, DMY UTC perdure/perdure_orders/3 90000 3000 7000", got)
	replication, err := s.connectReplication(t.Context())
	require.NoError(t, err)
	defer hangUp(t.Context(), replication)
	result, err := replication.Exec(t.Context(), statement).ReadAll()
	require.NoError(t, err)
	require.Equal(t, "ISO, DMY UTC perdure/perdure_orders/3 0 0 0", string(result[0].Rows[0][0]))
}

// sourceAt returns a source of the database behind url.
func sourceAt(t *testing.T, at, members string) *Source {
	t.Helper()
	u, err := url.Parse(at)
	require.NoError(t, err)
	if members != "" {
		members = ", " + members
	}
	return newSource(t, fmt.Sprintf(`"host": %q, "port": %s, "database": %q, "user": %q, "sslMode": "disable"%s`,
		u.Hostname(), u.Port(), u.Path[1:], u.User.Username(), members))
}

// TestRoles connects to a primary, to a standby and to a server that only lets read.
func TestRoles(t *testing.T) {
	plainEnvironment(t)
	primary := clustertest.Own(t, map[string]string{"fsync": "off"})
	standby := standbyOf(t, primary)
	clustertest.Exec(t, primary.URL(), "CREATE ROLE reader LOGIN REPLICATION; ALTER ROLE reader SET default_transaction_read_only = on")
	both := fmt.Sprintf(`"hosts": ["127.0.0.1:%d", "127.0.0.1:%d"], "database": "postgres", "sslMode": "disable"`, standby.Port(), primary.Port())
	alone := fmt.Sprintf(`"host": "127.0.0.1", "port": %d, "database": "postgres", "sslMode": "disable"`, standby.Port())
	for name, at := range map[string]struct {
		members, attributes string
		want                string // whether the server is in recovery; "": none will do
	}{
		"primary by default":        {both + `, "user": "postgres"`, "", "f"},
		"first that comes":          {both + `, "user": "postgres"`, "any", "t"},
		"read-write":                {both + `, "user": "postgres"`, "read-write", "f"},
		"standby":                   {both + `, "user": "postgres"`, "standby", "t"},
		"standby first":             {both + `, "user": "postgres"`, "prefer-standby", "t"},
		"only a standby there":      {alone + `, "user": "postgres"`, "", ""},
		"role that only reads":      {strings.Replace(alone, fmt.Sprint(standby.Port()), fmt.Sprint(primary.Port()), 1) + `, "user": "reader"`, "", "f"},
		"reader wanted to write":    {strings.Replace(alone, fmt.Sprint(standby.Port()), fmt.Sprint(primary.Port()), 1) + `, "user": "reader"`, "read-write", ""},
		"standby where any will do": {alone + `, "user": "postgres"`, "any", "t"},
	} {
		t.Run(name, func(t *testing.T) {
			if at.attributes != "" {
				at.members += fmt.Sprintf(`, "targetSessionAttrs": %q`, at.attributes)
			}
			conn, err := newSource(t, at.members).connect(t.Context())
			if at.want == "" {
				require.Equal(t, failure.ServerRole.ID, failure.CodeOf(err).ID, "%v", err)
				require.True(t, failure.ClassOf(err).Retryable(), "a failover ends")
				return
			}
			require.NoError(t, err)
			defer hangUp(t.Context(), conn)
			var recovering bool
			require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_is_in_recovery()").Scan(&recovering))
			require.Equal(t, at.want == "t", recovering)
		})
	}
}

// standbyOf makes a standby of a copy of the primary's files. It receives nothing, which is enough to be one.
func standbyOf(t *testing.T, primary *cluster.Cluster) *cluster.Cluster {
	require.NoError(t, primary.Stop(t.Context()))
	parent, err := os.MkdirTemp("", "perdure-standby-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	dir := filepath.Join(parent, "data")
	require.NoError(t, os.CopyFS(dir, os.DirFS(primary.Dir())))
	require.NoError(t, os.Chmod(parent, 0o755))
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o600))
	require.NoError(t, primary.Restart(t.Context(), false))
	standby, err := cluster.Start(t.Context(), cluster.Options{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, standby.Stop(context.Background())) })
	return standby
}

// TestBlackHole lets the server's packets vanish from some moment of opening a connection on.
func TestBlackHole(t *testing.T) {
	plainEnvironment(t)
	u, err := url.Parse(clustertest.Database(t))
	require.NoError(t, err)
	for _, bytes := range []int64{0, 1, 9, 100} { // nothing comes, the answer about TLS, the first message, half of the greeting
		address := hole(t, u.Host, bytes)
		s := newSource(t, fmt.Sprintf(`"hosts": [%q], "database": %q, "user": "postgres", "connectTimeout": "300ms"`, address, u.Path[1:]))
		for kind, connect := range map[string]func() error{
			"ordinary":    func() error { _, err := s.connect(t.Context()); return err },
			"replication": func() error { _, err := s.connectReplication(t.Context()); return err },
		} {
			begin := time.Now()
			err := connect()
			require.Equal(t, failure.Unreachable.ID, failure.CodeOf(err).ID, "%s after %d bytes: %v", kind, bytes, err)
			require.Less(t, time.Since(begin), 3*time.Second)
		}
	}
}

// hole returns the address of a proxy that passes that many bytes of a server's answers, and then only takes.
func hole(t *testing.T, server string, bytes int64) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var proxies sync.WaitGroup
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		proxies.Wait()
	})
	proxies.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			proxies.Go(func() {
				defer client.Close()
				behind, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				proxies.Go(func() { _, _ = io.CopyN(client, behind, bytes) })
				_, _ = io.Copy(behind, client) // until the client gives up
				_ = behind.Close()
			})
		}
	})
	return listener.Addr().String()
}

// TestConnectionStrings: each is taken apart as psql does.
func TestConnectionStrings(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u@h:1/d":                             "dbname='d' host='h' port='1' user='u'",
		"postgresql://h1:1,h2:2/d?sslmode=require":       "dbname='d' host='h1,h2' port='1,2' sslmode='require'",
		"postgres://[::1]:5/d":                           "dbname='d' host='::1' port='5'",
		"postgres:///d?host=/run/pg&application_name=x":  "dbname='d' host='/run/pg'",
		"postgres://u:p%40ss@h/d%2Fx?ssl=true":           `dbname='d/x' host='h' password='p@ss' sslmode='require' user='u'`,
		"postgres://u@h?options=-c%20a%3Db":              "host='h' options='-c a=b' user='u'",
		"host=h dbname = 'a b' user='it\\'s'":            `dbname='a b' host='h' user='it\'s'`,
		"host=a\\ b password=x\\\\y":                     `host='a b' password='x\\y'`,
		"service=shop":                                   "service='shop'",
		"options='-c search_path=a' host=h keepalives=1": "host='h' options='-c search_path=a'",
		"": "", "h": "", "http://h/d": "", "host='h": "", "=x": "", "postgres://h/d?x": "", "postgres://%zz/d": "", "a b=c": "", "postgres://": "",
		"host=h\x00": "",
	} {
		d, err := parseDSN(text)
		require.Equal(t, want, d.String(), "%s", text)
		require.Equal(t, want == "", err != nil, "%s", text)
		if err == nil {
			again, err := parseDSN(d.String())
			require.NoError(t, err)
			require.Equal(t, d, again)
		}
	}
}
