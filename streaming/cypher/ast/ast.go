// Package ast is the syntax tree of a query. Nodes know where they stand in the text; Format prints them back.
package ast

import (
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// Query is a whole query.
type Query struct {
	Text    string
	Clauses []Clause
}

// Clause is *Match or *Return.
type Clause interface {
	Position() token.Range
	clause()
}

// Match is MATCH with its patterns and WHERE.
type Match struct {
	Range    token.Range
	Patterns []*Pattern
	Where    Expr // nil when absent
}

// Return is the last clause of a query.
type Return struct {
	Range    token.Range
	Distinct bool
	Star     bool // RETURN *, possibly followed by items
	Items    []*Item
}

// Item is one column of Return.
type Item struct {
	Expr  Expr
	Alias *Name  // nil when absent
	Text  string // source text of Expr, the column's name when there is no alias
}

// Column returns the name of the item's column.
func (i *Item) Column() string {
	if i.Alias != nil {
		return i.Alias.Text
	}
	return i.Text
}

// Name is an identifier that is defined or used.
type Name struct {
	Range token.Range
	Text  string
}

// Pattern is a path: len(Nodes) == len(Relationships)+1.
type Pattern struct {
	Nodes         []*NodePattern
	Relationships []*RelationshipPattern
}

// NodePattern is (variable:Labels {properties} WHERE condition), all of it optional.
type NodePattern struct {
	Range      token.Range
	Variable   *Name
	Labels     LabelExpr
	Properties Expr // *MapLiteral or *Parameter
	Where      Expr
}

// Direction is which way a relationship pattern points.
type Direction uint8

// The directions of -[]-, -[]-> and <-[]-.
const (
	Undirected Direction = iota
	Right
	Left
)

// RelationshipPattern is -[variable:TYPES {properties} WHERE condition]->, all of it optional.
type RelationshipPattern struct {
	Range      token.Range
	Direction  Direction
	Variable   *Name
	Types      LabelExpr
	Properties Expr // *MapLiteral or *Parameter
	Where      Expr
}

// LabelExpr is *LabelName, *LabelAny, *LabelNot or *LabelBinary.
type LabelExpr interface{ labelExpr() }

// LabelName is one label or type.
type LabelName struct{ Name Name }

// LabelAny is "%", at least one label.
type LabelAny struct{}

// LabelNot is "!".
type LabelNot struct{ Operand LabelExpr }

// LabelBinary is "&" or "|".
type LabelBinary struct {
	Or          bool
	Left, Right LabelExpr
}

func (*Match) clause()          {}
func (*Return) clause()         {}
func (*LabelName) labelExpr()   {}
func (*LabelAny) labelExpr()    {}
func (*LabelNot) labelExpr()    {}
func (*LabelBinary) labelExpr() {}

// Position returns where the clause stands.
func (m *Match) Position() token.Range { return m.Range }

// Position returns where the clause stands.
func (r *Return) Position() token.Range { return r.Range }

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
	// Binary is an operator between two operands: OR, XOR, AND, arithmetic, IN, STARTS WITH, ENDS WITH, CONTAINS.
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
	// Call is a function or an aggregation; Star is count(*).
	Call struct {
		Base
		Name     string
		Distinct bool
		Star     bool
		Args     []Expr
	}
)
