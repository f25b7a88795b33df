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
	Causes  []string          `json:"causes,omitempty"` // outermost first, each adding something to the one before
	Fix     string            `json:"fix,omitempty"`
	Details map[string]string `json:"details,omitempty"`
}

// Describe reports err; details of all coded errors in the chain are merged, outer ones winning.
func Describe(err error) Report {
	code := CodeOf(err)
	r := Report{Code: code.ID, Class: code.Class.String(), Message: err.Error(), Fix: code.Fix}
	if e := Of(err); e != nil {
		r.Fix = e.Fix()
	}
	last := r.Message
	for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(cause) {
		if m := cause.Error(); m != last {
			r.Causes, last = append(r.Causes, m), m
		}
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		if e, ok := cause.(*Error); ok { //nolint:errorlint // walking the chain link by link
			for k, v := range e.details {
				if r.Details == nil {
					r.Details = make(map[string]string)
				}
				if _, taken := r.Details[k]; !taken {
					r.Details[k] = v
				}
			}
		}
	}
	return r
}
