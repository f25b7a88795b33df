package plan

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
)

// Explanation is what EXPLAIN tells about a plan.
type Explanation struct {
	Columns  []string          `json:"columns"`
	Nodes    []NodeExplanation `json:"nodes"`
	Scans    []string          `json:"scans,omitempty"`
	Indexes  []string          `json:"indexes,omitempty"`
	Warnings []string          `json:"warnings,omitempty"`
}

// NodeExplanation is what EXPLAIN tells about a node.
type NodeExplanation struct {
	ID     int    `json:"id"`
	Kind   string `json:"kind"`
	Inputs []int  `json:"inputs,omitempty"`
	// Clause is the text of the clause that the node is for, on one line.
	Clause string `json:"clause,omitempty"`
	Does   string `json:"does,omitempty"`
	// State is what the node remembers; without any it works row by row.
	State    string   `json:"state,omitempty"`
	Elements []string `json:"elements,omitempty"` // of Match
	Ways     []string `json:"ways,omitempty"`     // of Match: from what changes to all matches with it
}

// Explain describes the plan for people: which nodes the clauses became, what they remember, and how matches are found.
func (p *Plan) Explain() string {
	x := p.explanation()
	var b strings.Builder
	fmt.Fprintf(&b, "columns: %s\n", strings.Join(x.Columns, ", "))
	clause := ""
	for i := range x.Nodes {
		n := &x.Nodes[i]
		if n.Clause != clause && n.Clause != "" {
			fmt.Fprintf(&b, "%s\n", n.Clause)
		}
		clause = n.Clause
		fmt.Fprintf(&b, "  %d %s", n.ID, n.Kind)
		if len(n.Inputs) > 0 {
			fmt.Fprintf(&b, " of %s", strings.Trim(fmt.Sprint(n.Inputs), "[]"))
		}
		if n.Does != "" {
			b.WriteString(": " + n.Does)
		}
		b.WriteByte('\n')
		if n.State != "" {
			fmt.Fprintf(&b, "      remembers %s\n", n.State)
		}
		for _, line := range append(n.Elements, n.Ways...) {
			fmt.Fprintf(&b, "      %s\n", line)
		}
	}
	for i, s := range x.Scans {
		fmt.Fprintf(&b, "scan %d: %s\n", i, s)
	}
	for i, s := range x.Indexes {
		fmt.Fprintf(&b, "index %d: %s\n", i, s)
	}
	for _, w := range x.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	return b.String()
}

// ExplainJSON returns what Explain tells as the JSON of an Explanation.
func (p *Plan) ExplainJSON() []byte {
	text, err := json.MarshalIndent(p.explanation(), "", "  ")
	if err != nil {
		panic(fmt.Sprintf("plan: marshalling strings: %v", err))
	}
	return text
}

func (p *Plan) explanation() *Explanation {
	x := &Explanation{Columns: p.Columns}
	for id, n := range p.Nodes {
		x.Nodes = append(x.Nodes, p.explainNode(id, n))
	}
	for _, s := range p.Scans {
		x.Scans = append(x.Scans, scanText(s))
	}
	for _, i := range p.Indexes {
		x.Indexes = append(x.Indexes, scanText(p.Scans[i.Scan])+"."+ast.FormatName(i.Property))
	}
	for _, m := range p.Matches {
		x.Warnings = append(x.Warnings, p.products(m)...)
	}
	return x
}

func scanText(s Scan) string {
	if s.Relationship {
		return "[" + labelText(s.Labels) + "]"
	}
	return "(" + labelText(s.Labels) + ")"
}

