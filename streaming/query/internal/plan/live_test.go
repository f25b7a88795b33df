package plan

import (
	"slices"

	"github.com/stretchr/testify/require"
)

// CheckLive checks that every slot that a node reads is written before, and that a node that remembers rows keeps all
// that nodes behind it read.
func CheckLive(t require.TestingT, p *Plan) {
	written := make([]slotSet, len(p.Nodes)) // slots that rows have behind a node
	has := func(id int, slots ...int) {
		for _, slot := range slots {
			require.True(t, slot == NoSlot || written[id][slot], "slot %d is not there behind node %d\n%s", slot, id, p.Explain())
		}
	}
	for id, n := range p.Nodes {
		input := n.Common().Input
		out := make(slotSet)
		if input >= 0 {
			require.Less(t, input, id)
			out = written[input].without()
			if m, ok := n.(*Match); !ok { // whose conditions read what it binds
				has(input, p.readsOf[id]...)
			} else {
				reads := make(slotSet)
				reads.add(p.readsOf[id]...)
				own := []int{}
				for i := range m.Positions {
					own = append(own, m.Positions[i].Slot)
				}
				has(input, reads.without(own...).list()...)
			}
		}
		switch n := n.(type) {
		case *Argument:
			out.add(n.Scope)
		case *Project:
			out.add(slotsOf(n.Items)...)
		case *Unwind:
			out.add(n.List.Slot, n.Order)
			has(input, n.From)
		case *Aggregate:
			out = make(slotSet)
			has(input, n.Carried...)
			has(input, n.Order)
			if n.Seed >= 0 {
				has(n.Seed, n.Carried...)
				for _, k := range n.Keys {
					has(n.Seed, k.Slot)
				}
			}
			out.add(n.Carried...)
			out.add(slotsOf(n.Keys)...)
			for _, a := range n.Aggregates {
				out.add(a.Slot)
			}
		case *Order:
			out.add(n.Slot)
		case *Limit:
			has(input, n.Scope, n.Order)
			out = make(slotSet)
			out.add(n.Live...)
		case *Optional:
			require.Less(t, n.Inner, id)
			has(n.Inner, n.Live...)
			has(n.Inner, n.Scope)
			has(input, n.Scope)
			kept := p.except(n.Live, n.Nulls...)
			has(input, kept...)
			out = make(slotSet)
			out.add(n.Live...)
		case *Apply:
			require.Less(t, n.Inner, id)
			has(n.Inner, n.Scope, n.From)
			has(input, n.Scope)
			has(input, p.except(n.Live, n.Slot)...)
			out = make(slotSet)
			out.add(n.Live...)
			out.add(n.Slot)
		case *Union:
			for i, branch := range n.Branches {
				has(branch.Input, branch.From...)
				has(branch.Input, p.except(n.Live, n.To...)...)
				if i == 0 {
					out = written[branch.Input].without()
				}
				for slot := range out {
					if !written[branch.Input][slot] {
						delete(out, slot)
					}
				}
			}
			out.add(n.To...)
		case *Match:
			has(input, n.Keep...)
			if !n.Root {
				out = make(slotSet)
				out.add(n.Keep...)
			}
			for i := range n.Positions {
				position := &n.Positions[i]
				has(input, position.Shared)
				if position.Shared != NoSlot {
					require.Contains(t, n.Keep, position.Shared)
				}
				out.add(position.Slot)
			}
			for _, path := range n.Paths {
				out.add(path.Slot)
			}
			checkWays(t, n)
		case *Output:
			has(input, n.Columns...)
			has(input, n.Order)
		}
		written[id] = out
		has(id, n.Common().Live...)
	}
	require.Empty(t, p.Nodes[0].Common().Live)
	require.IsType(t, &Output{}, p.Nodes[len(p.Nodes)-1])
}

// checkWays checks that each way binds every position, decides every condition once, and takes nothing that is not
// bound.
func checkWays(t require.TestingT, m *Match) {
	require.Len(t, m.Anchors, len(m.Positions))
	ways := slices.Clone(m.Anchors)
	if !m.Root {
		ways = append(ways, m.Incoming)
	}
	for _, a := range ways {
		bound, joined := uint64(0), m.Root || a.Position < 0
		if a.Position >= 0 {
			bound = 1 << a.Position
		}
		var decided []int
		decide := func(conditions []int) {
			for _, c := range conditions {
				require.Zero(t, m.Conditions[c].Positions&^bound)
				require.True(t, joined || !m.Conditions[c].Incoming)
			}
			decided = append(decided, conditions...)
		}
		decide(a.Conditions)
		for _, s := range a.Steps {
			switch s.Kind {
			case Expand:
				require.NotZero(t, bound&(1<<s.From))
				require.Zero(t, bound&(1<<s.Relationship))
				bound |= 1<<s.Relationship | 1<<s.To
			case Ends:
				require.NotZero(t, bound&(1<<s.Relationship))
				bound |= 1<<m.Positions[s.Relationship].Left | 1<<m.Positions[s.Relationship].Right
			case Look, Find:
				require.Zero(t, bound&(1<<s.To))
				require.GreaterOrEqual(t, m.Positions[s.To].Scan, 0)
				bound |= 1 << s.To
			case Take:
				require.Negative(t, a.Position)
				bound |= 1 << s.To
			case Join:
				require.False(t, joined)
				joined = true
				for _, at := range s.Shared {
					require.NotZero(t, bound&(1<<at))
				}
				for at := range m.Positions {
					if m.Positions[at].Shared != NoSlot {
						bound |= 1 << at
					}
				}
			}
			decide(s.Conditions)
		}
		require.True(t, joined)
		require.Equal(t, uint64(1)<<len(m.Positions)-1, bound)
		slices.Sort(decided)
		for i := range m.Conditions {
			require.Equal(t, i, decided[i])
		}
		require.Len(t, decided, len(m.Conditions))
	}
}
