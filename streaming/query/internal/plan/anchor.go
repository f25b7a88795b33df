package plan

import (
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
)

// anchors finds the ways to all matches: from each position and from a row that comes in.
func (m *match) anchors() {
	for at := range m.node.Positions {
		w := &way{match: m, bound: 1 << at, joined: m.node.Root, anchor: Anchor{Position: at}}
		w.anchor.Conditions = w.due()
		w.finish()
		m.node.Anchors = append(m.node.Anchors, w.anchor)
	}
	w := &way{match: m, joined: true, anchor: Anchor{Position: -1}}
	if m.node.Root {
		m.node.Incoming = w.anchor
		return
	}
	w.anchor.Conditions = w.due()
	for at := range m.node.Positions {
		if m.node.Positions[at].Shared != NoSlot {
			w.add(Step{Kind: Take, To: at}, 1<<at)
		}
	}
	w.finish()
	m.node.Incoming = w.anchor
}

// way is an Anchor under construction.
type way struct {
	*match
	anchor  Anchor
	bound   uint64 // positions
	ended   uint64 // relationships whose nodes have been compared
	joined  bool   // the slots of the row that came in are there
	decided map[int]bool
}

// due returns the conditions that can be decided from now on.
func (w *way) due() (list []int) {
	if w.decided == nil {
		w.decided = make(map[int]bool)
	}
	for i, c := range w.node.Conditions {
		if !w.decided[i] && c.Positions&^w.bound == 0 && (w.joined || !c.Incoming) {
			w.decided[i] = true
			list = append(list, i)
		}
	}
	return list
}

func (w *way) add(s Step, binds uint64) {
	w.bound |= binds
	s.Conditions = w.due()
	w.anchor.Steps = append(w.anchor.Steps, s)
}

// finish adds steps until everything is bound.
func (w *way) finish() {
	for w.ends() || w.join(w.plan.single(w.node.Input)) || w.expand() || w.find() || w.join(true) || w.look() {
	}
}

// ends goes from a relationship that has been bound by itself to its nodes.
func (w *way) ends() bool {
	for at := w.node.Nodes; at < len(w.node.Positions); at++ {
		if bit := uint64(1) << at; w.bound&bit != 0 && w.ended&bit == 0 {
			r := &w.node.Positions[at]
			w.ended |= bit
			w.add(Step{Kind: Ends, Relationship: at}, 1<<r.Left|1<<r.Right)
			return true
		}
	}
	return false
}

// join takes the rows that came in as soon as an element that they share with the pattern is bound or, when nothing leads
// to one or there is no more than one row, those that know a property of what is bound, or all of them.
func (w *way) join(all bool) bool {
	if w.joined {
		return false
	}
	var given []int
	binds := uint64(0)
	for at := range w.node.Positions {
		if w.node.Positions[at].Shared == NoSlot {
			continue
		}
		binds |= 1 << at
		if w.bound&(1<<at) != 0 {
			given = append(given, at)
		}
	}
	if len(given) == 0 && !all {
		return false
	}
	var keys []JoinKey
	if len(given) == 0 && !w.plan.single(w.node.Input) {
		keys = w.joinKeys()
	}
	w.joined = true
	w.add(Step{Kind: Join, Shared: given, Keys: keys}, binds)
	return true
}

// joinKeys returns what is known of a property of a bound element by the rows that came in alone.
func (w *way) joinKeys() (keys []JoinKey) {
	for _, d := range w.conditions {
		for _, e := range d.equals {
			at := w.bySlot[e.slot].at
			ofRow := !slices.ContainsFunc(e.value.reads, func(slot int) bool { return w.bySlot[slot] != nil })
			if w.bound&(1<<at) != 0 && ofRow && len(e.value.reads) > 0 {
				keys = append(keys, JoinKey{at, e.property, e.value.eval, ast.FormatExpr(e.with)})
			}
		}
	}
	return keys
}

