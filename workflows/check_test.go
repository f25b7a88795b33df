package workflows

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

func TestCheckSource(t *testing.T) {
	h := newHarness(t, "check")
	want := activities.SourceChecks{Component: "source.default.orders", OK: true}
	h.OnActivity(sources.CheckSource, mock.Anything, activities.CheckInput{Spec: json.RawMessage(sourceSpec)}).Return(want, nil)
	h.ExecuteWorkflow(TypeCheckSource, json.RawMessage(`{"spec":`+sourceSpec+`,"desired":"Running"}`))
	var got activities.SourceChecks
	require.NoError(t, h.GetWorkflowResult(&got))
	require.Equal(t, want, got)

	h = newHarness(t, "check")
	h.ExecuteWorkflow(TypeCheckSource, "orders")
	require.Equal(t, failure.ConfigInvalid.ID, activities.ReportOf(h.GetWorkflowError()).Code)
}
