package workflows

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// store pretends to know which tables cannot be read, and what was asked of it.
type store struct {
	mu      sync.Mutex
	failed  []string
	retried [][]string
	mended  bool // what is tried again can be read
}

func unreadable(generation int, table string) activities.TableFailure {
	return activities.TableFailure{SnapshotGeneration: generation, Table: table, Failure: activities.ReportOf(coded(failure.PermissionDenied))}
}

func (h *harness) unreadable(tables ...string) *store {
	s := &store{failed: tables}
	h.OnActivity(bootstraps.VerifyBootstrap, mock.Anything, mock.Anything).Return(func(_ context.Context, ref activities.BootstrapRef) (v activities.Verified, _ error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, table := range s.failed {
			v.Failed = append(v.Failed, unreadable(ref.SnapshotGeneration, table))
		}
		return v, nil
	})
	h.OnActivity(bootstraps.RetryTables, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.RetryInput) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.retried = append(s.retried, in.Tables)
		if s.mended {
			s.failed = slices.DeleteFunc(s.failed, func(t string) bool { return len(in.Tables) == 0 || slices.Contains(in.Tables, t) })
		}
		return nil
	}).Maybe()
	return s
}

func (s *store) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mended = true
}

func tablesOf(failed []activities.TableFailure) (names []string) {
	for _, f := range failed {
		names = append(names, f.Table)
	}
	return names
}

// TestBootstrapWaitsForTables: what can be copied is, then the snapshot is released and somebody is waited for; what that one
// says is done, and nothing else.
func TestBootstrapWaitsForTables(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(72*time.Hour, nil)
	tables := h.unreadable("public.orders", "public.lines")
	h.bootstraps(100)
	h.at(time.Second, h.snapshotReady(1))
	var answer, again BootstrapStatus
	var refused error
	h.at(time.Minute, func() {
		h.signal(activities.SignalTableFailed, unreadable(2, "public.others")) // of another snapshot
		h.signal(activities.SignalTableFailed, "nonsense")
		h.signal(activities.SignalTableFailed, unreadable(1, "public.orders"))
		h.signal(activities.SignalTableFailed, unreadable(1, "public.orders"))
	})
	h.at(2*time.Minute, func() {
		s := h.bootstrapStatus()
		require.Equal(t, bootCopying, s.Phase)
		require.Equal(t, []string{"public.orders"}, tablesOf(s.Failed))
		require.Equal(t, failure.PermissionDenied.ID, s.LastError.Code)
	})
	h.at(time.Hour, func() {
		s := h.bootstrapStatus()
		require.Equal(t, bootNeedsOperator, s.Phase)
		require.Equal(t, []string{"public.orders", "public.lines"}, tablesOf(s.Failed))
		require.Contains(t, s.LastError.Message, "cannot copy public.orders, public.lines of source orders")
		require.NotEmpty(t, s.LastError.Fix)
		require.Equal(t, bootNeedsOperator, h.phases[len(h.phases)-1])
		require.Equal(t, activities.HealthFailing, h.healths[len(h.healths)-1])
		require.Zero(t, h.count("RetryTables")+h.count("SealBootstrap")+h.count("AbandonBootstrap"))
		require.Equal(t, 1, h.count("HoldSnapshot"))

		h.signal(CommandRetryTable, map[string]string{"table": "public.customers"})
		h.signal(CommandRetryTable, map[string]string{"tabel": "public.orders"})
		h.signal(CommandRetryTable, []string{"public.orders"})
		h.UpdateWorkflow(CommandRetryTable, "u1", &bootstrapAnswer{t, nil, &refused}, map[string]string{"table": "public.customers"})
	})
	h.at(2*time.Hour, func() {
		s := h.bootstrapStatus()
		require.Equal(t, bootNeedsOperator, s.Phase)
		require.Equal(t, []string{Rejected, Rejected, Rejected, Rejected}, outcomes(s.Commands)) // the first is the nonsense
		require.Equal(t, "public.customers is none of the tables that failed: public.orders, public.lines", s.Commands[1].Error)
		require.ErrorContains(t, refused, s.Commands[1].Error)
		require.Equal(t, 1, h.count("HoldSnapshot"))
		h.UpdateWorkflow(CommandRetryTable, "u2", &bootstrapAnswer{t, &answer, nil}, map[string]string{"table": `"public"."orders"`, "requestId": "once"})
		h.UpdateWorkflow(CommandRetryTable, "u3", &bootstrapAnswer{t, &again, nil}, map[string]string{"table": "public.lines", "requestId": "once"})
	})
	h.at(2*time.Hour+time.Minute, h.snapshotReady(2))
	h.at(3*time.Hour, func() { // the reason is still there
		s := h.bootstrapStatus()
		require.Equal(t, bootNeedsOperator, s.Phase)
		require.Equal(t, 2, s.Snapshot)
		require.Equal(t, [][]string{{"public.orders"}}, tables.retried)
		tables.mend()
		h.signal(CommandPause, nil)
		h.signal(CommandRetryTable, nil) // all of them
	})
	h.at(4*time.Hour, func() {
		require.Equal(t, 2, h.count("HoldSnapshot"), "it is paused")
		h.signal(CommandResume, nil)
	})
	h.at(4*time.Hour+time.Minute, h.snapshotReady(3))
	h.ExecuteWorkflow(TypeBootstrap, bootInput())
	require.NoError(t, h.GetWorkflowError())
	require.Equal(t, []string{"public.lines"}, tablesOf(answer.Failed))
	require.Equal(t, []string{"public.lines"}, tablesOf(again.Failed))
	require.Len(t, tables.retried, 2)
	require.Empty(t, tables.retried[1])
	require.Equal(t, 3, h.count("HoldSnapshot"))
	require.Equal(t, 1, h.count("Subscribe"))
	require.Zero(t, h.count("AbandonBootstrap"))
	require.Equal(t, activities.HealthPending, h.healths[len(h.healths)-1])
}

