package workers

import (
	"testing"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/mocks"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// TestOneOrphanDoesNotKeepTheOthers releases the attempts of a host, of which one cannot be released, on two pages.
func TestOneOrphanDoesNotKeepTheOthers(t *testing.T) {
	c := &mocks.Client{}
	page := func(after, next string, ids ...string) {
		response := &workflowservice.ListWorkflowExecutionsResponse{NextPageToken: []byte(next)}
		for _, id := range ids {
			response.Executions = append(response.Executions, &workflowpb.WorkflowExecutionInfo{
				Execution: &commonpb.WorkflowExecution{WorkflowId: id},
			})
		}
		asked := mock.MatchedBy(func(r *workflowservice.ListWorkflowExecutionsRequest) bool {
			return string(r.GetNextPageToken()) == after
		})
		c.On("ListWorkflow", mock.Anything, asked).Return(response, nil).Once()
	}
	workflow := func(id string, pending ...*workflowpb.PendingActivityInfo) {
		c.On("DescribeWorkflowExecution", mock.Anything, id, "").Return(&workflowservice.DescribeWorkflowExecutionResponse{
			WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{Execution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: "run of " + id}},
			PendingActivities:     pending,
		}, nil).Once()
	}
	pending := func(id string, state enumspb.PendingActivityState, worker string) *workflowpb.PendingActivityInfo {
		return &workflowpb.PendingActivityInfo{ActivityId: id, State: state, LastWorkerIdentity: worker}
	}
	restarted := mock.MatchedBy(func(err error) bool { return activities.ReportOf(err).Code == failure.HostRestarted.ID })
	released := func(workflow, activity string, err error) {
		c.On("CompleteActivityByID", mock.Anything, "default", workflow, "run of "+workflow, activity, nil, restarted).Return(err).Once()
	}
	const started, waiting = enumspb.PENDING_ACTIVITY_STATE_STARTED, enumspb.PENDING_ACTIVITY_STATE_SCHEDULED

	page("", "2", "a", "b", "c")
	page("2", "", "d")
	workflow("a", pending("not answered", started, "h1@1"), pending("over", started, "h1@1"))
	workflow("b", pending("another host's", started, "h10@1"), pending("of nobody", waiting, "h1@1"))
	c.On("DescribeWorkflowExecution", mock.Anything, "c", "").Return(nil, serviceerror.NewNotFound("gone")).Once()
	workflow("d", pending("left", started, "h1@7"))
	released("a", "not answered", serviceerror.NewUnavailable("later"))
	released("a", "over", serviceerror.NewNotFound("gone"))
	released("d", "left", nil)

	err := releaseOrphans(t.Context(), c, "default", "h1")
	require.ErrorContains(t, err, "workflow a: reporting the end of activity not answered: later")
	require.NotContains(t, err.Error(), "gone")
	c.AssertExpectations(t)
}