// expand follows a relationship from a bound node. It prefers those whose both ends are bound, as they only remove
// candidates, then those that lead to a condition or a label, and variable-length ones least.
func (w *way) expand() bool {
	best, bestRank := Step{}, 0
	for at := w.node.Nodes; at < len(w.node.Positions); at++ {
		r := &w.node.Positions[at]
		left, right := w.bound&(1<<r.Left) != 0, w.bound&(1<<r.Right) != 0
		if w.bound&(1<<at) != 0 || !left && !right {
			continue
		}
		s := Step{Kind: Expand, Relationship: at, From: r.Left, To: r.Right}
		if !left {
			s.From, s.To = r.Right, r.Left
		}
		rank := 2
		switch {
		case left && right:
			rank = 5
		case w.decides(1<<at | 1<<s.To):
			rank = 4
		case len(w.node.Positions[s.To].Labels)+len(r.Labels) > 0:
			rank = 3
		}
		if r.Variable && rank < 5 {
			rank = 1
		}
		if rank > bestRank {
			best, bestRank = s, rank
		}
	}
	if bestRank == 0 {
		return false
	}
	w.ended |= 1 << best.Relationship
	w.add(best, 1<<best.Relationship|1<<best.To)
	return true
}

// decides reports whether binding these positions as well lets a condition be decided.
func (w *way) decides(positions uint64) bool {
	for i, c := range w.node.Conditions {
		if !w.decided[i] && c.Positions&positions != 0 && c.Positions&^(w.bound|positions) == 0 && (w.joined || !c.Incoming) {
			return true
		}
	}
	return false
}

// find looks a node up by the value of a property that is known by now.
func (w *way) find() bool {
	for _, d := range w.conditions {
		for _, e := range d.equals {
			at := w.bySlot[e.slot].at
			if w.bound&(1<<at) != 0 || !w.known(e.value.reads) {
				continue
			}
			w.add(Step{Kind: Find, To: at, Index: w.index(at, e.property), Value: e.value.eval}, 1<<at)
			return true
		}
	}
	return false
}

// known reports whether slots have their values by now.
func (w *way) known(slots []int) bool {
	for _, slot := range slots {
		if e := w.bySlot[slot]; e != nil && w.bound&(1<<e.at) == 0 || e == nil && !w.joined {
			return false
		}
	}
	return true
}

// look goes through all nodes of a class, of those with labels first.
func (w *way) look() bool {
	best := -1
	for at := range w.node.Nodes {
		if w.bound&(1<<at) == 0 && (best < 0 || len(w.node.Positions[at].Labels) > len(w.node.Positions[best].Labels)) {
			best = at
		}
	}
	if best < 0 {
		return false
	}
	w.scan(best)
	w.add(Step{Kind: Look, To: best}, 1<<best)
	return true
}

// scan returns the number of a position's class.
func (m *match) scan(at int) int {
	p := &m.node.Positions[at]
	if p.Scan < 0 {
		p.Scan = slices.IndexFunc(m.plan.Scans, func(s Scan) bool {
			return s.Relationship == p.Relationship && labelText(s.Labels) == labelText(p.Labels)
		})
	}
	if p.Scan < 0 {
		p.Scan = len(m.plan.Scans)
		m.plan.Scans = append(m.plan.Scans, Scan{p.Relationship, p.Labels})
	}
	return p.Scan
}

// index returns the number of an index for the elements of a position.
func (m *match) index(at int, property string) int {
	want := Index{m.scan(at), property}
	if i := slices.Index(m.plan.Indexes, want); i >= 0 {
		return i
	}
	m.plan.Indexes = append(m.plan.Indexes, want)
	return len(m.plan.Indexes) - 1
}

func labelText(labels []ast.LabelExpr) string {
	var text strings.Builder
	for _, l := range labels {
		text.WriteString(":" + ast.FormatLabels(l))
	}
	return text.String()
}
