package activities

import (
	"context"
	"strconv"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

// beat is the details of a heartbeat: for people who look at a pending activity, and for the count of failures in a
// row. Nothing resumes from it.
type beat struct {
	Version      int       `json:"v"`
	Generation   uint64    `json:"g,omitempty"`
	Host         string    `json:"host,omitempty"`
	Phase        string    `json:"phase,omitempty"`
	Position     string    `json:"pos,omitempty"`
	Offset       string    `json:"off,omitempty"`
	Sequence     string    `json:"seq,omitempty"`
	CommitTime   time.Time `json:"commitTs,omitzero"`
	Backpressure string    `json:"bp,omitempty"`
	Failures     int       `json:"fail,omitempty"` // attempts in a row that ended without progress
}

func beatOf(s pipeline.Status) beat {
	return beat{
		Version: 1, Phase: shorten(s.Phase), Position: string(s.Position), Offset: number(s.Offset),
		Sequence: number(s.Sequence), CommitTime: s.CommitTime, Backpressure: shorten(s.Backpressure),
	}
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

const beatEvery = 5 * time.Second

// beating runs work while heartbeats are sent, and returns what it returns. The work's context ends with the
// activity's, and when the worker stops: what is short enough to need no hand-over of its own is simply done again.
func beating(ctx context.Context, work func(context.Context) error) error {
	return beatingWith(ctx, func() any { return nil }, work)
}

// beatingWith is beating with details in the heartbeats.
func beatingWith(ctx context.Context, details func() any, work func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	done := failure.Go(func() error { return work(ctx) })
	activity.RecordHeartbeat(ctx, details())

	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	stopping := activity.GetWorkerStopChannel(ctx)
	for {
		select {
		case err := <-done:
			stopped := context.Cause(ctx)
			cancel(nil)
			if err != nil && stopped == errWorkerStops { //nolint:errorlint // a cause is compared, not a chain
				return handOver()
			}
			return err
		case <-ticker.C:
			activity.RecordHeartbeat(ctx, details())
		case <-stopping:
			stopping = nil
			cancel(errWorkerStops)
		}
	}
}
