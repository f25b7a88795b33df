package pipeline

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
)

// madeRecord is the value of bucket made. It lasts until nothing is left of what it names, also beyond a deletion that was
// forced, or that was told to keep it.
type madeRecord struct {
	// Specs are those with which the source was provisioned, the last one first, and before that those by which something can
	// be reached that could not be removed yet.
	Specs []component.SourceSpec `json:"specs"`
	// Packed has them instead where they are large, compressed: a spec may name very many tables.
	Packed []byte `json:"packed,omitempty"`
	// Made is what there is, by kind, in the notation of the kind's sources.
	Made map[string][]byte `json:"made,omitempty"`
	// Left is why something of earlier specs is still there.
	Left string `json:"left,omitempty"`
}

// recordOf returns the record of what a source makes; nil where nothing is kept.
func (h *Host) recordOf(spec component.SourceSpec) source.Record {
	if h.conn == nil {
		return nil
	}
	id := spec.ID()
	return &sourceRecord{host: h, key: id.Instance + "." + id.Name, kind: spec.Kind}
}

// sourceRecord implements source.Record.
type sourceRecord struct {
	host      *Host
	key, kind string
	record    madeRecord // as it was loaded
	revision  uint64
}

// Load implements source.Record.
func (r *sourceRecord) Load(ctx context.Context) (made []byte, err error) {
	r.record, r.revision, err = r.host.readMade(ctx, r.key)
	return r.record.Made[r.kind], err
}

// Save implements source.Record.
func (r *sourceRecord) Save(ctx context.Context, made []byte) error {
	if delete(r.record.Made, r.kind); len(made) > 0 {
		if r.record.Made == nil {
			r.record.Made = make(map[string][]byte)
		}
		r.record.Made[r.kind] = made
	}
	b, err := r.host.bucket(ctx, madeBucket)
	if err != nil {
		return err
	}
	packed, err := r.record.pack()
	if err != nil {
		return err
	}
	r.revision, err = replace(ctx, b, r.key, packed, r.revision)
	return err
}

// mostUnpacked is the size of specs, in JSON, up to which they are not compressed.
const mostUnpacked = 64 << 10

