package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

// TestCyclesEndWhereTheyBegan starts, stops and deletes a source, a query and a reaction again and again. What that leaves
// behind would grow. PERDURE_CYCLES says how often; the long form is 500.
func TestCyclesEndWhereTheyBegan(t *testing.T) {
	cycles := numberOf(t, "PERDURE_CYCLES", 10)
	s := newSystem(t, apart(t), externalWorkers)
	execSQL(t, s.connect(), schema)
	port := freePorts(t, 1)[0]
	s.env = append(s.env, fmt.Sprintf("PERDURE_LISTEN=127.0.0.1:%d", port))
	s.startWorker("worker")
	c := s.client()
	cycle := func(n int) {
		spec := ordersInstance(s, fmt.Sprintf("print-%d", n)) // other names each time: what is left of each would add up
		source, query, reaction := spec["sources"].([]any)[0].(object), spec["queries"].([]any)[0].(object), spec["reactions"].([]object)[0]
		source["name"], query["name"] = fmt.Sprintf("shop-%d", n), fmt.Sprintf("open-%d", n)
		query["sources"], reaction["queries"] = []any{source["name"]}, []any{query["name"]}
		_, err := c.ExecuteWorkflow(s.context(20*time.Second), client.StartWorkflowOptions{ID: instanceID, TaskQueue: "perdure"}, "Instance",
			object{"spec": spec})
		require.NoError(t, err)
		s.instanceReaches(c, "Running")
		require.NoError(t, c.SignalWorkflow(s.context(10*time.Second), instanceID, "", "stop", nil))
		s.instanceReaches(c, "Stopped")
		require.NoError(t, c.SignalWorkflow(s.context(10*time.Second), instanceID, "", "delete", nil))
		require.NoError(t, c.GetWorkflow(s.context(60*time.Second), instanceID, "").Get(s.context(60*time.Second), nil))
	}
	cycle(0) // makes what is made once
	cycle(1)
	before, began := s.left(port), time.Now()
	for n := range cycles {
		cycle(2 + n)
		if n%50 == 49 {
			t.Logf("after %d cycles: %v", n+1, s.left(port).process)
		}
	}
	t.Logf("%d cycles took %s", cycles, time.Since(began).Round(time.Second))
	// Of all components that were deleted, one entry tells the highest generation. Consumers of readers that have ended,
	// and the notes of deleted keys, go after a while.
	maps.DeleteFunc(before.exact, func(what string, _ int) bool { return strings.HasPrefix(what, "entries of bucket ") })
	before.exact["entries of bucket placement"] = 1
	var after leftovers
	eventually(t, 3*time.Minute, "an end where it began", func() error {
		after = s.left(port)
		if !maps.Equal(before.exact, after.exact) {
			return fmt.Errorf("before: %v\nafter: %v", before.exact, after.exact)
		}
		// One of each cycle is more than that.
		for name, most := range map[string]float64{"go_goroutines": 9, "process_open_fds": 5, "go_memstats_next_gc_bytes": 32 << 20} {
			if grown := after.process[name] - before.process[name]; grown > most {
				return fmt.Errorf("%s grew by %v, from %v", name, grown, before.process[name])
			}
		}
		return nil
	})
	t.Logf("after %d cycles\nbefore: %v %v\nafter:  %v %v", cycles, before.exact, before.process, after.exact, after.process)
}

func (s *system) instanceReaches(c client.Client, phase string) {
	s.t.Helper()
	eventually(s.t, 2*time.Minute, instanceID+" in phase "+phase, func() error {
		value, err := c.QueryWorkflow(s.context(10*time.Second), instanceID, "", "status")
		if err != nil {
			return err
		}
		var st instanceStatus
		if err := value.Get(&st); err != nil || st.Phase != phase {
			return fmt.Errorf("status is %+v: %w", st, err)
		}
		return nil
	})
}

// leftovers are what there is outside of workflows: counted, and as far as a process may keep some, measured.
type leftovers struct {
	exact   map[string]int
	process map[string]float64 // the next collection's heap is a multiple of what is in use
}

var series = regexp.MustCompile(`(?m)^(go_goroutines|process_open_fds|go_memstats_next_gc_bytes) (\S+)$`)

