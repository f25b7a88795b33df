package operator

import (
	"fmt"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Options are bounds and policies.
type Options struct {
	Policy     Policy
	MaxSteps   int // how many relationships the variable-length patterns may follow because of one change
	MaxRows    int // how many rows matches and lists may make because of one change
	CacheBytes int // of groups in memory
	Analyze    bool
}

// Network is all operators of a plan, connected.
type Network struct {
	*Context
	Matches []*Match // by number
	Output  *Output

	operators []Operator // by node
	unit      *unit
	meters    []Meter // by node; nil: nothing is measured
	profile   profile
}

// NewNetwork connects the operators of a plan.
func NewNetwork(p *plan.Plan, elements *store.Elements, o Options) *Network {
	n := &Network{Context: &Context{Env: p.NewEnv(), Policy: o.Policy, MaxSteps: o.MaxSteps, MaxRows: o.MaxRows}}
	if o.Analyze {
		n.meters = make([]Meter, len(p.Nodes))
		n.profile.meters = n.meters
	}
	consumers := make([]fan, len(p.Nodes))
	connect := func(from, to int, rows Rows) {
		consumers[from] = append(consumers[from], n.metered(rows, from, to))
	}
	for i, node := range p.Nodes {
		common := node.Common()
		if common.ID != i {
			panic(fmt.Sprintf("operator: node %d has the number %d", i, common.ID))
		}
		b := base{ctx: n.Context, id: i}
		if common.Input >= 0 {
			b.takes = p.Nodes[common.Input].Common().Live
		}
		var op Operator
		var rows Rows // takes the rows of Input
		switch node := node.(type) {
		case *plan.Unit:
			n.unit = &unit{b}
			op = n.unit
		case *plan.Argument:
			a := &argument{base: b, scope: node.Scope}
			op, rows = a, a
		case *plan.Match:
			m := newMatch(b, p, node, elements)
			n.Matches = append(n.Matches, m)
			op, rows = m, m
		case *plan.Filter:
			f := &filter{base: b, conditions: node.Conditions}
			op, rows = f, f
		case *plan.Project:
			r := newProject(b, node)
			op, rows = r, r.(Rows)
		case *plan.Unwind:
			u := &unwind{base: b, plan: node}
			op, rows = u, u
		case *plan.Order:
			o := &order{base: b, plan: node}
			op, rows = o, o
		case *plan.Aggregate:
			a := newAggregate(b, node, o.CacheBytes)
			op, rows = a, a
			if node.Seed >= 0 {
				connect(node.Seed, i, (*seeds)(a))
			}
		case *plan.Limit:
			l := newLimit(b, node)
			op, rows = l, l
		case *plan.Optional:
			o := newOptional(b, node)
			op, rows = o, o
			connect(node.Inner, i, (*innerOfOptional)(o))
		case *plan.Apply:
			a := newApply(b, node)
			op, rows = a, a
			connect(node.Inner, i, (*innerOfApply)(a))
		case *plan.Union:
			u := &union{b}
			op = u
			for number := range node.Branches {
				branch := &node.Branches[number]
				connect(branch.Input, i, &branchOfUnion{union: u, number: uint64(number), from: branch.From, to: node.To})
			}
		case *plan.Output:
			n.Output = newOutput(b, node)
			op, rows = n.Output, n.Output
		default:
			panic(fmt.Sprintf("operator: no rule for %T", node))
		}
		n.operators = append(n.operators, op)
		if rows != nil && common.Input >= 0 {
			connect(common.Input, i, rows)
		}
	}
	for i, op := range n.operators {
		op.feed(consumers[i].rows())
	}
	return n
}

// fan passes rows on to several consumers.
type fan []Rows

func (f fan) rows() Rows {
	if len(f) == 1 {
		return f[0]
	}
	return f
}

// Row passes a row on to each.
func (f fan) Row(row Identified, weight int) error {
	for _, r := range f {
		if err := r.Row(row, weight); err != nil {
			return err
		}
	}
	return nil
}

// Begin makes the row that is there before any element.
func (n *Network) Begin() error {
	n.profile.enter(0)
	defer n.profile.leave()
	return n.unit.next.Row(unitRow, 1)
}

// Delta passes on, with this weight, each match of a Match that has e at one of the positions, once.
func (n *Network) Delta(match int, e *store.Element, positions uint64, weight int) error {
	m := n.Matches[match]
	n.rows = 0
	n.profile.enter(m.id)
	defer n.profile.leave()
	return m.delta(e, positions, weight)
}

// Diffs ends a transaction: it returns what it did to the result set.
func (n *Network) Diffs() ([]result.Diff, error) {
	n.rows = 0
	for i, op := range n.operators {
		n.profile.enter(i)
		err := op.Flush()
		n.profile.leave()
		if err != nil {
			return nil, err
		}
	}
	return n.Output.Diffs()
}

// Timed is an operator that sets timers with store.SetTimer.
type Timed interface {
	// Fire tells that the time of a timer of a row has come.
	Fire(row result.RowKey, at time.Time) error
}

// Fire wakes the operator of a node that set a timer for a row.
func (n *Network) Fire(node int, row result.RowKey, at time.Time) error {
	if node < len(n.operators) {
		if op, ok := n.operators[node].(Timed); ok {
			return op.Fire(row, at)
		}
	}
	return failure.StateCorrupt.Errorf("node %d has a timer and does not know of time", node)
}

// Save writes to the batch what the operators keep in memory.
func (n *Network) Save() error {
	for _, op := range n.operators {
		if err := op.Save(); err != nil {
			return err
		}
	}
	return nil
}

// Reset forgets everything that is not stored.
func (n *Network) Reset() {
	for _, op := range n.operators {
		op.Reset()
	}
	n.profile.reset()
}
