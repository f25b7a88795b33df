package activities

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// A spec that is too large for the input of a workflow is kept on the stream server, under a reference such as orders@3:
// the third one that was stored as orders. What a reference stands for never changes, and no version is used twice. Names
// of people have no dot. Those with dots are ids of components and instances, whose large specs are stored for them: they
// go when the component runs with a later one, and with the component.
const (
	specNamesBucket = "spec-names" // <name>: which versions there are; their content is in specObjects, as <name>@<version>
	specUsesBucket  = "spec-uses"  // <component> or <instance>: the reference that it works with
	specObjects     = "SPECS"
)

// MostInline is the size of the largest spec that is sent as it is: an input takes 64 KiB with all that comes beside.
const MostInline = 60 << 10

var (
	specName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}(\.[a-z][a-z0-9-]{0,62}){0,2}$`)
	specRef  = regexp.MustCompile(`^([a-z][a-z0-9.-]{0,199})@([1-9][0-9]{0,8})$`)
)

// ParseSpecRef takes a reference such as orders@3 apart.
func ParseSpecRef(ref string) (name string, version int, err error) {
	parts := specRef.FindStringSubmatch(ref)
	if parts == nil || !specName.MatchString(parts[1]) {
		return "", 0, failure.ConfigInvalid.Errorf("specRef: must be of the form name@version, such as orders@3, is %q", cut(ref, 100)).
			WithFix("Store the spec with perdure spec put, and give the reference that it prints.")
	}
	version, err = strconv.Atoi(parts[2])
	return parts[1], version, err
}

func refOf(name string, version int) string { return fmt.Sprintf("%s@%d", name, version) }

// specVersions is the value of bucket spec-names.
type specVersions struct {
	Last     int           `json:"last"` // version that was given out
	Versions []specVersion `json:"versions,omitempty"`
}

type specVersion struct {
	Version int       `json:"version"`
	Digest  string    `json:"digest"`
	Bytes   int       `json:"bytes"`
	At      time.Time `json:"at"`
	// Only a version that is whole can be read: one that is stored at present, or was when its process ended, and one that is
	// being deleted cannot.
	State string `json:"state"`
}

const (
	specStoring  = "storing"
	specWhole    = "whole"
	specDeleting = "deleting"
)

func (all *specVersions) find(version int) *specVersion {
	n := slices.IndexFunc(all.Versions, func(v specVersion) bool { return v.Version == version })
	if n < 0 {
		return nil
	}
	return &all.Versions[n]
}

// same returns the version with some content that there is already. Of those that are stored for a component only the
// newest counts: an earlier one may just be going.
func (all *specVersions) same(digest string, automatic bool) *specVersion {
	for n := range slices.Backward(all.Versions) {
		if v := &all.Versions[n]; v.Digest == digest && v.State != specDeleting {
			return v
		}
		if automatic {
			break
		}
	}
	return nil
}

// PutSpec stores a spec, which is JSON, and returns the reference to it. The same content under the same name gets the same
// reference again.
func (s *Store) PutSpec(ctx context.Context, name string, spec json.RawMessage) (ref string, err error) {
	if !specName.MatchString(name) {
		return "", failure.ConfigInvalid.Errorf("a spec cannot be stored as %q: a name is lower-case letters, digits and dashes, and begins with a letter", cut(name, 100))
	}
	data, err := canonical(spec)
	if err != nil {
		return "", failure.ConfigInvalid.Errorf("decoding the spec: %w", err)
	}
	if len(data) > stream.MaxObject {
		return "", failure.ConfigInvalid.Errorf("the spec has %d bytes; the most is %d", len(data), stream.MaxObject).
			WithFix("Divide it among more components, or more instances.")
	}
	objects, err := s.specObjects(ctx)
	if err != nil {
		return "", err
	}
	for {
		var v specVersion
		if err := s.alterSpecs(ctx, name, func(all *specVersions) bool { return reserve(all, name, data, &v) }); err != nil {
			return "", err
		}
		ref := refOf(name, v.Version)
		if v.State == specWhole {
			return ref, nil
		}
		if err := objects.Put(ctx, ref, data); err != nil {
			return "", fmt.Errorf("storing spec %s: %w", ref, err)
		}
		stored := false
		err := s.alterSpecs(ctx, name, func(all *specVersions) bool {
			v := all.find(v.Version)
			stored = v != nil && v.State != specDeleting
			if !stored || v.State == specWhole {
				return false
			}
			v.State = specWhole
			return true
		})
		if err != nil || stored {
			return ref, err
		}
		if err := objects.Delete(ctx, ref); err != nil { // somebody deleted the version meanwhile
			return "", fmt.Errorf("removing spec %s: %w", ref, err)
		}
	}
}

// reserve gives out a version for some content, unless it has one.
func reserve(all *specVersions, name string, data []byte, into *specVersion) (changed bool) {
	digest := digestOf(data)
	if v := all.same(digest, isAutomatic(name)); v != nil {
		*into = *v
		return false
	}
	all.Last++
	*into = specVersion{Version: all.Last, Digest: digest, Bytes: len(data), At: time.Now().UTC(), State: specStoring}
	all.Versions = append(all.Versions, *into)
	return true
}

func isAutomatic(name string) bool { return bytes.ContainsRune([]byte(name), '.') }

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// canonical is the same text for the same JSON value, numbers to the last digit.
func canonical(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(value)
	return bytes.TrimSpace(out.Bytes()), err
}

// GetSpec returns the spec that a reference stands for.
func (s *Store) GetSpec(ctx context.Context, ref string) (json.RawMessage, error) {
	name, version, err := ParseSpecRef(ref)
	if err != nil {
		return nil, err
	}
	var all specVersions
	if _, err := s.read(ctx, specNamesBucket, name, &all); err != nil {
		return nil, err
	}
	v := all.find(version)
	if v == nil || v.State != specWhole {
		return nil, noSpec(ref)
	}
	objects, err := s.specObjects(ctx)
	if err != nil {
		return nil, err
	}
	data, err := objects.Get(ctx, ref)
	switch {
	case errors.Is(err, stream.ErrMissing): // deleted just now
		return nil, noSpec(ref)
	case err != nil:
		return nil, fmt.Errorf("reading spec %s: %w", ref, err)
	case digestOf(data) != v.Digest:
		return nil, failure.StateCorrupt.Errorf("spec %s is not what was stored", ref)
	}
	return data, nil
}

func noSpec(ref string) error {
	return failure.ConfigInvalid.Errorf("specRef: there is no spec %s", ref).
		WithFix("Store the spec with perdure spec put and send the reference that it prints with the signal reconfigure, or apply to an instance; perdure spec list shows those that there are.")
}

// StoredSpec is what is known of a spec that was stored.
type StoredSpec struct {
	Ref    string    `json:"ref"`
	Bytes  int       `json:"bytes"`
	At     time.Time `json:"at"`
	UsedBy []string  `json:"usedBy"`
	// Incomplete ones cannot be used: they are being stored or deleted, or that was interrupted.
	Incomplete bool `json:"incomplete,omitempty"`
}

// ListSpecs returns all specs that are stored, by name and version.
func (s *Store) ListSpecs(ctx context.Context) ([]StoredSpec, error) {
	uses := make(map[string][]string)
	err := each(ctx, s, specUsesBucket, func(owner, ref string) { uses[ref] = append(uses[ref], owner) })
	if err != nil {
		return nil, err
	}
	list := []StoredSpec{}
	err = each(ctx, s, specNamesBucket, func(name string, all specVersions) {
		for _, v := range all.Versions {
			ref := refOf(name, v.Version)
			list = append(list, StoredSpec{
				Ref: ref, Bytes: v.Bytes, At: v.At, UsedBy: append([]string{}, uses[ref]...), Incomplete: v.State != specWhole,
			})
		}
	})
	return list, err
}

// each calls visit with each key of a bucket, in order, and its value.
func each[T any](ctx context.Context, s *Store, bucket string, visit func(key string, value T)) error {
	b, err := s.bucket(ctx, bucket)
	if err != nil {
		return err
	}
	keys, err := b.Keys(ctx, "")
	if err != nil {
		return fmt.Errorf("listing bucket %s: %w", bucket, err)
	}
	for _, key := range keys {
		var value T
		switch revision, err := s.read(ctx, bucket, key, &value); {
		case err != nil:
			return err
		case revision > 0:
			visit(key, value)
		}
	}
	return nil
}

// DeleteSpec removes a spec. One that something works with is kept, unless forced: what uses it goes on until it is started
// anew, and then finds it missing.
func (s *Store) DeleteSpec(ctx context.Context, ref string, force bool) error {
	name, version, err := ParseSpecRef(ref)
	if err != nil {
		return err
	}
	if !force {
		var users []string
		err := each(ctx, s, specUsesBucket, func(owner, used string) {
			if used == ref {
				users = append(users, owner)
			}
		})
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return failure.ConfigInvalid.Errorf("spec %s is used by %s", ref, cut(fmt.Sprint(users), 1000)).
				WithFix("Give them another spec, or delete them, first.")
		}
	}
	found := false
	if err := s.deleteVersions(ctx, name, func(v specVersion) bool {
		found = found || v.Version == version
		return v.Version == version
	}); err != nil {
		return err
	}
	if !found {
		return failure.ConfigInvalid.Errorf("there is no spec %s", ref).WithFix("See perdure spec list.")
	}
	return nil
}

// deleteVersions removes versions of a name. They are marked first: where removing is interrupted they cannot be read, and
// are removed with the next ones.
func (s *Store) deleteVersions(ctx context.Context, name string, which func(specVersion) bool) error {
	var marked []int
	err := s.alterSpecs(ctx, name, func(all *specVersions) (changed bool) {
		marked = nil
		for n := range all.Versions {
			v := &all.Versions[n]
			if v.State != specDeleting && !which(*v) {
				continue
			}
			which(*v) // also of one that was marked before
			changed = changed || v.State != specDeleting
			v.State = specDeleting
			marked = append(marked, v.Version)
		}
		return changed
	})
	if err != nil || len(marked) == 0 {
		return err
	}
	objects, err := s.specObjects(ctx)
	if err != nil {
		return err
	}
	for _, version := range marked {
		if err := objects.Delete(ctx, refOf(name, version)); err != nil {
			return fmt.Errorf("deleting spec %s: %w", refOf(name, version), err)
		}
	}
	return s.alterSpecs(ctx, name, func(all *specVersions) bool {
		before := len(all.Versions)
		all.Versions = slices.DeleteFunc(all.Versions, func(v specVersion) bool { return slices.Contains(marked, v.Version) })
		return len(all.Versions) != before
	})
}

// alterSpecs changes what is known of the versions of a name, which others may change at the same time: change may be called
// more than once, and reports whether it changed anything.
func (s *Store) alterSpecs(ctx context.Context, name string, change func(*specVersions) bool) error {
	for {
		var all specVersions
		revision, err := s.read(ctx, specNamesBucket, name, &all)
		if err != nil || !change(&all) {
			return err
		}
		if err := s.replace(ctx, specNamesBucket, name, all, revision); !errors.Is(err, stream.ErrConflict) {
			return err
		}
	}
}

func (s *Store) specObjects(ctx context.Context) (*stream.Objects, error) {
	s.mu.Lock()
	o := s.specs
	s.mu.Unlock()
	if o != nil {
		return o, nil
	}
	o, err := s.conn.Objects(ctx, specObjects, "Specs that are too large for the input of a workflow")
	if err != nil {
		return nil, fmt.Errorf("opening the stored specs: %w", err)
	}
	s.mu.Lock()
	s.specs = cmp.Or(s.specs, o)
	s.mu.Unlock()
	return o, nil
}

// useSpec notes which reference a component or an instance works with, none when empty, and removes those that were stored
// for it before.
func (s *Store) useSpec(ctx context.Context, owner, ref string) error {
	var before string
	if _, err := s.read(ctx, specUsesBucket, owner, &before); err != nil || before == ref {
		return err
	}
	if ref == "" {
		return s.remove(ctx, specUsesBucket, owner)
	}
	name, version, err := ParseSpecRef(ref)
	if err != nil {
		return err
	}
	if err := s.write(ctx, specUsesBucket, owner, ref); err != nil || name != owner {
		return err
	}
	return s.deleteVersions(ctx, owner, func(v specVersion) bool { return v.Version < version })
}

// forgetSpecs removes what was stored for a component or an instance that is deleted.
func (s *Store) forgetSpecs(ctx context.Context, owner string) error {
	return errors.Join(
		s.remove(ctx, specUsesBucket, owner),
		s.deleteVersions(ctx, owner, func(specVersion) bool { return true }),
	)
}

// spec returns the spec that a workflow gave: itself, or a reference to it.
func (s *Store) spec(ctx context.Context, spec json.RawMessage, ref string) (json.RawMessage, error) {
	if ref == "" {
		return spec, nil
	}
	return s.GetSpec(ctx, ref)
}

// provisionedSpec is the value of bucket specs: a spec, or whose it is and the reference to it.
type provisionedSpec struct {
	component.SourceSpec
	SpecRef string `json:"specRef,omitempty"`
}

func provisioned(spec component.SourceSpec, ref string) provisionedSpec {
	if ref == "" {
		return provisionedSpec{SourceSpec: spec}
	}
	return provisionedSpec{SourceSpec: component.SourceSpec{Name: spec.Name, Instance: spec.Instance}, SpecRef: ref}
}

// provisionedSource returns the spec that a source was last provisioned with, and reports false if it never was.
func (s *Store) provisionedSource(ctx context.Context, id string) (spec component.SourceSpec, found bool, err error) {
	var kept provisionedSpec
	revision, err := s.read(ctx, specsBucket, id, &kept)
	if err != nil || revision == 0 || kept.SpecRef == "" {
		return kept.SourceSpec, revision > 0, err
	}
	spec, err = decode[component.SourceSpec](ctx, s, nil, kept.SpecRef)
	return spec, true, err
}

// SpecHead is the part of a component's spec that its workflow needs to know.
type SpecHead struct {
	Name      string     `json:"name"`
	Instance  string     `json:"instance,omitempty"`
	Sources   []string   `json:"sources,omitempty"`   // of a query
	Bootstrap string     `json:"bootstrap,omitempty"` // of a query
	Policy    PolicyHead `json:"policy,omitzero"`
}

// PolicyHead is the part of a component's policy that its workflow needs to know.
type PolicyHead struct {
	DrainSeconds       int `json:"drainSeconds,omitempty"`
	BreakerSeconds     int `json:"breakerSeconds,omitempty"`
	BreakerMostSeconds int `json:"breakerMostSeconds,omitempty"`
}

// SpecRefInput is the input of Control.ReadSpec.
type SpecRefInput struct {
	SpecRef string `json:"specRef"`
}

// ReadSpec tells a workflow what it needs to know of the spec that it was given a reference to.
func (c *Control) ReadSpec(ctx context.Context, in SpecRefInput) (SpecHead, error) {
	head, err := decode[SpecHead](ctx, c.store, nil, in.SpecRef)
	return head, translate(err)
}

// OwnerInput is the input of Control.ForgetSpecs.
type OwnerInput struct {
	Owner string `json:"owner"` // an instance
}

// ForgetSpecs removes the specs that were stored for an instance that is deleted.
func (c *Control) ForgetSpecs(ctx context.Context, in OwnerInput) error {
	return translate(c.store.forgetSpecs(ctx, in.Owner))
}
