package workflows

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

const bootID = "bootstrap.default.big.orders.1"

func bootInput() BootstrapInput {
	return BootstrapInput{ID: bootID, Instance: "default", Query: "big", Source: "orders", Spec: json.RawMessage(querySpec), Parallelism: 3}
}

// bootstraps makes the activities of bootstraps succeed, apart from those a test has set up already.
func (h *harness) bootstraps(chunks int) {
	h.OnActivity(bootstraps.Subscribe, mock.Anything, mock.Anything).Return(nil).Maybe()
	h.OnActivity(bootstraps.PlanChunks, mock.Anything, mock.Anything).Return(activities.BootstrapPlan{Tables: 1, Chunks: chunks, Rows: 1000}, nil).Maybe()
	h.OnActivity(bootstraps.CopyWorker, mock.Anything, mock.Anything).Return(activities.CopyResult{Chunks: 2, Rows: 200}, nil).After(10 * time.Minute).Maybe()
	h.OnActivity(bootstraps.VerifyBootstrap, mock.Anything, mock.Anything).Return(activities.Verified{}, nil).Maybe()
	h.OnActivity(bootstraps.SealBootstrap, mock.Anything, mock.Anything).Return(activities.Sealed{Position: "0/20", Rows: 600}, nil).Maybe()
	h.OnActivity(bootstraps.AbandonBootstrap, mock.Anything, mock.Anything).Return(nil).Maybe()
}

// holds makes a holder hold its snapshot for a while. Only a signal says that it is ready.
func (h *harness) holds(d time.Duration, err error) *testsuite.MockCallWrapper {
	return h.OnActivity(bootstraps.HoldSnapshot, mock.Anything, mock.Anything).Return(err).After(d)
}

func (h *harness) snapshotReady(generation int) func() {
	return func() {
		h.signal(activities.SignalSnapshotReady, activities.SnapshotReady{SnapshotGeneration: generation, Position: fmt.Sprintf("0/%d", generation)})
	}
}

func (h *harness) bootstrapStatus() BootstrapStatus {
	h.t.Helper()
	value, err := h.QueryWorkflow(QueryStatus)
	require.NoError(h.t, err)
	var s BootstrapStatus
	require.NoError(h.t, value.Get(&s))
	return s
}

func TestBootstrap(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(72*time.Hour, nil)
	h.bootstraps(100)
	h.at(time.Second, h.snapshotReady(7)) // of another snapshot
	h.at(time.Minute, func() {
		require.Equal(t, bootSnapshotting, h.bootstrapStatus().Phase)
		h.snapshotReady(1)()
	})
	h.at(2*time.Minute, func() {
		s := h.bootstrapStatus()
		require.Equal(t, bootCopying, s.Phase)
		require.Equal(t, 3, s.Workers)
		require.Equal(t, "0/1", s.Position)
		h.signal(CommandSetConcurrency, map[string]int{"parallelism": 5})
		h.signal(CommandSetConcurrency, map[string]int{"parallelism": 500})
		h.signal("setSpeed", nil)
	})
	h.at(3*time.Minute, func() {
		s := h.bootstrapStatus()
		require.Equal(t, 5, s.Workers)
		require.Equal(t, []string{Applied, Rejected, Rejected}, []string{s.Commands[0].Outcome, s.Commands[1].Outcome, s.Commands[2].Outcome})
	})
	h.ExecuteWorkflow(TypeBootstrap, bootInput())
	require.NoError(t, h.GetWorkflowError())
	var r BootstrapResult
	require.NoError(t, h.GetWorkflowResult(&r))
	require.Equal(t, BootstrapResult{ID: bootID, Position: "0/20", Rows: 600, Snapshots: 1}, r)
	require.Equal(t, 5, h.count("CopyWorker"))
	require.Zero(t, h.count("AbandonBootstrap"))
}

