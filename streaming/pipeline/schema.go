package pipeline

import (
	"cmp"
	"slices"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// fits returns why a message must not be applied: from one of its transactions on, what the query has read of a table is
// not so any more. The query stays before it, so that nothing is lost whatever is done about it. known, which may be nil,
// tells up to which position the query has read elements of some labels as they are.
func (r *queryRun) fits(m message, known func(labels []string) graph.Position) error {
	for i := range m.Transactions {
		tx := &m.Transactions[i]
		touched := slices.DeleteFunc(r.plan.Touched(tx.Schema), func(c graph.SchemaChange) bool {
			return known != nil && tx.Position.Compare(known(c.Labels)) <= 0 ||
				c.State != "" && c.State == r.schemas[m.Source][c.Labels[0]] // the snapshot was taken behind it
		})
		if len(touched) > 0 {
			return r.tableChanged(m.Source, tx, touched)
		}
	}
	return nil
}

// tableChanged is the error, a missedError if reading the sources again is all that is needed, of a query that reads what changes of the schema touch.
func (r *queryRun) tableChanged(source string, tx *graph.Transaction, touched []graph.SchemaChange) error {
	if lost := readAgain(touched); lost != "" {
		return lost
	}
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
		if c.Op == graph.SchemaGone {
			fix = "Create the table again or take it out of the source's spec, with the signal reconfigure to the source; then signal rebootstrap to the query."
		}
		if r.misses(c, tx.Schema) {
			code = failure.PropertyGone
		}
	}
	e := code.Errorf("source %s: at %s %s", source, tx.Position, text).
		WithDetail("source", source).WithDetail("table", of.Table).WithDetail("position", string(tx.Position))
	if of.Property != "" {
		e = e.WithDetail("column", of.Property)
	}
	if fix != "" {
		e = e.WithFix("%s", fix)
	}
	return e
}

// readAgain returns what to do about changes of the schema that leave elements as they are, but of which the query does not
// have all: changes were missed, or the source tells of more elements. Nobody has to be asked then.
func readAgain(touched []graph.SchemaChange) (lost missedError) {
	for i := range touched {
		switch c := &touched[i]; c.Op {
		case graph.SchemaMissed:
			if lost == "" || c.To == graph.MissedRebuild {
				lost = missedError(c.To)
			}
		case graph.SchemaJoined:
			lost = cmp.Or(lost, graph.MissedDiff)
		default:
			return ""
		}
	}
	return lost
}

// misses reports whether the query names a property that is not there any more.
func (r *queryRun) misses(c *graph.SchemaChange, all []graph.SchemaChange) bool {
	if c.Op != graph.SchemaDropped && c.Op != graph.SchemaRenamed {
		return false
	}
	if slices.ContainsFunc(all, func(other graph.SchemaChange) bool {
		return (other.Op == graph.SchemaAdded || other.Op == graph.SchemaFilled) && other.Property == c.Property && slices.Equal(other.Labels, c.Labels) ||
			other.Op == graph.SchemaRenamed && other.To == c.Property && slices.Equal(other.Labels, c.Labels)
	}) {
		return false // another column has its name
	}
	needs := r.plan.Needs()
	return slices.Contains(needs[c.Labels[0]], c.Property) || slices.Contains(needs[""], c.Property)
}
