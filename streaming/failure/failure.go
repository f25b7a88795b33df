// Package failure says whether an error is worth retrying, and gives it a stable code.
//
// Every error that leaves a package of Perdure through an API that crosses a stage carries a [Code], attached where
// the error was understood: the package that talks to Postgres knows what SQLSTATE 42501 means, nobody above it
// does. Callers never match on text: they ask [ClassOf] what to do and [CodeOf] what to show.
//
// Values of this package are immutable after construction and safe for concurrent use.
package failure

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Class says what is to be done about an error.
type Class uint8

const (
	// Transient errors go away by themselves: retry with backoff for as long as it takes.
	Transient Class = iota + 1
	// Configuration errors need the spec or the environment changed by a person. Never retried.
	Configuration
	// Authorisation errors need credentials or grants changed by a person. Never retried.
	Authorisation
	// Data errors belong to one record: it goes to the dead letters and the rest goes on.
	Data
	// Invalidated errors say that a position or a state is lost: the component needs a resync, a retry cannot help.
	Invalidated
	// Fenced errors say that a newer attempt owns the component: stop at once and write nothing.
	Fenced
	// Internal errors are bugs of Perdure.
	Internal
)

var classNames = [...]string{"", "transient", "configuration", "authorisation", "data", "invalidated", "fenced", "internal"}

// String returns the lower-case name of the class, as shown in status and logs.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Retryable reports whether trying the same thing again can succeed without anybody's help.
func (c Class) Retryable() bool { return c == Transient }

// Code is one entry of the catalogue in codes.go: a stable identifier that status, logs, metrics and the API show,
// together with what it means and what to do about it.
type Code struct {
	ID      string // CamelCase, stable for ever: "SlotMissing"
	Class   Class
	Meaning string // one sentence
	Fix     string // what an operator does about it; may be made specific by WithFix
}

// Errorf returns an error of this code. The format works as in fmt.Errorf, %w included.
func (c *Code) Errorf(format string, args ...any) *Error {
	return &Error{code: c, err: fmt.Errorf(format, args...)}
}

// Error is an error with a code. It unwraps to its cause.
type Error struct {
	code    *Code
	err     error
	fix     string
	details map[string]string
}

// Error returns the message, without the code.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the error built by Code.Errorf, whose chain holds the causes.
func (e *Error) Unwrap() error { return e.err }

// Code returns the error's catalogue entry.
func (e *Error) Code() *Code { return e.code }

// Fix says what to do about this very error; the code's general advice unless WithFix made it specific.
func (e *Error) Fix() string {
	if e.fix != "" {
		return e.fix
	}
	return e.code.Fix
}

// Details returns facts such as "sqlstate", "table" or "position". The map must not be changed.
func (e *Error) Details() map[string]string { return e.details }

// WithFix returns a copy of e with advice for this very case, such as the SQL statement to run.
func (e *Error) WithFix(format string, args ...any) *Error {
	c := *e
	c.fix = fmt.Sprintf(format, args...)
	return &c
}

// WithDetail returns a copy of e that carries one more fact. Values must not hold row data or secrets.
func (e *Error) WithDetail(key, value string) *Error {
	c := *e
	c.details = maps.Clone(e.details)
	if c.details == nil {
		c.details = make(map[string]string, 1)
	}
	c.details[key] = value
	return &c
}

// Of returns the outermost coded error in err's chain, or nil.
func Of(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// CodeOf returns the code of the outermost coded error in err's chain. Context errors are Cancelled or Timeout and
// everything else is Unclassified, which is transient: what nobody understood may well go away.
func CodeOf(err error) *Code {
	if e := Of(err); e != nil {
		return e.code
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Unclassified
}

// ClassOf returns the class of CodeOf(err).
func ClassOf(err error) Class { return CodeOf(err).Class }

// Report is an error in the form that status, API and Temporal failures carry. It holds no row data.
type Report struct {
	Code    string            `json:"code"`
	Class   string            `json:"class"`
	Message string            `json:"message"`
	Causes  []string          `json:"causes,omitempty"` // outermost first, each adding something to those before
	Fix     string            `json:"fix,omitempty"`
	Details map[string]string `json:"details,omitempty"`
}

// Describe reports err; details of all coded errors that it wraps are merged, outer ones winning.
func Describe(err error) Report {
	code := CodeOf(err)
	r := Report{Code: code.ID, Class: code.Class.String(), Message: err.Error(), Fix: code.Fix}
	if e := Of(err); e != nil {
		r.Fix = e.Fix()
	}
	for _, cause := range tree(err) {
		if m := cause.Error(); m != r.Message && !slices.Contains(r.Causes, m) {
			r.Causes = append(r.Causes, m)
		}
		e, ok := cause.(*Error) //nolint:errorlint // walking the tree link by link
		if !ok {
			continue
		}
		for k, v := range e.details {
			if r.Details == nil {
				r.Details = make(map[string]string)
			}
			if _, taken := r.Details[k]; !taken {
				r.Details[k] = v
			}
		}
	}
	return r
}

// maxTree is how many errors are looked at. Only what joins errors in a loop has more.
const maxTree = 100

// tree returns err and all that it wraps, in the order in which errors.As looks at them: where an error wraps several, each
// is followed by its own causes before the next.
func tree(err error) []error {
	var all []error
	for left := []error{err}; len(left) > 0 && len(all) < maxTree; {
		next := left[len(left)-1]
		left = left[:len(left)-1]
		if next == nil {
			continue
		}
		all = append(all, next)
		switch next := next.(type) { //nolint:errorlint // walking the tree link by link
		case interface{ Unwrap() error }:
			left = append(left, next.Unwrap())
		case interface{ Unwrap() []error }:
			for _, cause := range slices.Backward(next.Unwrap()) {
				left = append(left, cause)
			}
		}
	}
	return all
}

// Outline returns at most so many of a report's causes, at least three: the outermost, a mark for those that are left out,
// and always the root.
func Outline(causes []string, most int) []string {
	if len(causes) <= most {
		return causes
	}
	return append(slices.Clone(causes[:most-2]), "...", causes[len(causes)-1])
}
