package pipeline

import (
	"context"
)

// ScopeProgress is how far one scope of a snapshot, such as a table, is copied.
type ScopeProgress struct {
	Name     string
	State    CopyState
	Rows     int64 // copied so far, some seconds old
	Estimate int64 // of all its rows
}

// CopyState is what is being done about a scope.
type CopyState string

// The states of a scope.
const (
	Waiting CopyState = "waiting"
	Copying CopyState = "copying"
	Copied  CopyState = "copied"
	Failed  CopyState = "failed" // for good; see FailedScope
)

// CopiedSoFar returns how far the scopes of the ref's snapshot are copied, in order; those that were copied from earlier
// snapshots come first. It returns nothing before they are planned.
func (h *Host) CopiedSoFar(ctx context.Context, ref BootstrapRef) ([]ScopeProgress, error) {
	b, record, err := h.current(ctx, ref)
	if err != nil || record.Pace == nil {
		return nil, err
	}
	scopes, err := h.scopes(ctx, b, ref.key())
	if err != nil {
		return nil, err
	}
	var all []ScopeProgress
	before := make(map[string]int64) // rows of scopes that others go on with, which follow
	for _, s := range scopes {
		rows := before[s.Name] + s.rows()
		if s.Continued {
			before[s.Name] = rows
			continue
		}
		p := ScopeProgress{Name: s.Name, State: Waiting, Rows: rows, Estimate: max(s.Rows, rows)}
		switch {
		case s.copied():
			p.State, p.Estimate = Copied, rows
		case s.Failed != nil:
			p.State = Failed
		case s.leases() > 0:
			p.State = Copying
		}
		all = append(all, p)
	}
	return all, nil
}
