package node

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
)

func TestTheEnvironmentDecidesAboutTraces(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for _, c := range []struct {
		env     map[string]string
		wanted  bool
		problem string
	}{
		{nil, false, ""},
		{map[string]string{endpoint: "http://127.0.0.1:4318"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, true, ""},
		{map[string]string{endpoint: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "TRUE"}, false, ""},
		{map[string]string{endpoint: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		{map[string]string{endpoint: "127.0.0.1:4318"}, false, `the endpoint must be a URL as http://host:4318, is "127.0.0.1:4318"`},
		{map[string]string{endpoint: "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "zipkin"}, false,
			`traces: the endpoint must be a URL as http://host:4318, is "x"; the protocol must be http/protobuf, is "grpc"; the exporter must be otlp or none, is "zipkin"`},
	} {
		wanted, err := wantsTraces(func(name string) string { return c.env[name] })
		require.Equal(t, c.wanted, wanted, "%v", c.env)
		if c.problem == "" {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
		require.ErrorContains(t, err, c.problem)
	}
}

func TestTracesAreOffUnlessWanted(t *testing.T) {
	tells, err := NewTelemetry(t.Context(), "h1", 1, zap.NewNop())
	require.NoError(t, err)
	require.Nil(t, tells.Traces)
	tells.Close()

	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	tells, err = NewTelemetry(t.Context(), "h1", 1, zap.NewNop())
	require.NoError(t, err)
	require.NotNil(t, tells.Traces)
	tells.Close()

	tells, err = NewTelemetry(t.Context(), "h1", 0, zap.NewNop())
	require.NoError(t, err)
	require.Nil(t, tells.Traces, "of no transaction")
	tells.Close()
}

// TestMetricsOfTheSDKAreServedBesideOurs with names as Prometheus wants them, and bounds in seconds.
func TestMetricsOfTheSDKAreServedBesideOurs(t *testing.T) {
	tells, err := NewTelemetry(t.Context(), "h1", 0, zap.NewNop())
	require.NoError(t, err)
	defer tells.Close()
	handler := tells.Temporal.WithTags(map[string]string{"task_queue": "perdure"})
	handler.Counter("temporal_worker_start").Inc(2)
	handler.Gauge("temporal_worker_task_slots_used").Update(3)
	handler.WithTags(map[string]string{"operation": "PollWorkflowTaskQueue"}).Timer("temporal_request_latency").Record(20_000_000)
	families, err := tells.Metrics.Registry().Gather()
	require.NoError(t, err)
	found := make(map[string]string)
	for _, f := range families {
		found[f.GetName()] = f.GetMetric()[0].String()
	}
	require.Contains(t, found["temporal_worker_start_total"], `counter:{value:2`)
	require.Contains(t, found["temporal_worker_task_slots_used"], `gauge:{value:3}`)
	require.Contains(t, found["temporal_request_latency_seconds"], `sample_sum:0.02`)
	require.Contains(t, found["temporal_request_latency_seconds"], `upper_bound:0.05`)
	require.Contains(t, found, "perdure_build_info")
}
