package activities

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

// TestConditionIsToldWhenItChanges, once a minute at most, and again when it could not be told.
func TestConditionIsToldWhenItChanges(t *testing.T) {
	var (
		told []Condition
		fail error
		now  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	)
	tell := &teller{
		tell: func(_ context.Context, c Condition) error {
			if fail == nil {
				told = append(told, c)
			}
			return fail
		},
		of: conditionOf, every: tellEvery, log: zap.NewNop(), last: Condition{Generation: 4, Target: "closed", Host: "h1", Attempt: 2},
	}
	s := &pipeline.DeliveryStatus{Target: pipeline.TargetClosed, Queries: []pipeline.QueryDelivery{{Query: "a", State: pipeline.QueryRetrying}}}
	look := func(after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		tell.look(t.Context(), pipeline.Status{Delivery: s}, now)
		require.Len(t, told, want)
	}
	look(time.Second, 1)
	require.Equal(t, Condition{Generation: 4, At: now, Target: "closed", Host: "h1", Attempt: 2}, told[0], "where it runs")
	told = nil
	look(time.Second, 0)
	report := failure.Describe(failure.DeliveryFailed.Errorf("down"))
	s.Target, s.LastError, s.Failures = pipeline.TargetOpen, &report, 5
	fail = errors.New("no answer")
	look(time.Second, 0)
	fail = nil
	look(time.Second, 1)
	require.Equal(t, Condition{Generation: 4, At: now, Target: "open", LastError: &report, Host: "h1", Attempt: 2}, told[0])
	s.Target, s.Failures = pipeline.TargetHalfOpen, 6
	look(2*time.Minute, 1)
	s.Target, s.LastError = pipeline.TargetClosed, nil
	s.DeadLetters = pipeline.DeadLetterCount{Count: 2, Oldest: now}
	look(time.Second, 2)
	s.DeadLetters.Count = 3
	look(time.Second, 2)
	look(time.Minute, 3)
	require.Equal(t, DeadLetters{"3", s.DeadLetters.Oldest}, told[2].DeadLetters)
	gap := failure.Describe(failure.StreamTrimmed.Errorf("gone"))
	for i := range toldQueries + 2 {
		s.Queries = append(s.Queries, pipeline.QueryDelivery{Query: strconv.Itoa(i), State: pipeline.QueryFailed, Error: &gap})
	}
	look(time.Minute, 4)
	require.Len(t, told[3].Queries, toldQueries)
	require.Equal(t, 2, told[3].More)
	require.Equal(t, QueryCondition{"0", "failed", "StreamTrimmed", "gone"}, told[3].Queries[0])
	look(time.Hour, 4)
}

// TestInterruptionIsTold when it lasts, and once it is over; that it has another code by now, seldom.
func TestInterruptionIsTold(t *testing.T) {
	var told []Condition
	tell := &teller{
		tell: func(_ context.Context, c Condition) error { told = append(told, c); return nil },
		of:   conditionOf, every: tellEvery, last: Condition{Generation: 4, Target: "closed"}, told: true,
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var s pipeline.Status
	look := func(after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		tell.look(t.Context(), s, now)
		require.Len(t, told, want)
	}
	fails := func(code *failure.Code, failures int, since time.Time) {
		report := failure.Describe(code.Errorf("away"))
		s.Intake = &pipeline.IntakeStatus{Failures: failures, FailingSince: since, LastError: &report}
	}
	look(time.Hour, 0)
	s.Intake = &pipeline.IntakeStatus{}
	look(time.Second, 0)
	since := now
	fails(failure.ConnectionLost, 1, since)
	look(interruptedAfter-time.Second, 0)
	fails(failure.Unreachable, 5, since)
	look(time.Second, 1)
	require.Equal(t, Condition{Generation: 4, At: now, Target: "closed", Interruption: &Interruption{
		At: now, Since: since, Failures: 5, LastError: failure.Describe(failure.Unreachable.Errorf("away")),
	}}, told[0])
	fails(failure.Unreachable, 9, since)
	look(time.Hour, 1)
	fails(failure.ServerBusy, 10, since)
	look(time.Second, 2)
	fails(failure.Unreachable, 11, since)
	look(tellAgainEvery-time.Second, 2)
	look(time.Second, 3)
	s.Intake = &pipeline.IntakeStatus{}
	look(time.Second, 3)
	look(tellEvery, 4)
	require.Nil(t, told[3].Interruption)

	tell.told = false // a later attempt, which does not know yet what it finds
	s.Intake = nil
	look(time.Hour, 4)
	fails(failure.Unreachable, 1, now)
	look(time.Second, 4)
	s.Intake = &pipeline.IntakeStatus{}
	look(time.Second, 5)
	look(time.Hour, 5)
}

// TestQueryTellsThatItLoads, at once, and when that is over.
func TestQueryTellsThatItLoads(t *testing.T) {
	var told []Condition
	tell := &teller{
		tell: func(_ context.Context, c Condition) error { told = append(told, c); return nil },
		of:   queryConditionOf, last: Condition{Generation: 4, Target: "closed", Host: "h1", Attempt: 1},
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, step := range []struct {
		phase   string
		told    int
		loading bool
	}{
		{"", 0, false}, {"restoring", 1, true}, {"loading", 1, true}, {"sealing", 1, true}, {"following", 2, false}, {"following", 2, false},
		{"draining", 2, false}, {"loading", 3, true}, {"following", 4, false},
	} {
		now = now.Add(time.Second)
		tell.look(t.Context(), pipeline.Status{Phase: step.phase}, now)
		require.Len(t, told, step.told, step.phase)
		if step.told > 0 {
			require.Equal(t, step.loading, told[step.told-1].Loading)
			require.Equal(t, "h1", told[step.told-1].Host)
		}
	}
}
