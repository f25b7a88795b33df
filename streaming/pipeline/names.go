package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/stream"
)

// Names of logs. A log's name begins with what it is for, so that they can be listed by kind.
func changeLog(instance, source string) string       { return "CHG_" + instance + "_" + source }
func stagedLog(instance, source string) string       { return "STAGED_" + instance + "_" + source }
func resultLog(instance, query string) string        { return "RES_" + instance + "_" + query }
func deadLetterLog(instance, reaction string) string { return "LETTERS_" + instance + "_" + reaction }
func rejectedLog(instance, source string) string     { return "REJECTS_" + instance + "_" + source }
func bootstrapLog(instance, query, source string) string {
	return "BOOT_" + instance + "_" + query + "_" + source
}

// yields reports whether a log gives way to all else when the stream server's disk is short of space: what is in it is
// there to be read once, and goes when it was.
func yields(log string) bool {
	kind, _, _ := strings.Cut(log, "_")
	return slices.Contains([]string{"CHG", "STAGED", "BOOT"}, kind)
}

// checkpointObjects names the objects of a query's checkpoints.
func checkpointObjects(instance, query string) string { return "CKPT_" + instance + "_" + query }

// Names of buckets.
const (
	positionsBucket     = "positions"     // <instance>.<source>: where a source is durable; .schema: what elements look like there; .wants: what is read of it; .staged: what the change log refers to
	subscriptionsBucket = "subscriptions" // <instance>.<source>.<query>[.bootstrap]: what must not be trimmed yet
	bootstrapBucket     = "bootstrap"     // <instance>.<query>.<source>[.scope.<generation>-<number>]: bootstraps and what they copy
	queriesBucket       = "queries"       // <instance>.<query>: which store holds the query's state
	checkpointsBucket   = "checkpoints"   // <instance>.<query>: which checkpoints of the query's state there are
	deliveriesBucket    = "deliveries"    // <instance>.<reaction>.<query>: what a reaction has delivered; with skipSuffix: what it is not to wait for
	madeBucket          = "made"          // <instance>.<source>: what a source has made in the system behind it, and how to reach that
)

func viewSubject(instance, query string) string  { return "perdure.view." + instance + "." + query }
func shownSubject(instance, query string) string { return "perdure.shown." + instance + "." + query }

// sourcePosition is the value of bucket positions.
type sourcePosition struct {
	Position graph.Position `json:"position"`         // everything up to it is durable in the change log
	Offset   uint64         `json:"offset"`           // last data message of the change log
	System   string         `json:"system,omitempty"` // from which that came
	At       time.Time      `json:"at"`
}

// schemaSuffix ends the key of what a source has learned of the schema, which is in its own notation.
const schemaSuffix = ".schema"

// read gets a JSON value. It reports false when the key is not there.
func read(ctx context.Context, b *stream.Bucket, key string, into any) (revision uint64, found bool, err error) {
	e, err := b.Get(ctx, key)
	if errors.Is(err, stream.ErrMissing) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("reading %s: %w", key, err)
	}
	if err := json.Unmarshal(e.Value, into); err != nil {
		return 0, false, failure.StateCorrupt.Errorf("decoding %s: %w", key, err)
	}
	return e.Revision, true, nil
}

// write puts a JSON value, whatever was there.
func write(ctx context.Context, b *stream.Bucket, key string, value any) (revision uint64, err error) {
	data, err := json.Marshal(value)
	if err != nil {
		return 0, fmt.Errorf("encoding %s: %w", key, err)
	}
	if revision, err = b.Put(ctx, key, data); err != nil {
		return 0, fmt.Errorf("writing %s: %w", key, err)
	}
	return revision, nil
}

// replace puts a JSON value if the key's revision is still the given one; 0 means that there is none. Otherwise the
// error is stream.ErrConflict.
func replace(ctx context.Context, b *stream.Bucket, key string, value any, revision uint64) (uint64, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return 0, fmt.Errorf("encoding %s: %w", key, err)
	}
	if revision == 0 {
		revision, err = b.Create(ctx, key, data)
	} else {
		revision, err = b.Update(ctx, key, data, revision)
	}
	if err != nil {
		return 0, fmt.Errorf("replacing %s: %w", key, err)
	}
	return revision, nil
}

// removeKeys deletes a key and everything below it.
func removeKeys(ctx context.Context, b *stream.Bucket, key string) error {
	keys, err := b.Keys(ctx, key)
	if err != nil {
		return fmt.Errorf("listing %s: %w", key, err)
	}
	for _, k := range keys {
		if k == key || len(k) > len(key) && k[len(key)] == '.' {
			if err := b.Delete(ctx, k); err != nil && !errors.Is(err, stream.ErrMissing) {
				return fmt.Errorf("deleting %s: %w", k, err)
			}
		}
	}
	return nil
}

func logOptions(name string, p component.Policy, description string) stream.LogOptions {
	p = p.WithDefaults()
	return stream.LogOptions{
		Name: name, MaxBytes: p.RetainBytes, MaxAge: time.Duration(p.RetainSeconds) * time.Second, Description: description,
		Yields: yields(name),
	}
}
