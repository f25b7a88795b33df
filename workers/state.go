package workers

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/telemetry"
)

// The state of a query is on the disk of the host that ran it, and whoever deletes the query may not get at that: the
// host may be down. So each host looks by itself for state that nobody will use any more.

// orphansEvery is how often a host looks, and orphansWithin how long it may.
const (
	orphansEvery  = time.Minute
	orphansWithin = time.Minute
)

func (p *process) keepRemovingOrphans(ctx context.Context) {
	ticker := time.NewTicker(orphansEvery)
	defer ticker.Stop()
	exists := func(ctx context.Context, id component.ID) (bool, error) { return Exists(ctx, p.Client, id) }
	for {
		bounded, cancel := context.WithTimeout(ctx, orphansWithin)
		if err := failure.Guard(func() error { return p.Host.RemoveOrphans(bounded, exists) }); err != nil && ctx.Err() == nil {
			p.log.Warn("state of queries that are gone could not be removed", zap.String(telemetry.KeyHost, p.HostID), zap.Error(err))
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Exists reports whether a component has a workflow that runs.
func Exists(ctx context.Context, c client.Client, id component.ID) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, errandWithin)
	defer cancel()
	found, err := c.DescribeWorkflowExecution(ctx, id.String(), "")
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("describing workflow %s: %w", id, err)
	}
	return found.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}
