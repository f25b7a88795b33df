package workflows

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/temporalproto"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// TestRecord runs the workflows on a real server, with activities that only pretend, and checks what no test
// environment can: how long histories are. With PERDURE_RECORD=<release> it also keeps the histories for TestReplay.
//
// The server is that of the perdure in PERDURE_BIN_DIR, as make test sets it.
func TestRecord(t *testing.T) {
	r := newRecorder(t, temporalServer(t))

	t.Run("Source", func(t *testing.T) {
		id := r.start(t, component.Source, "orders", sourceSpec)
		r.reaches(t, id, PhaseRunning)
		events := len(r.history(t, id).Events)
		require.Less(t, events, 60, "events until it runs")
		r.beats(t, id)
		require.Len(t, r.history(t, id).Events, events, "events while it runs")
		r.signal(t, id, CommandStop, nil)
		r.reaches(t, id, PhaseStopped)
		r.signal(t, id, CommandResume, nil)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandReconfigure, map[string]any{"spec": json.RawMessage(`{"name":"orders","kind":"other"}`)})
		r.until(t, id, func(s Status) bool { return s.SpecVersion == 2 && s.Phase == PhaseRunning })
		r.signal(t, id, "pauze", map[string]string{"requestId": "r1"})
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Source-lifecycle")
	})
	t.Run("Source that fails", func(t *testing.T) {
		r.fail("SourceRun", failure.Unreachable, failure.AuthFailed)
		id := r.start(t, component.Source, "failing", `{"name":"failing","kind":"x"}`)
		r.reaches(t, id, PhaseBreakerOpen)
		r.signal(t, id, CommandResetBreaker, nil)
		r.reaches(t, id, PhaseNeedsOperator)
		r.signal(t, id, CommandResume, nil)
		r.reaches(t, id, PhaseRunning)
		require.NoError(t, r.client.CancelWorkflow(t.Context(), id, ""))
		r.save(t, id, "Source-failures")
	})
	t.Run("Source that cannot be read", func(t *testing.T) {
		id := r.start(t, component.Source, "broken", `{"name":"other"}`)
		r.reaches(t, id, PhaseNeedsOperator)
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Source-malformed")
	})
	t.Run("Query", func(t *testing.T) {
		r.fail("HoldSnapshot", failure.SnapshotLost)
		r.needBootstrap(1)
		id := r.start(t, component.Query, "big", querySpec)
		r.reaches(t, id, PhaseRunning)
		r.update(t, id, CommandPause)
		r.reaches(t, id, PhasePaused)
		r.update(t, id, CommandResume)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandRebootstrap, nil)
		r.until(t, id, func(s Status) bool { return s.Phase == PhaseRunning && s.Generation == 4 })
		r.signal(t, id, activities.SignalNeed, activities.Need{Generation: 4, Outcome: activities.OutcomeNeedsResync})
		r.ends(t, "bootstrap.default.big.orders.2")
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Query-lifecycle")
		r.save(t, "bootstrap.default.big.orders.1", "Bootstrap-lost")
		r.save(t, "bootstrap.default.big.orders.2", "Bootstrap-plain")
	})
	t.Run("Query that bootstraps at once", func(t *testing.T) {
		r.needBootstrap(1)
		id := r.start(t, component.Query, "short", `{"name":"short","query":"MATCH (o) RETURN o","sources":["orders"]}`)
		r.reaches(t, id, PhaseRunning)
		require.Less(t, len(r.history(t, id).Events), 60, "events until it runs")
		require.NoError(t, r.client.CancelWorkflow(t.Context(), id, ""))
		r.save(t, id, "Query-bootstrap")
	})
	t.Run("Query that is read again while it runs", func(t *testing.T) {
		id := r.start(t, component.Query, "again", `{"name":"again","query":"MATCH (o) RETURN o","sources":["orders"]}`)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandRebootstrap, nil)
		runs := func(generation uint64, beside bool) func(Status) bool {
			return func(s Status) bool {
				return s.Phase == PhaseRunning && s.Generation == generation && s.Bootstrap.Beside == beside
			}
		}
		r.until(t, id, runs(2, false))
		r.signal(t, id, activities.SignalNeed, activities.Need{Generation: 2, Outcome: activities.OutcomeNeedsResync})
		r.ends(t, "bootstrap.default.again.orders.1")
		r.until(t, id, runs(2, false))
		r.slowly(true)
		r.signal(t, id, activities.SignalNeed, activities.Need{
			Generation: 2, Outcome: activities.OutcomeNeedsResync, Held: true, Missing: &activities.Missing{Source: "orders", Labels: []string{"o"}},
		})
		r.until(t, id, runs(2, true))
		r.signal(t, id, CommandRestart, nil) // ends it
		r.until(t, id, runs(3, false))
		r.slowly(false)
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Query-beside")
	})
	t.Run("Query that is stopped while it bootstraps", func(t *testing.T) {
		r.needBootstrap(1)
		r.slowly(true)
		id := r.start(t, component.Query, "slow", `{"name":"slow","query":"MATCH (o) RETURN o","sources":["orders"]}`)
		r.reaches(t, id, PhaseBootstrapping)
		r.signal(t, id, CommandPause, nil)
		r.reaches(t, id, PhasePaused)
		r.signal(t, id, CommandResume, nil)
		r.reaches(t, id, PhaseBootstrapping)
		r.signal(t, id, CommandStop, nil)
		r.reaches(t, id, PhaseStopped)
		r.slowly(false)
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Query-stopped")
		r.save(t, "bootstrap.default.slow.orders.1", "Bootstrap-stopped")
	})
	t.Run("Instance", func(t *testing.T) {
		const id = "instance.default"
		_, err := r.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: activities.QueueWorkflows}, TypeInstance,
			Input{Spec: instanceSpec([]string{"s"}, []string{"q"}, []string{"r1", "r2"})})
		require.NoError(t, err)
		r.reaches(t, id, PhaseRunning)
		events := len(r.history(t, id).Events)
		require.Less(t, events, 60, "events until it runs")
		r.beats(t, id)
		require.Len(t, r.history(t, id).Events, events, "events while it runs")
		r.signal(t, id, CommandStop, nil)
		r.reaches(t, id, PhaseStopped)
		r.signal(t, id, CommandResume, nil)
		r.signal(t, id, "resume", []int{1})
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandRestart, nil)
		r.signal(t, id, CommandApply, CommandInput{Spec: instanceSpec(nil, []string{"invalid"}, nil)})
		r.signal(t, id, CommandApply, CommandInput{Spec: instanceSpec([]string{"s"}, []string{"q=other"}, []string{"r2", "r3"})})
		r.until(t, id, func(s Status) bool { return s.SpecVersion == 2 && s.Phase == PhaseRunning })
		r.fail("EnsureComponent", failure.ComponentSilent)
		r.update(t, id, CommandPause)
		r.reaches(t, id, PhaseDegraded)
		r.signal(t, id, CommandResume, nil)
		r.reaches(t, id, PhaseRunning)
		first := r.runID(t, id)
		r.signal(t, id, CommandUpgrade, nil)
		require.Eventually(t, func() bool { return r.runID(t, id) != first }, 30*time.Second, 50*time.Millisecond)
		r.reaches(t, id, PhaseRunning)
		r.fail("RemoveComponent", failure.ComponentRefused)
		r.signal(t, id, CommandDelete, nil)
		r.reaches(t, id, PhaseDeleteBlocked)
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Instance-deleted")
		r.saveRun(t, id, first, "Instance-lifecycle")
	})
	t.Run("Instance that is not valid", func(t *testing.T) {
		const id = "instance.broken"
		_, err := r.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: activities.QueueWorkflows}, TypeInstance,
			Input{Spec: instanceSpec(nil, []string{"invalid"}, nil)})
		require.NoError(t, err)
		r.reaches(t, id, PhaseNeedsOperator)
		require.NoError(t, r.client.CancelWorkflow(t.Context(), id, ""))
		r.save(t, id, "Instance-invalid")
	})
	t.Run("Query by reference", func(t *testing.T) {
		r.fail("ReadSpec", failure.ConfigInvalid)
		r.needBootstrap(1)
		const id = "query.default.referred"
		_, err := r.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: activities.QueueWorkflows}, TypeQuery, Input{SpecRef: "referred@1"})
		require.NoError(t, err)
		r.reaches(t, id, PhaseNeedsOperator)
		r.signal(t, id, CommandResume, nil)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandReconfigure, map[string]string{"specRef": "referred@2"})
		r.until(t, id, func(s Status) bool { return s.SpecVersion == 2 && s.Phase == PhaseRunning })
		r.signal(t, id, CommandReconfigure, map[string]string{"specRef": "other@1"})
		r.signal(t, id, CommandReconfigure, map[string]string{"specRef": "referred"})
		r.until(t, id, func(s Status) bool { return len(s.Commands) == 4 })
		first := r.runID(t, id)
		r.signal(t, id, CommandUpgrade, nil)
		require.Eventually(t, func() bool { return r.runID(t, id) != first }, 30*time.Second, 50*time.Millisecond)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandReconfigure, map[string]any{"spec": json.RawMessage(`{"name":"referred","query":"MATCH (o) RETURN o","sources":["orders"]}`)})
		r.until(t, id, func(s Status) bool { return s.SpecVersion == 3 && s.Phase == PhaseRunning })
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Query-referred-continued")
		r.saveRun(t, id, first, "Query-referred")
		r.save(t, "bootstrap.default.referred.orders.1", "Bootstrap-referred")
	})
	t.Run("Instance by reference", func(t *testing.T) {
		const id = "instance.referred"
		_, err := r.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: activities.QueueWorkflows}, TypeInstance, InstanceInput{SpecRef: "shop@1"})
		require.NoError(t, err)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandApply, map[string]string{"specRef": "shop@2"})
		r.until(t, id, func(s Status) bool { return s.SpecVersion == 2 && s.Phase == PhaseRunning })
		first := r.runID(t, id)
		r.signal(t, id, CommandUpgrade, nil)
		require.Eventually(t, func() bool { return r.runID(t, id) != first }, 30*time.Second, 50*time.Millisecond)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Instance-referred-deleted")
		r.saveRun(t, id, first, "Instance-referred")
	})
	t.Run("Reaction", func(t *testing.T) {
		id := r.start(t, component.Reaction, "lines", reactionSpec)
		r.reaches(t, id, PhaseRunning)
		first := r.runID(t, id)
		r.signal(t, id, CommandRestart, nil)
		r.until(t, id, func(s Status) bool { return s.Phase == PhaseRunning && s.Generation == 2 })
		r.signal(t, id, CommandUpgrade, nil)
		r.until(t, id, func(s Status) bool { return s.Phase == PhaseRunning && s.Generation == 3 })
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Reaction-continued")
		r.saveRun(t, id, first, "Reaction-upgraded")
	})
	t.Run("Reaction that has nothing to keep", func(t *testing.T) {
		id := r.start(t, component.Reaction, "keeps", `{"name":"keeps","kind":"log","queries":["big"]}`)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandDelete, map[string]any{"dropResources": false}) // earlier builds did it all the same: Reaction-kept
		r.until(t, id, func(s Status) bool { return len(s.Commands) == 1 && s.Commands[0].Outcome == Rejected })
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Reaction-keeps")
	})
	t.Run("Reaction with dead letters", func(t *testing.T) {
		id := r.start(t, component.Reaction, "letters", `{"name":"letters","kind":"log","queries":["big"]}`)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, activities.SignalCondition, activities.Condition{Generation: 1, DeadLetters: activities.DeadLetters{Count: "3"}})
		r.until(t, id, func(s Status) bool { return s.DeadLetters != nil && s.DeadLetters.Count == "3" })
		for n, s := range []struct {
			name, outcome string
			payload       map[string]any
		}{
			{CommandRetry, Applied, nil},
			{CommandRetry, Applied, map[string]any{"ids": []string{"7"}, "requestId": "once"}},
			{CommandDrop, Applied, map[string]any{"ids": []string{"8"}}},
			{CommandDrop, Rejected, nil},
			{CommandRetry, Rejected, map[string]any{"ids": []string{"99"}}}, // there is none
			{CommandDrop, Applied, map[string]any{"all": true}},
		} {
			if s.outcome == Rejected && s.name == CommandRetry {
				r.fail("RetryDeadLetters", failure.LetterMissing)
			}
			r.signal(t, id, s.name, s.payload)
			r.until(t, id, func(st Status) bool { return len(st.Commands) == n+1 && st.Commands[n].Outcome == s.outcome })
		}
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Reaction-letters")
	})
	t.Run("Query that tells that it loads", func(t *testing.T) {
		id := r.start(t, component.Query, "loads", `{"name":"loads","query":"MATCH (o) RETURN o","sources":["orders"]}`)
		r.reaches(t, id, PhaseRunning)
		for _, loading := range []bool{true, false} {
			phase := map[bool]Phase{true: PhaseStarting, false: PhaseRunning}[loading]
			r.signal(t, id, activities.SignalCondition, activities.Condition{
				Generation: 1, Target: "closed", Host: "another", Attempt: 2, Loading: loading,
			})
			r.until(t, id, func(s Status) bool { return s.Phase == phase && s.Host == "another" && s.Attempt == 2 })
		}
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Query-loads")
	})
	t.Run("Reaction whose place is changed", func(t *testing.T) {
		r.fail("ReactionRun", failure.DeliveryExhausted, failure.Unreachable)
		id := r.start(t, component.Reaction, "places", `{"name":"places","kind":"log","queries":["big"]}`)
		r.reaches(t, id, PhaseNeedsOperator)
		place := func(seq string, generation int) map[string]any {
			return map[string]any{"query": "big", "seq": seq, "confirm": "places", "generation": generation}
		}
		r.signal(t, id, CommandSkip, place("7", 2)) // stale
		r.signal(t, id, CommandSkip, place("7", 1))
		r.reaches(t, id, PhaseBreakerOpen)
		r.signal(t, id, CommandResume, nil)
		r.until(t, id, func(s Status) bool { return s.Phase == PhaseRunning && s.Breaker.State == breakerHalfOpen })
		r.update(t, id, CommandPause)
		r.reaches(t, id, PhasePaused)
		handle, err := r.client.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
			WorkflowID: id, UpdateName: CommandSetPosition, Args: []any{place("latest", 3)}, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		require.NoError(t, err)
		var s Status
		require.NoError(t, handle.Get(t.Context(), &s))
		require.Equal(t, "goes on behind event 41 of big", s.Commands[len(s.Commands)-1].Result)
		require.Equal(t, []string{Rejected, Applied, Applied, Applied, Applied}, outcomes(s.Commands))
		r.signal(t, id, CommandResume, nil)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Reaction-places")
	})
	t.Run("Bootstrap of a table that cannot be read", func(t *testing.T) {
		const boot = "bootstrap.default.unread.orders.1"
		r.needBootstrap(1)
		r.mu.Lock()
		r.unreadable = true
		r.mu.Unlock()
		id := r.start(t, component.Query, "unread", `{"name":"unread","query":"MATCH (o) RETURN o","sources":["orders"]}`)
		r.reaches(t, id, PhaseNeedsOperator)
		r.signal(t, boot, CommandRetryTable, map[string]string{"table": "public.others"})
		r.signal(t, boot, CommandRetryTable, map[string]string{"tabel": "public.orders"})
		r.signal(t, id, CommandResume, nil)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandDelete, nil)
		r.save(t, id, "Query-unread")
		r.save(t, boot, "Bootstrap-unread")
	})
	t.Run("Bootstrap that is told what to do", func(t *testing.T) {
		const boot = "bootstrap.default.told.orders.1"
		r.needBootstrap(1)
		r.slowly(true)
		id := r.start(t, component.Query, "told", `{"name":"told","query":"MATCH (o) RETURN o","sources":["orders"]}`)
		r.reaches(t, id, PhaseBootstrapping)
		workers := func(n int) {
			require.Eventually(t, func() bool {
				value, err := r.client.QueryWorkflow(t.Context(), boot, "", QueryStatus)
				var s BootstrapStatus
				return err == nil && value.Get(&s) == nil && s.Phase == bootCopying && s.Workers == n
			}, 30*time.Second, 50*time.Millisecond)
		}
		workers(2)
		r.signal(t, boot, CommandPause, map[string]string{"reeson": "x"})
		r.signal(t, boot, CommandSetConcurrency, map[string]any{"parallelism": 1, "requestId": "once"})
		r.signal(t, boot, CommandSetConcurrency, map[string]any{"parallelism": 2, "requestId": "once"})
		workers(1)
		r.update(t, boot, CommandPause)
		workers(0)
		r.slowly(false)
		r.update(t, boot, CommandResume)
		r.reaches(t, id, PhaseRunning)
		r.signal(t, id, CommandDelete, nil)
		r.save(t, boot, "Bootstrap-told")
	})
}