// TestCommandsOfABootstrap are strict, done once, and answered.
func TestCommandsOfABootstrap(t *testing.T) {
	for _, version := range []workflow.Version{workflow.DefaultVersion, 1} {
		h := newHarness(t, bootID)
		h.OnGetVersion("bootstrap commands", workflow.DefaultVersion, workflow.Version(1)).Return(version)
		h.holds(72*time.Hour, nil)
		h.bootstraps(100)
		h.at(time.Second, h.snapshotReady(1))
		var paused, again BootstrapStatus
		var refused error
		h.at(time.Minute, func() {
			h.signal(CommandPause, map[string]string{"reeson": "x"})
			h.signal(activities.SignalSnapshotReady, "nonsense")
			h.signal(CommandSetConcurrency, map[string]any{"parallelism": 5, "requestId": "once"})
			h.signal(CommandSetConcurrency, map[string]any{"parallelism": 6, "requestId": "once"})
			h.signal(CommandResume, nil)
		})
		h.at(2*time.Minute, func() {
			value, err := h.QueryWorkflow(QueryCommands)
			require.NoError(t, err)
			var commands []Command
			require.NoError(t, value.Get(&commands))
			if s := h.bootstrapStatus(); version == workflow.DefaultVersion { // as the first builds did
				require.Equal(t, []string{Applied, Rejected, Applied, Applied, Applied}, outcomes(commands))
				require.Equal(t, 6, s.Workers)
				h.CancelWorkflow()
				return
			}
			require.Equal(t, []string{Rejected, Rejected, Applied, Noop}, outcomes(commands))
			require.Contains(t, commands[0].Error, `unknown field "reeson"`)
			require.Equal(t, activities.SignalSnapshotReady, commands[1].Name)
			require.Equal(t, 5, h.bootstrapStatus().Workers)

			h.UpdateWorkflow(CommandPause, "u1", &bootstrapAnswer{t, &paused, nil})
			h.UpdateWorkflow(CommandSetConcurrency, "u2", &bootstrapAnswer{t, nil, &refused}, map[string]int{"parallelism": 65})
			h.UpdateWorkflow(CommandSetConcurrency, "u3", &bootstrapAnswer{t, &again, nil}, map[string]any{"parallelism": 7, "requestId": "once"})
		})
		h.at(3*time.Minute, func() {
			if s := h.bootstrapStatus(); version != workflow.DefaultVersion {
				require.True(t, s.Paused)
				require.Zero(t, s.Workers)
				require.Equal(t, 5, s.Parallelism)
				h.CancelWorkflow()
			}
		})
		h.ExecuteWorkflow(TypeBootstrap, bootInput())
		require.True(t, h.IsWorkflowCompleted())
		if version != workflow.DefaultVersion {
			require.True(t, paused.Paused)
			require.True(t, again.Paused)
			require.ErrorContains(t, refused, "parallelism must be from 1 to 64, is 65")
		}
	}
}

type bootstrapAnswer struct {
	t       *testing.T
	status  *BootstrapStatus
	refused *error
}

func (*bootstrapAnswer) Accept() {}

func (a *bootstrapAnswer) Reject(err error) {
	require.NotNil(a.t, a.refused, "refused: %v", err)
	*a.refused = err
}

func (a *bootstrapAnswer) Complete(answer any, err error) {
	require.NoError(a.t, err)
	*a.status, _ = answer.(BootstrapStatus)
}

// TestBootstrapShowsProgress: the source says how many copy workers there should be, and the holder how far they are.
func TestBootstrapShowsProgress(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(72*time.Hour, nil)
	h.OnActivity(bootstraps.PlanChunks, mock.Anything, mock.Anything).
		Return(activities.BootstrapPlan{Tables: 2, Chunks: 100, Rows: 1000, Parallelism: 7}, nil)
	h.bootstraps(100)
	progress := func(generation int) activities.BootstrapProgress {
		return activities.BootstrapProgress{
			SnapshotGeneration: generation, Rows: 400, Estimate: 1000, RowsPerSecond: 10, TablesCopied: 1,
			Tables: []activities.TableProgress{{Name: "public.orders", State: "copying", Rows: 300, Estimate: 900}},
		}
	}
	h.at(time.Second, h.snapshotReady(1))
	h.at(2*time.Minute, func() {
		s := h.bootstrapStatus()
		require.Equal(t, 7, s.Parallelism)
		require.Equal(t, 7, s.Workers)
		require.Nil(t, s.Progress)
		h.signal(activities.SignalBootstrapProgress, progress(1))
	})
	h.at(3*time.Minute, func() {
		want := progress(1)
		require.Equal(t, &want, h.bootstrapStatus().Progress)
		h.signal(activities.SignalBootstrapProgress, progress(2))
		h.signal(activities.SignalBootstrapProgress, "nonsense")
	})
	h.at(4*time.Minute, func() {
		s := h.bootstrapStatus()
		want := progress(1)
		require.Equal(t, &want, s.Progress, "that of another snapshot, and what cannot be read, is passed over")
		require.Len(t, s.Commands, 1)
		require.Equal(t, activities.SignalBootstrapProgress, s.Commands[0].Name)
		require.Contains(t, s.Commands[0].Error, "decoding the payload")
	})
	in := bootInput()
	in.Parallelism = 0
	h.ExecuteWorkflow(TypeBootstrap, in)
	require.NoError(t, h.GetWorkflowError())
}

