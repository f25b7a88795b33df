package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"google.golang.org/protobuf/proto"
)

// perdure runs the command line against the system and returns what it prints.
func (s *system) perdure(args ...string) (string, error) {
	return run(s.t, []string{
		fmt.Sprintf("NATS_URL=nats://127.0.0.1:%d", s.nats), fmt.Sprintf("TEMPORAL_ADDRESS=127.0.0.1:%d", s.temporal),
	}, "perdure", args...)
}

// file writes JSON for the command line to read.
func (s *system) file(content any) string {
	s.t.Helper()
	data, err := json.Marshal(content)
	require.NoError(s.t, err)
	file := filepath.Join(s.t.TempDir(), "spec.json")
	require.NoError(s.t, os.WriteFile(file, data, 0o600))
	return file
}

// put stores a spec and returns the reference to it.
func (s *system) put(spec any) string {
	s.t.Helper()
	out, err := s.perdure("spec", "put", s.file(spec))
	require.NoError(s.t, err)
	return strings.TrimSpace(out)
}

// storedSpecs are what perdure spec list shows, with what uses each.
func (s *system) storedSpecs() map[string]string {
	s.t.Helper()
	out, err := s.perdure("spec", "list", "--json")
	require.NoError(s.t, err)
	var list []struct {
		Ref    string
		UsedBy []string
	}
	require.NoError(s.t, json.Unmarshal([]byte(out), &list))
	stored := make(map[string]string)
	for _, spec := range list {
		stored[spec.Ref] = strings.Join(spec.UsedBy, " ")
	}
	return stored
}

// largeQuery is the shared query with so many bytes more.
func largeQuery(text string, more int) object {
	return object{"name": "open-orders", "query": text, "sources": []string{"shop"}, "parameters": object{"unused": strings.Repeat("x", more)}}
}

// specStatus is what the tests read of which spec a component has.
type specStatus struct {
	Phase, SpecRef string
	SpecVersion    int
	Commands       []struct{ Name, Outcome, Error, Fix string }
	Breaker        struct {
		LastError *struct{ Code, Message, Fix string }
	}
}

func (s *system) awaitSpec(id, what string, want func(specStatus) bool) (st specStatus) {
	s.t.Helper()
	eventually(s.t, 2*time.Minute, id+" "+what, func() error {
		st = specStatus{}
		if err := s.statusInto(id, &st); err != nil {
			return err
		}
		if !want(st) {
			return fmt.Errorf("status is %+v", st)
		}
		return nil
	})
	return st
}

func runningWith(version int, ref string) func(specStatus) bool {
	return func(st specStatus) bool {
		return st.Phase == "Running" && st.SpecVersion == version && st.SpecRef == ref
	}
}

func (s *system) runID(id string) string {
	s.t.Helper()
	described, err := s.client().DescribeWorkflowExecution(s.context(10*time.Second), id, "")
	require.NoError(s.t, err)
	return described.GetWorkflowExecutionInfo().GetExecution().GetRunId()
}

// renew has a workflow begin a new history, and returns the run before.
func (s *system) renew(id string) (before string) {
	s.t.Helper()
	before = s.runID(id)
	s.signal(id, "upgrade")
	eventually(s.t, time.Minute, id+" with a new history", func() error {
		if s.runID(id) == before {
			return fmt.Errorf("it goes on with the old one")
		}
		return nil
	})
	return before
}

const smallEvent = 16 << 10

func (s *system) requireSmallEvents(id, runID string) {
	s.t.Helper()
	events := s.client().GetWorkflowHistory(s.context(20*time.Second), id, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	seen := 0
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(s.t, err)
		require.Less(s.t, proto.Size(event), smallEvent, "%s: event %d, %s", id, event.GetEventId(), event.GetEventType())
		seen++
	}
	require.Greater(s.t, seen, 5)
}