// temporalServer starts a Temporal server without workers. It returns its address.
func temporalServer(t *testing.T) string {
	dir := os.Getenv("PERDURE_BIN_DIR")
	if dir == "" {
		t.Skip("this test starts the Temporal server of a built perdure: run make test, or set PERDURE_BIN_DIR to the folder with it")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	_, natsPort, err := net.SplitHostPort(free.Addr().String())
	require.NoError(t, err)
	server := exec.Command(filepath.Join(dir, "perdure"), "dev", "--no-worker", "--data-dir", t.TempDir(),
		"--temporal-port", "0", "--ui-port", "0", "--api-port", "0", "--nats-port", natsPort)
	output, err := server.StdoutPipe()
	require.NoError(t, err)
	server.Stderr = server.Stdout
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // it was killed
	})
	var address, said string
	for lines := bufio.NewScanner(output); lines.Scan(); {
		said += lines.Text() + "\n"
		if where, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "Temporal  "); ok {
			address, _, _ = strings.Cut(strings.TrimSpace(where), ",")
		}
		if strings.HasPrefix(lines.Text(), "ready.") {
			go func() { _, _ = io.Copy(io.Discard, output) }() // until it is killed
			require.NotEmpty(t, address, said)
			return address
		}
	}
	t.Fatalf("perdure dev ended:\n%s", said)
	return ""
}

