package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// URL is a connection string in one of libpq's forms, or a reference to one. A password is accepted in a referenced one
// only.
type URL struct {
	text   string
	secret component.Secret
	bad    bool // given, and refused
}

// IsZero reports whether no connection string is given.
func (u URL) IsZero() bool { return u.text == "" && u.secret.IsZero() && !u.bad }

// MarshalJSON writes the connection string or the reference.
func (u URL) MarshalJSON() ([]byte, error) {
	if u.text != "" {
		return json.Marshal(u.text)
	}
	return u.secret.MarshalJSON()
}

// UnmarshalJSON reads a connection string or a reference. Its errors never repeat the string, which may hold a password.
func (u *URL) UnmarshalJSON(data []byte) error {
	u.bad = true
	var text string
	if json.Unmarshal(data, &text) != nil {
		if err := u.secret.UnmarshalJSON(data); err != nil {
			return err
		}
		u.bad = false
		return nil
	}
	d, err := parseDSN(text)
	switch {
	case err != nil:
		return err
	case d.holdsSecret():
		return errors.New(`must not hold a password: give it under password as {"$secret": "env:NAME"}, or the whole URL as such a reference`)
	case len(d.unknown()) > 0:
		return fmt.Errorf("holds parameters that are not known: %s", strings.Join(d.unknown(), ", "))
	}
	u.text, u.bad = text, false
	return nil
}

// parse takes the connection string apart.
func (u URL) parse(resolve func(ref string) (string, error)) (dsn, error) {
	text := u.text
	if text == "" {
		var err error
		if text, err = u.secret.Resolve(resolve); err != nil {
			return nil, fmt.Errorf("resolving the url: %w", err)
		}
	}
	d, err := parseDSN(text)
	if err != nil || len(d.unknown()) > 0 {
		return nil, errSecretURL
	}
	return d, nil
}

var errSecretURL = failure.ConfigInvalid.Errorf("url: the secret does not hold a valid connection string")

// File is what a file holds: one on the worker, named by its absolute path, or a secret.
type File struct {
	path   string
	secret component.Secret
}

// IsZero reports whether none is given.
func (f File) IsZero() bool { return f.path == "" && f.secret.IsZero() }

// MarshalJSON writes the path or the reference.
func (f File) MarshalJSON() ([]byte, error) {
	if f.path != "" {
		return json.Marshal(f.path)
	}
	return f.secret.MarshalJSON()
}

// UnmarshalJSON reads a path or a reference. Its errors never repeat a string, which may be a key.
func (f *File) UnmarshalJSON(data []byte) error {
	var path string
	if json.Unmarshal(data, &path) != nil {
		return f.secret.UnmarshalJSON(data)
	}
	if !filepath.IsAbs(path) {
		return errors.New(`must be the absolute path of a file, or a reference such as {"$secret": "env:NAME"}`)
	}
	f.path = path
	return nil
}

// read returns what the file or the secret holds.
func (f File) read(resolve func(ref string) (string, error)) ([]byte, error) {
	if f.path != "" {
		return readFile(f.path)
	}
	text, err := f.secret.Resolve(resolve)
	return []byte(text), err
}

func readFile(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, failure.SecretMissing.Errorf("%w", err)
	}
	return content, nil
}

func (c *Config) validateConnection(p *component.Problems) {
	c.validateAddress(p)
	verifies := c.SSLMode == "" || c.SSLMode == "require" || strings.HasPrefix(c.SSLMode, "verify-")
	if !c.SSLRootCert.IsZero() && !verifies {
		p.Addf("sslRootCert", "has no effect with sslMode %s, but with require, verify-ca and verify-full", c.SSLMode)
	}
	if c.SSLCert.IsZero() != c.SSLKey.IsZero() {
		p.Addf("sslCert", "needs sslKey, and sslKey needs sslCert")
	}
	if c.SSLMode == "disable" && !c.SSLCert.IsZero() {
		p.Addf("sslCert", "has no effect with sslMode disable")
	}
	if c.SSLMode == "disable" && c.ChannelBinding == "require" {
		p.Addf("channelBinding", "needs TLS, which sslMode disables")
	}
	for _, f := range []struct{ name, path string }{{"passFile", c.PassFile}, {"serviceFile", c.ServiceFile}} {
		if f.path != "" && !filepath.IsAbs(f.path) {
			p.Addf(f.name, "must be an absolute path")
		}
	}
	if c.IdleTimeout < time.Minute || c.IdleTimeout > 24*time.Hour {
		p.Addf("idleTimeout", "must be between 1m and 24h, is %s", c.IdleTimeout)
	}
}

func (c *Config) validateAddress(p *component.Problems) {
	for i, address := range c.Hosts {
		host, port := cutPort(address)
		if n, err := strconv.ParseUint(port, 10, 16); host == "" || strings.Contains(address, ",") || port != "" && (err != nil || n == 0) {
			p.Addf(fmt.Sprintf("hosts[%d]", i), "must be of the form host or host:port, with an IPv6 address in brackets")
		}
	}
	given := map[string]bool{
		"host": c.Host != "", "port": c.Port != 0, "hosts": len(c.Hosts) > 0, "database": c.Database != "",
		"user": c.User != "", "service": c.Service != "",
	}
	refuse := func(beside string, names ...string) {
		for _, name := range names {
			if given[name] {
				p.Addf(name, "cannot be given beside %s", beside)
			}
		}
	}
	if !c.URL.IsZero() {
		refuse("url", "host", "port", "hosts", "database", "user", "service")
	} else if given["hosts"] {
		refuse("hosts", "host", "port")
	}
	if !c.Password.IsZero() && !c.URL.secret.IsZero() {
		p.Addf("password", "cannot be given beside a url that is a secret itself")
	}
	if !c.URL.IsZero() || c.Service != "" || os.Getenv("PGSERVICE") != "" {
		return // which say the rest
	}
	for _, f := range []struct{ name, variable string }{{"database", "PGDATABASE"}, {"user", "PGUSER"}} {
		if !given[f.name] && os.Getenv(f.variable) == "" {
			p.Addf(f.name, "is required")
		}
	}
}

// parameters puts together what the spec says, in libpq's words. What it leaves open comes from the service, from PG*
// variables and from files, as with all programs that use libpq.
func (s *Source) parameters() (dsn, error) {
	c := &s.config
	d := dsn{}
	if !c.URL.IsZero() {
		var err error
		if d, err = c.URL.parse(s.settings.Secret); err != nil {
			return nil, err
		}
	}
	host, port := c.Host, ""
	if c.Port != 0 {
		port = strconv.Itoa(c.Port)
	}
	if len(c.Hosts) > 0 {
		hosts, ports := make([]string, len(c.Hosts)), make([]string, len(c.Hosts))
		for i, address := range c.Hosts {
			hosts[i], ports[i] = cutPort(address)
		}
		host, port = strings.Join(hosts, ","), strings.Join(ports, ",")
	}
	for name, value := range map[string]string{
		"host": host, "port": port, "dbname": c.Database, "user": c.User,
		"service": c.Service, "servicefile": c.ServiceFile, "passfile": c.PassFile,
		"sslmode": c.SSLMode, "channel_binding": c.ChannelBinding, "target_session_attrs": c.TargetSessionAttrs,
	} {
		if value != "" {
			d[name] = value
		}
	}
	if d["host"] == "" && os.Getenv("PGHOST") == "" && d["service"] == "" && os.Getenv("PGSERVICE") == "" {
		d["host"] = "localhost"
	}
	return d, c.chooseTLS(d)
}