// TestTableIsRetriedInTheSameSnapshot: copy workers that began before know nothing of it, so others look for what is left.
func TestTableIsRetriedInTheSameSnapshot(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(72*time.Hour, nil)
	tables := h.unreadable("public.orders")
	tables.mend()
	h.bootstraps(100)
	h.at(time.Second, h.snapshotReady(1))
	h.at(time.Minute, func() { h.signal(CommandRetryTable, nil) }) // nothing has failed yet
	h.at(2*time.Minute, func() { h.signal(activities.SignalTableFailed, unreadable(1, "public.orders")) })
	h.at(3*time.Minute, func() { h.signal(CommandRetryTable, map[string]string{"table": "public.orders"}) })
	h.at(4*time.Minute, func() {
		s := h.bootstrapStatus()
		require.Equal(t, []string{Rejected, Applied}, outcomes(s.Commands))
		require.Equal(t, "no table has failed", s.Commands[0].Error)
		require.Empty(t, s.Failed)
		require.Equal(t, 3, s.Workers)
		require.Equal(t, 1, h.count("RetryTables"))
	})
	h.ExecuteWorkflow(TypeBootstrap, bootInput())
	require.NoError(t, h.GetWorkflowError())
	require.Equal(t, 1, h.count("HoldSnapshot"))
	require.Greater(t, h.count("CopyWorker"), 3)
}

// TestBootstrapThatWaitedKeepsWhatItHas: what keeps it from trying a table again does not end it.
func TestBootstrapThatWaitedKeepsWhatItHas(t *testing.T) {
	h := newHarness(t, bootID)
	h.holds(72*time.Hour, nil)
	tables := h.unreadable("public.orders")
	tables.mend()
	plan := activities.BootstrapPlan{Tables: 1, Chunks: 10, Rows: 1000}
	h.OnActivity(bootstraps.PlanChunks, mock.Anything, mock.Anything).Return(plan, nil).Once()
	h.OnActivity(bootstraps.PlanChunks, mock.Anything, mock.Anything).Return(plan, coded(failure.TableMissing)).Once()
	h.bootstraps(100)
	h.at(time.Second, h.snapshotReady(1))
	h.at(time.Hour, func() { h.signal(CommandResume, nil) })
	h.at(time.Hour+time.Minute, h.snapshotReady(2))
	h.at(2*time.Hour, func() {
		s := h.bootstrapStatus()
		require.Equal(t, bootNeedsOperator, s.Phase)
		require.Equal(t, failure.TableMissing.ID, s.LastError.Code)
		require.Empty(t, s.Failed)
		require.Zero(t, h.count("AbandonBootstrap"))
		h.signal(CommandRetryTable, nil)
	})
	h.at(2*time.Hour+time.Minute, h.snapshotReady(3))
	h.ExecuteWorkflow(TypeBootstrap, bootInput())
	require.NoError(t, h.GetWorkflowError())
	require.Equal(t, 3, h.count("HoldSnapshot"))
}

// waiting is a query whose bootstrap waits for somebody after an hour.
func waiting(t *testing.T) (*harness, *store) {
	h := newHarness(t, "query.default.big")
	h.needsBootstrap()
	h.healthy()
	h.holds(72*time.Hour, nil)
	tables := h.unreadable("public.orders")
	h.bootstraps(100)
	h.OnSignalExternalWorkflow(mock.Anything, mock.Anything, mock.Anything, mock.Anything, mock.Anything).Return(
		func(_, id, _, name string, arg any) error {
			require.Equal(t, "query.default.big", id)
			h.SignalWorkflow(name, arg)
			return nil
		}).Maybe()
	h.ready(time.Minute, 1)
	h.at(time.Hour, func() {
		s := h.status()
		require.Equal(t, PhaseNeedsOperator, s.Phase)
		require.Equal(t, activities.HealthFailing, s.Health)
		require.Equal(t, failure.PermissionDenied.ID, s.Breaker.LastError.Code)
		require.Contains(t, s.Breaker.LastError.Message, "cannot copy public.orders of source orders")
		require.Len(t, s.Bootstrap.Trouble, 1)
		require.Equal(t, []string{"public.orders"}, s.Bootstrap.Trouble[0].Tables)
		require.True(t, s.Bootstrap.Trouble[0].Waits)
		require.Equal(t, []string{bootID}, s.Bootstrap.WorkflowIDs)
		h.signal(signalTrouble, "nonsense")
		h.signal(signalTrouble, trouble{ID: "bootstrap.default.big.orders.0"})
	})
	return h, tables
}

