package telemetry

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Unwell is a component that fails or is degraded. Nothing of it need run in this process, nor anywhere.
type Unwell struct {
	ID     string
	Phase  string
	Health string // failing or degraded
}

// Unwell replaces the components that are known to be unwell.
func (m *Metrics) Unwell(list []Unwell) { m.unwell.set(list, true) }

// HealthUnknown says that it is not known which components are unwell. Those that were known last stay.
func (m *Metrics) HealthUnknown() { m.unwell.set(nil, false) }

// unwell implements prometheus.Collector. It is safe for concurrent use.
type unwell struct {
	mu    sync.Mutex
	asked bool // somebody found out, or tried to
	known bool
	list  []Unwell
}

func (u *unwell) set(list []Unwell, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked, u.known = true, known
	if known {
		u.list = list
	}
}

var (
	unwellDesc      = componentDesc("unwell", "1 for each component of the namespace that fails or is degraded, wherever it runs, also if it does not; each worker shows the same.", "phase", "health")
	healthKnownDesc = prometheus.NewDesc("perdure_component_health_known",
		"1 while this process knows which components are unwell; 0 when Temporal does not answer, or lacks the search attributes of components.", nil, nil)
)

// Describe implements prometheus.Collector.
func (u *unwell) Describe(descs chan<- *prometheus.Desc) {
	descs <- unwellDesc
	descs <- healthKnownDesc
}

// Collect implements prometheus.Collector.
func (u *unwell) Collect(metrics chan<- prometheus.Metric) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.asked {
		return
	}
	known := 0.0
	if u.known {
		known = 1
	}
	metrics <- prometheus.MustNewConstMetric(healthKnownDesc, prometheus.GaugeValue, known)
	for _, c := range u.list {
		metrics <- prometheus.MustNewConstMetric(unwellDesc, prometheus.GaugeValue, 1, c.ID, c.Phase, c.Health)
	}
}
