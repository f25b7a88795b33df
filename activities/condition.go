package activities

import (
	"context"
	"slices"
	"strconv"
	"time"

	"go.temporal.io/sdk/activity"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/pipeline"
)

const (
	// lookEvery is how often the condition of a reaction is looked at.
	lookEvery = time.Second
	// tellEvery is how often a condition that changes is told at most, since each time costs history.
	tellEvery = time.Minute
	// toldQueries is how many queries a condition names.
	toldQueries = 8
)

// teller tells a reaction's workflow how the reaction is whenever that changes. As long as all is well it says nothing.
type teller struct {
	tell func(context.Context, Condition) error
	log  *zap.Logger
	last Condition
	at   time.Time // when that was told
	told bool
}

// newTeller begins with what the workflow takes for granted of a run. It knows nothing of an earlier attempt's end, so
// a later attempt tells its condition in any case.
func newTeller(ctx context.Context, generation uint64, log *zap.Logger) *teller {
	info := activity.GetInfo(ctx)
	return &teller{
		tell: func(ctx context.Context, c Condition) error {
			ctx, cancel := context.WithTimeout(ctx, beatEvery)
			defer cancel()
			execution := info.WorkflowExecution
			return activity.GetClient(ctx).SignalWorkflow(ctx, execution.ID, execution.RunID, SignalCondition, c)
		},
		log: log, last: Condition{Generation: generation, Target: pipeline.TargetClosed}, told: info.Attempt == 1,
	}
}

func (t *teller) run(ctx context.Context, p *pipeline.Progress) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			t.look(ctx, p.Snapshot().Delivery, now)
		}
	}
}

func (t *teller) look(ctx context.Context, s *pipeline.DeliveryStatus, now time.Time) {
	if s == nil || now.Sub(t.at) < tellEvery {
		return
	}
	next := conditionOf(t.last.Generation, s)
	if t.told && same(next, t.last) {
		return
	}
	next.At = now.UTC()
	if err := t.tell(ctx, next); err != nil { // the next look says the same
		t.log.Debug("the condition cannot be told", zap.Error(err))
		return
	}
	t.last, t.at, t.told = next, now, true
}

// same compares what makes a difference: another try that fails in the way of the one before does not.
func same(a, b Condition) bool {
	return a.Target == b.Target && a.DeadLetters == b.DeadLetters && a.More == b.More &&
		slices.EqualFunc(a.Queries, b.Queries, func(x, y QueryCondition) bool {
			return x.Query == y.Query && x.State == y.State && x.Code == y.Code
		})
}

func conditionOf(generation uint64, s *pipeline.DeliveryStatus) Condition {
	c := Condition{Generation: generation, Target: pipeline.TargetClosed, DeadLetters: deadLetters(s.DeadLetters)}
	if s.Target != pipeline.TargetClosed {
		c.Target, c.Since, c.LastError = pipeline.TargetOpen, s.FailingSince, s.LastError
	}
	for _, q := range s.Queries {
		switch {
		case q.State != pipeline.QueryWaiting && q.State != pipeline.QueryFailed:
		case len(c.Queries) == toldQueries:
			c.More++
		default:
			c.Queries = append(c.Queries, QueryCondition{q.Query, q.State, q.Error.Code, shorten(q.Error.Message)})
		}
	}
	return c
}

func deadLetters(c pipeline.DeadLetterCount) DeadLetters {
	if c.Count == 0 {
		return DeadLetters{}
	}
	return DeadLetters{strconv.FormatUint(c.Count, 10), c.Oldest}
}