// TestComponentBySpecRef: a query whose spec is too large for any input reads its source, gets another spec, goes on in
// another history and is deleted, and no event of any of its workflows is large.
func TestComponentBySpecRef(t *testing.T) {
	const id = "query.default.open-orders"
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	source := s.put(sourceInput(s))
	require.Equal(t, "shop@1", source)
	s.startComponent("Source", "source.default.shop", object{"specRef": source})
	first := s.put(largeQuery(cypher, 1<<20))
	require.Equal(t, first, s.put(object{"spec": largeQuery(cypher, 1<<20)}), "the same content has the same reference")
	s.startComponent("Query", id, object{"specRef": first})
	s.awaitSpec(id, "running", runningWith(1, first))
	s.requireEqualsSQL(nil, 30*time.Second)
	s.awaitSpec("source.default.shop", "running", runningWith(1, source))
	require.Equal(t, map[string]string{source: "source.default.shop", first: id}, s.storedSpecs())
	out, err := s.perdure("spec", "delete", first)
	require.ErrorContains(t, err, "is used by ["+id+"]", out)
	out, err = s.tctl("workflow", "query", "-w", id, "--query_type", "spec")
	require.NoError(t, err)
	require.Contains(t, out, "perdure spec get open-orders@1")
	require.NotContains(t, out, "xxxx")

	second := s.put(largeQuery(cypher+" ORDER BY customer", 1<<20))
	require.Equal(t, "open-orders@2", second)
	s.signal(id, "reconfigure", `{"specRef":"open-orders@2"}`)
	s.awaitSpec(id, "with another spec", runningWith(2, second))
	s.requireEqualsSQL(nil, 30*time.Second)
	s.signal(id, "reconfigure", `{"specRef":"open-orders@2"}`)
	for n, bad := range []struct{ payload, why string }{
		{`{"specRef":"open-orders@99"}`, "there is no spec open-orders@99"},
		{`{"specRef":"shop@1"}`, `the spec declares "query.default.shop"`},
		{`{"specRef":"open-orders"}`, "must be of the form name@version"},
		{`{"specRef":"open-orders@1","spec":{"name":"open-orders"}}`, "spec and specRef are both given"},
		{`{}`, "reconfigure needs a spec, or a specRef"},
	} {
		s.signal(id, "reconfigure", bad.payload)
		st := s.awaitSpec(id, "refusing "+bad.payload, func(st specStatus) bool { return len(st.Commands) == n+3 })
		last := st.Commands[n+2]
		require.Equal(t, "rejected", last.Outcome)
		require.Contains(t, last.Error, bad.why)
		require.True(t, runningWith(2, second)(st))
		if n < 3 {
			require.NotEmpty(t, last.Fix)
		}
	}
	st := s.awaitSpec(id, "", func(specStatus) bool { return true })
	require.Equal(t, []string{"applied", "noop"}, []string{st.Commands[0].Outcome, st.Commands[1].Outcome})
	s.signal(id, "pause")
	s.awaitPhase(id, "Paused", time.Minute)
	large, err := json.Marshal(object{"spec": largeQuery(cypher, 70<<10)})
	require.NoError(t, err)
	require.NoError(t, s.client().SignalWorkflow(s.context(10*time.Second), id, "", "reconfigure", json.RawMessage(large)))
	st = s.awaitSpec(id, "refusing a large payload", func(st specStatus) bool { return len(st.Commands) == 9 })
	require.Contains(t, st.Commands[8].Error, "the most is 65536")
	require.Contains(t, st.Commands[8].Fix, "perdure spec put")

	before := s.renew(id)
	s.signal(id, "resume")
	s.awaitSpec(id, "running in a new history", runningWith(2, second))
	s.requireEqualsSQL(nil, 30*time.Second)
	s.requireSmallEvents("bootstrap.default.open-orders.shop.1", "")
	for _, gone := range []string{id, "source.default.shop"} {
		after := s.runID(gone)
		s.signal(gone, "delete")
		s.requireClosed(gone)
		if gone != id {
			s.requireSmallEvents(gone, after)
		}
	}
	requireSlots(t, s, 0)
	// The large signal above is the client's, and in the old history; the new one has none.
	s.requireSmallEvents(id, "")
	require.NotEqual(t, before, s.runID(id))
	require.Equal(t, map[string]string{source: "", first: "", second: ""}, s.storedSpecs(), "what somebody stored is theirs to delete")
	_, err = s.perdure("spec", "delete", first)
	require.NoError(t, err)
	require.Len(t, s.storedSpecs(), 2)
}

// TestSpecRefThatCannotBeUsed needs an operator, who sends another.
func TestSpecRefThatCannotBeUsed(t *testing.T) {
	s := newSystem(t)
	execSQL(t, s.connect(), schema)
	for name, c := range map[string]struct {
		input object
		why   string
	}{
		"missing":   {object{"specRef": "shop@7"}, "there is no spec shop@7"},
		"malformed": {object{"specRef": "shop"}, "must be of the form name@version"},
		"both":      {object{"specRef": "shop@7", "spec": object{"name": "both"}}, "spec and specRef are both given"},
		"none":      {object{"desired": "Running"}, "give spec, or specRef"},
		"large":     {object{"spec": object{"name": "large", "kind": strings.Repeat("x", 70<<10)}}, "the most is 65536"},
	} {
		id := "source.default." + name
		s.startComponent("Source", id, c.input)
		st := s.awaitSpec(id, "needs an operator", func(st specStatus) bool { return st.Phase == "NeedsOperator" })
		require.Equal(t, "ConfigInvalid", st.Breaker.LastError.Code)
		require.Contains(t, st.Breaker.LastError.Message, c.why)
		require.NotEmpty(t, st.Breaker.LastError.Fix)
	}
	const id = "instance.default"
	s.startComponent("Instance", id, object{"specRef": "shop@7"})
	st := s.awaitSpec(id, "needs an operator", func(st specStatus) bool { return st.Phase == "NeedsOperator" })
	require.Contains(t, st.Breaker.LastError.Message, "there is no spec shop@7")

	input := sourceInput(s)
	input["spec"].(object)["name"] = "missing"
	s.signal("source.default.missing", "reconfigure", fmt.Sprintf(`{"specRef":%q}`, s.put(input)))
	s.awaitSpec("source.default.missing", "running", runningWith(2, "missing@1"))
	s.signal(id, "apply", fmt.Sprintf(`{"specRef":%q}`, s.put(object{"queries": []object{}})))
	s.awaitSpec(id, "running", runningWith(2, "default@1"))
}

