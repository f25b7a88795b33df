package eval

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// BenchmarkCondition measures what conjuncts of WHERE cost for a row.
func BenchmarkCondition(b *testing.B) {
	for _, text := range []string{
		"o.amount >= 0",
		"o.price < 100.5",
		"o.price < 100",
		"o.amount > o.limit",
		"o.amount % 2 = 0",
		"o.status = 'open'",
		"o.amount >= 0 AND o.status = 'open'",
		"o.status = 'open' OR o.status = 'paid'",
		"NOT o.paid",
		"o.status IN ['open', 'paid', 'sent']",
		"o.amount IN [1, 2, 3]",
		"o.id IN ['order 0', 'order 1', 'order 2', 'order 3', 'order 4', 'order 5', 'order 6', 'order 7', 'order 8', 'order 9']",
		"o.closed IS NULL",
		"o.status STARTS WITH 'op'",
		"o.at >= datetime('2024-01-01T00:00:00Z')",
		"o.at < o.due",
		"any(t IN o.tags WHERE t = 'b')",
	} {
		b.Run(text, func(b *testing.B) {
			c, e := compilerFor(b, text)
			f := c.CompileCondition(e)
			measure(b, c, func(env *Env) error {
				_, err := f(env)
				return err
			})
		})
	}
}

// BenchmarkValue measures what columns of RETURN cost for a row.
func BenchmarkValue(b *testing.B) {
	for _, text := range []string{
		"o.id",
		"o.amount * 2",
		"o.amount + o.limit",
		"o.price * 1.2",
		"o.amount >= 0",
		"o.id + 'x'",
		"toUpper(o.status)",
		"size(o.status)",
		"substring(o.status, 1, 2)",
		"coalesce(o.closed, o.amount)",
		"CASE WHEN o.amount > 31 THEN 'large' ELSE 'small' END",
		"CASE o.status WHEN 'open' THEN 1 WHEN 'paid' THEN 2 END",
		"o.at + duration('P1D')",
		"[t IN o.tags | toUpper(t)]",
		"{id: o.id, amount: o.amount}",
	} {
		b.Run(text, func(b *testing.B) {
			c, e := compilerFor(b, text)
			f := c.Compile(e)
			measure(b, c, func(env *Env) error {
				_, err := f(env)
				return err
			})
		})
	}
}

// measure evaluates f with one element after another.
func measure(b *testing.B, c *Compiler, f func(*Env) error) {
	require.NoError(b, c.Errs.Err())
	orders := orders()
	env := c.NewEnv(8)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		env.Slots[0] = orders[i%len(orders)]
		if err := f(env); err != nil {
			b.Fatal(err)
		}
	}
}

func compilerFor(b *testing.B, text string) (*Compiler, ast.Expr) {
	q, err := parser.Parse("RETURN " + text)
	require.NoError(b, err)
	slots := 1
	return &Compiler{
		Slot:  func(string) (int, bool) { return 0, true },
		Alloc: func() int { slots++; return slots - 1 },
		Errs:  &token.Errors{Text: text},
	}, q.Parts[0].Clauses[0].(*ast.Return).Items[0].Expr
}

// orders returns elements of one shape, as a source makes them of the rows of a table.
func orders() []graph.Value {
	shape := graph.NewShape("id", "customer", "status", "amount", "limit", "price", "paid", "at", "due", "closed", "tags")
	tags := graph.List([]graph.Value{graph.String("a"), graph.String("b")})
	states := []string{"open", "paid", "sent"}
	list := make([]graph.Value, 64)
	for i := range list {
		n := int64(i)
		list[i] = graph.NodeOf(&graph.Element{
			ID: graph.ElementID(fmt.Sprintf("orders:%d", i)), Labels: []string{"orders"}, Shape: shape,
			Values: []graph.Value{
				graph.String(fmt.Sprintf("order %d", i)), graph.Int(n % 7), graph.String(states[i%3]), graph.Int(n), graph.Int(40),
				graph.Float(float64(i) * 3.25), graph.Bool(i%5 == 0), graph.DateTime(1_700_000_000+n*86_400, 0, nil),
				graph.DateTime(1_702_000_000, 0, nil), graph.Null, tags,
			},
		})
	}
	return list
}
