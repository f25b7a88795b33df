package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/perdure/perdure/streaming/failure"
)

// certificates are those that the spec gives. pgconn reads others from files, but not from secrets.
type certificates struct {
	roots  *x509.CertPool
	client *tls.Certificate
}

// readCertificates reports everything that is wrong with them at once.
func (s *Source) readCertificates() (certificates, error) {
	var (
		c    certificates
		errs []error
	)
	read := func(name string, f File) []byte {
		content, err := f.read(s.settings.Secret)
		if err != nil {
			errs = append(errs, fmt.Errorf("reading %s: %w", name, err))
		}
		return content
	}
	if f := s.config.SSLRootCert; !f.IsZero() {
		c.roots = x509.NewCertPool()
		if content := read("sslRootCert", f); content != nil && !c.roots.AppendCertsFromPEM(content) {
			errs = append(errs, failure.ConfigInvalid.Errorf("sslRootCert: holds no certificate in PEM"))
		}
	}
	if !s.config.SSLCert.IsZero() {
		certificate, key := read("sslCert", s.config.SSLCert), read("sslKey", s.config.SSLKey)
		if certificate != nil && key != nil {
			pair, err := tls.X509KeyPair(certificate, key)
			if err != nil {
				errs = append(errs, failure.ConfigInvalid.Errorf("sslCert and sslKey: %w", err))
			}
			c.client = &pair
		}
	}
	return c, errors.Join(errs...)
}

// chooseTLS takes care that pgconn does not read other certificates, and that authorities that were given are heeded.
func (c *Config) chooseTLS(d dsn) error {
	if !c.SSLCert.IsZero() {
		d["sslcert"], d["sslkey"] = "", ""
	}
	if c.SSLRootCert.IsZero() {
		return nil
	}
	d["sslrootcert"] = ""
	switch mode := d["sslmode"]; mode {
	case "":
		d["sslmode"] = "verify-full"
	case "require": // with authorities it means this, as in libpq
		d["sslmode"] = "verify-ca"
	case "disable", "allow", "prefer":
		return failure.ConfigInvalid.Errorf("sslRootCert: has no effect with sslmode %s of the url", mode)
	}
	return nil
}

// apply puts the certificates into the settings of all hosts. It changes them in place: those of verify-ca refer to
// themselves.
func (c certificates) apply(config *pgconn.Config) {
	all := []*tls.Config{config.TLSConfig}
	for _, f := range config.Fallbacks {
		all = append(all, f.TLSConfig)
	}
	for _, t := range all {
		if t != nil && c.roots != nil {
			t.RootCAs = c.roots
		}
		if t != nil && c.client != nil {
			t.Certificates = []tls.Certificate{*c.client}
		}
	}
}
