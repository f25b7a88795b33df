package query

import (
	"slices"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// View is the result set at one moment. One goroutine uses it, which need not be the query's.
type View struct {
	snapshot index.Snapshot
	columns  []string
	state    result.State
	phase    Phase
}

// View returns the result set as it stands. It may be called from any goroutine, also while batches are applied, but
// not after Close.
func (q *Query) View() (*View, error) {
	s, err := q.store.NewSnapshot()
	if err != nil {
		return nil, err
	}
	m, err := store.ReadMeta(s)
	if err == nil && m == nil {
		m = &store.Meta{}
	}
	if err != nil {
		_ = s.Close() // the first error tells more
		return nil, err
	}
	return &View{snapshot: s, columns: q.plan.plan.Columns, state: stateOf(m), phase: Phase(m.Phase)}, nil
}

// State returns up to where the view has come.
func (v *View) State() result.State { return v.state }

// Phase returns how far the query was. Only the view of a live query is an answer.
func (v *View) Phase() Phase { return v.phase }

// Columns returns the names of the columns.
func (v *View) Columns() []string { return v.columns }

// Scan visits all rows in the order that the query asks for and else in that of their keys.
func (v *View) Scan(visit func(result.Row) error) error {
	from, to := store.ViewBounds()
	return scanRows(v.snapshot, from, to, len(v.columns), func(_ []byte, row result.Row) (bool, error) { return true, visit(row) })
}

// Close releases the view.
func (v *View) Close() { _ = v.snapshot.Close() } // nothing can be lost by reading

func scanRows(r index.Reader, from, to []byte, columns int, visit func(key []byte, row result.Row) (bool, error)) error {
	return r.Scan(from, to, func(key, record []byte) (bool, error) {
		row := result.Row{Values: make([]graph.Value, columns)}
		var ok bool
		if row.Key, ok = store.RowKeyOf(key); !ok {
			return false, failure.StateCorrupt.Errorf("reading the view: a key is malformed")
		}
		in := store.Reader{Src: slices.Clone(record)}
		for i := range row.Values {
			row.Values[i] = in.Value()
		}
		if in.Err != nil {
			return false, in.Err
		}
		return visit(key, row)
	})
}