// recorder is a worker with pretended activities.
type recorder struct {
	client client.Client

	mu         sync.Mutex
	failures   map[string][]*failure.Code
	bootstraps int
	slow       bool
	unreadable bool // a table
	drains     map[string]chan struct{}
	sealed     chan struct{}
}

func newRecorder(t *testing.T, address string) *recorder {
	c, err := client.Dial(client.Options{HostPort: address, Identity: "recorder", Logger: log.NewStructuredLogger(slog.New(slog.NewTextHandler(t.Output(), nil)))})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	attributes := make(map[string]enumspb.IndexedValueType)
	for _, key := range SearchAttributes() {
		attributes[key.GetName()] = key.GetValueType()
	}
	_, _ = c.OperatorService().AddSearchAttributes(t.Context(), &operatorservice.AddSearchAttributesRequest{
		Namespace: client.DefaultNamespace, SearchAttributes: attributes,
	}) // fails where they exist
	r := &recorder{client: c, failures: map[string][]*failure.Code{}, drains: map[string]chan struct{}{}, sealed: make(chan struct{}, 100)}
	o := worker.Options{Interceptors: []interceptor.WorkerInterceptor{Interceptor(nil)}, MaxHeartbeatThrottleInterval: 100 * time.Millisecond}
	for _, queue := range []string{activities.QueueWorkflows, activities.QueueControl, activities.QueueRun, activities.QueueBootstrap, activities.QueueSnapshot, activities.HostQueue("h1")} {
		w := worker.New(c, queue, o)
		New(func() bool { return true }).Register(w)
		r.register(w)
		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
	}
	return r
}

