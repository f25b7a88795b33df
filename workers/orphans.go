package workers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// A process that is killed leaves attempts that the server believes in until their heartbeats are overdue, half a minute
// later. Its successor knows better: it has the same host id only because it holds the lock on the same data directory.
// So whoever starts under a host id first ends every attempt that the server believes to run there. The server is asked,
// and not some note of the process before, because it may have handed out attempts that this one never got to see.

// askAtOnce bounds the calls to the server that are on their way.
const askAtOnce = 16

// Identity is what the server knows the workers of this process by.
func Identity(hostID string) string { return identity(hostID, os.Getpid()) }

// identity is what the server knows a process by: that of its host, and which of the host's processes it is.
func identity(hostID string, pid int) string { return fmt.Sprintf("%s@%d", hostID, pid) }

func ranOn(hostID, identity string) bool { return strings.HasPrefix(identity, hostID+"@") }

// releaseOrphans ends the attempts of the process that had the host id before. It must be called before any of this one
// can start. One that cannot be ended does not keep the others; its heartbeats will be overdue.
func releaseOrphans(ctx context.Context, c client.Client, namespace, hostID string) error {
	var (
		mu   sync.Mutex
		errs []error
		ask  errgroup.Group
	)
	ask.SetLimit(askAtOnce)
	failed := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	query := fmt.Sprintf("TaskQueue = '%s' AND ExecutionStatus = 'Running'", TaskQueue)
	for token, more := []byte(nil), true; more; more = len(token) > 0 {
		page, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: 500, NextPageToken: token})
		if err != nil {
			failed(fmt.Errorf("listing running workflows: %w", err))
			break
		}
		for _, w := range page.GetExecutions() {
			id := w.GetExecution().GetWorkflowId()
			ask.Go(func() error {
				if err := failure.Guard(func() error { return releaseOrphansOf(ctx, c, namespace, hostID, id) }); err != nil {
					failed(fmt.Errorf("releasing the attempts of workflow %s: %w", id, err))
				}
				return nil
			})
		}
		token = page.GetNextPageToken()
	}
	_ = ask.Wait() // failed has them all
	return errors.Join(errs...)
}

func releaseOrphansOf(ctx context.Context, c client.Client, namespace, hostID, workflowID string) error {
	found, err := c.DescribeWorkflowExecution(ctx, workflowID, "")
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("describing it: %w", err)
	}
	runID := found.GetWorkflowExecutionInfo().GetExecution().GetRunId()
	var errs []error
	for _, a := range found.GetPendingActivities() {
		if !orphaned(a, hostID) {
			continue
		}
		if err := c.CompleteActivityByID(ctx, namespace, workflowID, runID, a.GetActivityId(), nil, activities.Orphaned()); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("reporting the end of activity %s: %w", a.GetActivityId(), err))
		}
	}
	return errors.Join(errs...)
}

func orphaned(a *workflowpb.PendingActivityInfo, hostID string) bool {
	switch a.GetState() {
	case enumspb.PENDING_ACTIVITY_STATE_STARTED, enumspb.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED:
		return ranOn(hostID, a.GetLastWorkerIdentity())
	default:
		return false
	}
}

// gone reports whether what was asked for ended meanwhile.
func gone(err error) bool {
	var missing *serviceerror.NotFound
	return errors.As(err, &missing)
}
