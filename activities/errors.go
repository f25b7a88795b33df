package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/perdure/perdure/streaming/failure"
)

const (
	maxMessage = 3 << 10 // it may name many problems of a spec
	maxCause   = 1 << 10
	maxCauses  = 12
)

// translate turns an error of the data plane into the one that Temporal gets: its type is the failure's code, it is
// retried when the failure's class says so, and its details are the failure's report. Errors that tell Temporal of a
// cancellation pass as they are.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case temporal.IsCanceledError(err), errors.Is(err, context.Canceled) && failure.Of(err) == nil:
		return err
	}
	var already *temporal.ApplicationError
	if errors.As(err, &already) {
		return err
	}
	o := temporal.ApplicationErrorOptions{NonRetryable: !failure.ClassOf(err).Retryable()}
	switch failure.CodeOf(err) {
	case failure.SourceMissing, failure.QueryMissing, failure.NoHost: // waiting for something that is yet to come
		o.Category = temporal.ApplicationErrorCategoryBenign
	}
	if failure.CodeOf(err) == failure.NoHost {
		o.NextRetryDelay = hostsEvery
	}
	return applicationError(err, o)
}

// failedWith returns the code of what translate returned, "" if that is no failure.
func failedWith(err error) string {
	var application *temporal.ApplicationError
	if !errors.As(err, &application) || application.Category() == temporal.ApplicationErrorCategoryBenign {
		return ""
	}
	return application.Type()
}

func applicationError(err error, o temporal.ApplicationErrorOptions) error {
	report := failure.Describe(err)
	report.Message = shorten(report.Message)
	report.Causes = failure.Outline(report.Causes, maxCauses)
	for i, cause := range report.Causes {
		report.Causes[i] = cut(cause, maxCause)
	}
	for k, v := range report.Details {
		report.Details[k] = cut(v, maxCause)
	}
	o.Details = []any{report}
	return temporal.NewApplicationErrorWithOptions(report.Message, report.Code, o)
}

func shorten(s string) string { return cut(s, maxMessage) }

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}

// exhausted is like translate, and says that Temporal has retried enough: the workflow decides what comes next.
func exhausted(err error) error {
	return applicationError(err, temporal.ApplicationErrorOptions{NonRetryable: true})
}

// hostsEvery is how often a host is looked for while there is none.
const hostsEvery = time.Second

// handOver asks Temporal to start the activity again at once, on another worker. It is not a failure.
func handOver() error {
	return applicationError(
		failure.WorkerStopping.Errorf("the worker stops; everything it took is durable"),
		temporal.ApplicationErrorOptions{
			NextRetryDelay: 250 * time.Millisecond,
			Category:       temporal.ApplicationErrorCategoryBenign,
		})
}

// Orphaned is the end of an attempt whose process was killed, reported by the process that came after it. The next one begins
// at once.
func Orphaned() error {
	return applicationError(failure.HostRestarted.Errorf("the process ended without handing over"), temporal.ApplicationErrorOptions{
		NextRetryDelay: 100 * time.Millisecond, Category: temporal.ApplicationErrorCategoryBenign,
	})
}

// ReportOf describes the error of an activity or of a child as a workflow sees it.
func ReportOf(err error) failure.Report {
	var (
		application *temporal.ApplicationError
		timeout     *temporal.TimeoutError
		panicked    *temporal.PanicError
		report      failure.Report
	)
	switch {
	case errors.As(err, &application):
		if application.HasDetails() && application.Details(&report) == nil && report.Code != "" {
			return report
		}
		return foreign(application)
	case errors.As(err, &panicked):
		return failure.Describe(failure.Panic.Errorf("%s", panicked.Error()).WithDetail("stack", shorten(panicked.StackTrace())))
	case errors.As(err, &timeout):
		return failure.Describe(failure.Timeout.Errorf("%w", errors.New(timeout.Error())))
	case temporal.IsCanceledError(err):
		return failure.Describe(failure.Cancelled.Errorf("cancelled"))
	}
	return failure.Describe(err)
}

// foreign reports an application error that did not come from translate, such as one of the SDK's own.
func foreign(err *temporal.ApplicationError) failure.Report {
	for _, code := range failure.Codes() {
		if code.ID == err.Type() {
			return failure.Describe(code.Errorf("%s", err.Message()))
		}
	}
	return failure.Describe(fmt.Errorf("%s: %s", err.Type(), err.Message()))
}

// ClassOf returns the class that a report names, Transient when it names none that this build knows.
func ClassOf(report failure.Report) failure.Class {
	for c := failure.Transient; c <= failure.Internal; c++ {
		if c.String() == report.Class {
			return c
		}
	}
	return failure.Transient
}

// Unplaced reports whether placing a component was given up only because no worker was there, to place it or to run it.
func Unplaced(err error) bool {
	var timeout *temporal.TimeoutError
	if errors.As(err, &timeout) && errors.Unwrap(timeout) == nil {
		return timeout.TimeoutType() != enumspb.TIMEOUT_TYPE_START_TO_CLOSE
	}
	return ReportOf(err).Code == failure.NoHost.ID
}

// NotTakenInTime reports whether an activity was given up because no worker took it from its queue.
func NotTakenInTime(err error) bool {
	var timeout *temporal.TimeoutError
	return errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START
}