func TestBootstrapPauses(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(72*time.Hour, nil)
	h.bootstraps(2)
	h.at(time.Second, h.snapshotReady(1))
	h.at(time.Minute, func() { h.signal(CommandPause, nil) })
	h.at(30*time.Minute, func() {
		s := h.bootstrapStatus()
		require.True(t, s.Paused)
		require.Zero(t, s.Workers)
		h.signal(CommandResume, nil)
	})
	h.at(31*time.Minute, func() { require.Equal(t, 2, h.bootstrapStatus().Workers) })
	h.ExecuteWorkflow(TypeBootstrap, bootInput())
	require.NoError(t, h.GetWorkflowError())
}

func TestBootstrapSurvivesTwoLostSnapshots(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(2*time.Minute, coded(failure.SnapshotLost)).Twice()
	h.holds(72*time.Hour, nil)
	h.bootstraps(100)
	h.at(time.Minute, h.snapshotReady(1))
	h.at(3*time.Minute, func() {
		s := h.bootstrapStatus()
		require.Equal(t, 2, s.Snapshot)
		require.Equal(t, bootSnapshotting, s.Phase)
		require.Equal(t, failure.SnapshotLost.ID, s.LastError.Code)
		h.snapshotReady(2)()
	})
	h.at(6*time.Minute, h.snapshotReady(3))
	h.ExecuteWorkflow(TypeBootstrap, bootInput())
	require.NoError(t, h.GetWorkflowError())
	var r BootstrapResult
	require.NoError(t, h.GetWorkflowResult(&r))
	require.Equal(t, 3, r.Snapshots)
	require.Equal(t, 1, h.count("Subscribe"), "the log keeps what it keeps")
	require.Equal(t, 3, h.count("PlanChunks"))
	require.Equal(t, 9, h.count("CopyWorker"))
}

func TestBootstrapGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		want  string
		holds int
	}{
		"snapshots are lost again and again": {coded(failure.SnapshotLost), failure.SnapshotLost.ID, lostInARow},
		"what no snapshot helps against":     {coded(failure.PermissionDenied), failure.PermissionDenied.ID, 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, bootID)
			h.holds(time.Second, c.err)
			h.bootstraps(100)
			h.ExecuteWorkflow(TypeBootstrap, bootInput())
			require.Equal(t, c.want, activities.ReportOf(h.GetWorkflowError()).Code)
			require.Equal(t, c.holds, h.count("HoldSnapshot"))
			require.Equal(t, 1, h.count("AbandonBootstrap"))
		})
	}
}

// TestBootstrapGoesOnWhileThereIsProgress: what cancelled copy workers had copied counts too, if this snapshot's did it.
func TestBootstrapGoesOnWhileThereIsProgress(t *testing.T) {
	const losses = lostInARow + 2
	for name, rows := range map[string]int64{"each snapshot brings rows": 301, "nothing but what was there before": 300} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, bootID)
			h.holds(10*time.Minute, coded(failure.SnapshotLost)).Times(losses)
			h.holds(72*time.Hour, nil)
			h.OnActivity(bootstraps.PlanChunks, mock.Anything, mock.Anything).Return(activities.BootstrapPlan{Tables: 2, Chunks: 100, Rows: 1000, Kept: 300}, nil)
			h.OnActivity(bootstraps.CopyWorker, mock.Anything, mock.Anything).Return(activities.CopyResult{Chunks: 2, Rows: 200}, nil).After(time.Hour)
			h.bootstraps(100)
			for generation := 1; generation <= losses+1; generation++ {
				begun := time.Duration(generation-1) * 11 * time.Minute // a loss is followed by less than a minute's pause
				h.at(begun+time.Minute, func() {
					if h.count("HoldSnapshot") == generation {
						h.snapshotReady(generation)()
					}
				})
				h.at(begun+2*time.Minute, func() {
					h.signal(activities.SignalBootstrapProgress, activities.BootstrapProgress{SnapshotGeneration: generation, Rows: rows, Estimate: 1000})
				})
			}
			h.ExecuteWorkflow(TypeBootstrap, bootInput())
			if rows == 300 {
				require.Equal(t, failure.SnapshotLost.ID, activities.ReportOf(h.GetWorkflowError()).Code)
				require.Equal(t, lostInARow, h.count("HoldSnapshot"))
				return
			}
			require.NoError(t, h.GetWorkflowError())
			require.Equal(t, losses+1, h.count("HoldSnapshot"))
		})
	}
}

