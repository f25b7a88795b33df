package source

import "context"

// Checker is a source that can look at the system behind it and say what keeps it from working, or may do so one day.
type Checker interface {
	// Check makes the checks it can, and changes nothing. A check that cannot be made, such as for want of a privilege, is
	// among the results as Skipped. The error is ctx's; that the system cannot be reached is a result.
	Check(ctx context.Context) ([]Check, error)
}

// Severity says what a check that is not OK means.
type Severity string

const (
	// Blocking keeps the source from starting, or from going on.
	Blocking Severity = "error"
	// Warning lets the source work, at a risk that Found names.
	Warning Severity = "warning"
	// Skipped says that the check could not be made; Found says why.
	Skipped Severity = "skipped"
)

// Check is what was looked at, what was found and what to do about it. It holds no secrets and no row data.
type Check struct {
	Name     string   `json:"name"`             // stable, such as "wal_level"
	Object   string   `json:"object,omitempty"` // what it is about where there are many, such as a table
	OK       bool     `json:"ok"`
	Severity Severity `json:"severity,omitempty"` // empty when OK
	Code     string   `json:"code,omitempty"`     // of the failure that the source would end with
	Found    string   `json:"found,omitempty"`
	Wanted   string   `json:"wanted,omitempty"`
	Fix      string   `json:"fix,omitempty"` // what to do, in a sentence
	SQL      []string `json:"sql,omitempty"` // statements that do it, to be run one by one by somebody who may
	// Commands do it in a shell.
	Commands []string `json:"commands,omitempty"`
	// Component is what a leftover was made for, "source.<instance>.<name>", so that whoever knows all components can
	// tell whether it is one.
	Component string `json:"component,omitempty"`
}