func (s *system) left(metricsPort int) leftovers {
	s.t.Helper()
	ctx := s.context(30 * time.Second)
	l := leftovers{exact: map[string]int{}, process: map[string]float64{}}
	conn := s.connect()
	for what, sql := range map[string]string{
		"connections":  `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`,
		"slots":        `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`,
		"publications": `SELECT count(*) FROM pg_publication`,
	} {
		var n int
		require.NoError(s.t, conn.QueryRow(ctx, sql).Scan(&n))
		l.exact[what] = n
	}
	require.NoError(s.t, conn.Close(ctx))

	nc, err := nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", s.nats))
	require.NoError(s.t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(s.t, err)
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		l.exact["streams"]++
		l.exact["consumers"] += info.State.Consumers
		if name, isBucket := strings.CutPrefix(info.Config.Name, "KV_"); isBucket && name != "hosts" && info.State.Msgs > 0 {
			l.exact["entries of bucket "+name] = int(info.State.Msgs)
		}
	}
	require.NoError(s.t, streams.Err())
	require.NoError(s.t, filepath.WalkDir(filepath.Join(s.dir, "worker", "index"), func(_ string, _ os.DirEntry, err error) error {
		l.exact["index files"]++
		return err
	}))

	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", metricsPort))
	require.NoError(s.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	l.exact["series of components"] = strings.Count(string(text), `{instance="`)
	for _, m := range series.FindAllStringSubmatch(string(text), -1) {
		l.process[m[1]], err = strconv.ParseFloat(m[2], 64)
		require.NoError(s.t, err)
	}
	require.Len(s.t, l.process, 3)
	return l
}

// Fifty start the same component at once: one workflow runs, with one slot.
func TestStartingTheSameComponentAtOnce(t *testing.T) {
	s := newSystem(t)
	execSQL(t, s.connect(), schema)
	c := s.client()
	for id, start := range map[string]struct {
		workflowType string
		input        object
	}{
		"source.default.shop": {"Source", sourceInput(s)},
		instanceID:            {"Instance", object{"spec": ordersInstance(s, "print")}},
	} {
		runs := make([]string, 50)
		var wg sync.WaitGroup
		for n := range runs {
			wg.Go(func() {
				run, err := c.ExecuteWorkflow(s.context(60*time.Second), client.StartWorkflowOptions{ID: id, TaskQueue: "perdure"}, start.workflowType, start.input)
				if err == nil {
					runs[n] = run.GetRunID()
				}
			})
		}
		wg.Wait()
		require.NotEmpty(t, runs[0])
		require.Len(t, slices.Compact(runs), 1, "all got the same run")
	}
	s.instanceReaches(c, "Running")
	require.EqualValues(t, 1, s.awaitPhase("source.default.shop", "Running", 10*time.Second).Generation)
	requireSlots(t, s, 1)
	s.requireEqualsSQL(nil, 30*time.Second)
}

// controlInput is one command to a component.
type controlInput struct {
	name string
	base int // of a reconfigure
}

// controlOutput is its answer.
type controlOutput struct {
	refused     bool // naming the version of the spec
	desired     string
	specVersion int
}

type controlState struct {
	desired     string
	specVersion int
}

// controlModel is what a component does with commands, one after the other.
var controlModel = porcupine.Model{
	Init: func() any { return controlState{"Running", 1} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(controlState), input.(controlInput), output.(controlOutput)
		switch in.name {
		case "pause":
			s.desired = "Paused"
		case "stop":
			s.desired = "Stopped"
		case "resume":
			s.desired = "Running"
		case "reconfigure":
			if in.base != s.specVersion {
				return out.refused && out.specVersion == s.specVersion, s
			}
			s.specVersion++
		}
		return !out.refused && out.desired == s.desired && out.specVersion == s.specVersion, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// Fifty clients send commands to one component, and to one instance, of which Temporal takes ten at a time. What they are answered must be explained
// by the commands one after the other, each at some moment between being sent and being answered.
func TestCommandsAtOnceAreALegalSequence(t *testing.T) {
	s := newSystem(t)
	execSQL(t, s.connect(), schema)
	c := s.client()
	s.startComponent("Instance", instanceID, object{"spec": ordersInstance(s, "print")})
	s.awaitInstance("running", 2*time.Minute, inPhase("Running"))
	const alone = "reaction.default.alone"
	reactionSpec := func(n int) object {
		return object{"name": "alone", "kind": "log", "queries": []string{"open-orders"}, "policy": object{"drainSeconds": 1 + n}}
	}
	s.startComponent("Reaction", alone, object{"spec": reactionSpec(0)})
	s.awaitPhase(alone, "Running", time.Minute)
	for id, respec := range map[string]struct {
		name string
		spec func(int) object
	}{
		alone: {"reconfigure", reactionSpec},
		instanceID: {"apply", func(n int) object {
			spec := ordersInstance(s, "print")
			spec["reactions"].([]object)[0]["policy"] = object{"drainSeconds": 1 + n}
			return spec
		}},
	} {
		t.Run(id, func(t *testing.T) {
			began := time.Now()
			histories := make([][]porcupine.Operation, 50)
			places := make(chan struct{}, 10)
			var wg sync.WaitGroup
			for client := range histories {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(8, uint64(client)))
					version := 1
					for n := range 4 {
						in := controlInput{name: []string{"pause", "stop", "resume", "reconfigure"}[rnd.IntN(4)]}
						payload, name := object{}, in.name
						if name == "reconfigure" {
							in.base, name = version, respec.name
							payload = object{"spec": respec.spec(1 + client*10 + n), "baseSpecVersion": version}
						}
						places <- struct{}{}
						called := time.Since(began)
						out, err := s.update(c, id, name, payload)
						returned := time.Since(began)
						<-places
						if out.specVersion > 0 {
							version = out.specVersion
						}
						if err != nil {
							t.Errorf("%s was not answered: %s", name, err)
							return
						}
						histories[client] = append(histories[client], porcupine.Operation{
							ClientId: client, Input: in, Call: int64(called), Output: out, Return: int64(returned),
						})
					}
				})
			}
			wg.Wait()
			history := slices.Concat(histories...)
			taken := map[string]int{}
			for _, op := range history {
				taken[fmt.Sprintf("%s refused=%t", op.Input.(controlInput).name, op.Output.(controlOutput).refused)]++
			}
			t.Logf("%d commands in %s: %v", len(history), time.Since(began).Round(time.Millisecond), taken)
			require.Positive(t, taken["reconfigure refused=false"])
			require.Positive(t, taken["reconfigure refused=true"])
			require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(controlModel, history, 2*time.Minute))
		})
	}
}