// TestBootstrapGivesUpWhatCannotBeVerified: a complete copy is no progress when the changes after it are lost.
func TestBootstrapGivesUpWhatCannotBeVerified(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(72*time.Hour, nil)
	h.OnActivity(bootstraps.VerifyBootstrap, mock.Anything, mock.Anything).Return(activities.Verified{}, coded(failure.SnapshotLost))
	h.bootstraps(100)
	for generation := 1; generation <= lostInARow; generation++ {
		h.at(time.Duration(generation-1)*15*time.Minute+time.Minute, h.snapshotReady(generation))
	}
	h.ExecuteWorkflow(TypeBootstrap, bootInput())
	require.Equal(t, failure.SnapshotLost.ID, activities.ReportOf(h.GetWorkflowError()).Code)
	require.Equal(t, lostInARow, h.count("VerifyBootstrap"))
}

func TestBootstrapFailsWhereACopyFails(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(72*time.Hour, nil)
	h.OnActivity(bootstraps.CopyWorker, mock.Anything, mock.Anything).Return(activities.CopyResult{}, coded(failure.SchemaMismatch)).After(time.Minute).Once()
	h.bootstraps(100)
	h.at(time.Second, h.snapshotReady(1))
	h.ExecuteWorkflow(TypeBootstrap, bootInput())
	report := activities.ReportOf(h.GetWorkflowError())
	require.Equal(t, failure.SchemaMismatch.ID, report.Code)
	require.NotEmpty(t, report.Fix)
}

func TestBootstrapRefusesMalformedInput(t *testing.T) {
	h := newHarness(t, bootID)
	h.ExecuteWorkflow(TypeBootstrap, "x")
	require.Equal(t, failure.ConfigInvalid.ID, activities.ReportOf(h.GetWorkflowError()).Code)
}

// needsBootstrap makes a query's first run ask for one.
func (h *harness) needsBootstrap() {
	h.OnActivity(queries.QueryRun, mock.Anything, mock.Anything).
		Return(activities.RunResult{Outcome: activities.OutcomeNeedsBootstrap}, nil).Once()
	h.loops(queries.QueryRun, 1000*time.Hour, drained, nil)
}

func TestQueryBootstraps(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.needsBootstrap()
	h.healthy()
	h.OnWorkflow(TypeBootstrap, mock.Anything, mock.Anything).Return(&BootstrapResult{}, nil).After(time.Hour).Once()
	h.at(time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseBootstrapping, s.Phase)
		require.Equal(t, []string{bootID}, s.Bootstrap.WorkflowIDs)
	})
	h.at(2*time.Hour, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, uint64(2), s.Generation)
		require.Equal(t, "h1", s.Host)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
	require.Equal(t, []string{"Validating", "Starting", "Bootstrapping", "Starting", "Running", "Draining"}, h.phases, "it is not shown as running before it has its data")
}

