package plan

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// maxPositions is how many elements the patterns of one Match may have, as sets of positions are words of 64 bits.
const maxPositions = 64

// Match joins the rows that come in with the matches of a pattern. Consecutive MATCH clauses are one Match.
//
// What it passes on changes when a row comes in or goes, found through Incoming, and when an element changes, found
// through the anchors of the positions where it may stand. A match that has the changed element at several places is
// found from the first of them only. The identity of a match is that of the row that came in with the ids of the elements
// at all positions, those inside of a variable-length relationship included.
type Match struct {
	Base
	Number     int // among the plan's Matches
	Positions  []Position
	Nodes      int // how many positions are nodes; relationships follow them
	Conditions []Condition
	// Anchors are the ways to all matches from a changed element, by position. For a variable-length position it is the
	// way from the two ends of the segment that was found to contain the element, a relationship or an inner node.
	Anchors []Anchor
	// Incoming is the way to all matches from a row that came in. Its first steps bind the shared positions.
	Incoming Anchor
	// Inner says that it is part of a subquery or of OPTIONAL MATCH.
	Inner bool
	// Root says that the input is Unit: there is one row, so that none is remembered. It comes before any element, so that
	// Incoming has no steps.
	Root bool
	// Keep are the slots of a row that came in which this node or those behind it read, ascending: what is remembered of
	// it. The shared slots are among them.
	Keep  []int
	Paths []Path
}

// Position is one element of the pattern, or the list of relationships of a variable-length one.
type Position struct {
	Name         string // as written, or made up like "(2)" for EXPLAIN
	Named        bool
	Relationship bool
	Labels       []ast.LabelExpr // all of them must hold
	// Left and Right are the nodes of a relationship, which points from Left to Right unless it is undirected.
	Left, Right int
	Undirected  bool
	Clause      int // number of the MATCH clause: relationships of one clause differ

	Variable bool // variable length
	Min, Max int  // of a variable-length relationship; Max -1: no bound
	// Reversed says that it was written with its arrow to the left: the list of relationships, in the slot as well as in
	// that of the row that came in, runs from Right to Left.
	Reversed bool
	// Inner are the conditions that each relationship of a variable-length one must satisfy alone, with the relationship
	// in InnerSlot.
	Inner     []Condition
	InnerSlot int

	// Shared is the slot of the row that came in which holds the element (or list of relationships), or NoSlot. While a
	// match is passed on, it holds the element as the graph has it.
	Shared int
	// Slot is where the element goes, NoSlot if nothing reads it. A shared position has Slot == Shared.
	Slot int
	// What expressions anywhere behind read of the element. A change that touches none of it leaves the matches alone.
	Properties []string
	All        bool // the whole element
	ReadLabels bool
	AllInner   bool // of a variable-length one: the nodes inside are shown whole, by a path
	Scan       int  // its class in Plan.Scans; -1 if no step looks through it
}

// Path is a named path.
type Path struct {
	Positions []int  // node, relationship, node, ...
	Reversed  []bool // by relationship: the path runs from its Right to its Left
	Slot      int
}

// Anchor is a way to all matches that have something given.
type Anchor struct {
	Position   int   // -1 for Incoming
	Conditions []int // that can be decided at once, including those that read no element at all
	Steps      []Step
}

// StepKind says how a step finds its candidates.
type StepKind uint8

// The kinds of steps.
const (
	// Expand follows relationships from a node that is bound: it binds the relationship and the node at its other end,
	// or compares the latter if it is bound. A variable-length relationship is followed along all paths of fitting length.
	Expand StepKind = iota
	// Ends binds the nodes of a relationship that the anchor is or that Take or Join has bound, or compares them.
	Ends
	// Look binds a node that nothing bound leads to: every element of its class.
	Look
	// Find binds a node by the value of a property.
	Find
	// Take binds a shared position from the row that came in: only in Incoming. A row with null there has no match.
	Take
	// Join takes each remembered row that has the elements bound so far at the shared positions, and the values of its
	// Keys, and binds the other shared positions as Take does. Each of the Anchors has it once, unless the Match is Root.
	Join
)

// JoinKey is a condition that the value of a property of an element equals one of a row that came in.
type JoinKey struct {
	At       int // position of the element
	Property string
	Value    eval.Func // reads slots of the row only
	Text     string    // of Value, for people
}

// Step binds one more element or several.
type Step struct {
	Kind         StepKind
	Relationship int       // of Expand, Ends
	From, To     int       // nodes of Expand; To alone of Look, Find and Take
	Shared       []int     // of Join: the shared positions that are bound before, ascending
	Keys         []JoinKey // of Join: values by which rows are found
	Index        int       // of Find, in Plan.Indexes
	Value        eval.Func // of Find
	Conditions   []int     // that can be decided when the step is done
}