// TestInstanceBySpecRef: users of perdure apply never see how large a spec may be.
func TestInstanceBySpecRef(t *testing.T) {
	const id, query = "instance.default", "query.default.open-orders"
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	apply := func(spec object) string {
		t.Helper()
		out, err := s.perdure("apply", s.file(spec))
		require.NoError(t, err)
		return out
	}
	spec := ordersInstance(s, "print")
	spec["queries"] = []object{largeQuery(cypher, 1<<20)}
	require.Contains(t, apply(spec), "instance.default started, version 1, stored as instance.default@1")
	st := s.awaitInstance("running", 2*time.Minute, inPhase("Running"))
	require.Len(t, st.Components, 3)
	s.requireEqualsSQL(nil, 30*time.Second)
	s.awaitSpec(query, "by reference", runningWith(1, query+"@1"))
	s.awaitSpec("source.default.shop", "with its spec", runningWith(1, ""))
	require.Equal(t, map[string]string{id + "@1": id, query + "@1": query}, s.storedSpecs())

	generations := []uint64{s.generation(query), s.generation("source.default.shop")}
	spec["reactions"] = ordersInstance(s, "write")["reactions"]
	require.Contains(t, apply(spec), "instance.default has another spec, version 2, stored as instance.default@2")
	require.Contains(t, apply(spec), "instance.default has this spec already, version 2")
	st = s.awaitInstance("with another reaction", time.Minute, func(st instanceStatus) bool {
		return st.Phase == "Running" && st.SpecVersion == 2 && len(st.Components) == 3
	})
	require.Equal(t, []string{"source.default.shop", query, "reaction.default.write"}, []string{st.Components[0].ID, st.Components[1].ID, st.Components[2].ID})
	require.Equal(t, generations, []uint64{s.generation(query), s.generation("source.default.shop")}, "what is as it was has not been started anew")
	require.Equal(t, map[string]string{id + "@2": id, query + "@1": query}, s.storedSpecs(), "what is no longer used is gone")

	before := s.renew(id)
	s.awaitInstance("running in a new history", time.Minute, inPhase("Running"))
	spec["queries"] = []object{largeQuery(cypher+" ORDER BY customer", 1<<20)}
	apply(spec)
	s.awaitSpec(query, "with another spec", runningWith(2, query+"@2"))
	s.awaitInstance("with another query", time.Minute, func(st instanceStatus) bool { return st.Phase == "Running" && st.SpecVersion == 3 })
	s.requireEqualsSQL(nil, 30*time.Second)
	eventually(t, 30*time.Second, "only specs in use", func() error {
		if stored := s.storedSpecs(); len(stored) != 2 || stored[id+"@3"] != id || stored[query+"@2"] != query {
			return fmt.Errorf("there are %v", stored)
		}
		return nil
	})
	s.signal(id, "delete")
	for _, gone := range []string{id, query, "source.default.shop", "reaction.default.write"} {
		s.requireClosed(gone)
		s.requireSmallEvents(gone, "")
	}
	s.requireSmallEvents(id, before)
	require.Empty(t, s.storedSpecs())
	requireSlots(t, s, 0)
}

// TestApplyWithoutAWorker says that nobody has looked at the spec yet; it is not lost.
func TestApplyWithoutAWorker(t *testing.T) {
	s := newSystem(t, apart(t), externalWorkers)
	execSQL(t, s.connect(), schema)
	out, err := s.perdure("apply", s.file(ordersInstance(s, "print")))
	require.NoError(t, err)
	require.Contains(t, out, "instance.default started, version 1; no worker has checked it within 10s")
	s.startWorker("worker")
	s.awaitInstance("running", 2*time.Minute, inPhase("Running"))
}
