package eval

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// TestConstantsAreAsVariables: it makes no difference whether an operand is known when an expression is compiled, nor
// whether what is compiled is a value or a condition.
func TestConstantsAreAsVariables(t *testing.T) {
	values := []graph.Value{
		graph.Null, graph.Bool(true), graph.Bool(false), graph.Int(0), graph.Int(2), graph.Int(-1), graph.Int(math.MinInt64), graph.Int(math.MaxInt64),
		graph.Float(0), graph.Float(2), graph.Float(-2.5), graph.Float(math.NaN()), graph.Float(math.Inf(1)),
		graph.Decimal(apd.New(20, -1)), graph.Decimal(apd.New(-25, -1)), graph.Decimal(&apd.Decimal{Form: apd.NaN}),
		graph.String(""), graph.String("b"), graph.String("[a-c]"), graph.String("2024-02-29"), graph.String("x"),
		graph.Date(19782), graph.DateTime(1_709_210_000, 0, nil), graph.DurationOf(graph.Duration{Days: 1}),
		graph.List(nil), graph.List([]graph.Value{graph.Int(2), graph.Null}), long(graph.String("b")), long(graph.Int(2)), long(graph.Null),
		graph.MapOf(graph.NewMap(map[string]graph.Value{"x": graph.Int(2)})),
	}
	for _, text := range []string{
		"a = b", "a <> b", "a < b", "a <= b", "a > b", "a >= b", "a < b <= a", "a AND b", "a OR b", "a XOR b", "NOT a", "a IS NULL", "a IS NOT NULL",
		"a IN b", "a STARTS WITH b", "a ENDS WITH b", "a CONTAINS b", "a =~ b", "a:A", "a + b", "a - b", "a * b", "a / b", "a % b", "a ^ b", "-a", "+a",
		"CASE WHEN a THEN b END", "CASE a WHEN b THEN 1 ELSE 2 END", "a[b]", "a.x", "a.year", "[a, b]", "{k: a}", "a[b..]", "coalesce(a, b)", "toString(a)",
		"nullIf(a, b)", "date(a)", "datetime(a)", "substring(a, b)", "range(a, 2)", "any(v IN a WHERE v = b)", "[v IN a WHERE v > b | v + b]",
	} {
		for _, a := range values {
			for _, b := range values {
				want := outcomes(t, text, a, b)
				for _, constants := range []string{"a", "b", "ab"} {
					require.Equal(t, want, outcomes(t, parametrized(text, constants), a, b), "%s where a is %s, b is %s, %s known", text, a, b, constants)
				}
			}
		}
	}
}

// long returns a list of more items than are compared one by one, with one more in its midst.
func long(v graph.Value) graph.Value {
	list := []graph.Value{graph.String("z"), graph.Int(7), graph.Int(-1), graph.String("a"), v}
	for i := range 8 {
		list = append(list, graph.Int(int64(10-i)))
	}
	return graph.List(list)
}

// parametrized makes parameters of variables.
func parametrized(text, variables string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ()[]{},.:-+", r) })
	rest, done := text, ""
	for _, w := range words {
		at := strings.Index(rest, w)
		done, rest = done+rest[:at], rest[at+len(w):]
		if strings.Contains(variables, w) {
			done += "$"
		}
		done += w
	}
	return done + rest
}

// outcomes evaluates an expression as a value and as a condition.
func outcomes(t *testing.T, text string, a, b graph.Value) string {
	q, err := parser.Parse("RETURN " + text)
	require.NoError(t, err)
	slots := 2
	c := &Compiler{
		Slot:       func(name string) (int, bool) { return strings.Index("ab", name), name == "a" || name == "b" },
		Alloc:      func() int { slots++; return slots - 1 },
		Parameters: map[string]graph.Value{"a": a, "b": b},
		Errs:       &token.Errors{Text: text},
	}
	e := q.Parts[0].Clauses[0].(*ast.Return).Items[0].Expr
	f, condition := c.Compile(e), c.CompileCondition(e)
	require.NoError(t, c.Errs.Err())
	env := c.NewEnv(slots)
	env.Now = time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
	env.Slots[0], env.Slots[1] = a, b
	v, err := f(env)
	is, cause := condition(env)
	switch {
	case err != nil:
		require.Equal(t, err, cause)
		return err.Error()
	case v.Kind() == graph.KindBool:
		require.NoError(t, cause)
		require.Equal(t, truth(v.AsBool()), is)
	case v.IsNull():
		require.NoError(t, cause)
		require.Equal(t, Unknown, is)
	default:
		require.Error(t, cause)
	}
	return fmt.Sprint(v.Kind(), v)
}
