package query

import (
	"slices"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
)

// Needs lists, by label or type, the properties that the plan reads, so that sources need to send nothing else: "*"
// stands for all of them. The label "" stands for every element: the plan has a pattern without a label.
func (p *Plan) Needs() map[string][]string {
	needs := make(map[string][]string)
	need := func(labels []string, properties []string, all bool) {
		if labels == nil {
			labels = []string{""}
		}
		if all {
			properties = []string{"*"}
		}
		for _, l := range labels {
			list := append(append([]string{}, needs[l]...), properties...)
			slices.Sort(list)
			if list = slices.Compact(list); slices.Contains(list, "*") {
				list = []string{"*"}
			}
			needs[l] = list
		}
	}
	for _, m := range p.plan.Matches {
		for i := range m.Positions {
			position := &m.Positions[i]
			need(candidatesOf(position), position.Properties, position.All)
			if position.Variable && (position.Max < 0 || position.Max > 1) { // any node may be inside
				need(nil, nil, position.AllInner)
			}
		}
	}
	return needs
}

// Touched returns those changes of the schema after which what the plan has read may not be so any more.
func (p *Plan) Touched(changes []graph.SchemaChange) (touched []graph.SchemaChange) {
	if len(changes) == 0 {
		return nil
	}
	needs := p.Needs()
	for i := range changes {
		c := &changes[i]
		if len(c.Labels) == 0 {
			touched = append(touched, *c)
			continue
		}
		for _, label := range append(slices.Clone(c.Labels), "") {
			if properties, read := needs[label]; read && c.Touches(properties) {
				touched = append(touched, *c)
				break
			}
		}
	}
	return touched
}

// candidatesOf returns the labels of which an element has at least one when it stands at a position; nil: it may be any.
func candidatesOf(p *plan.Position) []string {
	var best []string
	for _, l := range p.Labels {
		if c := candidates(l); c != nil && (best == nil || len(c) < len(best)) {
			best = c
		}
	}
	return best
}

func candidates(l ast.LabelExpr) []string {
	switch l := l.(type) {
	case *ast.LabelName:
		return []string{l.Name.Text}
	case *ast.LabelBinary:
		left, right := candidates(l.Left), candidates(l.Right)
		switch {
		case l.Or && (left == nil || right == nil):
			return nil
		case l.Or:
			return append(slices.Clone(left), right...)
		case left == nil:
			return right
		case right == nil || len(left) <= len(right):
			return left
		}
		return right
	}
	return nil
}
