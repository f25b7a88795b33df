package plan

import "math/bits"

// Anchor is the way to all matches that have a given element at one position.
type Anchor struct {
	Position   int
	Conditions []int // that can be decided at once, including those that read no element at all
	Steps      []Step
}

// StepKind says how a step finds its candidates.
type StepKind uint8

// The kinds of steps.
const (
	// Expand follows relationships from a node that is bound: it binds the relationship and the node at its other end,
	// or compares the latter if it is bound.
	Expand StepKind = iota
	// Ends binds the nodes of the relationship that the anchor is, or compares them.
	Ends
	// Scan binds a node that nothing bound leads to: every element that may stand there.
	Scan
)

// Step binds one more element or two.
type Step struct {
	Kind         StepKind
	Relationship int // of Expand and Ends
	From, To     int // nodes of Expand; To alone of Scan
	Conditions   []int
}

func (p *Plan) makeAnchors() {
	for at := range p.Positions {
		p.Anchors = append(p.Anchors, p.anchor(at))
	}
}

func (p *Plan) anchor(at int) Anchor {
	a := Anchor{Position: at}
	bound := uint64(1) << at
	decided := uint64(0) // conditions, of which only the first 64 are tried early
	due := func() (list []int) {
		for i, c := range p.Conditions {
			if i < 64 && decided&(1<<i) == 0 && c.Positions&^bound == 0 {
				decided |= 1 << i
				list = append(list, i)
			}
		}
		return list
	}
	a.Conditions = due()
	add := func(s Step, binds uint64) {
		bound |= binds
		s.Conditions = due()
		a.Steps = append(a.Steps, s)
	}
	if r := p.Positions[at]; r.Relationship {
		add(Step{Kind: Ends, Relationship: at}, 1<<r.Left|1<<r.Right)
	}
	for bits.OnesCount64(bound) < len(p.Positions) {
		s, binds := p.nextStep(bound)
		if s.Kind == Scan {
			p.Scanned |= 1 << s.To
		}
		add(s, binds)
	}
	for i := 64; i < len(p.Conditions); i++ { // beyond the word: with the last step
		if n := len(a.Steps); n > 0 {
			a.Steps[n-1].Conditions = append(a.Steps[n-1].Conditions, i)
		} else {
			a.Conditions = append(a.Conditions, i)
		}
	}
	return a
}

// nextStep prefers relationships whose both ends are bound, as they only remove candidates, then those that lead to a
// node with a condition or label, then any, then a scan.
func (p *Plan) nextStep(bound uint64) (Step, uint64) {
	best, bestRank := Step{}, 0
	for at := p.Nodes; at < len(p.Positions); at++ {
		r := p.Positions[at]
		left, right := bound&(1<<r.Left) != 0, bound&(1<<r.Right) != 0
		if bound&(1<<at) != 0 || !left && !right {
			continue
		}
		s := Step{Kind: Expand, Relationship: at, From: r.Left, To: r.Right}
		if !left {
			s.From, s.To = r.Right, r.Left
		}
		rank := 1
		switch {
		case left && right:
			rank = 4
		case p.conditionsWith(bound|1<<at|1<<s.To, bound) > 0:
			rank = 3
		case len(p.Positions[s.To].Labels)+len(r.Labels) > 0:
			rank = 2
		}
		if rank > bestRank {
			best, bestRank = s, rank
		}
	}
	if bestRank > 0 {
		return best, 1<<best.Relationship | 1<<best.To
	}
	for at := range p.Nodes {
		if bound&(1<<at) == 0 {
			return Step{Kind: Scan, To: at}, 1 << at
		}
	}
	panic("plan: a relationship without ends")
}

// conditionsWith counts the conditions that can be decided with these positions bound, but not with those.
func (p *Plan) conditionsWith(bound, before uint64) (n int) {
	for _, c := range p.Conditions {
		if c.Positions&^bound == 0 && c.Positions&^before != 0 {
			n++
		}
	}
	return n
}