func (r *recorder) register(w worker.ActivityRegistry) {
	for name, f := range map[string]any{
		"ValidateSource": func(context.Context, activities.SpecInput) (activities.Checks, error) {
			return activities.Checks{}, nil
		},
		"ValidateReaction": func(context.Context, activities.SpecInput) (activities.Checks, error) {
			return activities.Checks{}, nil
		},
		"ValidateQuery": func(context.Context, activities.SpecInput) (activities.Checks, error) {
			return activities.Checks{MissingSources: []string{"orders"}}, nil
		},
		"ProvisionSource":  func(context.Context, activities.SpecInput) error { return nil },
		"WaitForSources":   func(context.Context, activities.WaitInput) error { return nil },
		"TeardownSource":   func(context.Context, activities.TeardownInput) error { return nil },
		"TeardownQuery":    func(context.Context, activities.TeardownInput) error { return nil },
		"TeardownReaction": func(context.Context, activities.TeardownInput) error { return nil },
		"SourceRun":        r.run("SourceRun"), "QueryRun": r.run("QueryRun"), "ReactionRun": r.run("ReactionRun"),
		"SkipResult": func(context.Context, activities.ResultInput) error { return nil },
		"SetPosition": func(context.Context, activities.ResultInput) (activities.PositionResult, error) {
			return activities.PositionResult{Seq: "41"}, nil
		},
		"RetryDeadLetters": r.retryLetters, "DropDeadLetters": r.dropLetters,
		"ReadSpec": r.readSpec, "ForgetSpecs": func(context.Context, activities.OwnerInput) error { return nil },
		"PlaceComponent": r.place, "RequestDrain": r.drain,
		"FenceBump":        func(context.Context, activities.GenerationInput) error { return nil },
		"Subscribe":        func(context.Context, activities.PlanInput) error { return nil },
		"AbandonBootstrap": func(context.Context, activities.BootstrapRef) error { return nil },
		"VerifyBootstrap":  func(context.Context, activities.BootstrapRef) (activities.Verified, error) { return r.verify(), nil },
		"RetryTables":      r.retryTables,
		"HoldSnapshot":     r.hold, "CopyWorker": r.copy,
		"ValidateInstance": validateInstance, "EnsureComponent": r.ensure, "RemoveComponent": r.remove, "WatchComponents": watchNothing,
		"PlanChunks": func(context.Context, activities.PlanInput) (activities.BootstrapPlan, error) {
			return activities.BootstrapPlan{Tables: 1, Chunks: 2, Rows: 20}, nil
		},
		"SealBootstrap": func(context.Context, activities.BootstrapRef) (activities.Sealed, error) {
			r.sealed <- struct{}{}
			return activities.Sealed{Position: "0/9", Rows: 20}, nil
		},
	} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

// fail makes the next calls of an activity fail.
func (r *recorder) fail(name string, codes ...*failure.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures[name] = codes
}

func (r *recorder) failure(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if codes := r.failures[name]; len(codes) > 0 {
		r.failures[name] = codes[1:]
		return coded(codes[0])
	}
	return nil
}

func (r *recorder) needBootstrap(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bootstraps = n
}

// slowly makes copies take for ever.
func (r *recorder) slowly(slow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slow = slow
}

func (r *recorder) key(id string, generation uint64) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprintf("%s/%d", id, generation)
	if r.drains[key] == nil {
		r.drains[key] = make(chan struct{})
	}
	return r.drains[key]
}

