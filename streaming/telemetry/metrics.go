package telemetry

import (
	"cmp"
	"math"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are what a process counts and measures, as Prometheus reads it. Names are perdure_<subsystem>_<name>_<unit>, in
// seconds and bytes; metrics.md lists them. The series of a component are there while it runs in this process. All
// methods are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	factory  promauto.Factory

	mu      sync.Mutex          // guards what Measure adds
	vectors map[string][]vector // by the last of their labels

	counters   map[string]*prometheus.CounterVec
	gauges     map[string]*prometheus.GaugeVec
	histograms map[string]*prometheus.HistogramVec
}

// vector is a metric with its series.
type vector interface {
	Delete(prometheus.Labels) bool
}

// Labels of the series of each kind of component. The last one tells the kinds apart.
var (
	sourceLabels   = []string{KeyInstance, KeySource}
	queryLabels    = []string{KeyInstance, KeyQuery}
	reactionLabels = []string{KeyInstance, KeyReaction}
	copyLabels     = []string{KeyInstance, KeySource, "copied_for"}
)

// latencies are the bounds of histograms of times, in seconds: from what an idle pipeline takes to what makes people call.
var latencies = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300}

// NewMetrics returns metrics without series; version is that of the build.
func NewMetrics(version string) *Metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := &Metrics{
		registry: registry, factory: promauto.With(registry), vectors: make(map[string][]vector),
		counters: make(map[string]*prometheus.CounterVec), gauges: make(map[string]*prometheus.GaugeVec),
		histograms: make(map[string]*prometheus.HistogramVec),
	}
	m.factory.NewGauge(prometheus.GaugeOpts{
		Name: "perdure_build_info", Help: "1, with the version of the build.", ConstLabels: prometheus.Labels{"version": version},
	}).Set(1)
	m.counter("source_changes_total", "Changes written to the change log.", sourceLabels)
	m.counter("source_transactions_total", "Transactions written to the change log.", sourceLabels)
	m.counter("source_dead_letters_total", "Records that could not be decoded.", sourceLabels)
	m.gauge("source_lag_seconds", "Time from the commit of the last transaction until it was in the change log; 0 when there was none for a second.", sourceLabels)
	m.gauge("source_queue_bytes", "Encoded changes that wait for the change log.", sourceLabels)
	m.counter("snapshot_rows_total", "Rows copied for bootstraps.", copyLabels)
	m.counter("query_changes_total", "Changes applied.", queryLabels)
	m.counter("query_events_total", "Events published.", queryLabels)
	m.histogram("query_apply_seconds", "Time that applying a batch of transactions took.", queryLabels)
	m.histogram("query_lag_seconds", "Time from the commit of a batch's last transaction until it was applied.", queryLabels)
	m.gauge("query_result_rows", "Rows of the result set.", queryLabels)
	m.gauge("query_failed_rows", "Rows that are left out because an expression fails.", queryLabels)
	m.gauge("query_state_elements", "Elements that the query keeps.", queryLabels)
	m.gauge("query_state_bytes", "Size of the query's state.", queryLabels)
	m.gauge("query_queue_bytes", "Encoded events that wait for the result log.", queryLabels)
	m.counter("reaction_deliveries_total", "Events delivered.", reactionLabels)
	m.counter("reaction_attempts_total", "Tries to deliver an event.", reactionLabels)
	m.counter("reaction_dead_letters_total", "Events that their target refused for good.", reactionLabels)
	m.histogram("reaction_delivery_seconds", "Time that delivering an event took, with all tries.", reactionLabels)
	m.histogram("reaction_end_to_end_seconds", "Time from the commit of a transaction until its event was delivered.", reactionLabels)
	return m
}

func (m *Metrics) counter(name, help string, labels []string) {
	v := m.factory.NewCounterVec(prometheus.CounterOpts{Name: "perdure_" + name, Help: help}, labels)
	m.counters[name] = v
	m.add(labels, v)
}

func (m *Metrics) gauge(name, help string, labels []string) {
	v := m.factory.NewGaugeVec(prometheus.GaugeOpts{Name: "perdure_" + name, Help: help}, labels)
	m.gauges[name] = v
	m.add(labels, v)
}

func (m *Metrics) histogram(name, help string, labels []string) {
	v := m.factory.NewHistogramVec(prometheus.HistogramOpts{Name: "perdure_" + name, Help: help, Buckets: latencies}, labels)
	m.histograms[name] = v
	m.add(labels, v)
}

