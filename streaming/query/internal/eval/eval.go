// Package eval turns expressions into closures over an array of slots.
//
// Evaluation is a function of the slots alone: the same row gives the same value or the same error whenever it is
// evaluated, which is what makes retraction exact. Errors belong to the row.
package eval

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"time"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// Func is a compiled expression.
type Func func(*Env) (graph.Value, error)

// Condition is a compiled expression of which only the truth is wanted.
type Condition func(*Env) (Truth, error)

// Env is what closures read: the slots of the row at hand. It belongs to one goroutine.
type Env struct {
	Slots []graph.Value
	// Now is the time of the batch at hand, which the functions that ask for the time return.
	Now time.Time
	// Random is where rand and randomUUID take their numbers from; nil: they fail.
	Random *rand.Rand

	spent   int           // by the expression at hand, see spend
	sites   []site        // one per property access in the text
	args    []graph.Value // of the calls at hand, the innermost last
	regexps map[string]*regexp.Regexp
}

// site remembers where a property was in the shape that came last, which is nearly always the shape that comes next.
type site struct {
	shape *graph.Shape
	slot  int
}

// NewEnv returns an environment for the expressions of c.
func (c *Compiler) NewEnv(slots int) *Env {
	return &Env{Slots: make([]graph.Value, slots), sites: make([]site, c.sites)}
}

// Compiler compiles the expressions of one query.
type Compiler struct {
	// Slot resolves a variable.
	Slot func(name string) (slot int, ok bool)
	// Replace, when set, may give an expression a slot that holds its value, as for what aggregation has computed.
	Replace func(ast.Expr) (slot int, ok bool)
	// Alloc returns a new slot, for a variable that exists inside of one expression.
	Alloc func() int
	// Parts gives the slots of what has been computed for each item before, for a list comprehension, a quantifier or a
	// reduce: an item of its list is then a list, of the item itself and these parts of the body.
	Parts map[ast.Expr][]int
	// Parameters are the values of $name.
	Parameters map[string]graph.Value
	// Errs takes everything that is wrong.
	Errs *token.Errors

	sites  int
	locals []local // innermost last
	spends bool    // the expression can make more than it is given
	varies bool    // the value depends on more than text and parameters
}

// Compile compiles e. Problems are added to Errs, and what is returned must then not be called.
func (c *Compiler) Compile(e ast.Expr) Func {
	c.spends = false
	return budgeted(c, c.compile(e))
}

// CompileCondition compiles e as a condition, as Compile does.
func (c *Compiler) CompileCondition(e ast.Expr) Condition {
	c.spends = false
	return budgeted(c, c.condition(e))
}

// budgeted gives the expression that has just been compiled a budget of its own, if it needs one.
func budgeted[T any](c *Compiler, f func(*Env) (T, error)) func(*Env) (T, error) {
	if !c.spends {
		return f
	}
	return func(env *Env) (T, error) {
		env.spent = 0
		return f(env)
	}
}

// operand is a compiled part of an expression, with its value if that is the same for all rows.
type operand struct {
	eval  Func
	fixed bool
	value graph.Value
}

func (c *Compiler) compile(e ast.Expr) Func { return c.operand(e).eval }

// operand compiles e, and evaluates it here and now if its value does not vary. What fails, or takes from the budget, does
// so for each row.
func (c *Compiler) operand(e ast.Expr) operand {
	varies, spends := c.varies, c.spends
	c.varies = false
	x := operand{eval: c.node(e)}
	if !c.varies {
		env := c.NewEnv(0)
		env.spent = budget
		if v, err := x.eval(env); err == nil {
			c.varies, c.spends = varies, spends
			return operand{constant(v), true, v}
		}
	}
	c.varies = true
	return x
}

func (c *Compiler) operands(list []ast.Expr) []operand {
	all := make([]operand, len(list))
	for i, e := range list {
		all[i] = c.operand(e)
	}
	return all
}

// node compiles e, whose parts are operands.
func (c *Compiler) node(e ast.Expr) Func {
	if c.Replace != nil {
		if slot, ok := c.Replace(e); ok {
			c.varies = true
			return Slot(slot)
		}
	}
	if p := c.predicate(e); p != nil {
		return p.value
	}
	switch e := e.(type) {
	case *ast.Literal:
		return constant(e.Value)
	case *ast.Parameter:
		v, ok := c.Parameters[e.Name]
		if !ok {
			c.Errs.Report(token.MissingParameter, e.Range, "the parameter $%s has no value", ast.FormatName(e.Name))
		}
		return constant(v)
	case *ast.Variable:
		slot, ok := c.resolve(e.Name)
		if !ok {
			c.Errs.Report(token.UndefinedVariable, e.Range, "the variable %s is not defined", ast.FormatName(e.Name))
		}
		c.varies = true
		return Slot(slot)
	case *ast.Property:
		return c.property(e)
	case *ast.Unary:
		return c.unary(e)
	case *ast.Binary:
		return c.binary(e)
	case *ast.ListLiteral:
		return c.list(e)
	case *ast.MapLiteral:
		return c.mapLiteral(e)
	case *ast.Index:
		return c.index(e)
	case *ast.Slice:
		return c.slice(e)
	case *ast.Case:
		return c.caseOf(e)
	case *ast.ListComprehension:
		return c.listComprehension(e)
	case *ast.Quantifier:
		return c.quantifier(e)
	case *ast.Reduce:
		return c.reduce(e)
	case *ast.MapProjection:
		return c.mapProjection(e)
	case *ast.Call:
		return c.call(e)
	}
	panic(fmt.Sprintf("eval: no rule for %T", e))
}

