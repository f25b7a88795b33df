package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
			return known != nil && !slices.ContainsFunc(eachOf(c.Labels), func(labels []string) bool { return tx.Position.Compare(known(labels)) > 0 }) ||
				c.State != "" && c.State == r.schemas[m.Source][c.Labels[0]] // the snapshot was taken behind it
		})
		if len(touched) > 0 {
			return r.tableChanged(m.Source, tx, touched)
		}
	}
	return nil
}

// eachOf returns labels one by one; none, which means any, as such.
func eachOf(labels []string) [][]string {
	if len(labels) == 0 {
		return [][]string{nil}
	}
	return slices.Collect(slices.Chunk(labels, 1))
}

// tableChanged is the error, a missedError if reading the sources again is all that is needed, of a query that reads what changes of the schema touch.
func (r *queryRun) tableChanged(source string, tx *graph.Transaction, touched []graph.SchemaChange) error {
	if lost := readAgain(source, touched); lost != nil {
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
// have all: changes were missed, or the source tells of more elements or properties. Nobody has to be asked then.
func readAgain(source string, touched []graph.SchemaChange) *missedError {
	lost := &missedError{missing: &Missing{Source: source}}
	for i := range touched {
		switch c := &touched[i]; {
		case !slices.Contains([]graph.SchemaOp{graph.SchemaMissed, graph.SchemaJoined, graph.SchemaWithheld, graph.SchemaSupplied}, c.Op):
			return nil
		case c.Op == graph.SchemaMissed && c.To == graph.MissedRebuild:
			return &missedError{rebuild: true}
		case len(c.Labels) == 0:
			lost.missing = nil
		case lost.missing != nil:
			lost.missing.add(c.Labels)
		}
	}
	return lost
}

// missedError says that changes of a source are lost.
type missedError struct {
	rebuild bool     // all is to be published anew
	missing *Missing // nil: changes of whatever elements of whatever source
}

// Missing says which changes a query has not got: those of elements of a source that have one of the labels.
type Missing struct {
	Source string   `json:"source"`
	Labels []string `json:"labels"`
}

func (m *Missing) add(labels []string) {
	m.Labels = append(m.Labels, labels...)
	slices.Sort(m.Labels)
	m.Labels = slices.Compact(m.Labels)
}

// Error implements error.
func (e *missedError) Error() string {
	if e.missing == nil {
		return "changes are lost"
	}
	return fmt.Sprintf("changes of %s in source %s are lost", strings.Join(e.missing.Labels, ", "), e.missing.Source)
}

// lossOf returns what an error says of changes that are lost: that the source has told so, or that the change log was too
// small for how far the query was behind. It is nil if that is not what it says.
func lossOf(err error) (lost *missedError) {
	if failure.CodeOf(err) == failure.StreamTrimmed {
		return &missedError{}
	}
	errors.As(err, &lost)
	return lost
}

// needs returns what the query needs now that changes are lost.
func (r *queryRun) needs(lost *missedError) (Outcome, error) {
	if r.spec.Bootstrap == "none" {
		return "", failure.ChangesLost.Errorf("changes of a source are lost, and the query is declared with bootstrap none")
	}
	if lost.rebuild {
		return NeedsRebuild, nil
	}
	r.attempt.Progress.Set(func(s *Status) { s.Missing = lost.missing })
	return NeedsResync, nil
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
