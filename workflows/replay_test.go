package workflows

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// TestReplay replays the recorded histories of testdata/replay/<release>/<type>-<path>.json. A failure means that
// workflows which run now would break with this build: make the change conditional on workflow.GetVersion, do not
// record the histories anew. TestRecord adds histories for what is new.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/replay/*/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	types := make(map[string]bool)
	for _, file := range files {
		kind, _, _ := strings.Cut(filepath.Base(file), "-")
		types[kind] = true
		t.Run(file, func(t *testing.T) {
			replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{
				Interceptors: []interceptor.WorkerInterceptor{Interceptor(nil)},
			})
			require.NoError(t, err)
			New(func() bool { return true }).Register(replayer)
			data, err := os.Open(file)
			require.NoError(t, err)
			history, err := client.HistoryFromJSON(data, client.HistoryJSONOptions{})
			require.NoError(t, errors.Join(err, data.Close()))
			// The id of the workflow is the component's, which its spec must agree with.
			id := history.Events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
			require.NoError(t, replayer.ReplayWorkflowHistoryWithOptions(nil, history, worker.ReplayWorkflowHistoryOptions{
				OriginalExecution: workflow.Execution{ID: id},
			}))
		})
	}
	for _, name := range []string{TypeSource, TypeQuery, TypeReaction, TypeBootstrap, TypeInstance} {
		require.True(t, types[name], "no history of %s", name)
	}
}
