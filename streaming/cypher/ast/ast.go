// Package ast is the syntax tree of a query. Nodes know where they stand in the text; Format prints them back.
package ast

import (
	"github.com/perdure/perdure/streaming/cypher/token"
)

// Query is a whole query: parts that UNION joins. len(Unions) == len(Parts)-1.
type Query struct {
	Text   string // what was parsed, which all ranges refer to; a subquery has that of the whole query
	Parts  []*SingleQuery
	Unions []Union // Unions[i] stands between Parts[i] and Parts[i+1]
}

// Union is UNION or UNION ALL.
type Union struct {
	Range token.Range
	All   bool
}

// SingleQuery is a sequence of clauses, none of them empty. The last, and no other, is *Return; in EXISTS and COUNT it may
// be missing.
type SingleQuery struct {
	Range   token.Range
	Clauses []Clause
}

// Clause is *Match, *Unwind, *With or *Return.
type Clause interface {
	Position() token.Range
	clause()
}

// Match is MATCH or OPTIONAL MATCH with its patterns and WHERE.
type Match struct {
	Range    token.Range
	Optional bool
	Patterns []*Pattern
	Where    Expr // nil when absent
}

// Unwind is UNWIND list AS variable.
type Unwind struct {
	Range    token.Range
	List     Expr
	Variable Name
}

// With is WITH with its columns and WHERE.
type With struct {
	Range token.Range
	Projection
	Where Expr // nil when absent
}

// Return is RETURN with its columns.
type Return struct {
	Range token.Range
	Projection
}

// Projection is what WITH and RETURN share.
type Projection struct {
	Distinct bool
	Star     bool // *, possibly followed by items
	Items    []*Item
	OrderBy  []*SortItem
	Skip     Expr // nil when absent
	Limit    Expr // nil when absent
}

// Item is one column of a projection.
type Item struct {
	Expr  Expr
	Alias *Name  // nil when absent
	Text  string // source text of Expr, as it was written
}

// Column returns the name of the item's column: the alias, the variable, or the text of the expression.
func (i *Item) Column() string {
	if i.Alias != nil {
		return i.Alias.Text
	}
	if v, ok := i.Expr.(*Variable); ok {
		return v.Name
	}
	return i.Text
}

// SortItem is one key of ORDER BY.
type SortItem struct {
	Expr       Expr
	Descending bool
}

// Name is an identifier that is defined or used.
type Name struct {
	Range token.Range
	Text  string
}

// Pattern is a path, possibly named: len(Nodes) == len(Relationships)+1.
type Pattern struct {
	Range         token.Range
	Variable      *Name // of the path; nil when absent
	Nodes         []*NodePattern
	Relationships []*RelationshipPattern
}

// NodePattern is (variable:Labels {properties} WHERE condition), all of it optional.
type NodePattern struct {
	Range      token.Range
	Variable   *Name
	Labels     LabelExpr
	Properties Expr // *MapLiteral; nil when absent
	Where      Expr
}

// Direction is which way a relationship pattern points.
type Direction uint8

// The directions of -[]-, -[]-> and <-[]-. <-[]-> is Undirected.
const (
	Undirected Direction = iota
	Right
	Left
)

// RelationshipPattern is -[variable:TYPES*min..max {properties} WHERE condition]->, all of it optional.
type RelationshipPattern struct {
	Range      token.Range
	Direction  Direction
	Variable   *Name
	Types      LabelExpr
	Length     *Length // nil: exactly one relationship, and the variable is no list
	Properties Expr    // *MapLiteral or *Parameter
	Where      Expr
}

// Length is the bounds of a variable-length relationship. * is 1 and no bound, *3 is 3 and 3.
type Length struct {
	Range token.Range
	Min   int64 // 1 when absent
	Max   int64 // -1: no bound
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
func (*Unwind) clause()         {}
func (*With) clause()           {}
func (*Return) clause()         {}
func (*LabelName) labelExpr()   {}
func (*LabelAny) labelExpr()    {}
func (*LabelNot) labelExpr()    {}
func (*LabelBinary) labelExpr() {}

// Position returns where the clause stands.
func (m *Match) Position() token.Range { return m.Range }

// Position returns where the clause stands.
func (u *Unwind) Position() token.Range { return u.Range }

// Position returns where the clause stands.
func (w *With) Position() token.Range { return w.Range }

// Position returns where the clause stands.
func (r *Return) Position() token.Range { return r.Range }
