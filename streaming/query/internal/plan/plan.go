// Package plan turns a syntax tree into what is executed: one pattern of elements with the conditions on them, the ways
// to find all its matches from any of its positions, and the columns that are made of a match.
package plan

import (
	"slices"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

// maxPositions is how many elements a pattern may have, as sets of positions are words of 64 bits.
const maxPositions = 64

// Position is one element of the pattern: first come all nodes, then all relationships. Its number is also its slot.
type Position struct {
	Name         string // as written, or made up like "(2)" for EXPLAIN
	Named        bool
	Relationship bool
	Labels       []ast.LabelExpr // all of them must hold
	// Left and Right are the nodes of a relationship, which points from Left to Right unless it is undirected.
	Left, Right int
	Undirected  bool
	Match       int // the MATCH clause: relationships of one clause differ
	// What expressions read of the element.
	Read       bool // anything at all
	Properties []string
	All        bool // the whole element
	ReadLabels bool
}

// Condition is one conjunct of WHERE, or one entry of an inline map.
type Condition struct {
	Expr      ast.Expr
	Eval      eval.Func
	Positions uint64 // the elements that it reads
}

// Aggregate is one aggregation of RETURN.
type Aggregate struct {
	Name     string // lower case
	Distinct bool
	Expr     *ast.Call
	Arg      eval.Func // nil for count(*)
}

// Plan is what is executed.
type Plan struct {
	Query      *ast.Query
	Positions  []Position
	Nodes      int // how many positions are nodes
	Conditions []Condition
	Anchors    []Anchor // by position
	Scanned    uint64   // positions that some anchor finds by scanning

	Columns  []string
	Distinct bool
	// Items are the columns. Without aggregation they read the pattern's slots; with it they read the group's keys
	// followed by its aggregates.
	Items      []eval.Func
	Grouped    bool
	Keys       []eval.Func
	KeyExprs   []ast.Expr
	Aggregates []Aggregate

	compilers [2]*eval.Compiler // of expressions on a match and on a group
}

// MatchEnv returns an environment for expressions on a match.
func (p *Plan) MatchEnv() *eval.Env { return p.compilers[0].NewEnv(len(p.Positions)) }

// GroupEnv returns an environment for expressions on a group.
func (p *Plan) GroupEnv() *eval.Env { return p.compilers[1].NewEnv(len(p.Keys) + len(p.Aggregates)) }

// New plans a query; what is wrong with it is a *token.Errors.
func New(q *ast.Query, parameters map[string]graph.Value) (*Plan, error) {
	b := &builder{
		plan: &Plan{Query: q}, errs: &token.Errors{Text: q.Text}, variables: make(map[string]int),
		parameters: parameters,
	}
	b.build(q)
	if err := b.errs.Err(); err != nil {
		return nil, err
	}
	return b.plan, nil
}

// Relevance says what the plan wants to know of elements with these labels.
func (p *Plan) Relevance(labels []string, relationship bool) store.Relevance {
	var r store.Relevance
	if relationship && len(labels) != 1 {
		return r
	}
	for i := range p.Positions {
		position := &p.Positions[i]
		if position.Relationship != relationship || !position.Accepts(labels) {
			continue
		}
		r.Positions |= 1 << i
		r.All = r.All || position.All
		r.Properties = append(r.Properties, position.Properties...)
	}
	slices.Sort(r.Properties)
	r.Properties = slices.Compact(r.Properties)
	return r
}

// Accepts reports whether an element with these labels may stand at the position.
func (p *Position) Accepts(labels []string) bool {
	for _, want := range p.Labels {
		if !eval.HasLabels(labels, want) {
			return false
		}
	}
	return true
}

// Candidates returns the labels of which an element has at least one when it stands at the position; nil: it may be any.
func (p *Position) Candidates() []string {
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
