package query

import (
	"slices"
	"strconv"

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

// Restrictions lists the places of patterns where elements of a label or type may stand. At each an element must have, of
// each property given, one of the values, as text, as far as that follows from comparisons with constants alone; nil:
// nothing does. So a source need not send elements that no place lets in. What a subquery or OPTIONAL MATCH says of
// elements does not count. Where Needs has the label "", elements may stand at other places, too.
func (p *Plan) Restrictions(label string) (places []map[string][]string) {
	for _, m := range p.plan.Matches {
		for i := range m.Positions {
			position := &m.Positions[i]
			if position.Shared != plan.NoSlot || !slices.Contains(candidatesOf(position), label) { // a shared one was let in elsewhere
				continue
			}
			var place map[string][]string
			if !m.Inner && !position.Variable {
				place = p.restrictions(m, i)
			}
			places = append(places, place)
		}
	}
	return places
}

// restrictions returns what the element at a position must have.
func (p *Plan) restrictions(m *plan.Match, position int) (restrictions map[string][]string) {
	for _, c := range m.Conditions {
		if c.Incoming || c.Positions != 1<<position {
			continue
		}
		property, values := p.compared(c.Expr)
		if property == "" {
			continue
		}
		if restrictions == nil {
			restrictions = make(map[string][]string)
		}
		restrictions[property] = values // of several comparisons any will do
	}
	return restrictions
}

// compared returns a property that a condition of one element wants to have one of some values; "": it says nothing of the
// kind.
func (p *Plan) compared(e ast.Expr) (property string, values []string) {
	subject, list := e, ast.Expr(nil)
	switch e := e.(type) {
	case *ast.Comparison:
		if len(e.Ops) != 1 || e.Ops[0] != "=" {
			return "", nil
		}
		subject, list = e.Operands[0], &ast.ListLiteral{Items: e.Operands[1:]}
		if _, is := subject.(*ast.Property); !is {
			subject, list = e.Operands[1], &ast.ListLiteral{Items: e.Operands[:1]}
		}
	case *ast.Binary:
		if e.Op != "IN" {
			return "", nil
		}
		subject, list = e.Left, e.Right
	}
	of, is := subject.(*ast.Property)
	if !is {
		return "", nil
	}
	if _, is = of.Subject.(*ast.Variable); !is {
		return "", nil
	}
	if values = p.constants(list); len(values) == 0 {
		return "", nil
	}
	return of.Name, values
}

// What is told of restrictions is kept on record with what queries need: no more constants than these, nor longer ones.
const (
	mostConstants   = 100
	longestConstant = 256
)

// constants returns the items of a list as text, in order; nil when one is not known, or is of a type whose values equal
// others that are written otherwise, or when they are too many or too long.
func (p *Plan) constants(list ast.Expr) (texts []string) {
	var items []graph.Value
	switch list := list.(type) {
	case *ast.Parameter:
		if v := p.options.Parameters[list.Name]; v.Kind() == graph.KindList {
			items = v.AsList()
		}
	case *ast.ListLiteral:
		for _, item := range list.Items {
			switch item := item.(type) {
			case *ast.Literal:
				items = append(items, item.Value)
			case *ast.Parameter:
				items = append(items, p.options.Parameters[item.Name])
			default:
				return nil
			}
		}
	}
	if len(items) > mostConstants {
		return nil
	}
	for _, v := range items {
		switch v.Kind() {
		case graph.KindInt:
			texts = append(texts, strconv.FormatInt(v.AsInt(), 10))
		case graph.KindString:
			if len(v.AsString()) > longestConstant {
				return nil
			}
			texts = append(texts, v.AsString())
		case graph.KindBool:
			texts = append(texts, strconv.FormatBool(v.AsBool()))
		default:
			return nil
		}
	}
	slices.Sort(texts)
	return slices.Compact(texts)
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
