package plan

import (
	"slices"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

// Relevance says what the plan wants to know of elements with these labels.
func (p *Plan) Relevance(labels []string, relationship bool) store.Relevance {
	r := store.Relevance{Positions: make([]uint64, len(p.Matches))}
	for i, m := range p.Matches {
		for at := range m.Positions {
			position := &m.Positions[at]
			inner := !relationship && position.hasInner()
			own := position.Relationship == relationship && position.hasOwn() && hasAll(labels, position.Labels)
			if !inner && !own {
				continue
			}
			r.Positions[i] |= 1 << at
			if own {
				r.Properties = append(r.Properties, position.Properties...)
			}
			r.All = r.All || own && position.All || inner && position.AllInner
		}
	}
	for i, s := range p.Scans {
		if s.Relationship == relationship && hasAll(labels, s.Labels) {
			r.Scans = append(r.Scans, i)
		}
	}
	slices.Sort(r.Properties)
	r.Properties = slices.Compact(r.Properties)
	return r
}

// hasOwn reports whether there can be an element at the position: *0 and *2..1 follow no relationship.
func (p *Position) hasOwn() bool { return !p.Variable || p.Max < 0 || p.Max > 0 && p.Min <= p.Max }

// hasInner reports whether there can be nodes inside of a variable-length relationship.
func (p *Position) hasInner() bool { return p.Variable && p.hasOwn() && p.Max != 1 }

func hasAll(labels []string, want []ast.LabelExpr) bool {
	return !slices.ContainsFunc(want, func(l ast.LabelExpr) bool { return !eval.HasLabels(labels, l) })
}
