package plan

import (
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// checker walks through one expression: it resolves variables, infers types, reports what cannot be, and notes which
// slots are read and what of the elements in them.
type checker struct {
	*builder
	site
	locals []localVariable // innermost last
	reads  []int
	found  map[ast.Expr]int // the slots of expressions that have been computed before
	stuck  bool             // there is a subquery that could not be computed before
}

// localVariable is a variable of a comprehension, a quantifier or a reduce.
type localVariable struct {
	name string
	typ  typ
	slot int // of the list of relationships whose items it is, or NoSlot
}

// computed returns the slot of an expression that has been computed before. What the variables at hand say goes first,
// and what uses a local variable was not computed outside.
func (k *checker) computed(e ast.Expr) (variable, bool) {
	v, ok := k.replaced[e]
	if !ok && k.replace != nil {
		if _, own := k.vars[nameOf(e)]; !own && !k.usesLocal(e) {
			v, ok = k.replace(e)
		}
	}
	if ok {
		if k.found == nil {
			k.found = make(map[ast.Expr]int)
		}
		k.found[e] = v.slot
	}
	return v, ok
}

func (k *checker) usesLocal(e ast.Expr) bool {
	return slices.ContainsFunc(k.locals, func(l localVariable) bool { return mentions(e, l.name) })
}

func (k *checker) mismatch(e ast.Expr, format string, args ...any) {
	k.errs.Report(token.InvalidArgumentType, e.Position(), format, args...)
}

// want infers the type of an operand and reports it when it is none of the kinds.
func (k *checker) want(e ast.Expr, what string, kinds ...kind) typ {
	t := k.expr(e)
	if !t.kind.is(kinds...) {
		k.mismatch(e, "%s, not %s", what, t.kind.a())
	}
	return t
}

// read notes that a slot is read. It returns what to note of the element in it, which may be discarded.
func (k *checker) read(slot int) *use {
	if slot == NoSlot {
		return &use{}
	}
	if !slices.Contains(k.reads, slot) {
		k.reads = append(k.reads, slot)
	}
	return &k.uses[slot]
}

// resolve returns the type of a variable and, if there is an element in it, what to note of that.
func (k *checker) resolve(v *ast.Variable) (typ, *use) {
	for i := len(k.locals) - 1; i >= 0; i-- {
		if l := k.locals[i]; l.name == v.Name {
			return l.typ, k.read(l.slot)
		}
	}
	known, ok := k.vars[v.Name]
	switch {
	case !ok:
		k.errs.Report(token.UndefinedVariable, v.Range, "the variable %s is not defined", ast.FormatName(v.Name))
	case known.slot == grouped:
		k.ambiguous(v.Name, v.Range)
	default:
		return known.typ, k.read(known.slot)
	}
	return typ{}, &use{}
}

// subject infers the type of an expression of which only a part is read, and returns where to note the part.
func (k *checker) subject(e ast.Expr) (typ, *use) {
	if v, ok := k.computed(e); ok {
		return v.typ, k.read(v.slot)
	}
	if v, ok := e.(*ast.Variable); ok {
		return k.resolve(v)
	}
	return k.expr(e), &use{}
}

// expr infers the type of an expression.
func (k *checker) expr(e ast.Expr) typ {
	if v, ok := k.computed(e); ok {
		k.read(v.slot).all = true
		return v.typ
	}
	switch e := e.(type) {
	case *ast.Literal:
		return typeOf(e.Value)
	case *ast.Variable:
		t, u := k.resolve(e)
		u.all = true
		return t
	case *ast.Property:
		t, u := k.subject(e.Subject)
		u.property(e.Name)
		if !t.kind.is(mapping, node, relationship) {
			k.mismatch(e.Subject, "%s has no properties", t.kind.a())
		}
	case *ast.LabelTest:
		t, u := k.subject(e.Subject)
		u.labels = true
		if !t.kind.is(node, relationship) {
			k.mismatch(e.Subject, "%s has no labels", t.kind.a())
		}
		return typ{kind: boolean}
	case *ast.NullTest:
		k.subject(e.Operand)
		return typ{kind: boolean}
	case *ast.Unary:
		if e.Op == "NOT" {
			k.want(e.Operand, "NOT wants a BOOLEAN", boolean)
			return typ{kind: boolean}
		}
		return typ{kind: k.want(e.Operand, e.Op+" wants a number", integer, float).kind}
	case *ast.Binary:
		return k.binary(e)
	case *ast.Comparison:
		k.comparison(e)
		return typ{kind: boolean}
	case *ast.Index:
		k.expr(e.Index)
		if t := k.expr(e.Subject); t.kind == list {
			return typ{kind: t.item}
		}
	case *ast.Slice:
		k.optional(e.From)
		k.optional(e.To)
		return k.want(e.Subject, "a slice is of a LIST", list)
	case *ast.ListLiteral:
		t := typ{kind: list}
		for i, item := range e.Items {
			if found := k.expr(item).kind; i == 0 {
				t.item = found
			} else if t.item != found {
				t.item = anything
			}
		}
		return t
	case *ast.MapLiteral:
		for _, v := range e.Values {
			k.expr(v)
		}
		return typ{kind: mapping}
	case *ast.MapProjection:
		k.mapProjection(e)
		return typ{kind: mapping}
	case *ast.Call:
		return k.call(e)
	case *ast.Case:
		return k.caseOf(e)
	case *ast.ListComprehension:
		item, slot := k.items(e.List, "a list comprehension")
		k.with(e.Variable.Text, item, slot, func() {
			k.whether(e.Where)
			if e.Map != nil {
				item = typ{kind: k.expr(e.Map).kind}
			} else if slot != NoSlot {
				k.read(slot).all = true
			}
		})
		return typ{kind: list, item: item.kind}
	case *ast.Quantifier:
		item, slot := k.items(e.List, e.Kind)
		k.with(e.Variable.Text, item, slot, func() { k.whether(e.Where) })
		return typ{kind: boolean}
	case *ast.Reduce:
		k.expr(e.Init)
		item, slot := k.items(e.List, "reduce")
		k.with(e.Accumulator.Text, typ{}, NoSlot, func() {
			k.with(e.Variable.Text, item, slot, func() { k.expr(e.Body) })
		})
	case *ast.Subquery, *ast.PatternPredicate, *ast.PatternComprehension:
		if k.stuck = true; len(k.errs.List) == 0 {
			k.errs.Report(token.Unsupported, e.Position(), "a subquery cannot be used here")
		}
	}
	return typ{}
}

func (k *checker) optional(e ast.Expr) {
	if e != nil {
		k.expr(e)
	}
}

func (k *checker) whether(e ast.Expr) {
	if e != nil {
		k.want(e, "a condition is a BOOLEAN", boolean)
	}
}

// items infers the type of the items of a list. Of relationships that a pattern has found, the slot of their list is
// returned: what is read of the items is noted there.
func (k *checker) items(e ast.Expr, what string) (item typ, slot int) {
	if v, ok := e.(*ast.Variable); ok {
		if t, _ := k.resolve(v); t == (typ{list, relationship}) && !k.isLocal(v.Name) {
			return typ{kind: relationship}, k.vars[v.Name].slot
		}
	}
	t := k.want(e, what+" wants a LIST", list)
	return typ{kind: t.item}, NoSlot
}

func (k *checker) isLocal(name string) bool {
	return slices.ContainsFunc(k.locals, func(l localVariable) bool { return l.name == name })
}

func (k *checker) with(name string, t typ, slot int, check func()) {
	k.locals = append(k.locals, localVariable{name, t, slot})
	check()
	k.locals = k.locals[:len(k.locals)-1]
}

func (k *checker) binary(e *ast.Binary) typ {
	switch e.Op {
	case "AND", "OR", "XOR":
		k.want(e.Left, e.Op+" wants BOOLEANs", boolean)
		k.want(e.Right, e.Op+" wants BOOLEANs", boolean)
		return typ{kind: boolean}
	case "IN":
		k.expr(e.Left)
		k.want(e.Right, "IN wants a LIST", list)
		return typ{kind: boolean}
	case "+":
		left, right := k.expr(e.Left), k.expr(e.Right)
		switch {
		case left.kind == list && right.kind == list:
			return left.or(right)
		case left.kind == list || right.kind == list:
			return typ{kind: list}
		case left.kind == right.kind && left.kind.is(integer, float, text):
			return left
		}
		return typ{}
	case "-", "*", "/", "%", "^":
		left, right := k.operand(e.Left, e.Op), k.operand(e.Right, e.Op)
		if left.kind == right.kind && left.kind.is(integer, float) && e.Op != "^" {
			return left
		}
		return typ{}
	}
	k.expr(e.Left)
	k.expr(e.Right)
	return typ{kind: boolean}
}

// operand checks what is calculated with: numbers or temporal values, whose type is not known here.
func (k *checker) operand(e ast.Expr, op string) typ {
	return k.want(e, op+" wants a number", integer, float)
}

// comparison notes nothing but identities where elements are compared with each other.
func (k *checker) comparison(e *ast.Comparison) {
	elements := true
	for _, operand := range e.Operands {
		v, ok := operand.(*ast.Variable)
		if _, done := k.computed(operand); !ok || done || k.isLocal(v.Name) || !slices.Contains([]kind{node, relationship}, k.vars[v.Name].typ.kind) {
			elements = false
		}
	}
	for _, operand := range e.Operands {
		if elements {
			k.subject(operand)
		} else {
			k.expr(operand)
		}
	}
}

func (k *checker) caseOf(e *ast.Case) (t typ) {
	k.optional(e.Subject)
	for i, when := range e.Whens {
		if e.Subject == nil {
			k.whether(when.Condition)
		} else {
			k.expr(when.Condition)
		}
		if then := k.expr(when.Then); i == 0 {
			t = then
		} else {
			t = t.or(then)
		}
	}
	if e.Else != nil {
		t = t.or(k.expr(e.Else))
	}
	return t
}

func (k *checker) mapProjection(e *ast.MapProjection) {
	t, u := k.subject(e.Subject)
	if !t.kind.is(mapping, node, relationship) {
		k.mismatch(e.Subject, "%s has no properties", t.kind.a())
	}
	for _, item := range e.Items {
		switch {
		case item.All:
			u.all = true
		case item.Value != nil:
			k.expr(item.Value)
		default:
			u.property(item.Key.Text)
		}
	}
}

// function is what is known of a function: what it takes, if that is not everything, what it returns, and whether it
// needs of an element no more than its identity or its labels.
type function struct {
	takes    []kind
	returns  typ
	identity bool
	labels   bool
}

var functions = map[string]function{
	"id":            {takes: []kind{node, relationship}, identity: true},
	"elementid":     {takes: []kind{node, relationship}, returns: typ{kind: text}, identity: true},
	"labels":        {takes: []kind{node}, returns: typ{list, text}, labels: true},
	"type":          {takes: []kind{relationship}, returns: typ{kind: text}, labels: true},
	"keys":          {takes: []kind{node, relationship, mapping}, returns: typ{list, text}},
	"properties":    {takes: []kind{node, relationship, mapping}, returns: typ{kind: mapping}},
	"nodes":         {takes: []kind{path}, returns: typ{list, node}},
	"relationships": {takes: []kind{path}, returns: typ{list, relationship}},
	"length":        {takes: []kind{path}, returns: typ{kind: integer}, identity: true},
	"size":          {takes: []kind{list, text}, returns: typ{kind: integer}, identity: true},
	"exists":        {returns: typ{kind: boolean}},
	"isempty":       {takes: []kind{list, text, mapping}, returns: typ{kind: boolean}},
	"range":         {returns: typ{list, integer}},
	"tostring":      {returns: typ{kind: text}},
	"tointeger":     {returns: typ{kind: integer}},
	"tofloat":       {returns: typ{kind: float}},
	"toboolean":     {returns: typ{kind: boolean}},
	"split":         {returns: typ{list, text}},
	"tolower":       {returns: typ{kind: text}},
	"toupper":       {returns: typ{kind: text}},
	"rand":          {returns: typ{kind: float}},
	"count":         {returns: typ{kind: integer}, identity: true},
}

func (k *checker) call(e *ast.Call) typ {
	name := strings.ToLower(e.Name)
	if eval.IsAggregate(e) {
		k.misplaced(e)
		return typ{}
	}
	f := functions[name]
	for i, arg := range e.Args {
		var t typ
		if i > 0 || !f.identity && !f.labels {
			t = k.expr(arg)
		} else {
			var u *use
			t, u = k.subject(arg)
			u.labels = u.labels || f.labels
		}
		if i == 0 && f.takes != nil && !t.kind.is(f.takes...) {
			k.mismatch(arg, "%s does not take %s", e.Name, t.kind.a())
		}
		if i == 0 {
			switch name {
			case "head", "last":
				f.returns = typ{kind: t.item}
			case "reverse", "tail":
				f.returns = t
			case "coalesce":
				if len(e.Args) == 1 {
					f.returns = t
				}
			}
		}
	}
	return f.returns
}

// misplaced reports an aggregation where none can be, unless something else is wrong with it.
func (k *checker) misplaced(e *ast.Call) {
	before := len(k.errs.List)
	for _, arg := range e.Args {
		k.expr(arg)
	}
	if len(k.errs.List) == before {
		k.errs.Report(token.InvalidAggregation, e.Range, "%s cannot be used here: there are no rows to aggregate", e.Name)
	}
}