func (m *Metrics) add(labels []string, v vector) {
	kind := labels[len(labels)-1]
	m.vectors[kind] = append(m.vectors[kind], v)
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.InstrumentMetricHandler(m.registry, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
}

// series are those of one component.
type series struct {
	metrics *Metrics
	kind    string
	labels  prometheus.Labels
}

func (m *Metrics) series(labels []string, values ...string) series {
	s := series{m, labels[len(labels)-1], make(prometheus.Labels, len(labels))}
	for i, l := range labels {
		s.labels[l] = values[i]
	}
	return s
}

func (s series) counter(name string) prometheus.Counter {
	return s.metrics.counters[name].With(s.labels)
}

func (s series) gauge(name string) prometheus.Gauge {
	s.metrics.mu.Lock()
	defer s.metrics.mu.Unlock()
	return s.metrics.gauges[name].With(s.labels)
}

func (s series) histogram(name string) prometheus.Observer {
	return s.metrics.histograms[name].With(s.labels)
}

// Close removes the series, when the component does not run here any more.
func (s series) Close() {
	s.metrics.mu.Lock()
	defer s.metrics.mu.Unlock()
	for _, v := range s.metrics.vectors[s.kind] {
		v.Delete(s.labels)
	}
}

// Source is what is measured of a source.
type Source struct {
	series
	Changes, Transactions, DeadLetters prometheus.Counter
	Lag, Queue                         prometheus.Gauge
}

// Source returns the series of a source.
func (m *Metrics) Source(instance, name string) *Source {
	s := m.series(sourceLabels, instance, name)
	return &Source{
		series: s, Changes: s.counter("source_changes_total"), Transactions: s.counter("source_transactions_total"),
		DeadLetters: s.counter("source_dead_letters_total"), Lag: s.gauge("source_lag_seconds"), Queue: s.gauge("source_queue_bytes"),
	}
}

// measureHelp says what the names mean that sources use for what they alone can measure.
var measureHelp = map[string]string{
	"source_lag_bytes":                     "WAL that the server has written and we have not confirmed.",
	"source_catalog_xmin_age_transactions": "Transactions since the oldest whose catalog rows vacuum must keep for the replication slot.",
	"source_wal_retained_bytes":            "WAL that the server keeps for the replication slot.",
	"source_wal_growth_bytes_per_second":   "How fast what the server keeps for the replication slot grows.",
	"source_wal_safe_bytes":                "WAL that may be written before the server gives the replication slot up.",
	"source_wal_safe_seconds":              "Time until the server gives the replication slot up, if what it keeps goes on growing like this.",
}

// Measure sets a number that only the source can know, as perdure_source_<name>. What is not a number removes it.
func (s *Source) Measure(name string, value float64) {
	m := s.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	name = "source_" + name
	if m.gauges[name] == nil {
		m.gauge(name, cmp.Or(measureHelp[name], "What the source measures."), sourceLabels)
	}
	if math.IsNaN(value) {
		m.gauges[name].Delete(s.labels)
		return
	}
	m.gauges[name].With(s.labels).Set(value)
}

// Query is what is measured of a query.
type Query struct {
	series
	Changes, Events                          prometheus.Counter
	Apply, Lag                               prometheus.Observer
	Rows, FailedRows, Elements, Bytes, Queue prometheus.Gauge
}

// Query returns the series of a query.
func (m *Metrics) Query(instance, name string) *Query {
	s := m.series(queryLabels, instance, name)
	return &Query{
		series: s, Changes: s.counter("query_changes_total"), Events: s.counter("query_events_total"),
		Apply: s.histogram("query_apply_seconds"), Lag: s.histogram("query_lag_seconds"), Rows: s.gauge("query_result_rows"),
		FailedRows: s.gauge("query_failed_rows"), Elements: s.gauge("query_state_elements"), Bytes: s.gauge("query_state_bytes"),
		Queue: s.gauge("query_queue_bytes"),
	}
}

// Reaction is what is measured of a reaction.
type Reaction struct {
	series
	Deliveries, Attempts, DeadLetters prometheus.Counter
	Delivery, EndToEnd                prometheus.Observer
}

// Reaction returns the series of a reaction.
func (m *Metrics) Reaction(instance, name string) *Reaction {
	s := m.series(reactionLabels, instance, name)
	return &Reaction{
		series: s, Deliveries: s.counter("reaction_deliveries_total"), Attempts: s.counter("reaction_attempts_total"),
		DeadLetters: s.counter("reaction_dead_letters_total"), Delivery: s.histogram("reaction_delivery_seconds"),
		EndToEnd: s.histogram("reaction_end_to_end_seconds"),
	}
}

// Copied counts rows that were copied for a bootstrap.
func (m *Metrics) Copied(instance, query, source string) prometheus.Counter {
	return m.series(copyLabels, instance, source, query).counter("snapshot_rows_total")
}
