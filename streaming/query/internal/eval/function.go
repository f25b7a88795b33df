package eval

import (
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// function is one that makes one value of its arguments. Names of functions are not case-sensitive.
type function struct {
	least, most int // arguments; most -1: no bound
	// nulls says that the function sees null arguments; any other is null if one of its arguments is.
	nulls bool
	// volatile says that the value depends on more than the arguments.
	volatile bool
	call     func(env *Env, args []graph.Value) (graph.Value, error)
}

// functions by their names in lower case.
var functions = merged(scalarFunctions, listFunctions, mathFunctions, stringFunctions, conversionFunctions, temporalFunctions)

func merged(tables ...map[string]function) map[string]function {
	all := make(map[string]function)
	for _, t := range tables {
		for name, f := range t {
			all[name] = f
		}
	}
	return all
}

// aggregates are the functions that make one value of many rows, with the number of their arguments.
var aggregates = map[string]int{
	"count": 1, "sum": 1, "avg": 1, "min": 1, "max": 1, "collect": 1, "stdev": 1, "stdevp": 1,
	"percentilecont": 2, "percentiledisc": 2,
}

// IsAggregate reports whether an expression is a call that aggregates rows.
func IsAggregate(e ast.Expr) bool {
	c, ok := e.(*ast.Call)
	return ok && aggregates[strings.ToLower(c.Name)] > 0
}

// AggregateArgs returns how many arguments an aggregating function takes; 0 if there is none of that name.
func AggregateArgs(name string) int { return aggregates[strings.ToLower(name)] }

// IsVolatile reports whether an expression may have another value when it is evaluated again for the same row, as
// rand() and datetime() have: whoever retracts what was made of it has to remember its value.
func IsVolatile(e ast.Expr) bool {
	volatile := false
	ast.Walk(e, func(e ast.Expr) bool {
		if c, ok := e.(*ast.Call); ok {
			f := functions[strings.ToLower(c.Name)]
			volatile = volatile || f.volatile && (f.least > 0 || len(c.Args) == 0 || asksForTime(c))
		}
		return !volatile
	})
	return volatile
}

// isDated reports whether a call that may ask for the time makes a date or time of a text that says it all.
func isDated(e *ast.Call, args []operand) bool {
	if len(args) != 1 || IsVolatile(e) {
		return false
	}
	return args[0].value.Kind() == graph.KindString
}

func (c *Compiler) call(e *ast.Call) Func {
	name := strings.ToLower(e.Name)
	args := c.operands(e.Args)
	f, ok := functions[name]
	switch {
	case aggregates[name] > 0:
		c.Errs.Report(token.InvalidAggregation, e.Range, "the aggregation %s cannot be used here", e.Name)
	case !ok:
		c.Errs.Report(token.UnknownFunction, e.Range, "there is no function %s", e.Name)
	case e.Star || e.Distinct:
		c.Errs.Report(token.UnexpectedSyntax, e.Range, "%s is no aggregation", e.Name)
	case len(args) < f.least || f.most >= 0 && len(args) > f.most:
		c.Errs.Report(token.InvalidNumberOfArguments, e.Range, "%s takes %s, got %d", e.Name, f.arity(), len(args))
	case name == "coalesce": // what comes behind the first value is not evaluated
		return coalesce(args)
	default:
		c.spends = true
		c.varies = c.varies || f.volatile && !isDated(e, args)
		return f.applied(args)
	}
	return constant(graph.Null)
}

// applied returns the call. The values of the arguments lie in the environment while it lasts, on top of those of the
// calls that this one is an argument of.
func (f function) applied(args []operand) Func {
	call, nulls := f.call, f.nulls
	return func(env *Env) (graph.Value, error) {
		bottom := len(env.args)
		for i := range args {
			v, err := args[i].eval(env)
			if err != nil || v.IsNull() && !nulls {
				env.args = env.args[:bottom]
				return graph.Null, err
			}
			env.args = append(env.args, v)
		}
		v, err := call(env, env.args[bottom:])
		env.args = env.args[:bottom]
		if err == nil {
			err = env.made(v)
		}
		return v, err
	}
}

func (f function) arity() string {
	switch {
	case f.most < 0:
		return plural("at least", f.least)
	case f.least == f.most && f.most == 0:
		return "no arguments"
	case f.least == f.most:
		return plural("", f.most)
	}
	return plural("at most", f.most)
}

func plural(how string, n int) string {
	words := [...]string{"no", "one", "two", "three", "four"}
	noun := " arguments"
	if n == 1 {
		noun = " argument"
	}
	return strings.TrimSpace(how + " " + words[min(n, len(words)-1)] + noun)
}

func coalesce(args []operand) Func {
	return func(env *Env) (graph.Value, error) {
		for i := range args {
			if v, err := args[i].eval(env); err != nil || !v.IsNull() {
				return v, err
			}
		}
		return graph.Null, nil
	}
}
