package workflows

import (
	"encoding/json"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// checkSource looks at the system behind a source, whether the source was started or not, and ends with what it found.
// It is there because no client can start an activity.
func (s *Set) checkSource(ctx workflow.Context, raw converter.RawValue) (*activities.SourceChecks, error) {
	var in activities.CheckInput
	if err := json.Unmarshal(payloadData(raw), &in); err != nil {
		return nil, temporal.NewNonRetryableApplicationError(
			`the input must be {"component":"source.<instance>.<name>"} or {"spec":{...}}`, failure.ConfigInvalid.ID, err)
	}
	var found activities.SourceChecks
	err := workflow.ExecuteActivity(withCheck(ctx), sources.CheckSource, in).Get(ctx, &found)
	if err != nil {
		return nil, err
	}
	return &found, nil
}
