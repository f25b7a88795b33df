package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
)

// explained is how many events of a history a failed test shows.
const explained = 40

// explain shows, when the test has failed, what the workflows did, since the processes log little and their servers go with
// the test.
func (s *system) explain() {
	if !s.t.Failed() || s.dev.exited() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := s.client()
	list, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: 10})
	if err != nil {
		s.t.Logf("no histories to show: %v", err)
		return
	}
	for _, w := range list.GetExecutions() {
		id := w.GetExecution().GetWorkflowId()
		events := c.GetWorkflowHistory(ctx, id, w.GetExecution().GetRunId(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		var lines []string
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				lines = append(lines, err.Error())
				break
			}
			if text := explainEvent(e); text != "" {
				lines = append(lines, fmt.Sprintf("  %4d %s %s", e.GetEventId(), e.GetEventTime().AsTime().Format("15:04:05.000"), text))
			}
		}
		s.t.Logf("the end of %s, %s:\n%s", id, w.GetStatus(), strings.Join(lines[max(0, len(lines)-explained):], "\n"))
	}
}

// explainEvent is empty for what says nothing of components.
func explainEvent(e *history.HistoryEvent) string {
	name := strings.TrimPrefix(e.GetEventType().String(), "EVENT_TYPE_")
	switch {
	case e.GetWorkflowTaskScheduledEventAttributes() != nil, e.GetWorkflowTaskStartedEventAttributes() != nil,
		e.GetWorkflowTaskCompletedEventAttributes() != nil, e.GetUpsertWorkflowSearchAttributesEventAttributes() != nil:
		return ""
	case e.GetActivityTaskScheduledEventAttributes() != nil:
		a := e.GetActivityTaskScheduledEventAttributes()
		return fmt.Sprintf("%s %s %s on %s", name, a.GetActivityType().GetName(), a.GetActivityId(), a.GetTaskQueue().GetName())
	case e.GetActivityTaskStartedEventAttributes() != nil:
		a := e.GetActivityTaskStartedEventAttributes()
		return fmt.Sprintf("%s of %d, attempt %d by %s; before: %s", name, a.GetScheduledEventId(), a.GetAttempt(), a.GetIdentity(), a.GetLastFailure().GetMessage())
	case e.GetActivityTaskCompletedEventAttributes() != nil:
		return fmt.Sprintf("%s of %d", name, e.GetActivityTaskCompletedEventAttributes().GetScheduledEventId())
	case e.GetActivityTaskFailedEventAttributes() != nil:
		a := e.GetActivityTaskFailedEventAttributes()
		return fmt.Sprintf("%s of %d: %s", name, a.GetScheduledEventId(), a.GetFailure().GetMessage())
	case e.GetActivityTaskTimedOutEventAttributes() != nil:
		a := e.GetActivityTaskTimedOutEventAttributes()
		return fmt.Sprintf("%s of %d: %s", name, a.GetScheduledEventId(), a.GetFailure().GetMessage())
	case e.GetWorkflowExecutionSignaledEventAttributes() != nil:
		a := e.GetWorkflowExecutionSignaledEventAttributes()
		return fmt.Sprintf("%s %s", name, a.GetSignalName())
	}
	return name
}
