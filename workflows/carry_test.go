package workflows

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// fullest is a core that has the longest of everything that is accepted; JSON makes six bytes of each of long's.
func fullest(long string) core {
	c := begin(Running, nil)
	for i := range 200 {
		c.Unexpected = append(c.Unexpected, fmt.Sprint(i, long))
		c.record(Command{
			RequestID: fmt.Sprintf("%0128d", i), Name: long, Outcome: Rejected, Error: long, Reason: long, Result: long, Fix: long,
			Causes: []string{long, long},
		})
	}
	report := failure.Report{Code: "ConfigInvalid", Class: "configuration", Message: long, Fix: long, Details: map[string]string{"stack": long}}
	for range 20 {
		report.Causes = append(report.Causes, long)
	}
	c.Breaker.LastError = &LastError{Report: trimmed(report)}
	return c
}

// TestStateStaysSmall fills everything that is carried over.
func TestStateStaysSmall(t *testing.T) {
	for _, long := range []string{strings.Repeat("x", 5000), string(make([]byte, 5000))} {
		s := State{core: fullest(long), Condition: &activities.Condition{Queries: []activities.QueryCondition{{Message: long}}}}
		require.Greater(t, sizeOf(s), mostCarried)
		require.Len(t, s.Commands, keptCommands)
		require.Len(t, s.Requests, keptRequests)
		last := s.Commands[keptCommands-1]
		s.fit()
		require.LessOrEqual(t, sizeOf(s), mostCarried)
		require.Equal(t, last.RequestID, s.Commands[len(s.Commands)-1].RequestID)
		require.Equal(t, "ConfigInvalid", s.Breaker.LastError.Code)
		require.NotEmpty(t, s.Unexpected)

		i := InstanceState{core: fullest(long)}
		for n := range 300 {
			report := trimmed(failure.Report{Class: "configuration", Code: "ConfigInvalid", Message: long, Fix: long, Causes: []string{long}})
			i.Members = append(i.Members, member{
				ID: fmt.Sprintf("reaction.default.%063d", n), Failure: &report,
				Seen: activities.ComponentState{Component: fmt.Sprintf("reaction.default.%063d", n), Error: activities.ComponentError{Message: long, Fix: long}},
			})
		}
		for range 65 {
			i.Problems = append(i.Problems, activities.Problem{Message: long[:1000]})
		}
		i.fit()
		require.LessOrEqual(t, sizeOf(i), mostCarried+300*mostCarriedMember)
		require.LessOrEqual(t, sizeOf(i.core), mostCarried*3/4)
		require.Len(t, i.Members, 300)
		require.Equal(t, "ConfigInvalid", i.Members[299].Failure.Code)
		require.Equal(t, "configuration", i.Members[299].Failure.Class, "it says whether to try again")
	}
}

// TestTrimmedReportsKeepTheirRoot: what began it is worth more than what is in between.
func TestTrimmedReportsKeepTheirRoot(t *testing.T) {
	report := failure.Report{Message: "the outermost"}
	for i := range 20 {
		report.Causes = append(report.Causes, fmt.Sprint("cause ", i))
	}
	causes := trimmed(report).Causes
	require.Len(t, causes, 6)
	require.Equal(t, "cause 0", causes[0])
	require.Equal(t, "cause 19", causes[5])
}

// TestUsualStateIsCarriedWhole: nothing is spared where nothing has to be.
func TestUsualStateIsCarriedWhole(t *testing.T) {
	s := State{core: begin(Running, nil)}
	for i := range keptRequests {
		s.record(Command{RequestID: fmt.Sprint("u", i), Name: CommandRestart, Outcome: Applied, Reason: strings.Repeat("x", 100), At: time.Unix(int64(i), 0).UTC()})
	}
	before, err := json.Marshal(s)
	require.NoError(t, err)
	s.fit()
	after, err := json.Marshal(s)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

// TestLongStateIsCarriedOver goes through ContinueAsNew.
func TestLongStateIsCarriedOver(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	before := State{core: fullest(strings.Repeat("x", 5000))}
	before.Phase, before.Desired, before.Unexpected = PhasePaused, Paused, nil
	h.at(time.Minute, func() { h.signal(CommandUpgrade, nil) })
	h.ExecuteWorkflow(TypeSource, Input{Spec: json.RawMessage(sourceSpec), Carry: &before})
	in := continued(t, h.GetWorkflowError())
	require.LessOrEqual(t, sizeOf(in.Carry), mostCarried)
	require.Equal(t, CommandUpgrade, in.Carry.Commands[len(in.Carry.Commands)-1].Name)
}

func TestProblemsAreCounted(t *testing.T) {
	require.Equal(t, "a\nb", listed([]string{"a", "b"}, 1000))
	lines := make([]string, 10)
	for i := range lines {
		lines[i] = strings.Repeat("x", 100)
	}
	text := listed(lines, 500)
	require.LessOrEqual(t, len(text), 500)
	require.Equal(t, 4, strings.Count(text, lines[0]))
	require.True(t, strings.HasSuffix(text, "\nand 6 more, in the status under problems"), text)
	require.LessOrEqual(t, len(listed([]string{strings.Repeat("x", 5000), "b"}, 500)), 500)
}

// TestRefusalSaysAllProblems, also by signal, and what to do.
func TestRefusalSaysAllProblems(t *testing.T) {
	problems := strings.Repeat("config.tables[7].key: is required; ", 80)
	h := newHarness(t, "source.default.orders")
	report := failure.Describe(failure.ConfigInvalid.Errorf("%s", problems))
	wrong := temporal.NewNonRetryableApplicationError(report.Message, report.Code, nil, report)
	h.OnActivity(sources.ValidateSource, mock.Anything, mock.MatchedBy(func(in activities.SpecInput) bool {
		return string(in.Spec) == `{"name":"orders"}`
	})).Return(activities.Checks{}, wrong)
	h.healthy()
	h.loops(sources.SourceRun, 100*time.Hour, drained, nil)
	var refused error
	h.at(time.Minute, func() {
		h.reconfigure(`{"name":"orders"}`)
		h.UpdateWorkflow(CommandReconfigure, "u", &updateAnswer{&refused}, CommandInput{Spec: json.RawMessage(`{"name":"orders"}`)})
	})
	h.at(2*time.Minute, func() {
		c := h.status().Commands[0]
		require.Equal(t, "ConfigInvalid: "+problems, c.Error)
		require.Equal(t, failure.ConfigInvalid.ID, c.Code)
		require.Equal(t, failure.ConfigInvalid.Fix, c.Fix)
		require.ErrorContains(t, refused, problems)
		require.Equal(t, failure.ConfigInvalid.Fix, activities.ReportOf(refused).Fix)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
}
