package pipeline

import (
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// fits returns why a message must not be applied: from one of its transactions on, what the query has read of a table is
// not so any more. The query stays before it, so that nothing is lost whatever is done about it.
func (r *queryRun) fits(m message) error {
	for i := range m.Transactions {
		tx := &m.Transactions[i]
		if touched := r.plan.Touched(tx.Schema); len(touched) > 0 {
			return tableChanged(m.Source, tx.Position, touched)
		}
	}
	return nil
}

// tableChanged is the failure of a query that reads what changes of the schema touch.
func tableChanged(source string, position graph.Position, touched []graph.SchemaChange) error {
	text, of := "", &touched[0]
	code, fix := failure.TableChanged, ""
	for i := range touched {
		c := &touched[i]
		if i > 0 {
			text += "; "
		}
		text += c.String()
		if of.Property == "" && c.Property != "" {
			of = c
		}
		switch c.Op {
		case graph.SchemaRenamed, graph.SchemaDropped:
			code = failure.PropertyGone
		case graph.SchemaGone:
			fix = "Create the table again or take it out of the source's spec, with the signal reconfigure to the source; then signal rebootstrap to the query."
		}
	}
	e := code.Errorf("source %s: at %s %s", source, position, text).
		WithDetail("source", source).WithDetail("table", of.Table).WithDetail("lsn", string(position))
	if of.Property != "" {
		e = e.WithDetail("column", of.Property)
	}
	if fix != "" {
		e = e.WithFix("%s", fix)
	}
	return e
}
