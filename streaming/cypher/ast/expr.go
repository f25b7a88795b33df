package ast

import (
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// Expr is an expression.
type Expr interface {
	Position() token.Range
	expr()
}

// Base is the part that all expressions share: where they stand.
type Base struct{ Range token.Range }

// Position returns where the expression stands.
func (b Base) Position() token.Range { return b.Range }

func (Base) expr() {}

type (
	// Literal is a constant.
	Literal struct {
		Base
		Value graph.Value
	}
	// Variable is the use of a name.
	Variable struct {
		Base
		Name string
	}
	// Parameter is $name.
	Parameter struct {
		Base
		Name string
	}
	// Property is subject.name.
	Property struct {
		Base
		Subject Expr
		Name    string
	}
	// Index is subject[index], of a list, a map or an element.
	Index struct {
		Base
		Subject, Index Expr
	}
	// Slice is subject[from..to].
	Slice struct {
		Base
		Subject  Expr
		From, To Expr // nil when absent
	}
	// LabelTest is subject:Label.
	LabelTest struct {
		Base
		Subject Expr
		Labels  LabelExpr
	}
	// Unary is NOT, + or -.
	Unary struct {
		Base
		Op      string
		Operand Expr
	}
	// Binary is an operator between two operands: OR, XOR, AND, + - * / % ^, IN, STARTS WITH, ENDS WITH, CONTAINS, =~.
	Binary struct {
		Base
		Op          string
		Left, Right Expr
	}
	// Comparison is a chain: a < b <= c means a < b AND b <= c.
	Comparison struct {
		Base
		Operands []Expr
		Ops      []string // one less than operands
	}
	// NullTest is IS NULL or IS NOT NULL.
	NullTest struct {
		Base
		Operand Expr
		Not     bool
	}
	// ListLiteral is [a, b].
	ListLiteral struct {
		Base
		Items []Expr
	}
	// MapLiteral is {a: 1}.
	MapLiteral struct {
		Base
		Keys   []Name
		Values []Expr
	}
	// Call is a function or an aggregation; Star is count(*). Name is as written, with its namespace: date.truncate.
	Call struct {
		Base
		Name     string
		Distinct bool
		Star     bool
		Args     []Expr
	}
	// Case is CASE with conditions, or with a subject that is compared with each.
	Case struct {
		Base
		Subject Expr // nil when absent
		Whens   []When
		Else    Expr // nil when absent
	}
	// When is one branch of Case.
	When struct{ Condition, Then Expr }

	// ListComprehension is [variable IN list WHERE condition | map].
	ListComprehension struct {
		Base
		Variable Name
		List     Expr
		Where    Expr // nil when absent
		Map      Expr // nil when absent
	}
	// Quantifier is ALL, ANY, NONE or SINGLE (variable IN list WHERE condition). Kind is in lower case.
	Quantifier struct {
		Base
		Kind     string
		Variable Name
		List     Expr
		Where    Expr // nil when absent: the items themselves are the conditions
	}
	// Reduce is reduce(accumulator = init, variable IN list | body).
	Reduce struct {
		Base
		Accumulator Name
		Init        Expr
		Variable    Name
		List        Expr
		Body        Expr
	}
	// MapProjection is subject {.name, .*, key: value, variable}. The subject is a *Variable.
	MapProjection struct {
		Base
		Subject Expr
		Items   []MapItem
	}
	// MapItem is one entry of MapProjection: All is ".*"; without Value it is ".Key". "variable" is "variable: variable".
	MapItem struct {
		All   bool
		Key   Name
		Value Expr
	}
	// PatternComprehension is [path = pattern WHERE condition | map].
	PatternComprehension struct {
		Base
		Pattern *Pattern
		Where   Expr // nil when absent
		Map     Expr
	}
	// PatternPredicate is a pattern where a condition stands: true when it has a match. It is found only as a condition
	// (WHERE, WHEN), as an operand of AND, OR, XOR and NOT, and as the argument of exists().
	PatternPredicate struct {
		Base
		Pattern *Pattern
	}
	// Subquery is EXISTS, COUNT or COLLECT { query }; Kind is in lower case. { pattern WHERE condition } is a query with
	// one MATCH and nothing else; Bare is set then, so that it is printed as it was written.
	Subquery struct {
		Base
		Kind  string
		Bare  bool
		Query *Query
	}
)
