package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
)

const instanceID = "instance.default"

// instanceStatus is what the tests read of an instance's status.
type instanceStatus struct {
	Phase       string
	SpecVersion int
	Components  []instanceComponent
	Failing     []string
	Problems    []struct{ Component, Code, Message string }
	Commands    []struct{ Name, Outcome, Error string }
	Breaker     struct{ Failures int }
	History     struct{ Events int }
}

type instanceComponent struct {
	ID, Desired, Phase string
	SpecVersion        int
	Error              *struct{ Code, Message, Fix string }
}

func (s *system) awaitInstance(what string, bound time.Duration, want func(instanceStatus) bool) instanceStatus {
	s.t.Helper()
	var st instanceStatus
	eventually(s.t, bound, "instance "+what, func() error {
		st = instanceStatus{}
		if err := s.statusInto(instanceID, &st); err != nil {
			return err
		}
		if !want(st) {
			return fmt.Errorf("status is %+v", st)
		}
		return nil
	})
	return st
}

func inPhase(phase string) func(instanceStatus) bool {
	return func(st instanceStatus) bool { return st.Phase == phase }
}

// ordersInstance is the instance of the shared source and query, with reactions.
func ordersInstance(s *system, reactions ...string) object {
	spec := object{"sources": []any{sourceInput(s)["spec"]}, "queries": []any{queryInput()["spec"]}}
	all := []object{}
	for _, name := range reactions {
		all = append(all, object{"name": name, "kind": "log", "queries": []string{"open-orders"}})
	}
	spec["reactions"] = all
	return spec
}

func TestInstanceFromOneStart(t *testing.T) {
	s := newSystem(t)
	execSQL(t, s.connect(), schema)
	s.startComponent("Instance", instanceID, object{"spec": ordersInstance(s, "print")})
	st := s.awaitInstance("running", 2*time.Minute, inPhase("Running"))
	require.Len(t, st.Components, 3)
	require.Empty(t, st.Failing)
	s.requireEqualsSQL(nil, 30*time.Second)

	s.signal(instanceID, "stop")
	s.awaitInstance("stopped", 2*time.Minute, inPhase("Stopped"))
	s.awaitPhase("query.default.open-orders", "Stopped", time.Second)
	execSQL(t, s.connect(), `UPDATE orders SET total = total + 1`)
	s.signal(instanceID, "resume")
	s.awaitInstance("running again", time.Minute, inPhase("Running"))
	s.requireEqualsSQL(nil, 30*time.Second)

	// One component changes, one is new, and one is gone.
	generation := s.generation("source.default.shop")
	spec := ordersInstance(s, "write")
	spec["queries"].([]any)[0].(object)["query"] = cypher + " ORDER BY customer"
	s.apply(spec)
	st = s.awaitInstance("with another spec", time.Minute, func(st instanceStatus) bool {
		return st.Phase == "Running" && st.SpecVersion == 2 && len(st.Components) == 3
	})
	for _, c := range st.Components {
		require.Equal(t, map[string]int{"source.default.shop": 1, "query.default.open-orders": 2, "reaction.default.write": 1}[c.ID], c.SpecVersion, c.ID)
	}
	s.requireClosed("reaction.default.print")
	require.Equal(t, generation, s.generation("source.default.shop"), "what is as it was has not been started anew")

	s.signal(instanceID, "delete")
	for _, id := range []string{instanceID, "source.default.shop", "query.default.open-orders", "reaction.default.write"} {
		s.requireClosed(id)
	}
	requireSlots(t, s, 0)
}

// generation is how often a component was started.
func (s *system) generation(id string) uint64 {
	s.t.Helper()
	var st struct{ Generation uint64 }
	require.NoError(s.t, s.statusInto(id, &st))
	require.NotZero(s.t, st.Generation)
	return st.Generation
}

// apply sends an instance another spec with tctl.
func (s *system) apply(spec object) {
	s.t.Helper()
	payload, err := json.Marshal(object{"spec": spec})
	require.NoError(s.t, err)
	s.signal(instanceID, "apply", string(payload))
}

