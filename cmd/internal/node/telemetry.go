package node

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"
	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/cmd/internal/version"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/telemetry"
)

// Telemetry is what a process tells of itself.
type Telemetry struct {
	Metrics  *telemetry.Metrics
	Traces   *telemetry.Traces     // nil: none
	Temporal client.MetricsHandler // makes the metrics of Temporal's SDK part of Metrics

	meters *sdkmetric.MeterProvider
	log    *zap.Logger
}

// NewTelemetry returns the telemetry of a process; Close ends it. OpenTelemetry's environment variables say where traces
// go; when they name no endpoint there are none. The ratio is that of the transactions that traces follow.
func NewTelemetry(ctx context.Context, host string, ratio float64, log *zap.Logger) (*Telemetry, error) {
	t := &Telemetry{Metrics: telemetry.NewMetrics(version.Get().Version), log: log}
	reader, err := prometheus.New(prometheus.WithRegisterer(t.Metrics.Registry()), prometheus.WithoutScopeInfo(), prometheus.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("taking in the metrics of Temporal's SDK: %w", err)
	}
	t.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(sdkmetric.NewView(
		sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: latencies}},
	)))
	t.Temporal = opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{
		Meter: t.meters.Meter("temporal"), UseMonotonicCounters: true,
		OnError: func(err error) { log.Warn("a metric of Temporal's SDK is missing", zap.Error(err)) },
	})
	if t.Traces, err = newTraces(ctx, host, ratio, t.Metrics, log); err != nil {
		return nil, errors.Join(err, t.meters.Shutdown(ctx))
	}
	return t, nil
}

// latencies are the bounds of the histograms of Temporal's SDK, in seconds. It has many of them.
var latencies = []float64{.005, .01, .05, .1, .5, 1, 5, 10, 60}

// newTraces returns nil when nobody wants traces.
func newTraces(ctx context.Context, host string, ratio float64, metrics *telemetry.Metrics, log *zap.Logger) (*telemetry.Traces, error) {
	wanted, err := wantsTraces(os.Getenv)
	if !wanted || err != nil || ratio == 0 {
		return nil, err
	}
	// What the environment says of the resource wins.
	from, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		semconv.ServiceName("perdure"), semconv.ServiceVersion(version.Get().Version), semconv.ServiceInstanceID(host),
	), resource.WithFromEnv())
	if err != nil {
		return nil, failure.ConfigInvalid.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, failure.ConfigInvalid.Errorf("setting up the export of traces: %w", err).WithFix("Correct the variables OTEL_EXPORTER_OTLP_*.")
	}
	return telemetry.NewTraces(telemetry.TraceOptions{Ratio: ratio, Exporter: exporter, Resource: from, Metrics: metrics, Log: log}), nil
}

// wantsTraces reports whether OpenTelemetry's environment variables name an endpoint for traces and do not turn them off.
// What they say that does not hold here is an error.
func wantsTraces(getenv func(string) string) (bool, error) {
	get := func(name string) string {
		if v := getenv("OTEL_EXPORTER_OTLP_TRACES_" + name); v != "" {
			return v
		}
		return getenv("OTEL_EXPORTER_OTLP_" + name)
	}
	endpoint := get("ENDPOINT")
	if endpoint == "" || strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false, nil
	}
	var problems []string
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		problems = append(problems, fmt.Sprintf("the endpoint must be a URL as http://host:4318, is %q", endpoint))
	}
	if protocol := get("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		problems = append(problems, fmt.Sprintf("the protocol must be http/protobuf, is %q", protocol))
	}
	if exporter := getenv("OTEL_TRACES_EXPORTER"); exporter != "" && exporter != "otlp" {
		problems = append(problems, fmt.Sprintf("the exporter must be otlp or none, is %q", exporter))
	}
	if problems != nil {
		return false, failure.ConfigInvalid.Errorf("traces: %s", strings.Join(problems, "; ")).
			WithFix("Correct the variables OTEL_*, or unset OTEL_EXPORTER_OTLP_ENDPOINT.")
	}
	return true, nil
}

// Close sends the spans that wait, for a bounded time. It is no failure when the collector does not take them.
func (t *Telemetry) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeBound)
	defer cancel()
	if err := errors.Join(t.Traces.Close(ctx), t.meters.Shutdown(ctx)); err != nil {
		t.log.Warn("spans are dropped: they were not sent in time", zap.Error(err))
	}
}

// components returns what the metrics show of the loops.
func (n *Node) components() []telemetry.Component { return componentsOf(n.loops.List()) }

// componentsOf shows each component once, as its newest loop is, which comes last.
func componentsOf(loops []activities.Loop) []telemetry.Component {
	all := make([]telemetry.Component, 0, len(loops))
	for i, l := range loops {
		if i+1 < len(loops) && loops[i+1].Component == l.Component {
			continue
		}
		c := telemetry.Component{
			ID: l.Component, Phase: l.Status.Phase, Since: l.Since, Silent: l.Silent, Stalled: l.Stalled, HeldUp: l.Status.Backpressure != "",
		}
		if in := l.Status.Intake; in != nil && in.LastError != nil {
			c.Interrupted, c.InterruptedBy = in.FailingSince, in.LastError.Code
		}
		all = append(all, c)
	}
	return all
}
