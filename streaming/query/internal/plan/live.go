package plan

import "slices"

// finish completes the nodes: what they read of elements, which slots they keep, and how matches are found.
func (b *builder) finish() {
	for _, d := range slices.Backward(b.derived) {
		b.uses[d[1]].add(b.uses[d[0]])
	}
	b.liveness()
	b.plan.readsOf = b.reads
	for _, m := range b.drafts {
		m.note()
		m.anchors()
	}
}

// note sets what is read of the elements at each position.
func (m *match) note() {
	shown := make(map[int]bool) // by a path
	for _, p := range m.node.Paths {
		for _, at := range p.Positions {
			shown[at] = shown[at] || m.uses[p.Slot].all
		}
	}
	for _, e := range append(slices.Clone(m.nodes), m.relationships...) {
		u := use{all: shown[e.at]}
		u.add(m.uses[e.slot])
		if e.InnerSlot != NoSlot {
			u.add(m.uses[e.InnerSlot])
		}
		p := &m.node.Positions[e.at]
		p.Properties, p.All, p.ReadLabels = u.properties, u.all, u.labels || u.all
		slices.Sort(p.Properties)
		p.AllInner = p.Variable && shown[e.at]
	}
}

// slotSet is a set of slots.
type slotSet map[int]bool

func (s slotSet) add(slots ...int) {
	for _, slot := range slots {
		if slot != NoSlot {
			s[slot] = true
		}
	}
}

// without returns a copy of s that lacks some slots.
func (s slotSet) without(slots ...int) slotSet {
	rest := make(slotSet, len(s))
	for slot := range s {
		if !slices.Contains(slots, slot) {
			rest[slot] = true
		}
	}
	return rest
}

func (s slotSet) list() []int {
	list := make([]int, 0, len(s))
	for slot := range s {
		list = append(list, slot)
	}
	slices.Sort(list)
	return list
}

// liveness finds out, from the end of the plan to its start, which slots nodes behind a node read. What nobody reads
// is not written either.
func (b *builder) liveness() {
	live := make([]slotSet, len(b.plan.Nodes))
	for id := range live {
		live[id] = make(slotSet)
	}
	for id, n := range slices.Backward(b.plan.Nodes) {
		behind := live[id]
		n.Common().Live = behind.list()
		give := func(input int, needs slotSet, slots ...int) {
			live[input].add(slots...)
			for slot := range needs {
				live[input][slot] = true
			}
		}
		input, reads := n.Common().Input, b.reads[id]
		switch n := n.(type) {
		case *Argument:
			give(input, behind.without(n.Scope))
		case *Filter:
			give(input, behind, reads...)
		case *Project:
			give(input, behind.without(slotsOf(n.Items)...), reads...)
		case *Unwind:
			give(input, behind.without(n.List.Slot, n.Order), reads...)
			if !behind[n.Order] {
				n.Order, n.From = NoSlot, NoSlot
			}
			give(input, nil, n.From)
		case *Aggregate:
			carried := behind.without(slotsOf(n.Keys)...)
			for _, a := range n.Aggregates {
				delete(carried, a.Slot)
			}
			n.Carried = carried.list()
			scope := NoSlot
			if len(n.Keys) > 0 && n.Keys[0].Expr == nil {
				scope = n.Keys[0].Slot
			}
			give(input, carried, append(slices.Clone(reads), scope, n.Order)...)
			if n.Seed >= 0 {
				give(n.Seed, carried, scope)
			}
		case *Order:
			give(input, behind.without(n.Slot), reads...)
		case *Limit:
			give(input, behind, n.Scope, n.Order)
		case *Optional:
			n.Nulls = slices.DeleteFunc(n.Nulls, func(slot int) bool { return !behind[slot] })
			give(n.Inner, behind, n.Scope)
			give(input, behind.without(n.Nulls...), n.Scope)
		case *Apply:
			give(n.Inner, nil, n.From, n.Scope)
			give(input, behind.without(n.Slot), n.Scope)
		case *Union:
			for _, branch := range n.Branches {
				give(branch.Input, behind.without(n.To...), branch.From...)
			}
		case *Output:
			give(input, nil, append(slices.Clone(n.Columns), n.Order)...)
		case *Match:
			b.liveMatch(n, behind, reads, give)
		}
	}
}

// liveMatch leaves out slots and paths that nobody reads.
func (b *builder) liveMatch(n *Match, behind slotSet, reads []int, give func(int, slotSet, ...int)) {
	needs := behind.without()
	needs.add(reads...)
	var shared []int
	for i := range n.Positions {
		p := &n.Positions[i]
		switch {
		case p.Shared != NoSlot:
			shared = append(shared, p.Shared)
		case needs[p.Slot]:
			delete(needs, p.Slot)
		default:
			p.Slot = NoSlot
		}
	}
	n.Paths = slices.DeleteFunc(n.Paths, func(p Path) bool { return !behind[p.Slot] })
	for _, p := range n.Paths {
		delete(needs, p.Slot)
	}
	needs.add(shared...)
	n.Keep = needs.list()
	give(n.Input, needs)
}

func slotsOf(items []Item) []int {
	slots := make([]int, len(items))
	for i, item := range items {
		slots[i] = item.Slot
	}
	return slots
}
