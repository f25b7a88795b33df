package ast

import "strings"

// The levels of precedence, weakest first. Operators of one level group to the left; the operands of an operator are of
// its level or a higher one.
const (
	LevelOr = iota
	LevelXor
	LevelAnd
	LevelNot
	LevelComparison
	LevelPredicate // IN, STARTS WITH, ENDS WITH, CONTAINS, =~, IS NULL
	LevelAdd
	LevelMultiply
	LevelPower
	LevelUnary // + and - before an operand
	LevelLabelTest
	LevelPostfix // property, index, slice
	LevelAtom
)

// Precedence returns the level of an operator that stands between two operands, or behind one (IS NULL, IS NOT NULL).
func Precedence(op string) int {
	switch op {
	case "OR":
		return LevelOr
	case "XOR":
		return LevelXor
	case "AND":
		return LevelAnd
	case "=", "<>", "<", "<=", ">", ">=":
		return LevelComparison
	case "+", "-":
		return LevelAdd
	case "*", "/", "%":
		return LevelMultiply
	case "^":
		return LevelPower
	}
	return LevelPredicate
}

// levelOf returns the level that an expression is on when it is printed without parentheses.
func levelOf(e Expr) int {
	switch e := e.(type) {
	case *Binary:
		return Precedence(e.Op)
	case *Comparison:
		return LevelComparison
	case *NullTest:
		return LevelPredicate
	case *Unary:
		if e.Op == "NOT" {
			return LevelNot
		}
		return LevelUnary
	case *LabelTest:
		return LevelLabelTest
	case *Property, *Index, *Slice:
		return LevelPostfix
	case *Literal:
		if e.negative() {
			return LevelUnary
		}
	}
	return LevelAtom
}

func (l *Literal) negative() bool {
	return l.Value.IsNumber() && strings.HasPrefix(l.Value.String(), "-")
}

// Reserved reports whether a word cannot be a variable's name without backticks.
func Reserved(word string) bool {
	if len(word) > len("DESCENDING") {
		return false
	}
	switch strings.ToUpper(word) {
	case "AND", "AS", "ASC", "ASCENDING", "BY", "CASE", "CONTAINS", "CREATE", "DELETE", "DESC", "DESCENDING",
		"DETACH", "DISTINCT", "ELSE", "END", "ENDS", "EXISTS", "FALSE", "IN", "IS", "LIMIT", "MATCH", "MERGE", "NOT", "NULL",
		"ON", "OPTIONAL", "OR", "ORDER", "REMOVE", "RETURN", "SET", "SKIP", "STARTS", "THEN", "TRUE", "UNION", "UNWIND",
		"WHEN", "WHERE", "WITH", "XOR":
		return true
	}
	return false
}
