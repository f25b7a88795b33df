package activities

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/pipeline"
)

func TestCopyReports(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	r := &copyReports{generation: 2}
	require.True(t, r.due(begin))
	_, news := r.next(begin, nil)
	require.False(t, news, "nothing is planned yet")

	p, news := r.next(at(10), []pipeline.ScopeProgress{
		{Name: "a", State: pipeline.Copied, Rows: 100, Estimate: 100},
		{Name: "b", State: pipeline.Waiting, Estimate: 50},
		{Name: "c", State: pipeline.Copying, Rows: 400, Estimate: 1000},
	})
	require.True(t, news)
	require.Equal(t, BootstrapProgress{
		SnapshotGeneration: 2, At: at(10), Rows: 500, Estimate: 1150, RowsPerSecond: 50, Expected: at(23), TablesCopied: 1,
		Tables: []TableProgress{
			{Name: "c", State: "copying", Rows: 400, Estimate: 1000, RowsPerSecond: 40, Expected: at(25)},
			{Name: "b", State: "waiting", Estimate: 50},
			{Name: "a", State: "copied", Rows: 100, Estimate: 100},
		},
	}, p)
	require.False(t, r.due(at(19)))
	require.True(t, r.due(at(20)))

	others := []pipeline.ScopeProgress{{Name: "a", State: pipeline.Copied, Rows: 100, Estimate: 100}, {Name: "b", State: pipeline.Copied}}
	p, _ = r.next(at(20), append(others, pipeline.ScopeProgress{Name: "c", State: pipeline.Copying, Rows: 300, Estimate: 1000}))
	require.Zero(t, p.RowsPerSecond, "a chunk was begun anew")
	require.Zero(t, p.Expected)

	all := append(others, pipeline.ScopeProgress{Name: "c", State: pipeline.Copied, Rows: 1000, Estimate: 1000})
	p, news = r.next(at(30), all)
	require.True(t, news)
	require.Equal(t, 3, p.TablesCopied)
	_, news = r.next(at(60), all)
	require.False(t, news, "that was the last")
}

// TestCopyReportsOfTablesThatFailed come first, and nobody expects their rows.
func TestCopyReportsOfTablesThatFailed(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := &copyReports{began: begin}
	p, news := r.next(begin.Add(10*time.Second), []pipeline.ScopeProgress{
		{Name: "a", State: pipeline.Copying, Rows: 100, Estimate: 200},
		{Name: "b", State: pipeline.Failed, Rows: 50, Estimate: 1000},
	})
	require.True(t, news)
	require.Equal(t, "b", p.Tables[0].Name)
	require.Equal(t, "failed", p.Tables[0].State)
	require.Equal(t, begin.Add(16*time.Second), p.Expected, "100 rows at 15 per second")
}

// TestCopyReportsAreFew: each of them stays in the history.
func TestCopyReportsAreFew(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := &copyReports{began: begin}
	var scopes []pipeline.ScopeProgress
	for i := range 1000 {
		scopes = append(scopes, pipeline.ScopeProgress{Name: fmt.Sprint("t", i), State: pipeline.Waiting, Estimate: 1})
	}
	reports := 0
	for now := begin; now.Before(begin.Add(72 * time.Hour)); now = now.Add(beatEvery) {
		if !r.due(now) {
			continue
		}
		p, news := r.next(now, scopes)
		require.True(t, news)
		require.Len(t, p.Tables, maxTables)
		require.Equal(t, int64(1000), p.Estimate)
		reports++
	}
	require.Less(t, reports, 100)
}
