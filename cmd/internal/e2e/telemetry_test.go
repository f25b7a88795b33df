package e2e

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/streaming/telemetry"
)

// collector receives spans as OpenTelemetry's collector does, over HTTP.
type collector struct {
	t   *testing.T
	url string

	mu    sync.Mutex
	spans []*tracepb.Span
	names map[string]bool // of the services
}

func newCollector(t *testing.T) *collector {
	c := &collector{t: t, names: make(map[string]bool)}
	server := httptest.NewServer(http.HandlerFunc(c.receive))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *collector) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var in collectorpb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &in)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL, err), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range in.GetResourceSpans() {
		c.names[attribute(resource.GetResource().GetAttributes(), "service.name")] = true
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf") // of an empty answer
}

func attribute(all []*commonpb.KeyValue, key string) string {
	for _, a := range all {
		if a.GetKey() == key {
			if text, ok := a.GetValue().GetValue().(*commonpb.AnyValue_StringValue); ok {
				return text.StringValue
			}
			return fmt.Sprint(a.GetValue().GetIntValue())
		}
	}
	return ""
}

// trace waits for the spans of a transaction, of which there is one for each stage, and returns them by name. Those that
// were received are forgotten.
func (c *collector) trace(position string, stages ...string) map[string]*tracepb.Span {
	c.t.Helper()
	id := telemetry.Transaction{Instance: "default", Source: "shop", Position: position}.TraceID()
	found := make(map[string]*tracepb.Span)
	eventually(c.t, 30*time.Second, "the trace of "+position, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.spans {
			if hex.EncodeToString(s.GetTraceId()) == id.String() {
				found[s.GetName()] = s
			}
		}
		for _, stage := range stages {
			if found[stage] == nil {
				return fmt.Errorf("no span %s among %d", stage, len(c.spans))
			}
		}
		c.spans = nil
		return nil
	})
	return found
}

