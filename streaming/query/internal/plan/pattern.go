package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// match is a Match under construction. Positions have their numbers when all clauses are in: nodes come first.
type match struct {
	*builder
	chain *chain
	node  *Match

	nodes, relationships []*element
	bySlot               map[int]*element
	conditions           []*draft
	late                 []lateCondition // what needs more than elements: subqueries, paths
	paths                []*pathDraft
	number               int  // of the clause
	closed               bool // no new variables: a pattern predicate
}

// element is a position under construction.
type element struct {
	Position
	left, right *element
	slot        int
	at          int // the position's number
}

// draft is a condition under construction.
type draft struct {
	Condition
	reads  []int
	equals []equality
	site   site
}

// equality is a condition "property of an element = value", seen from the element.
type equality struct {
	slot     int // of the element
	property string
	with     ast.Expr
	value    compiled
}

type lateCondition struct {
	expr ast.Expr
	vars scope
}

type pathDraft struct {
	elements []*element
	reversed []bool
	slot     int
}

func (b *builder) newMatch(c *chain) *match {
	return &match{builder: b, chain: c, node: &Match{}, bySlot: make(map[int]*element)}
}

// rebinds reports whether a clause uses a relationship again that an earlier one of the Match has: a position is one
// place in one pattern, so that such a clause becomes a Match of its own.
func (m *match) rebinds(clause *ast.Match) bool {
	for _, p := range clause.Patterns {
		for _, r := range p.Relationships {
			if r.Variable != nil {
				if v, ok := m.chain.vars[r.Variable.Text]; ok && m.bySlot[v.slot] != nil {
					return true
				}
			}
		}
	}
	return false
}

// add adds a MATCH clause.
func (m *match) add(clause *ast.Match) {
	m.patterns(clause.Patterns)
	if clause.Where != nil {
		m.where(clause.Where)
	}
}

// patterns adds the patterns of one clause.
func (m *match) patterns(patterns []*ast.Pattern) {
	m.number = m.clauses
	m.clauses++
	var inline []func() // conditions may use all variables of the clause
	later := func(f func()) { inline = append(inline, f) }
	used := make(map[string]bool) // relationships of the clause
	for _, p := range patterns {
		draft := &pathDraft{}
		var left *element
		for i, n := range p.Nodes {
			e := m.nodeElement(n, later)
			if i > 0 {
				r := p.Relationships[i-1]
				draft.elements = append(draft.elements, m.relationshipElement(r, left, e, used, later))
				draft.reversed = append(draft.reversed, r.Direction == ast.Left)
			}
			draft.elements = append(draft.elements, e)
			left = e
		}
		if p.Variable != nil {
			m.path(p.Variable, draft)
		}
	}
	for _, f := range inline {
		f()
	}
}

func (m *match) path(name *ast.Name, p *pathDraft) {
	if _, ok := m.chain.vars[name.Text]; ok {
		m.errs.Report(token.VariableAlreadyBound, name.Range, "the variable %s is defined already", ast.FormatName(name.Text))
	}
	p.slot = m.slot()
	m.define(name.Text, variable{p.slot, typ{kind: path}})
	m.paths = append(m.paths, p)
}

func (m *match) define(name string, v variable) {
	m.chain.vars = m.chain.vars.with(scope{name: v})
	m.plan.names[v.slot] = name
}

// bound returns the slot of a variable that is to be an element, if it is defined already.
func (m *match) bound(name *ast.Name, want typ) (slot int, ok bool) {
	if name == nil {
		return NoSlot, false
	}
	v, ok := m.chain.vars[name.Text]
	switch {
	case ok && v.slot == grouped:
		m.ambiguous(name.Text, name.Range)
		return NoSlot, false
	case !ok && m.closed:
		m.errs.Report(token.UndefinedVariable, name.Range, "the variable %s is not defined; a pattern that is a condition defines none", ast.FormatName(name.Text))
	case ok && (!v.typ.kind.is(want.kind) || v.typ.kind == list && !v.typ.item.is(want.item)):
		m.errs.Report(token.VariableTypeConflict, name.Range, "%s is %s and cannot be %s as well", ast.FormatName(name.Text), v.typ.kind.a(), want.kind.a())
		return NoSlot, false
	}
	return v.slot, ok
}

// nodeElement returns the element of a node pattern.
func (m *match) nodeElement(n *ast.NodePattern, later func(func())) *element {
	slot, ok := m.bound(n.Variable, typ{kind: node})
	var e *element
	if ok {
		e = m.bySlot[slot]
	}
	if e == nil {
		e = m.element(n.Variable, slot, ok, typ{kind: node}, "(%d)")
		m.nodes = append(m.nodes, e)
	}
	if n.Labels != nil {
		e.Labels = append(e.Labels, n.Labels)
	}
	later(func() { m.inline(e, n.Variable, n.Properties, n.Where) })
	return e
}

