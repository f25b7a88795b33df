package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/failure"
)

// FailedScope is a scope of a snapshot, such as a table, that cannot be read for good: somebody has to do something about it.
// Nobody tries again before [Host.RetryScopes], whatever the generation of the snapshot; the other scopes are copied.
type FailedScope struct {
	Name   string         `json:"name"` // without the quotation marks of SQL
	Report failure.Report `json:"report"`
	At     time.Time      `json:"at"`
}

// unreadableError is why a chunk could not be read, unlike why what was read could not be kept.
type unreadableError struct{ cause error }

func (e *unreadableError) Error() string { return e.cause.Error() }
func (e *unreadableError) Unwrap() error { return e.cause }

// isOfScope reports whether an error says that a scope cannot be read, and that trying again is of no use. A snapshot that is
// lost is transient: the next one helps. A mistake of ours may be, so that the bootstrap fails and is tried again.
func isOfScope(err error) bool {
	var unreadable *unreadableError
	class := failure.ClassOf(err)
	return errors.As(err, &unreadable) && !class.Retryable() && class != failure.Fenced && class != failure.Internal
}

// quarantine puts on record that the scope of a chunk cannot be read. The connection that found it is of no more use.
func (c *copying) quarantine(ctx context.Context, cause error) error {
	c.close()
	failed, first := FailedScope{Name: spelled(c.scope.Name), Report: failure.Describe(cause), At: time.Now().UTC()}, false
	err := c.update(ctx, func(s *scopeRecord, own *chunkRecord) {
		own.Renewals = 0
		if first = s.Failed == nil; first { // or another chunk of it failed before
			s.Failed = &failed
		}
	})
	if err != nil {
		return fmt.Errorf("recording that %s cannot be read (%w): %w", c.scope.Name, cause, err)
	}
	if first {
		c.total.Failed = append(slices.Clone(c.total.Failed), failed)
		c.copier.report(c.total)
	}
	return nil
}

// spelled is the name of a scope as people write it, who know nothing of its quotation marks.
func spelled(scope string) string { return strings.ReplaceAll(scope, `"`, "") }

// failedBefore returns why a scope of an earlier snapshot could not be read, nil if it could.
func failedBefore(earlier []*storedScope, name string) *FailedScope {
	for _, s := range earlier {
		if s.Name == name && s.Failed != nil {
			return s.Failed
		}
	}
	return nil
}

// FailedScopes returns which scopes of a bootstrap cannot be read, in order.
func (h *Host) FailedScopes(ctx context.Context, ref BootstrapRef) ([]FailedScope, error) {
	b, _, _, err := h.bootstrap(ctx, ref)
	if err != nil {
		return nil, err
	}
	scopes, err := h.scopes(ctx, b, ref.key())
	if err != nil {
		return nil, err
	}
	var failed []FailedScope
	for _, s := range scopes {
		if s.Failed != nil {
			failed = append(failed, *s.Failed)
		}
	}
	return failed, nil
}

// RetryScopes has scopes that could not be read copied again: those named, with or without quotation marks, or all.
func (h *Host) RetryScopes(ctx context.Context, ref BootstrapRef, names []string) error {
	b, _, _, err := h.bootstrap(ctx, ref)
	if err != nil {
		return err
	}
	scopes, err := h.scopes(ctx, b, ref.key())
	if err != nil {
		return err
	}
	for _, s := range scopes {
		named := func(name string) bool { return spelled(name) == spelled(s.Name) }
		if s.Failed == nil || len(names) > 0 && !slices.ContainsFunc(names, named) {
			continue
		}
		if err := s.update(ctx, b, func(r *scopeRecord) error { r.Failed = nil; return nil }); err != nil {
			return err
		}
	}
	return nil
}