// TestOneTraceFromPostgresToTheReaction runs the real programs with a collector that listens: a row becomes a trace, and
// what is delivered again after the process was killed has the ids that it had.
func TestOneTraceFromPostgresToTheReaction(t *testing.T) {
	c := newCollector(t)
	s := newSystem(t, func(s *system) {
		s.env = append(s.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_TRACES_SAMPLER_ARG=1", "OTEL_BSP_SCHEDULE_DELAY=50")
	})
	s.startOrders()
	output := filepath.Join(t.TempDir(), "lines")
	input, err := json.Marshal(object{"spec": object{"name": "print", "kind": "log", "queries": []string{"open-orders"}, "config": object{
		"output": output, "template": "{{sequence}} {{position}}",
	}}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "print.json")
	require.NoError(t, os.WriteFile(file, input, 0o600))
	s.startFromFile("Reaction", "reaction.default.print", file)
	s.awaitPhase("reaction.default.print", "Running", 30*time.Second)

	conn := s.connect()
	lsn := func() (at string) {
		require.NoError(t, conn.QueryRow(s.context(10*time.Second), "SELECT pg_current_wal_lsn()::text").Scan(&at))
		return at
	}
	before := lsn()
	execSQL(t, conn, `INSERT INTO orders (customer_id, total) VALUES (3, 99.90)`)
	after := lsn()
	var sequence, position string
	eventually(t, 30*time.Second, "the delivery", func() error {
		text, err := os.ReadFile(output)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		sequence, position, _ = strings.Cut(lines[len(lines)-1], " ")
		if at, err := pglogrepl.ParseLSN(position); err != nil || at <= mustLSN(t, before) {
			return fmt.Errorf("the last line is %q, not after %s: %w", lines[len(lines)-1], before, err)
		}
		return nil
	})
	require.LessOrEqual(t, mustLSN(t, position), mustLSN(t, after))
	trace := c.trace(position, "source", "query", "reaction")
	source, query, reaction := trace["source"], trace["query"], trace["reaction"]
	require.Empty(t, source.GetParentSpanId())
	require.Equal(t, source.GetSpanId(), query.GetParentSpanId())
	require.Equal(t, query.GetSpanId(), reaction.GetParentSpanId())
	for _, span := range trace {
		require.Equal(t, position, attribute(span.GetAttributes(), "position"))
		require.LessOrEqual(t, span.GetStartTimeUnixNano(), span.GetEndTimeUnixNano())
	}
	require.Equal(t, sequence, attribute(query.GetAttributes(), "sequence"))
	require.Equal(t, sequence, attribute(reaction.GetAttributes(), "sequence"))
	require.Equal(t, "postgresql", attribute(source.GetAttributes(), "db.system.name"))
	require.Equal(t, "delivered", attribute(reaction.GetAttributes(), "outcome"))
	require.Equal(t, map[string]bool{"perdure": true}, c.names)
	s.requireTemporalMetrics()

	s.dev.kill()
	s.startDev()
	s.awaitPhase("reaction.default.print", "Running", 60*time.Second)
	s.signal("reaction.default.print", "delete")
	s.awaitPhase("reaction.default.print", "Deleted", 60*time.Second)
	eventually(t, 30*time.Second, "the reaction starts again", func() error {
		_, err := s.tctl("workflow", "start", "--tq", "perdure", "--wt", "Reaction", "-w", "reaction.default.print", "--if", file)
		return err
	})
	again := c.trace(position, "reaction")["reaction"] // the first event that is kept and all that follow are delivered again
	require.Equal(t, reaction.GetSpanId(), again.GetSpanId())
	require.Equal(t, reaction.GetParentSpanId(), again.GetParentSpanId())
	require.NotEqual(t, reaction.GetEndTimeUnixNano(), again.GetEndTimeUnixNano())
	s.dev.terminate(t, 60*time.Second)
}

func mustLSN(t *testing.T, text string) pglogrepl.LSN {
	t.Helper()
	at, err := pglogrepl.ParseLSN(text)
	require.NoError(t, err)
	return at
}

// requireTemporalMetrics looks for what Temporal's SDK measures, and that its labels are bounded.
func (s *system) requireTemporalMetrics() {
	s.t.Helper()
	text := s.metrics()
	for _, series := range []string{
		"temporal_request_total{", "temporal_request_latency_seconds_bucket{", "temporal_workflow_task_execution_latency_seconds_count{",
		"temporal_activity_execution_latency_seconds_count{", "temporal_worker_task_slots_used{", `perdure_component_info{component="source.default.shop",phase="streaming"} 1`,
		`perdure_component_attempts_total{component="reaction.default.print"} 1`, `perdure_trace_spans_total{outcome="exported"}`,
	} {
		require.Contains(s.t, text, "\n"+series)
	}
	dashboard, err := os.ReadFile("../../../deploy/grafana/perdure.json")
	require.NoError(s.t, err)
	named := regexp.MustCompile(`temporal_[a-z_]+`).FindAllString(string(dashboard), -1)
	require.NotEmpty(s.t, named)
	for _, name := range named {
		require.Contains(s.t, text, "\n"+name+"{", "the dashboard shows it")
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "temporal_") {
			require.NotContains(s.t, line, "default.shop", "ids of workflows are no labels")
		}
	}
}

func (s *system) metrics() string {
	s.t.Helper()
	client := http.Client{Timeout: 20 * time.Second}
	response, err := client.Get(s.url("/metrics"))
	require.NoError(s.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	return string(text)
}

// TestACollectorThatIsDownDisturbsNothing: changes arrive, the loss is counted, and the stop is in time.
func TestACollectorThatIsDownDisturbsNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	require.NoError(t, err)
	defer listener.Close()
	s := newSystem(t, apart(t), func(s *system) {
		s.env = append(s.env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+listener.Addr().String(), "OTEL_TRACES_SAMPLER_ARG=1",
			"OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_EXPORTER_OTLP_TIMEOUT=200")
	})
	s.startOrders()
	f := s.follow("open-orders")
	execSQL(t, s.connect(), `INSERT INTO orders (customer_id, total) VALUES (3, 99.90)`)
	s.requireEqualsSQL(f, 30*time.Second)
	eventually(t, 60*time.Second, "dropped spans are counted", func() error {
		if !strings.Contains(s.metrics(), `perdure_trace_spans_total{outcome="failed"}`) {
			return fmt.Errorf("they are not")
		}
		return nil
	})
	s.dev.terminate(t, 60*time.Second)
}
