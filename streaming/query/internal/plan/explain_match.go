package plan

import (
	"fmt"
	"slices"
	"strings"
)

func (p *Plan) explainMatch(m *Match, x *NodeExplanation) {
	x.Kind = "match"
	for at := range m.Positions {
		x.Elements = append(x.Elements, m.positionText(at))
	}
	for _, path := range m.Paths {
		x.Elements = append(x.Elements, fmt.Sprintf("path %s", p.slotText(path.Slot)))
	}
	for i := range m.Anchors {
		x.Ways = append(x.Ways, p.wayText(m, &m.Anchors[i]))
	}
	if !m.Root {
		x.Ways = append(x.Ways, p.wayText(m, &m.Incoming))
		x.State = "rows that come in" + p.slotTexts(m.Keep) + m.joinText()
	}
}

// joinText tells by which elements the rows that came in are found.
func (m *Match) joinText() string {
	var by []string
	for _, a := range m.Anchors {
		for _, s := range a.Steps {
			if s.Kind == Join {
				if text := m.joinedBy(&s); text != "" && !slices.Contains(by, text) {
					by = append(by, text)
				}
			}
		}
	}
	if len(by) == 0 {
		return ""
	}
	return ", found by " + strings.Join(by, ", by ")
}

// joinedBy tells by what a step finds rows.
func (m *Match) joinedBy(s *Step) string {
	text := m.names(s.Shared, " and ")
	for _, k := range s.Keys {
		if text != "" {
			text += " and "
		}
		text += k.Text + " = " + m.Positions[k.At].Name + "." + k.Property
	}
	return text
}

func (m *Match) names(positions []int, between string) string {
	var names []string
	for _, at := range positions {
		names = append(names, m.Positions[at].Name)
	}
	return strings.Join(names, between)
}

func (m *Match) positionText(at int) string {
	p := &m.Positions[at]
	var b strings.Builder
	name := strings.Trim(p.Name, "()[]")
	if p.Relationship {
		left, right := "-", "->"
		if p.Undirected {
			right = "-"
		}
		fmt.Fprintf(&b, "%s%s[%s%s%s]%s%s", m.nodeName(p.Left), left, name, labelText(p.Labels), p.lengthText(), right, m.nodeName(p.Right))
	} else {
		fmt.Fprintf(&b, "(%s%s)", name, labelText(p.Labels))
	}
	if p.Shared != NoSlot {
		b.WriteString(" of the row that comes in")
	}
	switch {
	case p.All:
		b.WriteString(" keeps all properties")
	case len(p.Properties) > 0:
		fmt.Fprintf(&b, " keeps %s", strings.Join(p.Properties, ", "))
	}
	for i, c := range p.Inner {
		between := " each with "
		if i > 0 {
			between = " and "
		}
		b.WriteString(between + (*Plan)(nil).exprText(c.Expr))
	}
	return b.String()
}

func (m *Match) nodeName(at int) string { return "(" + strings.Trim(m.Positions[at].Name, "()") + ")" }

func (p *Position) lengthText() string {
	switch {
	case !p.Variable:
		return ""
	case p.Max < 0:
		return fmt.Sprintf("*%d..", p.Min)
	}
	return fmt.Sprintf("*%d..%d", p.Min, p.Max)
}

func (p *Plan) wayText(m *Match, a *Anchor) string {
	var b strings.Builder
	if a.Position >= 0 {
		fmt.Fprintf(&b, "on change of %s", m.Positions[a.Position].Name)
	} else {
		b.WriteString("on a row that comes in")
	}
	p.writeConditions(&b, m, a.Conditions)
	for i := range a.Steps {
		s := &a.Steps[i]
		b.WriteString("; ")
		switch s.Kind {
		case Expand:
			fmt.Fprintf(&b, "from %s along %s to %s", m.Positions[s.From].Name, m.Positions[s.Relationship].Name, m.Positions[s.To].Name)
		case Ends:
			r := &m.Positions[s.Relationship]
			fmt.Fprintf(&b, "ends %s and %s of %s", m.Positions[r.Left].Name, m.Positions[r.Right].Name, r.Name)
		case Look:
			fmt.Fprintf(&b, "every %s of scan %d", m.Positions[s.To].Name, m.Positions[s.To].Scan)
		case Find:
			fmt.Fprintf(&b, "%s from index %d", m.Positions[s.To].Name, s.Index)
		case Take:
			fmt.Fprintf(&b, "take %s", m.Positions[s.To].Name)
		case Join:
			b.WriteString("rows that came in")
			if text := m.joinedBy(s); text != "" {
				b.WriteString(" with " + text)
			}
		}
		p.writeConditions(&b, m, s.Conditions)
	}
	return b.String()
}

func (p *Plan) writeConditions(b *strings.Builder, m *Match, conditions []int) {
	for i, c := range conditions {
		if i == 0 {
			b.WriteString(" where ")
		} else {
			b.WriteString(" and ")
		}
		b.WriteString(p.exprText(m.Conditions[c].Expr))
	}
}

// products warns of patterns whose parts multiply each other.
func (p *Plan) products(m *Match) (warnings []string) {
	looks, joins := false, false
	for _, a := range m.Anchors {
		for _, s := range a.Steps {
			looks = looks || s.Kind == Look
			joins = joins || s.Kind == Join && len(s.Shared)+len(s.Keys) == 0
		}
	}
	if looks {
		warnings = append(warnings, fmt.Sprintf("parts of the pattern of node %d are not connected; their matches are multiplied", m.ID))
	}
	if joins && !p.single(m.Input) {
		warnings = append(warnings, fmt.Sprintf("the pattern of node %d is not connected with the rows that come in; they are multiplied", m.ID))
	}
	return warnings
}

// single reports whether a node has no more than one row.
func (p *Plan) single(id int) bool {
	switch n := p.Nodes[id].(type) {
	case *Unit:
		return true
	case *Argument, *Filter, *Project, *Order, *Apply:
		return p.single(n.Common().Input)
	case *Aggregate:
		return len(n.Keys) == 0
	}
	return false
}
