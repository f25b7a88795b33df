package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/workflows"
)

// TestTheControlPlaneIsAway takes the Temporal server away under load, and gives it back after PERDURE_AWAY: killed, it is
// started again on its data; frozen, connections to it stay open and nobody answers. The short form is longer than a
// heartbeat's timeout, so that the server then gives all that runs to new attempts; the long one is 5 minutes.
func TestTheControlPlaneIsAway(t *testing.T) {
	t.Run("killed", func(t *testing.T) { testAway(t, (*service).kill, (*service).up) })
	t.Run("frozen", func(t *testing.T) {
		testAway(t, func(s *service) { s.signal(syscall.SIGSTOP) }, func(s *service) { s.signal(syscall.SIGCONT) })
	})
}

func testAway(t *testing.T, take, give func(*service)) {
	ctx := t.Context()
	e, err := newEnvironment(ctx)
	require.NoError(t, err)
	t.Cleanup(e.close)
	away := length(t, "PERDURE_AWAY", 35*time.Second)
	watch := e.watch(ctx)
	c := e.startClients(ctx, 1)
	t.Cleanup(func() {
		c.close()
		watch.close()
		if t.Failed() {
			e.keep = true
			t.Logf("state and logs are in %s", e.dir)
		}
	})
	require.NoError(t, e.flows(ctx))
	commits, began := c.commits.Load(), time.Now()

	take(e.services[temporal])
	var longest time.Duration
	for asked := false; time.Since(began) < away; {
		looked := time.Now()
		require.NoError(t, e.flows(ctx), "after %s", time.Since(began))
		longest = max(longest, time.Since(looked))
		if !asked && time.Since(began) > away/2 {
			asked = true
			e.requireClearAnswers(t)
		}
	}
	t.Logf("away for %s: %d commits, and at most %s until all had what was written", round(time.Since(began)), c.commits.Load()-commits, round(longest))

	give(e.services[temporal])
	began = time.Now()
	for _, group := range e.components() {
		for _, c := range group {
			require.NoError(t, until(ctx, currentBound, c.id.String()+" runs", func() error { return e.isRunning(ctx, c.id) }))
		}
	}
	t.Logf("all is told to run after %s", round(time.Since(began)))
	for _, id := range []component.ID{
		{Kind: component.Source, Instance: component.DefaultInstance, Name: sourceName},
		{Kind: component.Query, Instance: component.DefaultInstance, Name: queries[0].name},
		{Kind: component.Reaction, Instance: component.DefaultInstance, Name: hookName},
	} {
		for _, step := range []struct {
			command string
			phase   workflows.Phase
		}{{workflows.CommandStop, workflows.PhaseStopped}, {workflows.CommandResume, workflows.PhaseRunning}} {
			_, err := e.tctl(ctx, "workflow", "signal", "-w", id.String(), "--name", step.command)
			require.NoError(t, err)
			require.NoError(t, until(ctx, time.Minute, id.String()+" after "+step.command, func() error {
				s, err := e.status(ctx, id)
				if err == nil && s.Phase != step.phase {
					err = fmt.Errorf("it is %s", s.Phase)
				}
				return err
			}))
		}
	}
	t.Logf("commands were obeyed after %s", round(time.Since(began)))
	c.close()
	require.NoError(t, e.check(ctx))
	watch.close()
	require.NoError(t, watch.err)
	require.Zero(t, e.builtAnew(), "results built anew")
	for _, s := range e.services {
		require.Empty(t, s.unasked(), "processes that ended by themselves")
	}
}

// flows waits until all that was written so far is in the results, with the clients that follow them, and with the hook.
func (e *environment) flows(ctx context.Context) error {
	before := make(map[string]uint64)
	for name, f := range e.followers {
		before[name], _, _ = f.State()
	}
	position, err := e.written(ctx)
	if err != nil {
		return err
	}
	if err := e.current(ctx, 20*time.Second, position); err != nil {
		return err
	}
	for name, f := range e.followers {
		if name == balance {
			continue // it never changes
		}
		err := until(ctx, 20*time.Second, "events of "+name+" with the client", func() error {
			if sequence, _, _ := f.State(); sequence <= before[name] {
				return fmt.Errorf("still %d", sequence)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// requireClearAnswers asks for what needs the control plane, which is away, and for what does not.
func (e *environment) requireClearAnswers(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	out, err := e.tctl(ctx, "workflow", "signal", "-w", "query.default."+queries[0].name, "--name", workflows.CommandStop)
	require.Error(t, err)
	require.Less(t, time.Since(began), 20*time.Second)
	t.Logf("tctl, after %s: %s", round(time.Since(began)), out)
	for _, api := range e.apis {
		for path, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/livez": http.StatusOK, "/api/v1/queries/" + queries[0].name + "/results": http.StatusOK} {
			began := time.Now()
			status, text, err := get(ctx, api+path)
			require.NoError(t, err, path)
			require.Less(t, time.Since(began), 20*time.Second, path)
			require.Equal(t, want, status, "%s: %.500s", path, text)
			t.Logf("%s, after %s: %.300s", path, round(time.Since(began)), text)
		}
	}
}

// tctl runs Temporal's command line against the server, past the proxies, and returns what it prints.
func (e *environment) tctl(ctx context.Context, args ...string) (string, error) {
	binary, err := built("tctl")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "TEMPORAL_CLI_ADDRESS="+e.direct(temporal), "TEMPORAL_CLI_NAMESPACE=default")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return string(out), err
}
