package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/streaming/failure"
)

var (
	// ErrMissing says that a log, message, bucket, key or object does not exist.
	ErrMissing = errors.New("missing")
	// ErrConflict says that a key exists already or has another revision than expected.
	ErrConflict = errors.New("conflict")
)

// Codes of the server's API that the client library has no names for.
const (
	codeAccountExceeded       jetstream.ErrorCode = 10002
	codeInsufficientResources jetstream.ErrorCode = 10023
	codeStorageExceeded       jetstream.ErrorCode = 10028
	codeNoStorage             jetstream.ErrorCode = 10047
	codeStoreFailed           jetstream.ErrorCode = 10077
)

// classify wraps err, which came up while doing something, with its code. An end of the caller's context stays what it
// is; an end of our own time bound is StreamUnavailable.
func classify(ctx context.Context, err error, doing string, args ...any) error {
	doing = fmt.Sprintf(doing, args...)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	if missing(err) {
		return fmt.Errorf("%s: %w: %w", doing, ErrMissing, err)
	}
	if errors.Is(err, jetstream.ErrLimitMarkerTTLNotSupported) {
		return failure.ConfigInvalid.Errorf("%s: the stream server is too old: %w", doing, err).
			WithFix("Run a NATS server of version 2.11 or newer, then signal resume.")
	}
	if wrongLastSequence(err) || errors.Is(err, jetstream.ErrKeyExists) {
		return fmt.Errorf("%s: %w: %w", doing, ErrConflict, err)
	}
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum) {
		return failure.BadRecord.Errorf("%s: %w", doing, err)
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeAccountExceeded, codeInsufficientResources, codeStorageExceeded, codeNoStorage, codeStoreFailed:
			return failure.StreamFull.Errorf("%s: %w", doing, err)
		}
	}
	return failure.StreamUnavailable.Errorf("%s: %w", doing, err)
}

func missing(err error) bool {
	for _, target := range []error{
		jetstream.ErrStreamNotFound, jetstream.ErrMsgNotFound, jetstream.ErrConsumerNotFound, jetstream.ErrConsumerDeleted,
		jetstream.ErrBucketNotFound, jetstream.ErrKeyNotFound, jetstream.ErrKeyDeleted, jetstream.ErrObjectNotFound,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func wrongLastSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// Delays between attempts of what is repeated by itself.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
)

func nextRetry(d time.Duration) time.Duration { return min(2*d, lastRetry) }
