package telemetry

import (
	"cmp"
	"math"
	"net/http"
	"sync"
	"time"

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

	unwell unwell
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
	attemptLabels  = []string{KeyComponent}
	failureLabels  = []string{KeyComponent, "code"}
	spanLabels     = []string{"outcome"}
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
	m.gauge("source_log_bytes", "Size of the change log.", sourceLabels)
	m.gauge("source_log_limit_bytes", "Size of the change log at which its oldest messages are dropped.", sourceLabels)
	m.counter("snapshot_rows_total", "Rows copied for bootstraps.", copyLabels)
	m.gauge("snapshot_copied_rows", "Rows of the snapshot that are copied, while the bootstrap goes on.", copyLabels)
	m.gauge("snapshot_expected_rows", "Estimate of all rows of the snapshot, while the bootstrap goes on.", copyLabels)
	m.counter("query_changes_total", "Changes applied.", queryLabels)
	m.counter("query_events_total", "Events published.", queryLabels)
	m.histogram("query_apply_seconds", "Time that applying a batch of transactions took.", queryLabels)
	m.histogram("query_lag_seconds", "Time from the commit of a batch's last transaction until it was applied.", queryLabels)
	m.gauge("query_result_rows", "Rows of the result set.", queryLabels)
	m.gauge("query_failed_rows", "Rows that are left out because an expression fails.", queryLabels)
	m.gauge("query_state_elements", "Elements that the query keeps.", queryLabels)
	m.gauge("query_state_bytes", "Size of the query's state.", queryLabels)
	m.gauge("query_queue_bytes", "Encoded events that wait for the result log.", queryLabels)
	m.gauge("query_checkpoint_age_seconds", "Time since the newest checkpoint of the query's state was made; not there while there is none.", queryLabels)
	m.gauge("query_checkpoint_bytes", "Size of the newest checkpoint; not there while there is none.", queryLabels)
	m.histogram("query_checkpoint_seconds", "Time that storing a checkpoint took.", queryLabels)
	m.counter("query_checkpoint_uploaded_bytes_total", "Bytes of checkpoints that were sent, those left out that had been before.", queryLabels)
	m.counter("query_checkpoint_failures_total", "Checkpoints that failed and are tried again.", queryLabels)
	m.counter("query_restores_total", "Times that the state was restored from a checkpoint.", queryLabels)
	m.counter("reaction_deliveries_total", "Deliveries made: events, or rows where these are delivered one by one; where clients come for results, events that a client took.", reactionLabels)
	m.counter("reaction_attempts_total", "Tries to deliver, to each client where these come for results.", reactionLabels)
	m.counter("reaction_dead_letters_total", "Deliveries that went to the dead letters.", reactionLabels)
	m.gauge("reaction_dead_letters", "Dead letters that are neither retried nor dropped.", reactionLabels)
	m.gauge("reaction_breaker_open", "1 while the target fails and gets a try now and then only.", reactionLabels)
	m.gauge("reaction_queries_failed", "Queries whose results do not reach the reaction: they cannot be read, or do not exist.", reactionLabels)
	m.histogram("reaction_delivery_seconds", "Time that a delivery took, with all tries.", reactionLabels)
	m.histogram("reaction_end_to_end_seconds", "Time from the commit of a transaction until its event was delivered, to each client where these come for results.", reactionLabels)
	m.counter("component_attempts_total", "Attempts to run the component that began in this process.", attemptLabels)
	m.counter("component_failures_total", "Attempts to run the component, or to do something short for it such as checking its spec, that failed in this process, by the code of the failure; Stalled is one.", failureLabels)
	registry.MustRegister(&m.unwell)
	m.counter("trace_spans_total", "Spans of traces: exported; failed, which the collector did not take; full, which did not fit into the queue.", spanLabels)
	return m
}

// Registry holds all metrics. Those of others that it is given are served beside them.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

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
	Lag, Queue, Log, LogLimit          prometheus.Gauge
}

