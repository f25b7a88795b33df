package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/stream"
)

// store runs beside the query and stores the checkpoints that begin made, until ctx ends.
func (c *checkpointer) store(ctx context.Context) error {
	for {
		select {
		case m := <-c.made:
			err := c.upload(ctx, &m)
			err = errors.Join(err, m.files.Remove())
			if err != nil && ctx.Err() == nil {
				if errors.Is(err, index.ErrDamaged) || failure.CodeOf(err) == failure.FencedOff {
					return fmt.Errorf("making a checkpoint: %w", err)
				}
				c.failed(err)
			}
			c.mu.Lock()
			close(c.idle)
			c.making, c.idle = nil, nil
			c.mu.Unlock()
		case <-ctx.Done():
			return nil // what is left here is removed when the index is opened again
		}
	}
}

// upload stores a checkpoint: first the parts that are not there yet, then the list of its files, then the record. Then
// it removes what no checkpoint needs.
func (c *checkpointer) upload(ctx context.Context, m *madeCheckpoint) error {
	began := time.Now()
	u := &upload{objects: c.objects, epoch: c.run.attempt.Epoch, began: began, there: make(map[string]piece)}
	for _, one := range c.of(m.Store) {
		files, err := c.list(ctx, one)
		if failure.CodeOf(err) == failure.StateCorrupt {
			continue // then nothing of it is made use of
		}
		if err != nil {
			return err
		}
		for _, f := range files {
			for _, p := range f.Parts {
				u.there[p.SHA256] = p
			}
		}
	}
	var files []storedFile
	fixed := make(map[string]storedFile)
	for _, f := range m.files.Files {
		stored, known := c.fixed[f.Name]
		if !known || !f.Fixed {
			if f.Fixed { // what is damaged must not take the place of what is not
				if err := m.files.Check(f); err != nil {
					return err
				}
			}
			var err error
			if stored, err = u.file(ctx, m.files.Dir, f.Name); err != nil {
				return err
			}
		}
		if f.Fixed {
			fixed[f.Name] = stored
		}
		files = append(files, stored)
		m.Bytes += f.Size
	}
	list, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("encoding the files of a checkpoint: %w", err)
	}
	if m.Files, err = u.part(ctx, list); err != nil {
		return err
	}
	if err := c.run.fence.Check(ctx); err != nil {
		return err
	}
	err = c.change(ctx, func(record *checkpointRecord) {
		kept := record.of(m.Store)
		record.Checkpoints = append([]checkpoint{m.checkpoint}, kept[:min(len(kept), checkpointsKept-1)]...)
	})
	if err != nil {
		return err
	}
	c.fixed = fixed
	c.lists[m.Files.Object] = files
	took := time.Since(began)
	metrics := c.run.metrics
	metrics.CheckpointTime.Observe(took.Seconds())
	metrics.CheckpointUploaded.Add(float64(u.sent))
	c.run.attempt.Progress.SetDetail("checkpoint", m.At.Format(time.RFC3339)+", "+strconv.FormatInt(m.Bytes, 10)+" bytes")
	return c.collect(ctx)
}

// list returns the files of a checkpoint. The error is StateCorrupt when the list cannot be read.
func (c *checkpointer) list(ctx context.Context, of checkpoint) ([]storedFile, error) {
	if files, ok := c.lists[of.Files.Object]; ok {
		return files, nil
	}
	data, err := fetch(ctx, c.objects, of.Files)
	if err != nil {
		return nil, err
	}
	var files []storedFile
	if err := json.Unmarshal(data, &files); err != nil {
		return nil, failure.StateCorrupt.Errorf("decoding the files of a checkpoint: %w", err)
	}
	c.lists[of.Files.Object] = files
	return files, nil
}