func (h *harness) ready(at time.Duration, generation int) {
	h.at(at, func() {
		require.NoError(h.t, h.SignalWorkflowByID(bootID, activities.SignalSnapshotReady, activities.SnapshotReady{SnapshotGeneration: generation, Position: "0/1"}))
	})
}

func TestQueryShowsTablesThatCannotBeCopied(t *testing.T) {
	for _, command := range []string{CommandResume, CommandResetBreaker} {
		h, tables := waiting(t)
		h.at(10*time.Second+time.Minute, func() {
			require.NoError(t, h.SignalWorkflowByID(bootID, activities.SignalTableFailed, unreadable(1, "public.orders")))
		})
		h.at(2*time.Minute, func() {
			s := h.status()
			require.Equal(t, PhaseBootstrapping, s.Phase)
			require.Equal(t, activities.HealthDegraded, s.Health, "while others are copied")
			require.False(t, s.Bootstrap.Trouble[0].Waits)
		})
		h.at(2*time.Hour, func() {
			require.Len(t, h.status().Commands, 1)
			h.signal(CommandPause, nil)
		})
		h.at(3*time.Hour, func() {
			require.Equal(t, PhasePaused, h.status().Phase)
			tables.mend()
			if command == CommandResetBreaker {
				h.signal(CommandResume, nil)
			}
		})
		h.at(3*time.Hour+time.Second, func() { h.signal(command, nil) })
		h.ready(3*time.Hour+time.Minute, 2)
		h.at(3*time.Hour+2*time.Minute, func() {
			s := h.status()
			require.Equal(t, PhaseBootstrapping, s.Phase)
			require.Equal(t, activities.HealthPending, s.Health)
			require.Empty(t, s.Bootstrap.Trouble)
		})
		h.at(5*time.Hour, func() {
			require.Equal(t, PhaseRunning, h.status().Phase)
			require.Equal(t, 2, h.count("HoldSnapshot"))
			require.Zero(t, h.count("AbandonBootstrap"))
			h.CancelWorkflow()
		})
		h.ExecuteWorkflow(TypeQuery, input(querySpec))
		require.True(t, h.IsWorkflowCompleted())
	}
}

// TestResetBreakerRetriesTables, without a pause before.
func TestResetBreakerRetriesTables(t *testing.T) {
	h, tables := waiting(t)
	tables.mend()
	h.at(2*time.Hour, func() { h.signal(CommandResetBreaker, nil) })
	h.ready(2*time.Hour+time.Minute, 2)
	h.at(3*time.Hour, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, []string{Rejected, Applied}, outcomes(s.Commands))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestQueryWhoseBootstrapWaitsObeys: what ends a bootstrap otherwise ends one that waits, and what it copied is removed.
func TestQueryWhoseBootstrapWaitsObeys(t *testing.T) {
	for command, begun := range map[string]int{CommandRestart: 2, CommandRebootstrap: 2, CommandStop: 1, CommandDelete: 1} {
		t.Run(command, func(t *testing.T) {
			h, _ := waiting(t)
			h.at(2*time.Hour, func() { h.signal(command, nil) })
			h.at(2*time.Hour+time.Minute, func() {
				require.Equal(t, 1, h.count("AbandonBootstrap"))
				require.Equal(t, begun, h.count("Subscribe"))
				if command != CommandDelete {
					require.Empty(t, h.status().Bootstrap.Trouble)
					h.CancelWorkflow()
				}
			})
			h.ExecuteWorkflow(TypeQuery, input(querySpec))
			require.True(t, h.IsWorkflowCompleted())
		})
	}
}

// TestTroubleBesideARun: the query goes on as it is and says that somebody is needed.
func TestTroubleBesideARun(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, 1000*time.Hour, drained, nil)
	begun := h.besides(24*time.Hour, func(BootstrapInput) error { return nil })
	h.at(time.Minute, func() {
		h.signal(activities.SignalNeed, activities.Need{Generation: 1, Outcome: activities.OutcomeNeedsResync})
	})
	report := activities.ReportOf(coded(failure.PermissionDenied))
	h.at(time.Hour, func() {
		require.Len(t, *begun, 1)
		h.signal(signalTrouble, trouble{ID: bootID, Source: "orders", Waits: true, Tables: []string{"public.orders"}, Failure: &report})
	})
	h.at(2*time.Hour, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, activities.HealthDegraded, s.Health)
		require.Equal(t, activities.HealthDegraded, h.healths[len(h.healths)-1])
		require.Equal(t, failure.PermissionDenied.ID, s.Breaker.LastError.Code)
	})
	h.at(48*time.Hour, func() {
		s := h.status()
		require.Equal(t, activities.HealthHealthy, s.Health)
		require.Equal(t, activities.HealthHealthy, h.healths[len(h.healths)-1])
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}
