package plan

import (
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// site is what surrounds an expression.
type site struct {
	vars scope
	// predicate says that patterns may stand there, as conditions.
	predicate bool
	// replace, when it is set, knows expressions that have been computed before.
	replace func(ast.Expr) (variable, bool)
}

// compiled is an expression that can be evaluated, with the slots that it reads.
type compiled struct {
	eval  eval.Func
	reads []int
	typ   typ
}

// compiledCondition is compiled for what is only wanted as a condition.
type compiledCondition struct {
	eval  eval.Condition
	reads []int
	typ   typ
}

// expr compiles an expression. Nodes that compute what it contains, such as subqueries, become part of the chain.
func (b *builder) expr(e ast.Expr, c *chain, s site) compiled {
	b.prepare(e, c, s)
	return b.compile(e, s)
}

// prepare adds the nodes that compute what an expression contains or, if it has to be remembered, all of it.
func (b *builder) prepare(e ast.Expr, c *chain, s site) {
	b.lift(e, c, s)
	if _, done := b.computed(e, s); !done && b.volatile(e) {
		b.remember(e, c, s)
	}
}

func replaces(s site, e ast.Expr) bool {
	_, ok := s.replace(e)
	return ok
}

// volatile reports whether an expression has to be remembered, as its value may be another one at the next evaluation.
func (b *builder) volatile(e ast.Expr) bool {
	if _, ok := b.replaced[e]; ok || isSubquery(e) {
		return false
	}
	if call, ok := e.(*ast.Call); ok && eval.IsVolatile(call) && !eval.IsAggregate(call) {
		return true
	}
	for _, child := range ast.Children(e) {
		if b.volatile(child) {
			return true
		}
	}
	return false
}

// remember computes an expression in a node of its own that remembers the value for each row.
func (b *builder) remember(e ast.Expr, c *chain, s site) {
	x := b.compile(e, s)
	slot := b.slot()
	c.at = b.add(&Project{Base: Base{Input: c.at}, Items: []Item{{Expr: e, Eval: x.eval, Slot: slot, Volatile: true}}}, x.reads...)
	b.replaced[e] = variable{slot, x.typ}
}

// compile compiles an expression whose subqueries have been replaced. What is returned must not be called when problems
// have been reported.
func (b *builder) compile(e ast.Expr, s site) compiled {
	reads, t, ok := b.check(e, s)
	if !ok {
		return compiled{nil, reads, t}
	}
	return compiled{b.compiler.Compile(e), reads, t}
}

// compileCondition compiles a condition, as compile does.
func (b *builder) compileCondition(e ast.Expr, s site) compiledCondition {
	reads, t, ok := b.check(e, s)
	if !ok {
		return compiledCondition{nil, reads, t}
	}
	return compiledCondition{b.compiler.CompileCondition(e), reads, t}
}

// check checks an expression and prepares the compiler for it; ok says that it can be compiled.
func (b *builder) check(e ast.Expr, s site) (reads []int, t typ, ok bool) {
	k := checker{builder: b, site: s}
	before := len(b.errs.List)
	t = k.expr(e)
	if len(b.errs.List) > before || k.stuck { // what else is wrong may follow from this
		return k.reads, t, false
	}
	b.compiler.Slot = func(name string) (int, bool) {
		v, ok := s.vars[name]
		return v.slot, ok
	}
	b.compiler.Replace = nil
	if len(k.found) > 0 {
		b.compiler.Replace = func(e ast.Expr) (int, bool) {
			slot, ok := k.found[e]
			return slot, ok
		}
	}
	return k.reads, t, true
}

// condition compiles a conjunct of WHERE.
func (b *builder) condition(e ast.Expr, c *chain, s site) compiledCondition {
	s.predicate = true
	b.prepare(e, c, s)
	x := b.compileCondition(e, s)
	if !x.typ.kind.is(boolean) {
		b.errs.Report(token.InvalidArgumentType, e.Position(), "a condition is a BOOLEAN, this is %s", x.typ.kind.a())
	}
	return x
}

// hasAggregate reports whether an expression aggregates the rows of its own query.
func hasAggregate(e ast.Expr) bool {
	if eval.IsAggregate(e) {
		return true
	}
	if isSubquery(e) {
		return false
	}
	for _, child := range ast.Children(e) {
		if hasAggregate(child) {
			return true
		}
	}
	return false
}

// refuseAggregates reports aggregations where none can be, whatever has been computed before.
func (b *builder) refuseAggregates(e ast.Expr) {
	ast.Walk(e, func(e ast.Expr) bool {
		if eval.IsAggregate(e) {
			b.errs.Report(token.InvalidAggregation, e.Position(), "a condition cannot aggregate; give the column a name with AS and use that")
		}
		return !isSubquery(e)
	})
}

// isSubquery reports whether an expression is computed by nodes.
func isSubquery(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Subquery, *ast.PatternPredicate, *ast.PatternComprehension:
		return true
	case *ast.Call: // a node is looked up by a pattern
		name := strings.ToLower(e.Name)
		return len(e.Args) == 1 && (name == "startnode" || name == "endnode")
	}
	return false
}