// collect removes the objects that belong to no checkpoint that is kept. Those of newer attempts are let alone: they may
// be about to be part of one.
func (c *checkpointer) collect(ctx context.Context) error {
	needed := make(map[string]bool)
	lists := make(map[string][]storedFile)
	for _, one := range c.of(c.run.store) {
		needed[one.Files.Object] = true
		files, err := c.list(ctx, one)
		if failure.CodeOf(err) == failure.StateCorrupt {
			continue
		}
		if err != nil {
			return err
		}
		lists[one.Files.Object] = files
		for _, f := range files {
			for _, p := range f.Parts {
				needed[p.Object] = true
			}
		}
	}
	c.lists = lists
	names, err := c.objects.Names(ctx)
	if err != nil {
		return fmt.Errorf("looking for objects that no checkpoint needs: %w", err)
	}
	for _, name := range names {
		if needed[name] || epochOf(name).Compare(c.run.attempt.Epoch) > 0 {
			continue
		}
		if err := c.objects.Delete(ctx, name); err != nil {
			return fmt.Errorf("removing an object that no checkpoint needs: %w", err)
		}
	}
	return nil
}

// upload is what it takes to store one checkpoint.
type upload struct {
	objects *stream.Objects
	epoch   stream.Epoch
	there   map[string]piece // what is stored already, by SHA-256
	began   time.Time
	sent    int64
}

// file stores a file, in parts.
func (u *upload) file(ctx context.Context, dir, name string) (storedFile, error) {
	stored := storedFile{Name: name}
	f, err := os.Open(filepath.Join(dir, name)) //nolint:gosec // the index has named it
	if err != nil {
		return stored, fmt.Errorf("reading a file of a checkpoint: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	for {
		data, err := io.ReadAll(io.LimitReader(f, stream.MaxObject))
		if err != nil {
			return stored, fmt.Errorf("reading a file of a checkpoint: %w", err)
		}
		if len(data) == 0 {
			return stored, nil
		}
		p, err := u.part(ctx, data)
		if err != nil {
			return stored, err
		}
		stored.Parts = append(stored.Parts, p)
	}
}

// part stores a part unless it is there. An object begins with the attempt that stored it: so no older attempt, which
// may not know yet that it is outdated, removes it.
func (u *upload) part(ctx context.Context, data []byte) (piece, error) {
	sum := sha256.Sum256(data)
	p := piece{Size: len(data), SHA256: hex.EncodeToString(sum[:])}
	if there, ok := u.there[p.SHA256]; ok {
		return there, nil
	}
	p.Object = u.epoch.String() + "/" + p.SHA256
	_, err := retried(ctx, func() (struct{}, error) { return struct{}{}, u.objects.Put(ctx, p.Object, data) })
	if err != nil {
		return p, fmt.Errorf("storing a part of a checkpoint: %w", err)
	}
	u.there[p.SHA256] = p
	u.sent += int64(len(data))
	ahead := time.NewTimer(time.Duration(float64(u.sent)/uploadRate*float64(time.Second)) - time.Since(u.began))
	defer ahead.Stop()
	select {
	case <-ahead.C:
		return p, nil
	case <-ctx.Done():
		return p, ctx.Err()
	}
}

// epochOf returns the attempt that stored an object, the zero one when the name does not tell.
func epochOf(object string) (e stream.Epoch) {
	epoch, _, _ := strings.Cut(object, "/")
	generation, started, _ := strings.Cut(epoch, ".")
	e.Generation, _ = strconv.ParseUint(generation, 10, 64)
	e.Started, _ = strconv.ParseInt(started, 10, 64)
	return e
}

// fetch returns a part as it was stored; the error is StateCorrupt when it is not there or is something else.
func fetch(ctx context.Context, objects *stream.Objects, p piece) ([]byte, error) {
	data, err := retried(ctx, func() ([]byte, error) { return objects.Get(ctx, p.Object) })
	if errors.Is(err, stream.ErrMissing) {
		return nil, failure.StateCorrupt.Errorf("a part of a checkpoint is gone: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a part of a checkpoint: %w", err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != p.SHA256 {
		return nil, failure.StateCorrupt.Errorf("part %s of a checkpoint is not what was stored", p.Object)
	}
	return data, nil
}
