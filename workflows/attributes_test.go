package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/perdure/perdure/activities"
)

func TestSearchAttributesOfAComponent(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, 10*time.Hour, drained, nil)
	h.at(time.Hour, func() {
		want := temporal.NewSearchAttributes(
			attrInstance.ValueSet("default"), attrKind.ValueSet("query"), attrComponent.ValueSet("query.default.big"),
			attrPhase.ValueSet("Running"), attrDesired.ValueSet("Running"), attrHealth.ValueSet("healthy"),
			attrHost.ValueSet("h1"), attrSpecVersion.ValueSet(1))
		require.Equal(t, len(SearchAttributes()), want.Size(), "all are looked at")
		require.Equal(t, want.GetUntypedValues(), h.shown.GetUntypedValues())
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
}

// TestSearchAttributesThatComeLater are shown by a run that began without them.
func TestSearchAttributesThatComeLater(t *testing.T) {
	for _, come := range []bool{true, false} {
		h := newHarness(t, "source.default.orders")
		h.healthy()
		h.attributes.Store(false)
		h.loops(sources.SourceRun, 10*time.Hour, drained, nil)
		h.at(attributesLater/2, func() {
			require.Empty(t, h.phases)
			h.attributes.Store(come)
		})
		h.at(2*attributesLater, func() {
			if come {
				require.Equal(t, []string{"Running"}, h.phases)
			} else {
				require.Empty(t, h.phases)
			}
			h.CancelWorkflow()
		})
		h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	}
}

func TestShownAs(t *testing.T) {
	payload := func(text string) *commonpb.Payload {
		p, err := converter.GetDefaultDataConverter().ToPayload(text)
		require.NoError(t, err)
		return p
	}
	phase, health := ShownAs(&commonpb.SearchAttributes{IndexedFields: map[string]*commonpb.Payload{
		"PerdurePhase": payload(string(PhaseNeedsOperator)), "PerdureHealth": payload(activities.HealthFailing),
	}})
	require.Equal(t, "NeedsOperator", phase)
	require.Equal(t, "failing", health)
	phase, health = ShownAs(nil)
	require.Empty(t, phase+health)
}
