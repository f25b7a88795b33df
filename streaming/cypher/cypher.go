// Package cypher reads openCypher: text to syntax tree and back, with errors that show where they are.
//
// The language is all of openCypher that reads: MATCH, OPTIONAL MATCH, UNWIND, WITH, RETURN and UNION, all patterns and
// all expressions, and of what came later label expressions, conditions within patterns, and EXISTS, COUNT and COLLECT
// subqueries. Clauses that write, procedures and shortest paths are refused by name. Only what the text alone shows is
// checked here; which variables and functions there are is for who compiles the tree. The limits on a query's size are
// those of package parser.
//
// Package token has the lexer, the errors and their kinds, package ast the tree.
package cypher

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/failure"
)

// Parse reads a query. The error is a QueryInvalid failure that shows every problem with its line, column and a caret.
func Parse(text string) (*ast.Query, error) {
	q, err := parser.Parse(text)
	if err != nil {
		return nil, failure.QueryInvalid.Errorf("%w", err)
	}
	return q, nil
}

// Format prints a query; parsing the text gives the same tree.
func Format(q *ast.Query) string { return ast.Format(q) }
