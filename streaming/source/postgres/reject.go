package postgres

import (
	"bytes"
	"context"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// reject puts a row that cannot be decoded among the dead letters, if cause is of that kind and the spec wants it so.
// Otherwise it returns cause.
func (s *Source) reject(ctx context.Context, at graph.Position, cause error, record []byte) error {
	if failure.CodeOf(cause) != failure.BadRecord || s.config.OnBadRow != "deadLetter" || s.settings.Reject == nil {
		return cause
	}
	details := failure.Describe(cause).Details
	if details["column"] == "" { // not the row is wrong, but what we know of it
		return cause
	}
	return s.settings.Reject(ctx, source.DeadLetter{Position: at, Scope: details["table"], Cause: cause, Record: bytes.Clone(record)})
}