// update sends a command and waits for its answer.
func (s *system) update(c client.Client, id, name string, payload object) (controlOutput, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	options := client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: name, Args: []any{payload}, WaitForStage: client.WorkflowUpdateStageCompleted,
	}
	handle, err := c.UpdateWorkflow(ctx, options)
	var notReady *serviceerror.WorkflowNotReady
	for errors.As(err, &notReady) { // it was about to continue as new, and has not seen the command
		handle, err = c.UpdateWorkflow(ctx, options)
	}
	var out controlOutput
	if err == nil {
		var st struct {
			Desired     string
			SpecVersion int
		}
		err = handle.Get(ctx, &st)
		out.desired, out.specVersion = st.Desired, st.SpecVersion
	}
	var refused *temporal.ApplicationError
	if errors.As(err, &refused) {
		_, err = fmt.Sscanf(refused.Message(), "the spec is at version %d", &out.specVersion)
		out.refused = true
	}
	return out, err
}

// A reaction is started before its query, and the query is stopped under it. Each result is delivered once.
func TestReactionMissesNothingOfAQueryThatStops(t *testing.T) {
	s := newSystem(t)
	conn := s.connect()
	execSQL(t, conn, schema)
	output := filepath.Join(t.TempDir(), "lines")
	s.startComponent("Reaction", "reaction.default.lines", object{"spec": object{
		"name": "lines", "kind": "log", "queries": []string{"orders"}, "config": object{"output": output, "template": "{{after.id}}"},
	}})
	s.startComponent("Source", "source.default.shop", sourceInput(s))
	s.startComponent("Query", "query.default.orders", object{"spec": object{
		"name": "orders", "query": "MATCH (o:Order) RETURN o.id AS id", "sources": []string{"shop"},
	}})
	s.awaitPhase("query.default.orders", "Running", 2*time.Minute)

	inserting, stop := context.WithCancel(context.Background())
	inserted := make(chan error, 1)
	go func() {
		var err error
		for inserting.Err() == nil && err == nil {
			_, err = conn.Exec(context.Background(), `INSERT INTO orders (customer_id, total) SELECT 1, 1 FROM generate_series(1, 3)`)
		}
		inserted <- err
	}()
	for _, id := range []string{"query.default.orders", "reaction.default.lines", "query.default.orders"} {
		s.signal(id, "stop")
		s.awaitPhase(id, "Stopped", time.Minute)
		s.signal(id, "resume")
		s.awaitPhase(id, "Running", time.Minute)
	}
	stop()
	require.NoError(t, <-inserted)
	var want []string
	require.NoError(t, conn.QueryRow(s.context(10*time.Second), `SELECT array_agg(id::text) FROM orders`).Scan(&want))
	slices.Sort(want)
	var got []string
	eventually(t, 2*time.Minute, "each order once", func() error {
		text, err := os.ReadFile(output)
		if err != nil {
			return err
		}
		got = strings.Fields(string(text))
		if len(got) < len(want) {
			return fmt.Errorf("%d of %d", len(got), len(want))
		}
		return nil
	})
	slices.Sort(got)
	require.Equal(t, want, got)
	t.Logf("%d orders", len(want))
}

