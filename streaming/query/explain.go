package query

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// Explain describes for people how matches are found and what is stored.
func (p *Plan) Explain() string { return p.plan.Explain() }

// ExplainJSON returns what Explain tells as JSON.
func (p *Plan) ExplainJSON() []byte { return p.plan.ExplainJSON() }

// Analysis is what a query has done since it was opened.
type Analysis struct {
	Nodes []NodeAnalysis `json:"nodes"`
}

// NodeAnalysis is what one node of the plan has done. In, Out and Time are 0 unless the query was compiled with
// Options.Analyze.
type NodeAnalysis struct {
	ID    int           `json:"id"`
	Kind  string        `json:"kind"`
	In    int64         `json:"in"`          // rows, retractions included
	Out   int64         `json:"out"`         // rows, retractions included
	Time  time.Duration `json:"nanoseconds"` // spent in the node itself
	State int64         `json:"stateBytes"`  // in the index
}

// Analyze says what each node has done and how much it stores. It reads all state of the nodes.
func (q *Query) Analyze() (*Analysis, error) {
	sizes, err := q.network.StateBytes(q.store)
	if err != nil {
		return nil, err
	}
	a := &Analysis{}
	for i, node := range q.plan.plan.Nodes {
		n := NodeAnalysis{ID: i, Kind: strings.TrimPrefix(fmt.Sprintf("%T", node), "*plan."), State: sizes[i]}
		if meters := q.network.Meters(); meters != nil {
			n.In, n.Out, n.Time = meters[i].In, meters[i].Out, meters[i].Time
		}
		a.Nodes = append(a.Nodes, n)
	}
	return a, nil
}

// ExplainAnalyze returns Explain and what each node has done, as text.
func (q *Query) ExplainAnalyze() (string, error) {
	a, err := q.Analyze()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(q.plan.Explain())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "node\trows in\trows out\ttime\tstate bytes")
	for _, n := range a.Nodes {
		fmt.Fprintf(w, "%d %s\t%d\t%d\t%s\t%d\n", n.ID, n.Kind, n.In, n.Out, n.Time.Round(time.Microsecond), n.State)
	}
	if err := w.Flush(); err != nil {
		return "", fmt.Errorf("writing the analysis: %w", err)
	}
	return b.String(), nil
}

// ExplainAnalyzeJSON returns the plan and what each node has done, as JSON.
func (q *Query) ExplainAnalyzeJSON() ([]byte, error) {
	a, err := q.Analyze()
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(struct {
		Plan json.RawMessage `json:"plan"`
		*Analysis
	}{q.plan.ExplainJSON(), a}, "", "  ")
}