// Source returns the series of a source.
func (m *Metrics) Source(instance, name string) *Source {
	s := m.series(sourceLabels, instance, name)
	return &Source{
		series: s, Changes: s.counter("source_changes_total"), Transactions: s.counter("source_transactions_total"),
		DeadLetters: s.counter("source_dead_letters_total"), Lag: s.gauge("source_lag_seconds"), Queue: s.gauge("source_queue_bytes"),
		Log: s.gauge("source_log_bytes"), LogLimit: s.gauge("source_log_limit_bytes"),
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

	CheckpointTime                                   prometheus.Observer
	CheckpointUploaded, CheckpointFailures, Restores prometheus.Counter
}

// Query returns the series of a query.
func (m *Metrics) Query(instance, name string) *Query {
	s := m.series(queryLabels, instance, name)
	return &Query{
		series: s, Changes: s.counter("query_changes_total"), Events: s.counter("query_events_total"),
		Apply: s.histogram("query_apply_seconds"), Lag: s.histogram("query_lag_seconds"), Rows: s.gauge("query_result_rows"),
		FailedRows: s.gauge("query_failed_rows"), Elements: s.gauge("query_state_elements"), Bytes: s.gauge("query_state_bytes"),
		Queue:          s.gauge("query_queue_bytes"),
		CheckpointTime: s.histogram("query_checkpoint_seconds"), CheckpointUploaded: s.counter("query_checkpoint_uploaded_bytes_total"),
		CheckpointFailures: s.counter("query_checkpoint_failures_total"), Restores: s.counter("query_restores_total"),
	}
}

// Checkpoint says when the newest checkpoint of the state was made, and its size; a zero time says that there is none.
func (q *Query) Checkpoint(at time.Time, bytes int64) {
	const age, size = "query_checkpoint_age_seconds", "query_checkpoint_bytes"
	if !at.IsZero() {
		q.gauge(age).Set(time.Since(at).Seconds())
		q.gauge(size).Set(float64(bytes))
		return
	}
	q.metrics.mu.Lock()
	defer q.metrics.mu.Unlock()
	q.metrics.gauges[age].Delete(q.labels)
	q.metrics.gauges[size].Delete(q.labels)
}

// Reaction is what is measured of a reaction.
type Reaction struct {
	series
	Deliveries, Attempts, DeadLetters   prometheus.Counter
	Letters, BreakerOpen, QueriesFailed prometheus.Gauge
	Delivery, EndToEnd                  prometheus.Observer
}

// Reaction returns the series of a reaction.
func (m *Metrics) Reaction(instance, name string) *Reaction {
	s := m.series(reactionLabels, instance, name)
	return &Reaction{
		series: s, Deliveries: s.counter("reaction_deliveries_total"), Attempts: s.counter("reaction_attempts_total"),
		DeadLetters: s.counter("reaction_dead_letters_total"), Delivery: s.histogram("reaction_delivery_seconds"),
		EndToEnd: s.histogram("reaction_end_to_end_seconds"), Letters: s.gauge("reaction_dead_letters"),
		BreakerOpen: s.gauge("reaction_breaker_open"), QueriesFailed: s.gauge("reaction_queries_failed"),
	}
}

// Copied counts rows that were copied for a bootstrap.
func (m *Metrics) Copied(instance, query, source string) prometheus.Counter {
	return m.series(copyLabels, instance, source, query).counter("snapshot_rows_total")
}

// Snapshot is how far the copy of a snapshot for a bootstrap has come.
type Snapshot struct {
	series
	Rows, Expected prometheus.Gauge
}

// Snapshot returns the series of a snapshot.
func (m *Metrics) Snapshot(instance, query, source string) *Snapshot {
	s := m.series(copyLabels, instance, source, query)
	return &Snapshot{series: s, Rows: s.gauge("snapshot_copied_rows"), Expected: s.gauge("snapshot_expected_rows")}
}

// Close removes the series. What was copied here stays counted.
func (s *Snapshot) Close() {
	for _, name := range []string{"snapshot_copied_rows", "snapshot_expected_rows"} {
		s.metrics.gauges[name].Delete(s.labels)
	}
}

// Began counts an attempt to run a component. What is counted of attempts stays while the process lives: they are over
// when somebody asks.
func (m *Metrics) Began(component string) {
	m.counters["component_attempts_total"].WithLabelValues(component).Inc()
}

// Failed counts an attempt to run a component, or to do something short for it, that failed, with the code of its failure.
func (m *Metrics) Failed(component, code string) {
	m.counters["component_failures_total"].WithLabelValues(component, code).Inc()
}

// Component is how the loop of a component does that runs in this process.
type Component struct {
	ID      string
	Phase   string
	Since   time.Time     // when the attempt began
	Silent  time.Duration // since it last got on with its work, or looked and found none
	Stalled time.Duration // a silence after which it is ended
	HeldUp  bool          // by what comes after it

	// Interrupted is since when it has got nothing from the system before it, the zero time while it does, and InterruptedBy
	// the code of the last try's failure.
	Interrupted   time.Time
	InterruptedBy string
}

// Components shows the components that list returns at each scrape. It is called once.
func (m *Metrics) Components(list func() []Component) { m.registry.MustRegister(components(list)) }

// StreamSpace shows at each scrape whether the stream server is short of space. It is called once.
func (m *Metrics) StreamSpace(short func() bool) {
	m.factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "perdure_stream_space_short",
		Help: "1 while the disk of the embedded stream server is short of space, so that change logs and bootstrap logs are not appended to.",
	}, func() float64 {
		if short() {
			return 1
		}
		return 0
	})
}

// components implements prometheus.Collector.
type components func() []Component

func componentDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("perdure_component_"+name, help, append([]string{KeyComponent}, labels...), nil)
}

var (
	componentInfo    = componentDesc("info", "1 for each component that runs in this process, with what it is doing.", "phase")
	componentStart   = componentDesc("start_time_seconds", "When the attempt began, in Unix time.")
	componentSilent  = componentDesc("silent_seconds", "Time since the component got on with its work, or looked and found none.")
	componentStalled = componentDesc("stalled_seconds", "How long the component may be silent before it is restarted, as its policy says.")
	componentHeldUp  = componentDesc("held_up", "1 while the component waits for what comes after it.")

	componentInterrupted = componentDesc("interrupted_seconds", "Time since the component, a source, has got nothing from its system, with the code of the last try's failure; not there while it gets what there is.", "code")
)

// Describe implements prometheus.Collector.
func (components) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{componentInfo, componentStart, componentSilent, componentStalled, componentHeldUp, componentInterrupted} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (list components) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range list() {
		gauge := func(d *prometheus.Desc, value float64, labels ...string) {
			metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{c.ID}, labels...)...)
		}
		heldUp := 0.0
		if c.HeldUp {
			heldUp = 1
		}
		gauge(componentInfo, 1, c.Phase)
		gauge(componentStart, float64(c.Since.UnixMilli())/1000)
		gauge(componentSilent, max(0, c.Silent.Seconds()))
		gauge(componentStalled, c.Stalled.Seconds())
		gauge(componentHeldUp, heldUp)
		if !c.Interrupted.IsZero() {
			gauge(componentInterrupted, max(0, time.Since(c.Interrupted).Seconds()), c.InterruptedBy)
		}
	}
}
