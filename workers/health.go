package workers

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/telemetry"
	"github.com/perdure/perdure/workflows"
)

const (
	// healthEvery is how often the server is asked which components are unwell. A component that waits for a person has no
	// loop, and its workflow may not have been loaded for days, so that nothing else in the process knows of it.
	healthEvery = 15 * time.Second
	// mostUnwell is how many of them the metrics name.
	mostUnwell = 500
)

// keepWatchingHealth keeps the metrics told which components of the namespace are unwell.
func (p *process) keepWatchingHealth(ctx context.Context) {
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	for {
		p.watchHealth(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// watchHealth leaves what was known last as it is when the server does not answer, and says so.
func (p *process) watchHealth(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, errandWithin)
	defer cancel()
	list, err := unwell(ctx, p.Client)
	if err != nil {
		p.log.Debug("which components are unwell is not known", zap.Error(err))
		p.Metrics.HealthUnknown()
		return
	}
	p.Metrics.Unwell(list)
}

// unwell returns the components that fail or are degraded, as their search attributes say.
func unwell(ctx context.Context, c client.Client) (list []telemetry.Unwell, err error) {
	query := fmt.Sprintf("TaskQueue = '%s' AND ExecutionStatus = 'Running' AND %s IN ('%s', '%s')",
		TaskQueue, workflows.HealthAttribute, activities.HealthFailing, activities.HealthDegraded)
	page, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: mostUnwell})
	if err != nil {
		return nil, fmt.Errorf("listing components that are unwell: %w", err)
	}
	for _, w := range page.GetExecutions() {
		phase, health := workflows.ShownAs(w.GetSearchAttributes())
		list = append(list, telemetry.Unwell{ID: w.GetExecution().GetWorkflowId(), Phase: phase, Health: health})
	}
	return list, nil
}
