package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// retryFor is how long a stage tries a transient failure again in place before it gives up and leaves the next try to
// whoever started it, which shows the failure in the status of the component.
const retryFor = 2 * time.Minute

// retried calls f until it succeeds, fails for good, has failed for retryFor, or ctx ends.
func retried[T any](ctx context.Context, f func() (T, error)) (T, error) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval = 50 * time.Millisecond
	wait.MaxInterval = 5 * time.Second
	return backoff.Retry(ctx, func() (T, error) {
		v, err := f()
		if err != nil && (ctx.Err() != nil || answered(err) || !failure.ClassOf(err).Retryable()) {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(retryFor))
}

// answered reports whether err is an answer and no failure.
func answered(err error) bool {
	return errors.Is(err, stream.ErrConflict) || errors.Is(err, stream.ErrMissing)
}

// ended reports whether err is only the end of a context.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