// element returns a new element, of a variable that is bound or with a slot of its own.
func (m *match) element(name *ast.Name, slot int, bound bool, t typ, format string) *element {
	e := &element{Position: Position{Shared: NoSlot, InnerSlot: NoSlot, Scan: -1, Clause: m.number}, slot: slot}
	if name != nil && !strings.HasPrefix(name.Text, hidden) {
		e.Name, e.Named = ast.FormatName(name.Text), true
	} else {
		m.made++
		e.Name = fmt.Sprintf(format, m.made)
	}
	if bound {
		e.Shared = slot
		e.Labels = slices.Clone(m.labels[slot])
	} else {
		e.slot = m.slot()
		if name != nil {
			m.define(name.Text, variable{e.slot, t})
		}
	}
	m.bySlot[e.slot] = e
	return e
}

func (m *match) relationshipElement(r *ast.RelationshipPattern, left, right *element, used map[string]bool, later func(func())) *element {
	want := typ{kind: relationship}
	if r.Length != nil {
		want = typ{list, relationship}
	}
	if r.Variable != nil {
		if used[r.Variable.Text] {
			m.errs.Report(token.RelationshipUniquenessViolation, r.Variable.Range,
				"the relationship %s is used twice; a relationship matches once", ast.FormatName(r.Variable.Text))
		}
	}
	slot, ok := m.bound(r.Variable, want)
	if r.Variable != nil {
		used[r.Variable.Text] = true
	}
	e := m.element(r.Variable, slot, ok, want, "[%d]")
	e.Relationship, e.Undirected = true, r.Direction == ast.Undirected
	e.left, e.right = left, right
	if r.Direction == ast.Left {
		e.left, e.right = right, left
	}
	if r.Types != nil {
		e.Labels = append(e.Labels, r.Types)
	}
	if r.Length != nil {
		e.Variable, e.Min, e.Max, e.Reversed = true, int(r.Length.Min), int(r.Length.Max), r.Direction == ast.Left
	}
	m.relationships = append(m.relationships, e)
	later(func() { m.inline(e, r.Variable, r.Properties, r.Where) })
	return e
}

// inline adds the conditions inside of a pattern. A map becomes comparisons.
func (m *match) inline(e *element, name *ast.Name, properties, where ast.Expr) {
	if properties == nil && where == nil {
		return
	}
	slot := e.slot
	if e.Variable {
		if e.InnerSlot == NoSlot {
			e.InnerSlot = m.slot()
		}
		slot = e.InnerSlot
	}
	single := typ{kind: node}
	if e.Relationship {
		single.kind = relationship
	}
	subject := hidden + e.Name
	if name != nil {
		subject = name.Text // which is each one of a variable-length relationship
	}
	vars := m.chain.vars.with(scope{subject: {slot, single}})
	var list []ast.Expr
	switch properties := properties.(type) {
	case *ast.Parameter:
		m.errs.Report(token.InvalidParameterUse, properties.Range, "a parameter cannot stand for all properties; write {name: $%s.name}", ast.FormatName(properties.Name))
	case *ast.MapLiteral:
		eval.MapKeys(properties, m.errs)
		for i, k := range properties.Keys {
			base := ast.Base{Range: properties.Values[i].Position()}
			property := &ast.Property{Base: base, Subject: &ast.Variable{Base: base, Name: subject}, Name: k.Text}
			list = append(list, &ast.Comparison{Base: base, Ops: []string{"="}, Operands: []ast.Expr{property, properties.Values[i]}})
		}
	}
	if where != nil {
		list = append(list, conjuncts(where)...)
	}
	for _, x := range list {
		if e.Variable {
			m.innerCondition(e, x, subject, vars)
		} else {
			m.condition(x, vars)
		}
	}
}

// innerCondition adds a condition that each relationship of a variable-length one must satisfy. One that looks at more
// than this relationship becomes a condition on their list.
func (m *match) innerCondition(e *element, x ast.Expr, subject string, vars scope) {
	var checked compiledCondition
	if !m.needsNodes(x) {
		checked = m.compileCondition(x, site{vars: vars, predicate: true})
	}
	if checked.eval == nil || slices.ContainsFunc(checked.reads, func(slot int) bool { return slot != e.InnerSlot }) {
		base := ast.Base{Range: x.Position()}
		whole := hidden + e.Name + "s"
		all := &ast.Quantifier{Base: base, Kind: "all", Variable: ast.Name{Text: subject}, Where: x, List: &ast.Variable{Base: base, Name: whole}}
		m.condition(all, m.chain.vars.with(scope{whole: {e.slot, typ{list, relationship}}}))
		return
	}
	e.Inner = append(e.Inner, Condition{Expr: x, Eval: checked.eval})
}

