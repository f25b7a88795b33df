package operator

import (
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// Where rows fail, as part of the keys under which failed rows are kept.
const (
	failedMatch   = 1 // in WHERE or in a column
	failedInput   = 2 // on the way into an aggregation
	failedOutput  = 3 // in a column made of aggregates
	groupOfReturn = 1 // operator numbers of groups
	groupOfUnique = 2
)

// Project makes a row's columns.
type Project struct {
	ctx   *Context
	items []eval.Func
	next  Rows
	chunk []graph.Value
}

// NewProject returns the operator.
func NewProject(ctx *Context, items []eval.Func, next Rows) *Project {
	return &Project{ctx: ctx, items: items, next: next}
}

// chunkValues is how many values are allocated at once for rows, which live about as long as each other.
const chunkValues = 512

// Input evaluates the columns.
func (p *Project) Input(env *eval.Env, row Identified, weight int) error {
	if len(p.chunk) < len(p.items) {
		p.chunk = make([]graph.Value, max(chunkValues, len(p.items)))
	}
	values := p.chunk[:len(p.items):len(p.items)]
	for i, item := range p.items {
		v, err := item(env)
		if err != nil {
			return p.ctx.fail(failedMatch, row, err, weight)
		}
		values[i] = v
	}
	p.chunk = p.chunk[len(p.items):]
	return p.next.Row(row.Key(), values, weight)
}

// Flush lets the next operator flush.
func (p *Project) Flush() error { return p.next.Flush() }