// pack makes a record fit for a bucket, whose values are small.
func (r madeRecord) pack() (madeRecord, error) {
	specs, err := json.Marshal(r.Specs)
	if err != nil || len(specs) <= mostUnpacked {
		return r, err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write(specs)
	r.Specs, r.Packed = nil, nil
	if err = errors.Join(err, w.Close()); err == nil {
		r.Packed = packed.Bytes()
	}
	return r, err
}

func (r *madeRecord) unpack() error {
	if len(r.Packed) == 0 {
		return nil
	}
	packed, err := gzip.NewReader(bytes.NewReader(r.Packed))
	if err == nil {
		err = json.NewDecoder(packed).Decode(&r.Specs)
	}
	r.Packed = nil
	if err != nil {
		return failure.StateCorrupt.Errorf("unpacking the specs of a source: %w", err)
	}
	return nil
}

func (h *Host) readMade(ctx context.Context, key string) (record madeRecord, revision uint64, err error) {
	b, err := h.bucket(ctx, madeBucket)
	if err != nil {
		return record, 0, err
	}
	if revision, _, err = read(ctx, b, key, &record); err == nil {
		err = record.unpack()
	}
	return record, revision, err
}

// editMade changes a record; one with nothing in it is removed.
func (h *Host) editMade(ctx context.Context, key string, edit func(*madeRecord)) error {
	b, err := h.bucket(ctx, madeBucket)
	if err != nil {
		return err
	}
	for {
		record, revision, err := h.readMade(ctx, key)
		if err != nil {
			return err
		}
		if edit(&record); len(record.Specs) == 0 {
			return removeKeys(ctx, b, key)
		}
		packed, err := record.pack()
		if err != nil {
			return err
		}
		if _, err = replace(ctx, b, key, packed, revision); !errors.Is(err, stream.ErrConflict) {
			return err
		}
	}
}

func sameSpec(a, b component.SourceSpec) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// ProvisionSource creates what the source needs on its system and the source's change log, and then removes what another
// spec of the source needed and this one does not.
func (h *Host) ProvisionSource(ctx context.Context, spec component.SourceSpec) error {
	src, err := h.newSource(spec, 0)
	if err != nil {
		return err
	}
	id := spec.ID()
	key := id.Instance + "." + id.Name
	err = h.editMade(ctx, key, func(r *madeRecord) { // first: a crash must not leave anything that nobody can reach
		r.Specs = slices.DeleteFunc(r.Specs, func(s component.SourceSpec) bool { return sameSpec(s, spec) })
		r.Specs = slices.Insert(r.Specs, 0, spec)
	})
	if err != nil {
		return fmt.Errorf("recording the spec: %w", err)
	}
	if err := failure.Guard(func() error { return src.Provision(ctx) }); err != nil {
		return err
	}
	_, err = h.conn.EnsureLog(ctx, logOptions(changeLog(id.Instance, id.Name), spec.Policy, "changes of "+id.String()))
	if err != nil {
		return fmt.Errorf("creating the change log: %w", err)
	}
	return h.retire(ctx, id, key)
}

// retire removes what is there because of earlier specs. What cannot be reached stays on record, and keeps nobody from
// going on: the next time that the source is provisioned or deleted it is tried again.
func (h *Host) retire(ctx context.Context, id component.ID, key string) error {
	record, _, err := h.readMade(ctx, key)
	if err != nil {
		return err
	}
	var failed []error
	done := false // with what sources of the present kind have made
	for i, spec := range record.Specs {
		if done && spec.Kind == record.Specs[0].Kind { // most changes of a spec are such that the new one reaches everything
			continue
		}
		src, err := h.newSource(spec, 0)
		if err == nil {
			retirer, records := src.(source.Retirer)
			switch {
			case spec.Kind != record.Specs[0].Kind:
				err = failure.Guard(func() error { return src.Teardown(ctx) })
			case records:
				err = failure.Guard(func() (err error) { done, err = retirer.Retire(ctx); return err })
			default:
				done = i == 0
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if len(record.Specs) == 1 && len(failed) == 0 && record.Left == "" {
		return nil
	}
	left := errors.Join(failed...)
	if left != nil {
		h.logFor(id).Warn("something of an earlier spec is still there, and is removed with the source", zap.Error(left))
	}
	return h.editMade(ctx, key, func(r *madeRecord) {
		if r.Left = ""; left != nil {
			r.Left = left.Error()
		} else {
			r.Specs = r.Specs[:min(1, len(r.Specs))]
		}
	})
}

// showLeft has the status of a source say what of its earlier specs is still there.
func (h *Host) showLeft(ctx context.Context, id component.ID, progress *Progress) error {
	record, _, err := h.readMade(ctx, id.Instance+"."+id.Name)
	if err == nil {
		progress.SetDetail("leftBehind", record.Left)
	}
	return err
}

// TeardownSource removes what ProvisionSource and RunSource created, with whatever spec. What is in the stream server
// goes also when the system behind the source is not to be reached; the error then says what is left there.
func (h *Host) TeardownSource(ctx context.Context, spec component.SourceSpec) error {
	return errors.Join(h.forgetSource(ctx, spec.ID()), h.tearDownSystem(ctx, spec))
}

func (h *Host) forgetSource(ctx context.Context, id component.ID) error {
	if err := h.conn.DeleteLog(ctx, changeLog(id.Instance, id.Name)); err != nil {
		return fmt.Errorf("deleting the change log: %w", err)
	}
	if err := h.conn.DeleteLog(ctx, stagedLog(id.Instance, id.Name)); err != nil {
		return fmt.Errorf("deleting the log of what is staged: %w", err)
	}
	if err := h.conn.DeleteLog(ctx, rejectedLog(id.Instance, id.Name)); err != nil {
		return fmt.Errorf("deleting the dead-letter log: %w", err)
	}
	positions, err := h.bucket(ctx, positionsBucket)
	if err != nil {
		return err
	}
	if err := removeKeys(ctx, positions, id.Instance+"."+id.Name); err != nil {
		return err
	}
	return h.unfence(ctx, id)
}

// tearDownSystem removes what the source made in the systems behind all of its specs.
func (h *Host) tearDownSystem(ctx context.Context, spec component.SourceSpec) error {
	id := spec.ID()
	key := id.Instance + "." + id.Name
	record, revision, err := h.readMade(ctx, key)
	if err != nil {
		return err
	}
	specs := record.Specs
	if revision == 0 && spec.Kind != "" { // provisioned by a build without such records, or never
		specs = []component.SourceSpec{spec}
	}
	failed := make(map[string]error) // by kind
	for _, spec := range specs {
		src, err := h.newSource(spec, 0)
		if err == nil {
			if _, records := src.(source.Retirer); records && revision != 0 {
				now, _, err := h.readMade(ctx, key)
				if err != nil {
					return err
				}
				if now.Made[spec.Kind] == nil { // nothing was made, or nothing is left
					delete(failed, spec.Kind)
					continue
				}
			}
			err = failure.Guard(func() error { return src.Teardown(ctx) })
		}
		if err != nil {
			failed[spec.Kind] = errors.Join(failed[spec.Kind], err)
		}
	}
	left, _, err := h.readMade(ctx, key)
	if err != nil {
		return err
	}
	for kind, one := range failed {
		if revision != 0 && left.Made[kind] == nil && record.Made[kind] != nil {
			continue // another spec reached all that there was
		}
		err = errors.Join(err, one)
	}
	if err != nil {
		return err
	}
	for _, made := range left.Made { // its server is gone: another one answers in its place
		h.logFor(id).Warn("what the source made at a server that no spec leads to any more is left to itself", zap.ByteString("made", made))
	}
	return h.editMade(ctx, key, func(r *madeRecord) { r.Specs = nil })
}
