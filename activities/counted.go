package activities

import (
	"context"
	"strings"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/telemetry"
)

// Counter returns what counts the failures of short activities, such as those that check a spec or prepare a source's
// system: a component that gets no further has no loop whose failures could be counted.
func Counter(m *telemetry.Metrics) interceptor.WorkerInterceptor { return &counter{metrics: m} }

type counter struct {
	interceptor.WorkerInterceptorBase
	metrics *telemetry.Metrics
}

// InterceptActivity implements interceptor.WorkerInterceptor.
func (c *counter) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &counted{interceptor.ActivityInboundInterceptorBase{Next: next}, c.metrics}
}

type counted struct {
	interceptor.ActivityInboundInterceptorBase
	metrics *telemetry.Metrics
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor. Loops count for themselves.
func (c *counted) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	result, err := c.Next.ExecuteActivity(ctx, in)
	info := activity.GetInfo(ctx)
	if code, of := failedWith(err), countedFor(info.WorkflowExecution.ID); code != "" && of != "" && !strings.HasSuffix(info.ActivityType.Name, "Run") {
		c.metrics.Failed(of, code)
	}
	return result, err
}

// countedFor returns the component or instance that a workflow works for, by its id; that of a bootstrap is its query.
func countedFor(workflowID string) string {
	if parts := strings.Split(workflowID, "."); len(parts) == 5 && parts[0] == "bootstrap" {
		return component.ID{Kind: component.Query, Instance: parts[1], Name: parts[2]}.String()
	}
	if _, err := component.ParseID(workflowID); err == nil {
		return workflowID
	}
	if _, err := component.ParseInstanceID(workflowID); err == nil {
		return workflowID
	}
	return ""
}
