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
	all := make([]ScopeProgress, len(scopes))
	for i, s := range scopes {
		all[i] = ScopeProgress{Name: s.Name, State: Waiting, Rows: s.rows(), Estimate: max(s.Rows, s.rows())}
		switch {
		case s.copied():
			all[i].State, all[i].Estimate = Copied, all[i].Rows
		case s.Failed != nil:
			all[i].State = Failed
		case s.leases() > 0:
			all[i].State = Copying
		}
	}
	return all, nil
}
