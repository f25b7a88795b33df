package activities

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/perdure/perdure/streaming/pipeline"
)

const (
	// maxTables is how many tables a report of progress shows.
	maxTables = 20
	// firstReports is the time between reports of progress at first. Each stays in the history of the workflow, so later
	// on they come after a tenth of the time that has passed: a hundred in three days.
	firstReports = 10 * time.Second
)

// copyReports makes reports of how far a bootstrap has come, of which each knows the one before.
type copyReports struct {
	generation int
	began      time.Time
	last       BootstrapProgress
	rows       map[string]int64 // by table, at last
}

// due reports whether it is time for the next one.
func (r *copyReports) due(now time.Time) bool {
	return now.Sub(r.last.At) >= max(firstReports, now.Sub(r.began)/10)
}

// next makes a report of what is copied now. It reports false when there is nothing to say, or nothing new.
func (r *copyReports) next(now time.Time, scopes []pipeline.ScopeProgress) (BootstrapProgress, bool) {
	before := cmp.Or(r.last.At, r.began)
	var failed int64 // rows that are not to come
	p := BootstrapProgress{SnapshotGeneration: r.generation, At: now}
	for _, s := range scopes {
		t := TableProgress{Name: shorten(s.Name), State: string(s.State), Rows: s.Rows, Estimate: s.Estimate}
		if s.State == pipeline.Copying {
			t.RowsPerSecond, t.Expected = forecast(now, before, s.Rows-r.rows[s.Name], s.Estimate-s.Rows)
		}
		p.Tables = append(p.Tables, t)
		p.Rows, p.Estimate = p.Rows+s.Rows, p.Estimate+s.Estimate
		switch s.State {
		case pipeline.Copied:
			p.TablesCopied++
		case pipeline.Failed:
			failed += s.Estimate - s.Rows
		}
	}
	if len(scopes) == 0 {
		r.began = now // copying has not
	}
	if len(scopes) == 0 || r.last.TablesCopied == len(scopes) {
		return p, false
	}
	p.RowsPerSecond, p.Expected = forecast(now, before, p.Rows-r.last.Rows, p.Estimate-p.Rows-failed)
	r.rows = make(map[string]int64, len(scopes))
	for _, s := range scopes {
		r.rows[s.Name] = s.Rows
	}
	order := []string{string(pipeline.Failed), string(pipeline.Copying), string(pipeline.Waiting), string(pipeline.Copied)}
	slices.SortStableFunc(p.Tables, func(a, b TableProgress) int {
		return cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State))
	})
	p.Tables = p.Tables[:min(len(p.Tables), maxTables)]
	r.last = p
	return p, true
}

// forecast returns the rate of so many rows since before, and when so many that are left are copied at that rate.
func forecast(now, before time.Time, rows, left int64) (int64, time.Time) {
	rate := float64(rows) / max(now.Sub(before).Seconds(), 0.001)
	if rate <= 0 {
		return 0, time.Time{} // such as after chunks were begun anew
	}
	seconds := float64(left) / rate
	if seconds > (365 * 24 * time.Hour).Seconds() {
		return int64(math.Round(rate)), time.Time{}
	}
	return int64(math.Round(rate)), now.Add(time.Duration(seconds * float64(time.Second))).Truncate(time.Second)
}
