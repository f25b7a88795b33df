package activities

import (
	"context"
	"slices"
	"strconv"
	"time"

	"go.temporal.io/sdk/activity"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/telemetry"
)

const (
	// lookEvery is how often the condition of a component is looked at.
	lookEvery = time.Second
	// tellEvery is how often a condition that changes is told at most, since each time costs history.
	tellEvery = time.Minute
	// tellAgainEvery is how often at most it is told that the same fails with another code: one that is down can go on for days.
	tellAgainEvery = 10 * time.Minute
	// interruptedAfter is how long a source must get nothing before that is told: a server that is started anew is back by then.
	interruptedAfter = 10 * time.Second
	// toldQueries is how many queries a condition names.
	toldQueries = 8
)

// teller tells a component's workflow where it runs, once that is known to be well or not, and how it is whenever that
// changes.
type teller struct {
	tell  func(context.Context, Condition) error
	of    func(pipeline.Status, time.Time) (Condition, bool)
	every time.Duration // at most
	log   *zap.Logger
	last  Condition
	at    time.Time // when a change was told
	told  bool
}

// newTeller begins with what the workflow takes for granted of a run.
func (r *runner) newTeller(ctx context.Context, in RunInput) *teller {
	info := activity.GetInfo(ctx)
	return &teller{
		of: conditionOf, every: tellEvery,
		tell: func(ctx context.Context, c Condition) error {
			ctx, cancel := context.WithTimeout(ctx, beatEvery)
			defer cancel()
			execution := info.WorkflowExecution
			return activity.GetClient(ctx).SignalWorkflow(ctx, execution.ID, execution.RunID, SignalCondition, c)
		},
		log:  r.log.With(zap.String(telemetry.KeyComponent, in.Component)),
		last: Condition{Generation: in.Generation, Target: pipeline.TargetClosed, Host: r.hostID, Attempt: info.Attempt},
	}
}

// beside returns a loop during which the condition is told.
func (t *teller) beside(body loop) loop {
	return func(ctx context.Context, a pipeline.Attempt) (string, error) {
		telling, stopTelling := context.WithCancel(ctx)
		defer stopTelling()
		running, stop := context.WithCancel(ctx)
		told := failure.Go(func() error {
			defer stop()
			t.run(telling, a.Progress)
			return nil
		})
		outcome, err := body(running, a)
		stopTelling()
		if panicked := <-told; panicked != nil {
			err = panicked
		}
		return outcome, err
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
			t.look(ctx, p.Snapshot(), now)
		}
	}
}

func (t *teller) look(ctx context.Context, s pipeline.Status, now time.Time) {
	if now.Sub(t.at) < t.every {
		return
	}
	next, known := t.of(s, now.UTC())
	unchanged := same(next, t.last) && (next.code() == t.last.code() || now.Sub(t.at) < tellAgainEvery)
	if !known || t.told && unchanged {
		return
	}
	next.Generation, next.Host, next.Attempt = t.last.Generation, t.last.Host, t.last.Attempt
	if err := t.tell(ctx, next); err != nil { // the next look says the same
		t.log.Debug("the condition cannot be told", zap.Error(err))
		return
	}
	if t.last, t.told = next, true; !unchanged {
		t.at = now
	}
}

// same compares what makes a difference: another try that fails in the way of the one before does not.
func same(a, b Condition) bool {
	return a.Target == b.Target && a.Loading == b.Loading && (a.Interruption == nil) == (b.Interruption == nil) && a.DeadLetters == b.DeadLetters && a.More == b.More &&
		slices.EqualFunc(a.Queries, b.Queries, func(x, y QueryCondition) bool {
			return x.Query == y.Query && x.State == y.State && x.Code == y.Code
		})
}

// code is that of the last error.
func (c *Condition) code() string {
	switch {
	case c.Interruption != nil:
		return c.Interruption.LastError.Code
	case c.LastError != nil:
		return c.LastError.Code
	}
	return ""
}

// queryConditionOf is conditionOf of a query.
func queryConditionOf(s pipeline.Status, now time.Time) (c Condition, known bool) {
	c = Condition{At: now, Target: pipeline.TargetClosed}
	c.Loading = s.Phase == "restoring" || s.Phase == "loading" || s.Phase == "sealing"
	return c, c.Loading || s.Phase == "following"
}

// conditionOf returns what the status of a source or a reaction comes to; false: it does not say yet.
func conditionOf(s pipeline.Status, now time.Time) (c Condition, known bool) {
	c = Condition{At: now, Target: pipeline.TargetClosed}
	switch in := s.Intake; {
	case s.Delivery != nil:
		c.deliver(s.Delivery)
	case in == nil:
		return c, s.Phase == "serving" // a reaction whose clients come to it has no more to say
	case in.LastError == nil: // it is well
	case now.Sub(in.FailingSince) < interruptedAfter:
		return c, false
	default:
		c.Interruption = &Interruption{At: now, Since: in.FailingSince, Failures: in.Failures, LastError: *in.LastError}
	}
	return c, true
}

// deliver notes how a reaction gets on.
func (c *Condition) deliver(s *pipeline.DeliveryStatus) {
	c.DeadLetters = deadLetters(s.DeadLetters)
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
}

func deadLetters(c pipeline.DeadLetterCount) DeadLetters {
	if c.Count == 0 {
		return DeadLetters{}
	}
	return DeadLetters{strconv.FormatUint(c.Count, 10), c.Oldest}
}