func (r *recorder) run(name string) func(context.Context, activities.RunInput) (activities.RunResult, error) {
	return func(ctx context.Context, in activities.RunInput) (activities.RunResult, error) {
		if err := r.failure(name); err != nil {
			return activities.RunResult{}, err
		}
		r.mu.Lock()
		needs := name == "QueryRun" && r.bootstraps > 0
		if needs {
			r.bootstraps--
		}
		r.mu.Unlock()
		if needs {
			return activities.RunResult{Outcome: activities.OutcomeNeedsBootstrap}, nil
		}
		return drained, beatUntil(ctx, r.key(in.Component, in.Generation))
	}
}

func beatUntil(ctx context.Context, done <-chan struct{}) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			activity.RecordHeartbeat(ctx)
		}
	}
}

func (r *recorder) readSpec(_ context.Context, in activities.SpecRefInput) (activities.SpecHead, error) {
	name, _, _ := strings.Cut(in.SpecRef, "@")
	return activities.SpecHead{Name: name, Sources: []string{"orders"}}, r.failure("ReadSpec")
}

// validateInstance finds a problem in an instance that declares something invalid.
func validateInstance(_ context.Context, in activities.SpecInput) (activities.InstanceChecks, error) {
	if strings.Contains(string(in.Spec), "invalid") {
		return activities.InstanceChecks{Problems: []activities.Problem{{Component: "query invalid", Code: "ConfigInvalid", Message: "invalid"}}}, nil
	}
	if in.SpecRef != "" {
		return activities.InstanceChecks{Members: []string{"source.referred.s", "query.referred.q"}}, nil
	}
	return activities.InstanceChecks{}, nil
}