// where adds the conditions of a clause.
func (m *match) where(e ast.Expr) {
	for _, e := range conjuncts(e) {
		m.condition(e, m.chain.vars)
	}
}

// condition adds a condition. A plain test of labels belongs to the position, where it narrows down what is stored.
func (m *match) condition(e ast.Expr, vars scope) {
	if test, ok := e.(*ast.LabelTest); ok {
		if v, ok := test.Subject.(*ast.Variable); ok {
			if at := m.bySlot[slotOf(vars, v.Name)]; at != nil && !at.Variable {
				at.Labels = append(at.Labels, test.Labels)
				return
			}
		}
	}
	if m.needsNodes(e) || m.readsPath(e, vars) {
		m.late = append(m.late, lateCondition{e, vars})
		return
	}
	s := site{vars: vars, predicate: true}
	x := m.builder.condition(e, m.chain, s)
	m.conditions = append(m.conditions, &draft{Condition: Condition{Expr: e, Eval: x.eval}, reads: x.reads, equals: m.equalities(e, s), site: s})
}

func slotOf(vars scope, name string) int {
	if v, ok := vars[name]; ok {
		return v.slot
	}
	return NoSlot
}

func (m *match) readsPath(e ast.Expr, vars scope) bool {
	found := false
	ast.Walk(e, func(e ast.Expr) bool {
		if v, ok := e.(*ast.Variable); ok {
			slot := slotOf(vars, v.Name)
			found = found || slices.ContainsFunc(m.paths, func(p *pathDraft) bool { return p.slot == slot })
		}
		return !found
	})
	return found
}

// equalities returns the ways to find an element through a condition.
func (m *match) equalities(e ast.Expr, s site) (list []equality) {
	c, ok := e.(*ast.Comparison)
	if !ok || len(c.Ops) != 1 || c.Ops[0] != "=" {
		return nil
	}
	for i, side := range c.Operands {
		p, ok := side.(*ast.Property)
		if !ok {
			continue
		}
		v, ok := p.Subject.(*ast.Variable)
		if !ok {
			continue
		}
		slot := slotOf(s.vars, v.Name)
		if at := m.bySlot[slot]; at == nil || at.Relationship {
			continue
		}
		value := m.compile(c.Operands[1-i], s)
		if !slices.Contains(value.reads, slot) {
			list = append(list, equality{slot, p.Name, c.Operands[1-i], value})
		}
	}
	return list
}

// finish numbers the positions, adds the Match to the chain, and behind it what could not be part of it.
func (m *match) finish() {
	m.shareEqual()
	all := append(slices.Clone(m.nodes), m.relationships...)
	if len(all) > maxPositions {
		m.errs.Report(token.LimitExceeded, m.builder.clause, "the patterns have %d elements, at most %d are supported", len(all), maxPositions)
		return
	}
	n := m.node
	n.Number = len(m.plan.Matches)
	n.Input, n.Inner = m.chain.at, m.chain.scope != NoSlot
	_, n.Root = m.plan.Nodes[n.Input].(*Unit)
	n.Nodes = len(m.nodes)
	for i, e := range all {
		e.at = i
		if e.Shared == NoSlot {
			m.builder.labels[e.slot] = append([]ast.LabelExpr{}, e.Labels...)
		}
	}
	for _, e := range all {
		if e.Relationship {
			e.Left, e.Right = e.left.at, e.right.at
		}
		e.Slot = e.slot
		n.Positions = append(n.Positions, e.Position)
	}
	var reads []int
	for _, d := range m.conditions {
		for _, slot := range d.reads {
			if e := m.bySlot[slot]; e != nil {
				d.Positions |= 1 << e.at
			} else {
				d.Incoming = true
			}
		}
		n.Conditions = append(n.Conditions, d.Condition)
		reads = append(reads, d.reads...)
	}
	for _, p := range m.paths {
		path := Path{Slot: p.slot, Reversed: p.reversed}
		for _, e := range p.elements {
			path.Positions = append(path.Positions, e.at)
		}
		n.Paths = append(n.Paths, path)
	}
	m.plan.Matches = append(m.plan.Matches, n)
	m.drafts = append(m.drafts, m)
	m.chain.at = m.builder.add(n, reads...)
	for _, l := range m.late {
		m.filter(l.expr, m.chain, site{vars: l.vars})
	}
}

// writes returns the slots that the Match adds to a row.
func (m *match) writes() (slots []int) {
	for _, e := range append(slices.Clone(m.nodes), m.relationships...) {
		if e.Shared == NoSlot {
			slots = append(slots, e.slot)
		}
	}
	for _, p := range m.paths {
		slots = append(slots, p.slot)
	}
	return slots
}
