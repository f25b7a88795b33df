package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/telemetry"
)

// served is results for a reaction whose clients come for them. Each event that a client takes is a delivery, which is told
// as those of other reactions are; what a client gets of a snapshot is none.
type served struct {
	reaction.Results
	id      string // <instance>.<reaction>
	name    string
	metrics *telemetry.Reaction
	tracer  *tracer
}

// Follow implements reaction.Results.
func (s *served) Follow(ctx context.Context, query string, after uint64, visit func(*result.Event) error, idle func() error) error {
	client := uuid.NewString() // the same event takes its own time to each of them
	return s.Results.Follow(ctx, query, after, func(e *result.Event) error {
		if isAnew(e) {
			return visit(e)
		}
		began := time.Now()
		followed := s.tracer.delivering(s.name, reaction.Delivery{
			Query: query, Key: fmt.Sprintf("%s:%s:%d:%s", s.id, query, e.Sequence, client), Event: e,
		})
		s.metrics.Attempts.Inc()
		err := visit(e)
		followed.tried(err)
		switch {
		case err == nil:
			s.metrics.Deliveries.Inc()
			s.metrics.Delivery.Observe(time.Since(began).Seconds())
			if !e.CommitTime.IsZero() {
				s.metrics.EndToEnd.Observe(max(0, time.Since(e.CommitTime).Seconds()))
			}
			followed.ended(telemetry.Delivered)
		case ctx.Err() != nil:
			followed.ended(telemetry.Interrupted)
		default:
			followed.ended(telemetry.GivenUp)
		}
		return err
	}, idle)
}