func (r *recorder) ensure(_ context.Context, in activities.EnsureInput) (activities.ComponentState, error) {
	health := activities.HealthHealthy
	if in.Desired != string(Running) {
		health = activities.HealthIdle
	}
	return activities.ComponentState{Component: in.Component, Desired: in.Desired, Phase: in.Desired, Health: health, SpecVersion: 1}, r.failure("EnsureComponent")
}

func (r *recorder) remove(context.Context, activities.RemoveInput) error {
	return r.failure("RemoveComponent")
}

func watchNothing(ctx context.Context, _ activities.WatchInput) ([]activities.ComponentState, error) {
	return nil, beatUntil(ctx, nil)
}

func (r *recorder) place(_ context.Context, in activities.PlaceInput) (activities.Placement, error) {
	p := activities.Placement{Generation: in.Generation + 1, Queue: activities.QueueRun}
	if in.NeedsHost {
		p.Host, p.Queue = "h1", activities.HostQueue("h1")
	}
	return p, nil
}

func (r *recorder) drain(_ context.Context, in activities.GenerationInput) error {
	close(r.key(in.Component, in.Generation))
	return nil
}

func (r *recorder) retryLetters(context.Context, activities.LettersInput) (activities.LettersResult, error) {
	return activities.LettersResult{Delivered: 1, Refused: 1, Left: activities.DeadLetters{Count: "2"}}, r.failure("RetryDeadLetters")
}

