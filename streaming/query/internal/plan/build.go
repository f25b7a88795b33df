package plan

import (
	"slices"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// New compiles a query. The error is a *token.Errors with all that is wrong.
func New(q *ast.Query, parameters map[string]graph.Value) (*Plan, error) {
	errs := &token.Errors{Text: q.Text}
	b := &builder{plan: &Plan{Query: q}, errs: errs, replaced: make(map[ast.Expr]variable)}
	b.compiler = &eval.Compiler{Parameters: parameters, Errs: errs, Alloc: b.slot, Parts: make(map[ast.Expr][]int)}
	b.plan.compiler = b.compiler
	b.build(q)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	b.finish()
	return b.plan, nil
}

type builder struct {
	plan     *Plan
	errs     *token.Errors
	compiler *eval.Compiler

	reads    [][]int               // by node: the slots that its expressions read, in any order
	uses     []use                 // by slot
	derived  [][2]int              // slots that take the value of another: {new, old}, in the order in which they were made
	labels   [][]ast.LabelExpr     // by slot: what the pattern that binds its element asks for
	drafts   []*match              // of plan.Matches
	replaced map[ast.Expr]variable // what has been computed before the expression that contains it
	clauses  int                   // MATCH clauses so far
	made     int                   // names made up so far
	clause   token.Range           // at hand
}

// chain is the rows that the clauses of a query have made so far.
type chain struct {
	at    int // the node that passes them on
	vars  scope
	order int // slot with their order, or NoSlot
	// sorted says that ORDER BY has put them in this order; otherwise it is that of a list, which matters for collect and
	// LIMIT alone.
	sorted bool
	// What surrounds a subquery: the variables of the outer query, which all its clauses see; the slot with the scope; the
	// Argument. Outside of subqueries: none, NoSlot, Unit.
	outer scope
	scope int
	start int
}

// unsort says that the rows have no order.
func (c *chain) unsort() { c.order, c.sorted = NoSlot, false }

// column is one of the columns of a result.
type column struct {
	name string
	variable
	at token.Range
}

func (b *builder) build(q *ast.Query) {
	unit := b.add(&Unit{Base{Input: -1}})
	c := chain{at: unit, order: NoSlot, scope: NoSlot, start: unit, vars: scope{}}
	columns := b.query(q, &c)
	output := &Output{Base: Base{Input: c.at}, Order: NoSlot}
	for _, column := range columns {
		b.plan.Columns = append(b.plan.Columns, column.name)
		output.Columns = append(output.Columns, column.slot)
		b.uses[column.slot].all = true
	}
	if c.sorted {
		output.Order, b.plan.Ordered = c.order, true
	}
	b.add(output)
}

// add numbers a node; reads are the slots that its expressions read.
func (b *builder) add(n Node, reads ...int) int {
	id := len(b.plan.Nodes)
	n.Common().ID = id
	b.plan.Nodes = append(b.plan.Nodes, n)
	b.plan.clauses = append(b.plan.clauses, b.clause)
	b.reads = append(b.reads, reads)
	return id
}

// slot returns a new slot.
func (b *builder) slot() int {
	b.uses = append(b.uses, use{})
	b.labels = append(b.labels, nil)
	b.plan.names = append(b.plan.names, "")
	b.plan.Slots++
	return b.plan.Slots - 1
}

// copyOf returns a new slot that takes the value of another.
func (b *builder) copyOf(slot int) int {
	to := b.slot()
	b.labels[to], b.plan.names[to] = b.labels[slot], b.plan.names[slot]
	b.derived = append(b.derived, [2]int{to, slot})
	return to
}

// query adds the nodes of a query and returns its columns.
func (b *builder) query(q *ast.Query, c *chain) []column {
	if len(q.Parts) == 1 {
		return b.single(q.Parts[0], c)
	}
	union := &Union{Base: Base{Input: -1}}
	var columns []column
	for i, part := range q.Parts {
		branch := *c
		found := b.single(part, &branch)
		if i > 0 {
			if q.Unions[i-1].All != q.Unions[0].All {
				b.errs.Report(token.InvalidClauseComposition, q.Unions[i-1].Range, "UNION and UNION ALL cannot be mixed")
			}
			found = b.matching(columns, found, part.Range)
		}
		from := make([]int, len(found))
		for j, column := range found {
			from[j] = column.slot
			if i == 0 {
				column.slot = b.slot()
				b.plan.names[column.slot] = column.name
				columns = append(columns, column)
			} else {
				columns[j].typ = columns[j].typ.or(column.typ)
			}
			b.derived = append(b.derived, [2]int{columns[j].slot, from[j]})
		}
		union.Branches = append(union.Branches, Branch{Input: branch.at, From: from})
	}
	for _, column := range columns {
		union.To = append(union.To, column.slot)
	}
	c.at = b.add(union)
	c.unsort()
	c.vars = c.outer.with(nil)
	if !q.Unions[0].All {
		columns = b.distinct(c, columns)
	}
	return columns
}

// matching returns the columns of a later part of a UNION in the order of those of the first.
func (b *builder) matching(first, columns []column, at token.Range) []column {
	result := make([]column, len(first))
	for i, want := range first {
		j := slices.IndexFunc(columns, func(c column) bool { return c.name == want.name })
		if j < 0 || len(columns) != len(first) {
			b.errs.Report(token.DifferentColumnsInUnion, at, "the parts of a UNION need columns of the same names")
			return nil
		}
		result[i] = columns[j]
	}
	return result
}

// single adds the nodes of a sequence of clauses.
func (b *builder) single(q *ast.SingleQuery, c *chain) (columns []column) {
	outer := b.clause
	defer func() { b.clause = outer }()
	for i := 0; i < len(q.Clauses); i++ {
		b.clause = q.Clauses[i].Position()
		switch clause := q.Clauses[i].(type) {
		case *ast.Match:
			if clause.Optional {
				b.optional(clause, c)
				continue
			}
			m := b.newMatch(c)
			m.add(clause)
			for i+1 < len(q.Clauses) { // what follows directly becomes part of the same Match
				next, ok := q.Clauses[i+1].(*ast.Match)
				if !ok || next.Optional || m.rebinds(next) {
					break
				}
				m.add(next)
				b.clause.To = next.Range.To
				i++
			}
			m.finish()
		case *ast.Unwind:
			b.unwind(clause, c)
		case *ast.With:
			b.project(&clause.Projection, clause.Range, clause.Where, true, c)
		case *ast.Return:
			columns = b.project(&clause.Projection, clause.Range, nil, false, c)
		}
	}
	return columns
}

func (b *builder) unwind(u *ast.Unwind, c *chain) {
	e := b.expr(u.List, c, site{vars: c.vars})
	if _, ok := c.vars[u.Variable.Text]; ok {
		b.errs.Report(token.VariableAlreadyBound, u.Variable.Range, "the variable %s is defined already", ast.FormatName(u.Variable.Text))
	}
	slot, order := b.slot(), b.slot()
	b.plan.names[slot] = u.Variable.Text
	n := &Unwind{Base: Base{Input: c.at}, List: Item{Expr: u.List, Eval: e.eval, Slot: slot}, Order: order, From: c.order}
	c.at = b.add(n, e.reads...)
	c.order = order
	item := typ{}
	if e.typ.kind == list {
		item.kind = e.typ.item
	}
	c.vars = c.vars.with(scope{u.Variable.Text: {slot, item}})
}

// filter adds Filters for a condition: parts of AND are conditions of their own, and those that need nodes of their own
// are left to the rows that the others let through.
func (b *builder) filter(where ast.Expr, c *chain, s site) {
	if where == nil {
		return
	}
	s.predicate = true
	all := conjuncts(where)
	b.addFilter(slices.DeleteFunc(slices.Clone(all), b.needsNodes), c, s)
	for _, e := range all {
		if b.needsNodes(e) {
			b.addFilter([]ast.Expr{e}, c, s)
		}
	}
}

func (b *builder) addFilter(conditions []ast.Expr, c *chain, s site) {
	var list []Condition
	var reads []int
	for _, e := range conditions {
		x := b.condition(e, c, s)
		list = append(list, Condition{Expr: e, Eval: x.eval})
		reads = append(reads, x.reads...)
	}
	if len(list) > 0 {
		c.at = b.add(&Filter{Base{Input: c.at}, list}, reads...)
	}
}

// needsNodes reports whether an expression contains what nodes of their own have to compute.
func (b *builder) needsNodes(e ast.Expr) bool { return containsSubquery(e) || b.volatile(e) }

// conjuncts takes a condition apart at its ANDs.
func conjuncts(e ast.Expr) []ast.Expr {
	if and, ok := e.(*ast.Binary); ok && and.Op == "AND" {
		return append(conjuncts(and.Left), conjuncts(and.Right)...)
	}
	return []ast.Expr{e}
}
