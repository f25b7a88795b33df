// Package plan turns a syntax tree into a dataflow: nodes that take rows, change them and pass them on, each standing for
// one operator of package operator.
//
// # Rows
//
// All operators of a plan share one array of slots (eval.Env). Each variable, each column of a projection and each value
// that an operator adds has a slot of its own, which one node writes and every node behind it may read; so a row is
// passed on without being copied. A node that remembers rows, to pass them on later, keeps the slots of Live and puts
// them back first. WITH a AS b gives no new slot: b is another name of a's.
//
// A row has an identity too, unique among the rows that a node has passed on and not taken back, and a weight of +1 or -1.
//
// # Subqueries
//
// OPTIONAL MATCH, EXISTS, COUNT, COLLECT, pattern predicates and pattern comprehensions are all made in one way. An
// Argument gives each incoming row a scope, its identity as a value in a slot. The inner nodes take the argument's rows
// as their input and carry the scope along like any other variable: aggregations group by it, limits count within it. At
// the end Optional or Apply brings the inner rows and the outer row of a scope together again.
package plan

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// NoSlot stands for a slot that is not needed.
const NoSlot = -1

// Plan is what is executed.
type Plan struct {
	Query   *ast.Query
	Columns []string
	Nodes   []Node   // each behind those whose rows it takes; the first is Unit, the last Output
	Matches []*Match // those of Nodes, in the same order
	Scans   []Scan
	Indexes []Index
	Slots   int  // how many the operators share
	Ordered bool // the result has an order: Output.Order is a slot

	compiler *eval.Compiler
	readsOf  [][]int       // by node: the slots that its expressions read
	names    []string      // of slots, for people; "" without one
	clauses  []token.Range // by node: the clause that it is for
}

// NewEnv returns the environment that the operators of one query share.
func (p *Plan) NewEnv() *eval.Env { return p.compiler.NewEnv(p.Slots) }

// Node is one of the types below.
type Node interface{ Common() *Base }

// Base is what all nodes share.
type Base struct {
	ID    int
	Input int // ID of the node whose rows it takes; -1 for Unit and Union
	// Live are the slots that nodes behind this one read and that this node or one before it writes, ascending: what a
	// node that passes rows on later has to put back.
	Live []int
}

// Common returns the base.
func (b *Base) Common() *Base { return b }

type (
	// Unit has one row without columns, from the moment the query starts.
	Unit struct{ Base }

	// Argument passes rows on as they are, with the identity of each in Scope.
	Argument struct {
		Base
		Scope int
	}

	// Filter passes on the rows on which all conditions are true.
	Filter struct {
		Base
		Conditions []Condition
	}

	// Project computes values. The identity of a row stays what it was.
	Project struct {
		Base
		Items []Item
	}

	// Unwind passes a row on once for each item of a list: the identity gets the item's place in the list. Null is an
	// empty list, any other value that is no list is a list of itself.
	Unwind struct {
		Base
		List Item // Slot takes the item
		// Order takes the order of the row, as of a node Order: that in the slot From, if the rows that come in have one,
		// and then the item's place in the list. NoSlot if nothing depends on it.
		Order int
		From  int // or NoSlot
	}

	// Aggregate gathers rows in groups and passes on one row for each group that has rows or, with Seed, a seed. Without
	// Aggregates it is DISTINCT. A row's identity is that of its group.
	Aggregate struct {
		Base
		Keys []Item // the scope, where there is one, is the first
		// Seed is the node whose rows each make a group that has no rows yet: an aggregation without keys of its own has
		// one row (per scope) from the start. -1: groups exist through their rows only. A seed has all Keys in its slots.
		Seed int
		// Carried are live slots that are neither keys nor aggregates: those of the outer query, which are the same for
		// all rows of a group.
		Carried    []int
		Aggregates []Aggregation
		// Order is the slot with the order of the rows that come in, for aggregations that depend on it, or NoSlot: then
		// it is the order of their identities.
		Order int
	}

	// Order computes the order of rows, as one string in Slot that compares like the keys.
	Order struct {
		Base
		Keys []SortKey
		Slot int
	}

	// Limit passes on the rows from Skip up to Skip+Limit of each scope, in the order of the slot Order and then of their
	// identities.
	Limit struct {
		Base
		Scope int // NoSlot outside of subqueries
		Order int // NoSlot without ORDER BY
		Skip  int64
		Limit int64 // -1: all
	}

	// Optional passes on the inner rows, and the outer row of each scope without any, with null in Nulls. Input is the
	// Argument.
	Optional struct {
		Base
		Inner int
		Scope int
		Nulls []int
	}

	// Apply passes on the outer row of each scope with a value of its inner row, of which there is one at most. Input is
	// the Argument.
	Apply struct {
		Base
		Inner   int
		Scope   int
		From    int         // the inner row's slot
		Slot    int         // where the value goes
		Default graph.Value // the value of scopes without an inner row
	}

	// Union passes on the rows of all its branches: the identity gets the branch's number.
	Union struct {
		Base
		Branches []Branch
		To       []int // slots of the columns
	}

	// Output is the result set. Rows are told apart by their identities.
	Output struct {
		Base
		Columns []int
		Order   int // slot, or NoSlot
	}
)

// Branch is one input of a Union.
type Branch struct {
	Input int
	From  []int // slots of its columns; constants have been projected
}

// Item is a value that goes into a slot.
type Item struct {
	Expr ast.Expr // for people; nil for what no text stands for
	Eval eval.Func
	Slot int
	// Volatile says that evaluating it again may give something else: it asks for the time or for chance. Project stores
	// such a value with the row. Nothing but an item of Project may be volatile; others read the slot that it wrote.
	Volatile bool
}

// SortKey is one key of Order.
type SortKey struct {
	Item       // Slot is not used
	Descending bool
}

// Aggregation is one aggregating call.
type Aggregation struct {
	Name     string // lower case
	Distinct bool
	Expr     *ast.Call
	Arg      eval.Func // nil for count(*)
	Extra    eval.Func // the percentile of percentileCont and percentileDisc, else nil
	Nulls    bool      // collect keeps nulls, as COLLECT { } and pattern comprehensions do
	Slot     int       // where the value goes
}

// Condition is one conjunct of WHERE, or one entry of an inline map.
type Condition struct {
	Expr      ast.Expr
	Eval      eval.Condition
	Positions uint64 // of the Match: the elements that it reads; unused in Filter
	Incoming  bool   // it reads slots of the row that comes in, beside shared elements
}

// Scan is a class of elements that a step looks through: all that have one of the labels. Steps that want the same
// class share it.
type Scan struct {
	Relationship bool
	Labels       []ast.LabelExpr // all of them must hold
}

// Index finds elements of a class by the value of a property.
type Index struct {
	Scan     int
	Property string
}