func (r *recorder) dropLetters(context.Context, activities.LettersInput) (activities.LettersResult, error) {
	return activities.LettersResult{Dropped: 1}, r.failure("DropDeadLetters")
}

func (r *recorder) hold(ctx context.Context, ref activities.BootstrapRef) error {
	if err := r.failure("HoldSnapshot"); err != nil {
		return err
	}
	info := activity.GetInfo(ctx)
	err := r.client.SignalWorkflow(ctx, info.WorkflowExecution.ID, info.WorkflowExecution.RunID, activities.SignalSnapshotReady,
		activities.SnapshotReady{SnapshotGeneration: ref.SnapshotGeneration, Position: "0/9"})
	if err != nil {
		return err
	}
	return beatUntil(ctx, r.sealed)
}

func (r *recorder) copy(ctx context.Context, _ activities.CopyInput) (activities.CopyResult, error) {
	r.mu.Lock()
	slow := r.slow
	r.mu.Unlock()
	if slow {
		return activities.CopyResult{}, beatUntil(ctx, nil)
	}
	return activities.CopyResult{Chunks: 1, Rows: 10}, nil
}

func (r *recorder) verify() (v activities.Verified) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unreadable {
		v.Failed = []activities.TableFailure{{Table: "public.orders", Failure: activities.ReportOf(coded(failure.PermissionDenied))}}
	}
	return v
}

