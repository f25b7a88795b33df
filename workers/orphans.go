package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/stream"
)

// A process that is killed leaves attempts that the server believes in until their heartbeats are overdue, half a minute
// later. Its successor knows better: it has the same host id only because it holds the lock on the same data directory.
// So each attempt with heartbeats is noted in a bucket while it runs, and whoever starts under a host id tells the server
// which attempts ended with its predecessor. The task token names the attempt, so that an attempt which the server gave
// to somebody else meanwhile is not hit.

const (
	orphansBucket = "attempts" // <host>.<workflow run>.<activity>.<attempt>: task token of an attempt that runs there
	// hostRestarted is the failure type of an attempt whose process ended without handing it over.
	hostRestarted = "HostRestarted"
	// retryOrphans is the delay of the attempt after that.
	retryOrphans = 100 * time.Millisecond
)

type attemptNote struct {
	Token []byte `json:"token"`
}

// orphans keeps the notes of one host. It is safe for concurrent use.
type orphans struct {
	interceptor.WorkerInterceptorBase
	bucket *stream.Bucket
	hostID string
	log    *zap.Logger
}

func openOrphans(ctx context.Context, conn *stream.Conn, hostID string, log *zap.Logger) (*orphans, error) {
	b, err := conn.Bucket(ctx, stream.BucketOptions{Name: orphansBucket})
	if err != nil {
		return nil, fmt.Errorf("opening bucket %s: %w", orphansBucket, err)
	}
	return &orphans{bucket: b, hostID: hostID, log: log}, nil
}

// release tells the server which attempts ended with the process that had the host id before. One that cannot be
// released does not keep the others.
func (o *orphans) release(ctx context.Context, c client.Client) error {
	keys, err := o.bucket.Keys(ctx, o.hostID+".")
	if err != nil {
		return fmt.Errorf("listing attempts of the process before: %w", err)
	}
	var errs []error
	for _, key := range keys {
		if err := o.releaseOne(ctx, c, key); err != nil {
			errs = append(errs, fmt.Errorf("releasing attempt %s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

func (o *orphans) releaseOne(ctx context.Context, c client.Client, key string) error {
	entry, err := o.bucket.Get(ctx, key)
	if errors.Is(err, stream.ErrMissing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	var note attemptNote
	if err := json.Unmarshal(entry.Value, &note); err == nil && len(note.Token) > 0 {
		failed := temporal.NewApplicationErrorWithOptions("the process ended without handing over", hostRestarted,
			temporal.ApplicationErrorOptions{NextRetryDelay: retryOrphans, Category: temporal.ApplicationErrorCategoryBenign})
		if err := c.CompleteActivity(ctx, note.Token, nil, failed); err != nil && !unknownToServer(err) {
			return fmt.Errorf("reporting its end: %w", err)
		}
	}
	if err := o.bucket.Delete(ctx, key); err != nil && !errors.Is(err, stream.ErrMissing) {
		return fmt.Errorf("forgetting it: %w", err)
	}
	return nil
}

// unknownToServer reports whether the server has no such attempt: it is over, or it was another server's.
func unknownToServer(err error) bool {
	var (
		gone      *serviceerror.NotFound
		namespace *serviceerror.NamespaceNotFound
		token     *serviceerror.InvalidArgument
	)
	return errors.As(err, &gone) || errors.As(err, &namespace) || errors.As(err, &token)
}

// InterceptActivity implements interceptor.WorkerInterceptor.
func (o *orphans) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	i := &noting{orphans: o}
	i.Next = next
	return i
}

type noting struct {
	interceptor.ActivityInboundInterceptorBase
	orphans *orphans
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor.
func (n *noting) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	if info.HeartbeatTimeout == 0 {
		return n.Next.ExecuteActivity(ctx, in)
	}
	key := n.orphans.key(info)
	value, err := json.Marshal(attemptNote{Token: info.TaskToken})
	if err != nil {
		return nil, err
	}
	// Without the note the attempt is only found out later, by its heartbeats.
	if _, err := n.orphans.bucket.Put(ctx, key, value); err != nil {
		n.orphans.log.Warn("an attempt could not be noted", zap.String("attempt", key), zap.Error(err))
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), errandWithin)
		defer cancel()
		if err := n.orphans.bucket.Delete(ctx, key); err != nil && !errors.Is(err, stream.ErrMissing) {
			n.orphans.log.Debug("an attempt could not be forgotten", zap.String("attempt", key), zap.Error(err))
		}
	}()
	return n.Next.ExecuteActivity(ctx, in)
}

func (o *orphans) key(info activity.Info) string {
	return fmt.Sprintf("%s.%s.%s.%d", o.hostID, info.WorkflowExecution.RunID, info.ActivityID, info.Attempt)
}