func (p *Plan) explainNode(id int, n Node) NodeExplanation {
	x := NodeExplanation{ID: id}
	if r := p.clauses[id]; r.To > r.From && r.To <= len(p.Query.Text) {
		x.Clause = strings.Join(strings.Fields(p.Query.Text[r.From:r.To]), " ")
	}
	if input := n.Common().Input; input >= 0 {
		x.Inputs = []int{input}
	}
	switch n := n.(type) {
	case *Unit:
		x.Kind = "unit"
	case *Argument:
		x.Kind = "argument"
	case *Filter:
		x.Kind = "filter"
		x.Does = p.conditionTexts(n.Conditions)
	case *Project:
		x.Kind = "project"
		x.Does = p.itemTexts(n.Items)
		for _, item := range n.Items {
			if item.Volatile {
				x.State = "the values of each row"
			}
		}
	case *Unwind:
		x.Kind = "unwind"
		x.Does = p.itemTexts([]Item{n.List})
	case *Aggregate:
		p.explainAggregate(n, &x)
	case *Order:
		x.Kind = "order"
		var keys []string
		for _, k := range n.Keys {
			text := p.exprText(k.Expr)
			if k.Descending {
				text += " DESC"
			}
			keys = append(keys, text)
		}
		x.Does = strings.Join(keys, ", ")
	case *Limit:
		x.Kind = "limit"
		x.Does = fmt.Sprintf("skip %d", n.Skip)
		if n.Limit >= 0 {
			x.Does += fmt.Sprintf(", limit %d", n.Limit)
		}
		x.State = "all rows" + p.slotTexts(n.Live)
	case *Optional:
		x.Kind = "optional"
		x.Inputs = append(x.Inputs, n.Inner)
		x.State = "rows that come in" + p.slotTexts(p.except(n.Live, n.Nulls...)) + ", how many matches each has"
	case *Apply:
		x.Kind = "apply"
		x.Inputs = append(x.Inputs, n.Inner)
		x.State = "rows that come in" + p.slotTexts(p.except(n.Live, n.Slot)) + ", a value for each"
	case *Union:
		x.Kind = "union"
		for _, branch := range n.Branches {
			x.Inputs = append(x.Inputs, branch.Input)
		}
	case *Output:
		x.Kind = "output"
		x.State = "the result"
	case *Match:
		p.explainMatch(n, &x)
	}
	return x
}

func (p *Plan) explainAggregate(n *Aggregate, x *NodeExplanation) {
	x.Kind = "aggregate"
	var keys, calls []string
	for _, k := range n.Keys {
		if _, named := k.Expr.(*ast.Variable); named {
			keys = append(keys, p.slotText(k.Slot))
		} else {
			keys = append(keys, p.exprText(k.Expr))
		}
	}
	for i := range n.Aggregates {
		calls = append(calls, p.exprText(n.Aggregates[i].Expr))
	}
	switch {
	case len(calls) == 0:
		x.Kind = "distinct"
		x.Does, x.State = strings.Join(keys, ", "), "how often each row comes"
	case len(keys) == 0:
		x.Does, x.State = strings.Join(calls, ", "), "one group"
	default:
		x.Does, x.State = strings.Join(calls, ", ")+" by "+strings.Join(keys, ", "), "each group"
	}
	if len(n.Carried) > 0 {
		x.State += p.slotTexts(n.Carried)
	}
}

func (p *Plan) itemTexts(items []Item) string {
	var texts []string
	for _, item := range items {
		texts = append(texts, p.exprText(item.Expr)+" as "+p.slotText(item.Slot))
	}
	return strings.Join(texts, ", ")
}

// exprText prints an expression; a value that no text stands for is the scope of a subquery or made by it.
func (p *Plan) exprText(e ast.Expr) string {
	if e == nil {
		return "outer row"
	}
	return unhide(ast.FormatExpr(e))
}

// unhide prints made-up names without the quotes that names with odd characters have.
func unhide(text string) string {
	for {
		i := strings.Index(text, "`"+hidden)
		if i < 0 {
			return text
		}
		rest := text[i+1+len(hidden):]
		end := strings.IndexByte(rest, '`')
		text = text[:i] + rest[:end] + rest[end+1:]
	}
}

func (p *Plan) slotText(slot int) string {
	if name := p.names[slot]; name != "" && !strings.HasPrefix(name, hidden) {
		return name
	}
	return fmt.Sprintf("#%d", slot)
}

func (p *Plan) slotTexts(slots []int) string {
	if len(slots) == 0 {
		return ""
	}
	var texts []string
	for _, slot := range slots {
		texts = append(texts, p.slotText(slot))
	}
	return " with " + strings.Join(texts, ", ")
}

func (p *Plan) except(slots []int, without ...int) (rest []int) {
	set := make(slotSet)
	set.add(slots...)
	return set.without(without...).list()
}

func (p *Plan) conditionTexts(conditions []Condition) string {
	var texts []string
	for _, c := range conditions {
		texts = append(texts, p.exprText(c.Expr))
	}
	return strings.Join(texts, " AND ")
}
