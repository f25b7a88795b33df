package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/perdure/perdure/workflows"
)

// BenchmarkIdle starts pipelines of a source, a query and a reaction each, PERDURE_IDLE of them (20 when unset), on one
// worker and the embedded servers, and reports what they cost while nothing happens. Histories must not grow by more than
// 60 events a day for each. They share PERDURE_IDLE_SOURCES sources, if that is set.
func BenchmarkIdle(b *testing.B) {
	pipelines := numberOf(b, "PERDURE_IDLE", 20)
	sources := numberOf(b, "PERDURE_IDLE_SOURCES", pipelines)
	most := strconv.Itoa(2*pipelines + 50)
	for range b.N {
		s := newSystem(b, externalWorkers, ownPostgres(map[string]string{
			"max_replication_slots": most, "max_wal_senders": most, "max_connections": strconv.Itoa(4*pipelines + 100),
		}))
		s.env = append(s.env, "PERDURE_HEARTBEAT_RATE=20") // as much as the embedded server is good for
		worker := s.startWorker("worker")
		execSQL(b, s.connect(), schema)
		c := s.client()
		empty := worker.rss(b)
		began := time.Now()
		ids := startIdle(b, s, c, pipelines, sources)
		eventually(b, time.Hour, "all run", func() error { return allRun(c, &ids) })
		started := time.Since(began)
		ids = idsOfIdle(pipelines, sources)

		const look = time.Minute
		events := eventsOf(b, c, ids)
		eventually(b, time.Hour, "all have told where they run", func() error {
			pause(5 * time.Second)
			before := events
			if events = eventsOf(b, c, ids); events > before {
				return fmt.Errorf("%d events more", events-before)
			}
			return nil
		})
		cpu, server := cpuOf(b, worker), cpuOf(b, s.dev)
		pause(look)
		cpu, server = cpuOf(b, worker)-cpu, cpuOf(b, s.dev)-server
		events = eventsOf(b, c, ids) - events
		n := float64(pipelines)
		b.ReportMetric(started.Seconds(), "start-s")
		b.ReportMetric(float64(worker.rss(b)-empty)/n/(1<<20), "worker-MiB/pipeline")
		b.ReportMetric(float64(s.dev.rss(b))/n/(1<<20), "servers-MiB/pipeline")
		b.ReportMetric(cpu.Seconds()/look.Seconds()/n*1000, "worker-millicores/pipeline")
		b.ReportMetric(server.Seconds()/look.Seconds()/n*1000, "servers-millicores/pipeline")
		b.ReportMetric(float64(events)*60/n, "events/pipeline/h")
		require.LessOrEqual(b, float64(events)*24*60/n, 60.0, "events of each pipeline a day")
		worker.terminate(b, 90*time.Second)
	}
	b.ReportMetric(0, "ns/op")
}

func idsOfIdle(pipelines, sources int) (ids []string) {
	for i := range pipelines {
		if i < sources {
			ids = append(ids, fmt.Sprintf("source.default.idle-%d", i))
		}
		ids = append(ids, fmt.Sprintf("query.default.idle-%d", i), fmt.Sprintf("reaction.default.idle-%d", i))
	}
	return ids
}

func startIdle(b *testing.B, s *system, c client.Client, pipelines, sources int) []string {
	var group errgroup.Group
	group.SetLimit(16)
	start := func(kind, id string, spec object) {
		group.Go(func() error {
			input, err := json.Marshal(object{"spec": spec})
			if err != nil {
				return err
			}
			_, err = c.ExecuteWorkflow(s.context(time.Minute), client.StartWorkflowOptions{ID: id, TaskQueue: "perdure"}, kind, json.RawMessage(input))
			return err
		})
	}
	for i := range pipelines {
		name := fmt.Sprintf("idle-%d", i)
		if i < sources {
			source := sourceInput(s)["spec"].(object)
			source["name"] = name
			start(workflows.TypeSource, "source.default."+name, source)
		}
		read := []string{fmt.Sprintf("idle-%d", i%sources)}
		start(workflows.TypeQuery, "query.default."+name, object{"name": name, "query": cypher, "sources": read})
		start(workflows.TypeReaction, "reaction.default."+name, object{"name": name, "kind": "log", "queries": []string{name}, "config": object{"output": os.DevNull}})
	}
	require.NoError(b, group.Wait())
	return idsOfIdle(pipelines, sources)
}

// allRun takes those that run from ids, and fails while there are others.
func allRun(c client.Client, ids *[]string) error {
	for len(*ids) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		value, err := c.QueryWorkflow(ctx, (*ids)[0], "", workflows.QueryStatus)
		cancel()
		if err != nil {
			return err
		}
		var st status
		if err := value.Get(&st); err != nil {
			return err
		}
		if st.Phase != string(workflows.PhaseRunning) {
			return fmt.Errorf("%s is %s: %+v", st.Component, st.Phase, st.Breaker.LastError)
		}
		*ids = (*ids)[1:]
	}
	return nil
}

func eventsOf(b *testing.B, c client.Client, ids []string) (events int64) {
	b.Helper()
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		d, err := c.DescribeWorkflowExecution(ctx, id, "")
		cancel()
		require.NoError(b, err)
		events += d.GetWorkflowExecutionInfo().GetHistoryLength()
	}
	return events
}

// cpuOf returns the CPU time that a process has used.
func cpuOf(b *testing.B, p *process) time.Duration {
	b.Helper()
	return newCPU(b, p.cmd.Process.Pid).other
}
