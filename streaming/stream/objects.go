package stream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/streaming/failure"
)

// MaxObject is the size of the largest object: so much may be on its way to the server at a time, and in memory.
const MaxObject = 8 << 20

// Objects is a set of named byte strings that are too large for a bucket. What is stored under a name is there whole or
// not at all.
type Objects struct {
	conn   *Conn
	store  jetstream.ObjectStore
	stream jetstream.Stream
	name   string
}

// Objects opens a set of objects, creating it when missing. The name is like that of a log.
func (c *Conn) Objects(ctx context.Context, name, description string) (*Objects, error) {
	if !namePattern.MatchString(name) {
		return nil, failure.ConfigInvalid.Errorf("opening objects %q: the name must consist of letters, digits, underscores and dashes", name)
	}
	bounded, cancel := c.bound(ctx)
	defer cancel()
	store, err := c.js.CreateOrUpdateObjectStore(bounded, jetstream.ObjectStoreConfig{
		Bucket: name, Description: description, Storage: jetstream.FileStorage, Replicas: c.options.Replicas,
	})
	if err != nil {
		return nil, classify(ctx, err, "opening objects %s", name)
	}
	stream, err := c.js.Stream(bounded, "OBJ_"+name)
	if err != nil {
		return nil, classify(ctx, err, "opening objects %s", name)
	}
	return &Objects{conn: c, store: store, stream: stream, name: name}, nil
}

// DeleteObjects removes a set of objects. It is no error when there is none.
func (c *Conn) DeleteObjects(ctx context.Context, name string) error {
	bounded, cancel := c.bound(ctx)
	defer cancel()
	if err := c.js.DeleteObjectStore(bounded, name); err != nil && !missing(err) {
		return classify(ctx, err, "deleting objects %s", name)
	}
	return nil
}

// Put stores an object of at most MaxObject bytes, in place of what had its name. It returns when that is on disk, after
// AppendTimeout at most.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	if len(data) > MaxObject {
		return failure.Panic.Errorf("storing object %s of %s: %d bytes are more than %d", name, o.name, len(data), MaxObject)
	}
	bounded, cancel := context.WithTimeout(ctx, o.conn.options.AppendTimeout)
	defer cancel()
	if _, err := o.store.PutBytes(bounded, name, data); err != nil {
		return classify(ctx, err, "storing object %s of %s", name, o.name)
	}
	return nil
}

// Get returns an object within AppendTimeout. The error is ErrMissing when there is none and StateCorrupt when it is not what was
// stored.
func (o *Objects) Get(ctx context.Context, name string) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, o.conn.options.AppendTimeout)
	defer cancel()
	gone, err := o.isGone(bounded, name)
	if gone {
		return nil, failure.StateCorrupt.Errorf("reading object %s of %s: its content is gone", name, o.name)
	}
	var data []byte
	if err == nil {
		data, err = o.store.GetBytes(bounded, name)
	}
	if errors.Is(err, jetstream.ErrDigestMismatch) {
		return nil, failure.StateCorrupt.Errorf("reading object %s of %s: %w", name, o.name, err)
	}
	if err != nil {
		return nil, classify(ctx, err, "reading object %s of %s", name, o.name)
	}
	return data, nil
}

// isGone reports whether there is an object, but nothing of its content, for which the client would wait.
func (o *Objects) isGone(ctx context.Context, name string) (bool, error) {
	for before := ""; ; {
		info, err := o.store.GetInfo(ctx, name)
		if err != nil || info.Size == 0 {
			return false, err
		}
		content, err := o.content(ctx, info.NUID)
		if err != nil || len(content) > 0 {
			return false, err
		}
		if info.NUID == before { // or else another object of that name has taken its place just now
			return true, nil
		}
		before = info.NUID
	}
}

// content returns the subjects of the messages that hold the content of an object, or of all of them for "*".
func (o *Objects) content(ctx context.Context, nuid string) (map[string]uint64, error) {
	info, err := o.stream.Info(ctx, jetstream.WithSubjectFilter(o.contentSubject(nuid)))
	if err != nil {
		return nil, err
	}
	return info.State.Subjects, nil
}

func (o *Objects) contentSubject(nuid string) string { return "$O." + o.name + ".C." + nuid }

// Clean removes what Puts that did not come to their end have left. Meanwhile there must be no other Put: its object
// would lose its content.
func (o *Objects) Clean(ctx context.Context) error {
	bounded, cancel := o.conn.bound(ctx)
	defer cancel()
	content, err := o.content(bounded, "*")
	if err != nil || len(content) == 0 {
		return o.cleaned(ctx, err)
	}
	list, err := o.store.List(bounded)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return o.cleaned(ctx, err)
	}
	for _, info := range list {
		delete(content, o.contentSubject(info.NUID))
	}
	for subject := range content {
		if err := o.purge(ctx, subject); err != nil {
			return err
		}
	}
	return nil
}

func (o *Objects) cleaned(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return classify(ctx, err, "looking for what is left in objects %s", o.name)
}

// purge removes what is left under a subject.
func (o *Objects) purge(ctx context.Context, subject string) error {
	bounded, cancel := o.conn.bound(ctx)
	defer cancel()
	if err := o.stream.Purge(bounded, jetstream.WithPurgeSubject(subject)); err != nil && !missing(err) {
		return classify(ctx, err, "removing what is left in objects %s", o.name)
	}
	return nil
}

// Names returns the names of all objects, in order.
func (o *Objects) Names(ctx context.Context) ([]string, error) {
	bounded, cancel := o.conn.bound(ctx)
	defer cancel()
	list, err := o.store.List(bounded)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, nil
	}
	if err != nil {
		return nil, classify(ctx, err, "listing objects %s", o.name)
	}
	names := make([]string, len(list))
	for i, info := range list {
		names[i] = info.Name
	}
	slices.Sort(names)
	return names, nil
}

// Delete removes an object. It is no error when there is none.
func (o *Objects) Delete(ctx context.Context, name string) error {
	bounded, cancel := o.conn.bound(ctx)
	defer cancel()
	if err := o.store.Delete(bounded, name); err != nil && !missing(err) {
		return classify(ctx, err, "deleting object %s of %s", name, o.name)
	}
	// The client leaves a record that says that it is deleted, for every name that there ever was.
	subject := fmt.Sprintf("$O.%s.M.%s", o.name, base64.URLEncoding.EncodeToString([]byte(name)))
	if err := o.stream.Purge(bounded, jetstream.WithPurgeSubject(subject)); err != nil && !missing(err) {
		return classify(ctx, err, "deleting the record of object %s of %s", name, o.name)
	}
	return nil
}
