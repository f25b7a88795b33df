package telemetry

import (
	"flag"
	"fmt"
	"io"
	"math"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write metrics.md anew")

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	return string(text)
}

func TestSeriesAreThereWhileTheComponentRuns(t *testing.T) {
	m := NewMetrics("1.2.3")
	require.Contains(t, scrape(t, m), `perdure_build_info{version="1.2.3"} 1`)
	one, other := m.Source("default", "shop"), m.Source("default", "other")
	copied := m.Copied("default", "open-orders", "shop")
	copied.Add(5)
	one.Changes.Add(3)
	one.Measure("wal_retained_bytes", 7)
	one.Measure("wal_safe_bytes", 8)
	one.Measure("wal_safe_bytes", math.NaN())
	other.Measure("wal_retained_bytes", 9)
	text := scrape(t, m)
	require.Contains(t, text, `perdure_source_changes_total{instance="default",source="shop"} 3`)
	require.Contains(t, text, `perdure_source_wal_retained_bytes{instance="default",source="shop"} 7`)
	require.NotContains(t, text, "perdure_source_wal_safe_bytes{")
	one.Close()
	text = scrape(t, m)
	require.NotContains(t, text, `perdure_source_changes_total{instance="default",source="shop"}`)
	require.Contains(t, text, `perdure_source_wal_retained_bytes{instance="default",source="other"} 9`)
	require.Contains(t, text, `perdure_snapshot_rows_total{copied_for="open-orders",instance="default",source="shop"} 5`)
}

// TestUnwellComponentsStayKnown until it is known that they are well: an alert must not end because nobody can tell.
func TestUnwellComponentsStayKnown(t *testing.T) {
	m := NewMetrics("")
	require.NotContains(t, scrape(t, m), "perdure_component_health_known")
	const parked = `perdure_component_unwell{component="source.default.shop",health="failing",phase="NeedsOperator"} 1`
	m.Unwell([]Unwell{{ID: "source.default.shop", Phase: "NeedsOperator", Health: "failing"}})
	require.Contains(t, scrape(t, m), parked)
	require.Contains(t, scrape(t, m), "perdure_component_health_known 1")
	m.HealthUnknown()
	require.Contains(t, scrape(t, m), parked)
	require.Contains(t, scrape(t, m), "perdure_component_health_known 0")
	m.Unwell(nil)
	require.NotContains(t, scrape(t, m), "perdure_component_unwell")
}

// TestAgeOfNoCheckpoint is none, and not that of one that was just made.
func TestAgeOfNoCheckpoint(t *testing.T) {
	m := NewMetrics("")
	q := m.Query("default", "late")
	const age, size = "perdure_query_checkpoint_age_seconds{", "perdure_query_checkpoint_bytes{"
	require.NotContains(t, scrape(t, m), age)
	q.Checkpoint(time.Now().Add(-time.Hour), 7)
	require.Regexp(t, age+`instance="default",query="late"} 3600\.`, scrape(t, m))
	require.Contains(t, scrape(t, m), size+`instance="default",query="late"} 7`)
	q.Checkpoint(time.Time{}, 0)
	require.NotContains(t, scrape(t, m), age)
	require.NotContains(t, scrape(t, m), size)
}

// everything returns metrics with a series of each.
func everything() *Metrics {
	m := NewMetrics("")
	s := m.Source("i", "n")
	for name := range measureHelp {
		s.Measure(strings.TrimPrefix(name, "source_"), 1)
	}
	q := m.Query("i", "n")
	q.Apply.Observe(1)
	q.Checkpoint(time.Now(), 1)
	m.Reaction("i", "n").Delivery.Observe(1)
	m.Copied("i", "n", "s").Add(1)
	m.Snapshot("i", "n", "s")
	m.Began("c")
	m.Failed("c", "Stalled")
	m.Unwell([]Unwell{{ID: "c"}})
	m.Components(func() []Component {
		return []Component{{ID: "c", Interrupted: time.Now(), InterruptedBy: "Unreachable"}}
	})
	m.StreamSpace(func() bool { return false })
	(&exporter{metrics: m}).count("exported", 1)
	return m
}

// TestDashboardsNameMetricsThatExist, and alerts too, with labels that those have. Temporal's are looked for where its SDK
// runs.
func TestDashboardsNameMetricsThatExist(t *testing.T) {
	families, err := everything().registry.Gather()
	require.NoError(t, err)
	labels := make(map[string][]string)
	for _, f := range families {
		names := []string{f.GetName()}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			names = []string{f.GetName() + "_bucket", f.GetName() + "_count", f.GetName() + "_sum"}
		}
		for _, name := range names {
			labels[name] = []string{"le"}
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels[name] = append(labels[name], l.GetName())
			}
		}
	}
	by, metric := regexp.MustCompile(`by \(([^)]*)\)`), regexp.MustCompile(`perdure_[a-z0-9_]+`)
	for _, file := range []string{"../../deploy/grafana/perdure.json", "../../deploy/prometheus/alerts.yaml"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, yaml.Unmarshal(text, new(map[string]any)), file) // as JSON is
		expressions := regexp.MustCompile(`(?m)(?:"expr": "|expr: )(.*?)(?:", "legend|$)`).FindAllStringSubmatch(string(text), -1)
		require.Greater(t, len(expressions), 5, file)
		for _, e := range expressions {
			for _, name := range metric.FindAllString(e[1], -1) {
				require.Contains(t, labels, name, "%s: %s", file, e[1])
				for _, group := range by.FindAllStringSubmatch(e[1], -1) {
					require.Subset(t, labels[name], strings.Split(group[1], ", "), "%s: %s", file, e[1])
				}
			}
		}
	}
}

// TestMetricsAreDocumented holds metrics.md against what there is, and all names against Prometheus' rules.
func TestMetricsAreDocumented(t *testing.T) {
	m := everything()
	families, err := m.registry.Gather()
	require.NoError(t, err)
	var text strings.Builder
	text.WriteString("# Metrics\n\nWhat every process serves at `/metrics`, beside Go's own, the process's and those of Temporal's SDK (`temporal_*`). A scrape\nwithout `honor_labels` stores the label `instance` as `exported_instance`. Generated by the tests of this package: run them with\n`-update`.\n\n| name | type | labels | |\n|---|---|---|---|\n")
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "perdure_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	if *update {
		require.NoError(t, os.WriteFile("metrics.md", []byte(text.String()), 0o644))
	}
	written, err := os.ReadFile("metrics.md")
	require.NoError(t, err)
	require.Equal(t, string(written), text.String(), "run the test with -update")
	problems, err := testutil.GatherAndLint(prometheus.Gatherer(m.registry))
	require.NoError(t, err)
	require.Empty(t, problems)
}