func (r *recorder) retryTables(context.Context, activities.RetryInput) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unreadable = false
	return nil
}

func (r *recorder) start(t *testing.T, kind component.Kind, name, spec string) string {
	id := component.ID{Kind: kind, Instance: "default", Name: name}.String()
	_, err := r.client.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: activities.QueueWorkflows}, WorkflowType(kind), input(spec))
	require.NoError(t, err)
	return id
}

func (r *recorder) signal(t *testing.T, id, name string, payload any) {
	require.NoError(t, r.client.SignalWorkflow(t.Context(), id, "", name, payload))
}

func (r *recorder) update(t *testing.T, id, name string) {
	handle, err := r.client.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: name, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(t, err)
	var s Status
	require.NoError(t, handle.Get(t.Context(), &s))
	require.Contains(t, []string{id, ""}, s.Component) // a bootstrap is none
}

func (r *recorder) until(t *testing.T, id string, done func(Status) bool) {
	t.Helper()
	var s Status
	require.Eventually(t, func() bool {
		value, err := r.client.QueryWorkflow(t.Context(), id, "", QueryStatus)
		s = Status{} // what is not said is not so any more
		return err == nil && value.Get(&s) == nil && done(s)
	}, 30*time.Second, 50*time.Millisecond, "%s: %+v", id, &s)
}

func (r *recorder) reaches(t *testing.T, id string, phase Phase) {
	t.Helper()
	r.until(t, id, func(s Status) bool { return s.Phase == phase })
}

// beats waits until an activity of a workflow has sent heartbeats for a second.
func (r *recorder) beats(t *testing.T, id string) {
	t.Helper()
	require.Eventually(t, func() bool {
		d, err := r.client.DescribeWorkflowExecution(t.Context(), id, "")
		return err == nil && slices.ContainsFunc(d.GetPendingActivities(), func(a *workflowpb.PendingActivityInfo) bool {
			return a.GetLastHeartbeatTime().AsTime().Sub(a.GetLastStartedTime().AsTime()) > time.Second
		})
	}, 30*time.Second, 50*time.Millisecond, "%s sends no heartbeats", id)
}

func (r *recorder) runID(t *testing.T, id string) string {
	d, err := r.client.DescribeWorkflowExecution(t.Context(), id, "")
	require.NoError(t, err)
	return d.GetWorkflowExecutionInfo().GetExecution().GetRunId()
}

func (r *recorder) history(t *testing.T, id string) *historypb.History { return r.historyOf(t, id, "") }

func (r *recorder) historyOf(t *testing.T, id, run string) *historypb.History {
	h := &historypb.History{}
	events := r.client.GetWorkflowHistory(t.Context(), id, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		e, err := events.Next()
		require.NoError(t, err)
		h.Events = append(h.Events, e)
	}
	return h
}

func (r *recorder) save(t *testing.T, id, name string) { r.saveRun(t, id, "", name) }

// ends waits for the good end of a workflow.
func (r *recorder) ends(t *testing.T, id string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return r.client.GetWorkflow(t.Context(), id, "").Get(t.Context(), nil) == nil
	}, 30*time.Second, 50*time.Millisecond, "%s does not end", id)
}

// saveRun waits for the end of a run and keeps its history.
func (r *recorder) saveRun(t *testing.T, id, run, name string) {
	require.Eventually(t, func() bool {
		d, err := r.client.DescribeWorkflowExecution(t.Context(), id, run)
		return err == nil && d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	}, 30*time.Second, 50*time.Millisecond, "%s does not end", id)
	release := os.Getenv("PERDURE_RECORD")
	if release == "" {
		return
	}
	data, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(r.historyOf(t, id, run))
	require.NoError(t, err)
	dir := filepath.Join("testdata", "replay", release)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), append(data, '\n'), 0o644))
}
