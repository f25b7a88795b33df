// Package cypher reads openCypher: text to syntax tree and back, with errors that show where they are.
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
