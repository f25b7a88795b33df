package component

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
)

// Secret is a reference to a secret: {"$secret": "env:NAME"} or {"$secret": "file:/path"}. Specs travel through
// workflow histories and logs, so a literal is refused and the content is read only where it is used.
type Secret struct{ ref string }

// SecretOf returns a reference such as "env:ORDERS_PW".
func SecretOf(ref string) Secret { return Secret{ref} }

// Ref returns the reference, empty when none is given.
func (s Secret) Ref() string { return s.ref }

// String returns the reference in a form for people.
func (s Secret) String() string {
	if s.ref == "" {
		return ""
	}
	return "$secret(" + s.ref + ")"
}

// Resolve reads the secret by means of what the host gave the plugin. No reference is an empty secret.
func (s Secret) Resolve(resolve func(ref string) (string, error)) (string, error) {
	if s.ref == "" {
		return "", nil
	}
	return resolve(s.ref)
}

// IsZero reports whether no reference is given.
func (s Secret) IsZero() bool { return s.ref == "" }

// MarshalJSON writes the reference.
func (s Secret) MarshalJSON() ([]byte, error) {
	if s.ref == "" {
		return []byte("null"), nil
	}
	return json.Marshal(map[string]string{"$secret": s.ref})
}

var errLiteralSecret = errors.New(`must be a reference such as {"$secret": "env:NAME"} or {"$secret": "file:/path"}; literal secrets are refused`)

// UnmarshalJSON reads a reference and refuses everything else, without repeating it in the error.
func (s *Secret) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		s.ref = ""
		return nil
	}
	var members map[string]string
	if json.Unmarshal(data, &members) != nil || len(members) != 1 {
		return errLiteralSecret
	}
	ref := members["$secret"]
	if name, ok := strings.CutPrefix(ref, "env:"); ok && name != "" {
		s.ref = ref
		return nil
	}
	if path, ok := strings.CutPrefix(ref, "file:"); ok && filepath.IsAbs(path) {
		s.ref = ref
		return nil
	}
	return errLiteralSecret
}

const maxSecretFile = 64 << 10

// ResolveSecret reads the secret behind a reference: an environment variable, or a file without its last line end.
// What is not there is a SecretMissing failure.
func ResolveSecret(ref string) (string, error) {
	if name, ok := strings.CutPrefix(ref, "env:"); ok {
		value, set := os.LookupEnv(name)
		if !set {
			return "", failure.SecretMissing.Errorf("environment variable %s is not set", name)
		}
		return value, nil
	}
	path, ok := strings.CutPrefix(ref, "file:")
	if !ok {
		return "", failure.SecretMissing.Errorf("reference %q begins with neither env: nor file:", ref)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", failure.SecretMissing.Errorf("reading secret: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecretFile {
		return "", failure.SecretMissing.Errorf("secret file %s is not a regular file of at most 64 KiB", path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", failure.SecretMissing.Errorf("reading secret: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
}
