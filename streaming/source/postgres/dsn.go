package postgres

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// dsn is a connection string taken apart: libpq's parameters by name.
type dsn map[string]string

// passed are the parameters that a connection string may hold, ours those that are taken and then set by us.
var (
	passed = strings.Fields(`host port dbname user password passfile service servicefile options target_session_attrs
		sslmode sslrootcert sslcert sslkey sslpassword sslcertmode sslsni sslnegotiation channel_binding require_auth
		min_protocol_version max_protocol_version`)
	ours = strings.Fields(`application_name fallback_application_name client_encoding connect_timeout
		keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout gssencmode`)
)

// Errors about a connection string never repeat it, which may hold a password in any place.
var errDSN = errors.New("must be of the form postgres://user@host:port/database or host=name dbname=name user=name")

// parseDSN reads both of libpq's forms. Doing it here, and not by pgconn, allows to look for a password before a spec is
// accepted, and to put what the spec says beside it on top, also in the URLs of several hosts that net/url refuses.
func parseDSN(text string) (dsn, error) {
	d, err := dsn{}, error(nil)
	if _, rest, isURL := strings.Cut(text, "://"); isURL && !strings.ContainsAny(text[:len(text)-len(rest)], " =") {
		if scheme := text[:strings.Index(text, ":")]; scheme != "postgres" && scheme != "postgresql" {
			return nil, errDSN
		}
		err = d.parseURL(rest)
	} else {
		err = d.parseKeywords(text)
	}
	if err != nil || len(d) == 0 || strings.ContainsRune(text, 0) {
		return nil, errDSN
	}
	if d["ssl"] == "true" { // as libpq does, for URLs that were made for JDBC
		d["sslmode"] = "require"
		delete(d, "ssl")
	}
	for _, name := range ours {
		delete(d, name)
	}
	return d, nil
}

func (d dsn) parseKeywords(text string) error {
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		name, after, ok := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, " \t\r\n'") {
			return errDSN
		}
		d[name], rest, ok = cutValue(strings.TrimSpace(after))
		if !ok {
			return errDSN
		}
	}
	return nil
}

// cutValue takes a value, which ends at a space unless it is in single quotes; a backslash takes away the meaning of
// what follows it.
func cutValue(s string) (value, rest string, ok bool) {
	s, quoted := strings.CutPrefix(s, "'")
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], true
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			return b.String(), s[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}

// parseURL reads what follows the scheme: [user[:password]@][host[:port],...][/database][?name=value&...]
func (d dsn) parseURL(rest string) error {
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, password, _ := strings.Cut(rest[:i], ":")
		if err := errors.Join(d.set("user", user), d.set("password", password)); err != nil {
			return err
		}
		rest = rest[i+1:]
	}
	rest, query, _ := strings.Cut(rest, "?")
	addresses, database, _ := strings.Cut(rest, "/")
	var hosts, ports []string
	for _, address := range strings.Split(addresses, ",") {
		host, port := cutPort(address)
		hosts, ports = append(hosts, host), append(ports, port)
	}
	err := errors.Join(d.set("host", strings.Join(hosts, ",")), d.set("port", strings.Join(ports, ",")), d.set("dbname", database))
	if err != nil || query == "" {
		return err
	}
	for _, pair := range strings.Split(query, "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return errDSN
		}
		if err := d.set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// cutPort divides host:port, where the host may be an IPv6 address in brackets, and the port may be missing.
func cutPort(address string) (host, port string) {
	if inner, ok := strings.CutPrefix(address, "["); ok {
		host, port, _ = strings.Cut(inner, "]")
		return host, strings.TrimPrefix(port, ":")
	}
	host, port, _ = strings.Cut(address, ":")
	return host, port
}

// set adds a parameter as a URL spells it; an empty one is as good as none.
func (d dsn) set(name, value string) error {
	value, err := url.PathUnescape(value)
	if err == nil && value != "" {
		d[name] = value
	}
	return err
}

// unknown returns the parameters that are none of libpq's. The server would take them for its own settings.
func (d dsn) unknown() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(d)), func(name string) bool { return slices.Contains(passed, name) })
}

// holdsSecret reports whether the connection string must not be seen by everybody.
func (d dsn) holdsSecret() bool { return d["password"] != "" || d["sslpassword"] != "" }

// String writes the form with keywords.
func (d dsn) String() string {
	words := make([]string, 0, len(d))
	for _, name := range slices.Sorted(maps.Keys(d)) {
		words = append(words, name+"='"+strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(d[name])+"'")
	}
	return strings.Join(words, " ")
}