func (s *system) requireClosed(id string) {
	s.t.Helper()
	c := s.client()
	eventually(s.t, 2*time.Minute, id+" closed", func() error {
		described, err := c.DescribeWorkflowExecution(s.context(10*time.Second), id, "")
		if err == nil && described.GetWorkflowExecutionInfo().GetCloseTime() == nil {
			err = fmt.Errorf("it runs")
		}
		return err
	})
}

// The tenth component's workflow is one that no worker serves.
func TestOneOfTenComponentsDoesNotStop(t *testing.T) {
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	names := make([]string, 8) // with the source and the query ten
	for n := range names {
		names[n] = fmt.Sprintf("print-%d", n)
	}
	s.startComponent("Instance", instanceID, object{"spec": ordersInstance(s, names...)})
	s.awaitInstance("running", 2*time.Minute, inPhase("Running"))

	const lame = "reaction.default.print-7"
	c := s.client()
	require.NoError(t, c.TerminateWorkflow(s.context(10*time.Second), lame, "", "for the test"))
	_, err := c.ExecuteWorkflow(s.context(10*time.Second), client.StartWorkflowOptions{ID: lame, TaskQueue: "nobody"}, "Reaction")
	require.NoError(t, err)
	s.signal(instanceID, "stop")
	st := s.awaitInstance("degraded, with nine stopped", 3*time.Minute, func(st instanceStatus) bool {
		stopped := 0
		for _, c := range st.Components {
			if c.Phase == "Stopped" {
				stopped++
			}
		}
		return st.Phase == "Degraded" && stopped == 9 && st.Breaker.Failures > 0
	})
	require.Equal(t, []string{lame}, st.Failing)
	for _, c := range st.Components {
		if c.ID == lame {
			require.Equal(t, "ComponentSilent", c.Error.Code)
			continue
		}
		require.Equal(t, "Stopped", s.awaitPhase(c.ID, "Stopped", 10*time.Second).Phase)
	}

	// Mended, it obeys like the others.
	require.NoError(t, c.TerminateWorkflow(s.context(10*time.Second), lame, "", "for the test"))
	s.signal(instanceID, "resume")
	s.awaitInstance("running again", time.Minute, inPhase("Running"))

	const gone = "reaction.default.print-3"
	require.NoError(t, c.TerminateWorkflow(s.context(10*time.Second), gone, "", "for the test"))
	st = s.awaitInstance("without a component", time.Minute, inPhase("Degraded"))
	require.Equal(t, []string{gone}, st.Failing)
	for _, c := range st.Components {
		if c.ID == gone {
			require.Equal(t, "Missing", c.Phase)
			require.Equal(t, "ComponentMissing", c.Error.Code)
		}
	}

	// What somebody started in its place does not do what a reaction does.
	_, err = c.ExecuteWorkflow(s.context(10*time.Second), client.StartWorkflowOptions{ID: gone, TaskQueue: "perdure"}, "Source")
	require.NoError(t, err)
	s.signal(instanceID, "resume")
	s.awaitInstance("with a component that refuses", time.Minute, func(st instanceStatus) bool {
		return slices.ContainsFunc(st.Components, func(c instanceComponent) bool {
			return c.ID == gone && c.Error != nil && c.Error.Code == "ComponentRefused"
		})
	})
	require.NoError(t, c.TerminateWorkflow(s.context(10*time.Second), gone, "", "for the test"))
	s.signal(instanceID, "resume")
	s.awaitInstance("with all components", time.Minute, inPhase("Running"))
}

func requireSlots(t *testing.T, s *system, want int) {
	t.Helper()
	eventually(t, 10*time.Second, "slots and publications", func() error {
		var slots, publications int
		err := s.connect().QueryRow(s.context(10*time.Second), `SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()),
			(SELECT count(*) FROM pg_publication)`).Scan(&slots, &publications)
		if err == nil && (slots != want || publications != want) {
			err = fmt.Errorf("%d slots, %d publications", slots, publications)
		}
		return err
	})
}