func (c *Compiler) replaced(e ast.Expr) bool {
	if c.Replace == nil {
		return false
	}
	_, ok := c.Replace(e)
	return ok
}

func constant(v graph.Value) Func {
	return func(*Env) (graph.Value, error) { return v, nil }
}

// Slot returns an expression that is a slot's value.
func Slot(slot int) Func {
	return func(env *Env) (graph.Value, error) { return env.Slots[slot], nil }
}

func (c *Compiler) property(e *ast.Property) Func {
	name, at := e.Name, c.sites
	c.sites++
	subject := c.compile(e.Subject)
	if v, ok := e.Subject.(*ast.Variable); ok && !c.replaced(v) {
		if slot, ok := c.resolve(v.Name); ok { // the usual case, without a call
			return func(env *Env) (graph.Value, error) {
				v := &env.Slots[slot]
				if v.IsElement() {
					return env.sites[at].property(v.AsElement(), name), nil
				}
				return property(*v, name)
			}
		}
	}
	return func(env *Env) (graph.Value, error) {
		v, err := subject(env)
		if err != nil {
			return graph.Null, err
		}
		if v.IsElement() {
			return env.sites[at].property(v.AsElement(), name), nil
		}
		return property(v, name)
	}
}

// property returns a property of an element. It is small enough to be inlined.
func (s *site) property(e *graph.Element, name string) graph.Value {
	if s.shape != e.Shape {
		s.move(e.Shape, name)
	}
	if uint(s.slot) >= uint(len(e.Values)) { // -1, too
		return graph.Null
	}
	return e.Values[s.slot]
}

func (s *site) move(shape *graph.Shape, name string) {
	s.shape, s.slot = shape, -1
	if shape != nil {
		s.slot = shape.Slot(name)
	}
}

// property returns what stands behind the point after a value that is no element.
func property(v graph.Value, name string) (graph.Value, error) {
	switch v.Kind() {
	case graph.KindNull:
		return graph.Null, nil
	case graph.KindMap:
		return v.AsMap().Get(name), nil
	}
	if p, ok, err := temporalProperty(v, name); ok {
		return p, err
	}
	return graph.Null, failed(token.InvalidArgumentType, "%s %s has no property %s", article(v.Kind()), v.Kind(), name)
}

func (c *Compiler) labelTest(e *ast.LabelTest) Condition {
	subject, labels := c.compile(e.Subject), e.Labels
	return func(env *Env) (Truth, error) {
		v, err := subject(env)
		switch {
		case err != nil || v.IsNull():
			return Unknown, err
		case v.Kind() != graph.KindNode && v.Kind() != graph.KindRelationship:
			return Unknown, wrongType("only nodes and relationships have labels", v)
		}
		return truth(HasLabels(v.AsElement().Labels, labels)), nil
	}
}

// HasLabels reports whether an element with these labels satisfies a label expression; nil asks for nothing.
func HasLabels(labels []string, want ast.LabelExpr) bool {
	switch want := want.(type) {
	case *ast.LabelName:
		for _, l := range labels {
			if l == want.Name.Text {
				return true
			}
		}
		return false
	case *ast.LabelAny:
		return len(labels) > 0
	case *ast.LabelNot:
		return !HasLabels(labels, want.Operand)
	case *ast.LabelBinary:
		if left := HasLabels(labels, want.Left); left == want.Or {
			return left
		}
		return HasLabels(labels, want.Right)
	}
	return true
}

func (c *Compiler) list(e *ast.ListLiteral) Func {
	items := make([]Func, len(e.Items))
	for i, item := range e.Items {
		items[i] = c.compile(item)
	}
	return func(env *Env) (graph.Value, error) {
		values, err := evalAll(env, items)
		return graph.List(values), err
	}
}

func (c *Compiler) mapLiteral(e *ast.MapLiteral) Func {
	keys, order := MapKeys(e, c.Errs)
	items := make([]Func, len(order))
	for i, from := range order {
		items[i] = c.compile(e.Values[from])
	}
	return func(env *Env) (graph.Value, error) {
		values, err := evalAll(env, items)
		return graph.MapOf(&graph.Map{Keys: keys, Values: values}), err
	}
}

func evalAll(env *Env, items []Func) ([]graph.Value, error) {
	values := make([]graph.Value, len(items))
	for i, item := range items {
		v, err := item(env)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}