// TestQueryIsReadAgainElsewhere: a host that is lost with what was read for it is no reason to stop, one that does not keep it is.
func TestQueryIsReadAgainElsewhere(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	var hosts []string
	h.OnActivity(queries.QueryRun, mock.Anything, mock.Anything).Return(func(context.Context, activities.RunInput) (activities.RunResult, error) {
		host := []string{"h1", "h2", "h3", "h3"}[len(hosts)]
		hosts = append(hosts, host)
		return activities.RunResult{Outcome: activities.OutcomeNeedsBootstrap, Host: host}, nil
	}).After(time.Second)
	h.OnWorkflow(TypeBootstrap, mock.Anything, mock.Anything).Return(&BootstrapResult{}, nil).After(time.Second)
	h.at(10*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseNeedsOperator, s.Phase)
		require.Equal(t, failure.StateCorrupt.ID, s.Breaker.LastError.Code)
		require.Equal(t, []string{"h1", "h2", "h3", "h3"}, hosts)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestQueryReadsWhatItMisses: only the source concerned has a bootstrap, of the labels concerned.
func TestQueryReadsWhatItMisses(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.OnActivity(queries.QueryRun, mock.Anything, mock.Anything).Return(activities.RunResult{
		Outcome: activities.OutcomeNeedsResync, Missing: &activities.Missing{Source: "people", Labels: []string{"Person"}},
	}, nil).Once()
	h.loops(queries.QueryRun, 1000*time.Hour, drained, nil)
	h.healthy()
	var read []string
	h.OnWorkflow(TypeBootstrap, mock.Anything, mock.Anything).Return(
		func(_ workflow.Context, raw converter.RawValue) (*BootstrapResult, error) {
			var in BootstrapInput
			require.NoError(t, json.Unmarshal(payloadData(raw), &in))
			read = append(read, fmt.Sprint(in.Source, in.Labels))
			return &BootstrapResult{}, nil
		})
	h.at(2*time.Hour, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(`{"name":"big","query":"MATCH (o) RETURN o","sources":["orders","people"]}`))
	require.True(t, h.IsWorkflowCompleted())
	require.Equal(t, []string{"people[Person]"}, read)
}

func TestQueryIsPausedWhileItBootstraps(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.needsBootstrap()
	h.healthy()
	h.holds(72*time.Hour, nil)
	h.bootstraps(100)
	ready := func() {
		require.NoError(t, h.SignalWorkflowByID(bootID, activities.SignalSnapshotReady, activities.SnapshotReady{SnapshotGeneration: 1, Position: "0/1"}))
	}
	h.at(time.Minute, ready)
	h.at(2*time.Minute, func() { h.signal(CommandPause, nil) })
	h.at(time.Hour, func() {
		require.Equal(t, PhasePaused, h.status().Phase)
		require.Equal(t, 4, h.count("CopyWorker"))
		h.signal(CommandResume, nil)
	})
	h.at(time.Hour+time.Minute, func() { require.Equal(t, PhaseBootstrapping, h.status().Phase) })
	h.at(2*time.Hour, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		require.Equal(t, 8, h.count("CopyWorker"))
		require.Equal(t, 1, h.count("HoldSnapshot"), "the snapshot was kept")
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}

func TestQueryIsStoppedWhileItBootstraps(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.needsBootstrap()
	h.healthy()
	h.holds(72*time.Hour, nil)
	h.bootstraps(100)
	h.at(time.Minute, func() { h.signal(CommandStop, nil) })
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseStopped, s.Phase)
		require.Nil(t, s.Breaker.LastError)
		require.Equal(t, 1, h.count("AbandonBootstrap"))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestQueryFailsToBootstrap shows that what is done stays done, and that what failed is named.
func TestQueryFailsToBootstrap(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.needsBootstrap()
	h.healthy()
	failing := true
	h.OnWorkflow(TypeBootstrap, mock.Anything, mock.Anything).Return(
		func(_ workflow.Context, raw converter.RawValue) (*BootstrapResult, error) {
			var in BootstrapInput
			require.NoError(t, json.Unmarshal(payloadData(raw), &in))
			if in.Source == "people" && failing {
				return nil, coded(failure.PermissionDenied)
			}
			return &BootstrapResult{}, nil
		})
	h.at(time.Hour, func() {
		s := h.status()
		require.Equal(t, PhaseNeedsOperator, s.Phase)
		require.Equal(t, failure.PermissionDenied.ID, s.Breaker.LastError.Code)
		require.Equal(t, []string{"orders"}, s.Bootstrap.Sealed)
		failing = false
		h.signal(CommandResume, nil)
	})
	h.at(2*time.Hour, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(`{"name":"big","query":"MATCH (o) RETURN o","sources":["orders","people"]}`))
	require.True(t, h.IsWorkflowCompleted())
}

func TestQueryWithoutBootstrapRunsAtOnce(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, 1000*time.Hour, drained, nil)
	h.at(100*time.Millisecond, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		h.signal(CommandRebootstrap, nil)
	})
	h.at(time.Second, func() {
		require.Equal(t, "the query is declared with bootstrap none", h.status().Commands[0].Error)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(`{"name":"big","query":"MATCH (o) RETURN o","sources":["orders"],"bootstrap":"none"}`))
	require.True(t, h.IsWorkflowCompleted())
}

func TestQueryIsBuiltAnew(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, 30*time.Minute, drained, nil)
	h.OnWorkflow(TypeBootstrap, mock.Anything, mock.Anything).Return(&BootstrapResult{}, nil).After(time.Minute).Once()
	h.at(2*time.Second, func() { require.Equal(t, PhaseStarting, h.status().Phase) })
	h.at(time.Minute, func() {
		require.Equal(t, PhaseRunning, h.status().Phase, "no news is good news")
		h.signal(CommandRebootstrap, nil)
	})
	h.at(20*time.Minute, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.Equal(t, 2, len(h.generations))
}

// TestQueryThatLoads does not count as running before it has an answer.
func TestQueryThatLoads(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, 30*time.Minute, drained, nil)
	tell := func(loading bool) {
		h.signal(activities.SignalCondition, activities.Condition{Generation: 1, Target: "closed", Host: "h1", Attempt: 2, Loading: loading})
	}
	h.at(time.Second, func() { tell(true) })
	h.at(time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseStarting, s.Phase)
		require.Equal(t, activities.HealthPending, s.Health)
		require.EqualValues(t, 2, s.Attempt)
		tell(false)
	})
	h.at(2*time.Minute, func() { require.Equal(t, PhaseRunning, h.status().Phase); tell(true) })
	h.at(3*time.Minute, func() { require.Equal(t, PhaseStarting, h.status().Phase); tell(false) })
	h.at(4*time.Minute, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		require.Nil(t, h.status().Delivery)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestQueryOfASourceThatIsYetToCome: one that has run goes on with the state that it has, if there is one, and else waits.
func TestQueryOfASourceThatIsYetToCome(t *testing.T) {
	for _, stateless := range []bool{false, true} {
		h := newHarness(t, "query.default.big")
		h.OnActivity(queries.ValidateQuery, mock.Anything, mock.MatchedBy(func(in activities.SpecInput) bool {
			return strings.Contains(string(in.Spec), "late")
		})).Return(activities.Checks{MissingSources: []string{"late"}}, nil)
		h.OnActivity(queries.WaitForSources, mock.Anything, mock.Anything).Return(nil).After(time.Hour)
		h.healthy()
		var ahead []bool
		h.OnActivity(queries.QueryRun, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.RunInput) (activities.RunResult, error) {
			if ahead = append(ahead, in.Ahead); in.Ahead && stateless {
				return activities.RunResult{Outcome: activities.OutcomeNeedsSources}, nil
			}
			return drained, nil
		}).After(2 * time.Hour)
		h.at(time.Hour, func() {
			h.reconfigure(`{"name":"big","query":"MATCH (o:Order) RETURN o.id AS id","sources":["late","orders"]}`)
		})
		h.at(2*time.Hour, func() {
			s := h.status()
			require.Equal(t, PhaseRunning, s.Phase)
			require.Zero(t, h.count("WaitForSources"))
		})
		h.at(3*time.Hour+30*time.Minute, func() {
			s := h.status()
			require.Nil(t, s.Breaker.LastError)
			require.Equal(t, map[bool]Phase{false: PhaseRunning, true: PhaseWaitingForSource}[stateless], s.Phase)
		})
		h.at(6*time.Hour, func() {
			require.Equal(t, PhaseRunning, h.status().Phase)
			require.Equal(t, []bool{false, true}, ahead[:2])
			h.CancelWorkflow()
		})
		h.ExecuteWorkflow(TypeQuery, input(querySpec))
		require.True(t, h.IsWorkflowCompleted())
	}
}

func TestQueryWaitsForItsSources(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.OnActivity(queries.ValidateQuery, mock.Anything, mock.Anything).Return(activities.Checks{MissingSources: []string{"orders"}}, nil)
	h.OnActivity(queries.WaitForSources, mock.Anything, mock.Anything).Return(
		func(_ context.Context, in activities.WaitInput) error {
			require.Equal(t, activities.WaitInput{Instance: "default", Sources: []string{"orders"}}, in)
			return nil
		}).After(time.Hour)
	h.healthy()
	h.loops(queries.QueryRun, 1000*time.Hour, drained, nil)
	h.at(30*time.Minute, func() { require.Equal(t, PhaseWaitingForSource, h.status().Phase) })
	h.at(2*time.Hour, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}
