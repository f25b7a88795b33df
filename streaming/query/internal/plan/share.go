package plan

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
)

// shareEqual makes nodes of the rows that come in positions of the pattern when an equality of properties is all that
// connects the two, as in MATCH (o:Order) OPTIONAL MATCH (c:Customer {id: o.customer}): so a changed customer finds its
// orders by an index, and does not have to look at each row that came in. As the equality must be true, rows without such
// a node had no match before either.
func (m *match) shareEqual() {
	if m.plan.single(m.chain.at) {
		return
	}
	for _, d := range m.conditions {
		reached := m.reached()
		for _, e := range d.equals {
			name, v := d.outside(e)
			if name == nil || m.labels[v.slot] == nil || reached[m.bySlot[e.slot]] || m.bySlot[v.slot] != nil {
				continue
			}
			m.nodes = append(m.nodes, m.element(name, v.slot, true, v.typ, ""))
			d.equals = m.equalities(d.Expr, d.site)
			break
		}
	}
}

// outside returns the variable with a property of which an element is compared, if that is a node.
func (d *draft) outside(e equality) (*ast.Name, variable) {
	p, ok := e.with.(*ast.Property)
	if !ok {
		return nil, variable{}
	}
	v, ok := d.site.vars[nameOf(p.Subject)]
	if !ok || v.typ.kind != node {
		return nil, variable{}
	}
	return &ast.Name{Range: p.Range, Text: nameOf(p.Subject)}, v
}

// reached returns the elements that relationships and equalities connect with the rows that come in.
func (m *match) reached() map[*element]bool {
	reached := make(map[*element]bool)
	for _, e := range m.bySlot {
		reached[e] = e.Shared != NoSlot
	}
	for grown := true; grown; {
		grown = false
		connect := func(a, b *element) {
			if reached[a] != reached[b] {
				reached[a], reached[b], grown = true, true, true
			}
		}
		for _, r := range m.relationships {
			connect(r, r.left)
			connect(r, r.right)
		}
		for _, d := range m.conditions {
			for _, e := range d.equals {
				for _, slot := range e.value.reads {
					if other := m.bySlot[slot]; other != nil {
						connect(m.bySlot[e.slot], other)
					}
				}
			}
		}
	}
	return reached
}