// What nobody can read is refused, visibly, and nothing else happens.
func TestMalformedSignalsAreVisible(t *testing.T) {
	s := newSystem(t)
	execSQL(t, s.connect(), schema)
	s.startComponent("Instance", instanceID, object{"spec": ordersInstance(s)})
	s.awaitInstance("running", 2*time.Minute, inPhase("Running"))
	for _, id := range []string{instanceID, "source.default.shop"} {
		s.signal(id, "stop", `[1, 2]`)
		s.signal(id, "pause", `{"reeson": "x"}`)
		s.signal(id, "pauze")
		var answers [][]struct{ Name, Outcome, Error string }
		eventually(t, 20*time.Second, "three refusals of "+id, func() error {
			out, err := s.tctl("workflow", "query", "-w", id, "--query_type", "commands")
			if err != nil {
				return err
			}
			if err := json.NewDecoder(strings.NewReader(out[max(0, strings.IndexByte(out, '[')):])).Decode(&answers); err != nil {
				return fmt.Errorf("decoding %s: %w", out, err)
			}
			if len(answers) != 1 || len(answers[0]) < 3 {
				return fmt.Errorf("commands are %+v", answers)
			}
			return nil
		})
		for n, want := range []string{"decoding the payload", `unknown field "reeson"`, `no command "pauze"`} {
			require.Equal(t, "rejected", answers[0][n].Outcome)
			require.Contains(t, answers[0][n].Error, want)
		}
	}
	s.awaitInstance("running still", 10*time.Second, inPhase("Running"))
}

// A query is deleted while the host with its state is gone. The state goes when the host comes back.
func TestDeletingAQueryWhoseHostIsGone(t *testing.T) {
	s := newSystem(t, apart(t), externalWorkers)
	execSQL(t, s.connect(), schema)
	index := filepath.Join(s.dir, "first", "index")
	states := func() []string {
		found, err := filepath.Glob(filepath.Join(index, "default", "open-orders", "*"))
		require.NoError(t, err)
		return found
	}
	first := s.startWorker("first")
	s.startComponent("Source", "source.default.shop", sourceInput(s))
	query := queryInput()
	query["spec"].(object)["policy"] = object{"drainSeconds": 1}
	s.startComponent("Query", "query.default.open-orders", query)
	s.awaitPhase("query.default.open-orders", "Running", 2*time.Minute)
	s.requireEqualsSQL(nil, 30*time.Second) // it has state
	require.NotEmpty(t, states())
	first.kill()

	s.startWorker("second")
	s.signal("query.default.open-orders", "delete")
	s.requireClosed("query.default.open-orders")
	require.NotEmpty(t, states(), "nobody could remove it")
	s.startWorker("first")
	eventually(t, time.Minute, "the state to be removed", func() error {
		if found := states(); len(found) > 0 {
			return fmt.Errorf("there is %v", found)
		}
		return nil
	})
	require.NoDirExists(t, filepath.Join(index, "default"))
}
