// Package tcktest makes the graphs of openCypher's technology compatibility kit (TCK) and writes values as it does.
package tcktest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/result"
)

// Graph is what the statements of a scenario make.
type Graph struct {
	Elements []graph.Element
	nodes    int
}

// row binds variables while a statement is carried out.
type row map[string]graph.Value

// rowName is the variable that rows are handed to a query in.
const rowName = "row of the statement"

// Run carries out a statement of reading clauses and CREATE. The reading ones are queries on the graph as it then is.
func (g *Graph) Run(statement string) error {
	rows := []row{{}}
	for _, c := range clauses(statement) {
		var err error
		if c.creates {
			err = g.create(c.text, rows)
		} else {
			rows, err = g.read(c.text, rows)
		}
		if err != nil {
			return fmt.Errorf("running %q: %w", c.text, err)
		}
	}
	return nil
}

// clause is a CREATE without the keyword, or everything between two of them.
type clause struct {
	creates bool
	text    string
}

func clauses(statement string) (list []clause) {
	start, creates := 0, false
	add := func(end int) {
		if text := strings.Trim(statement[start:end], " \n\t;"); text != "" {
			list = append(list, clause{creates, text})
		}
	}
	tokens := token.Scan(statement, &token.Errors{Text: statement})
	depth := 0
	for i, t := range tokens {
		switch t.Text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		}
		if depth > 0 || t.Class != token.Identifier {
			continue
		}
		word := strings.ToUpper(t.Text)
		reads := word == "MATCH" || word == "UNWIND" || word == "WITH" && (i == 0 || !isOperator(tokens[i-1].Text))
		switch {
		case word == "CREATE":
			add(t.Range.From)
			start, creates = t.Range.To, true
		case reads && creates:
			add(t.Range.From)
			start, creates = t.Range.From, false
		}
	}
	add(len(statement))
	return list
}

func isOperator(word string) bool {
	return strings.EqualFold(word, "STARTS") || strings.EqualFold(word, "ENDS")
}

// read carries out reading clauses once for each row.
func (g *Graph) read(text string, rows []row) ([]row, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	var list []graph.Value
	for _, r := range rows {
		keys := slices.Sorted(maps.Keys(r))
		m := &graph.Map{Keys: keys}
		for _, k := range keys {
			m.Values = append(m.Values, r[k])
		}
		list = append(list, graph.MapOf(m))
	}
	begin := fmt.Sprintf("UNWIND $rows AS `%s` WITH `%[1]s`", rowName)
	for _, name := range slices.Sorted(maps.Keys(rows[0])) {
		begin += fmt.Sprintf(", `%s`.`%s` AS `%[2]s`", rowName, name)
	}
	columns, found, err := g.Ask(begin+" "+text+"\nRETURN *", map[string]graph.Value{"rows": graph.List(list)})
	if err != nil {
		return nil, err
	}
	var bound []row
	for _, values := range found {
		r := row{}
		for i, name := range columns {
			if name != rowName {
				r[name] = values[i]
			}
		}
		bound = append(bound, r)
	}
	return bound, nil
}

// Ask asks a query of the graph as it is.
func (g *Graph) Ask(text string, parameters map[string]graph.Value) (columns []string, rows [][]graph.Value, err error) {
	plan, err := query.Compile(text, query.Options{Parameters: parameters})
	if err != nil {
		return nil, nil, err
	}
	store, err := memory.New().Open("graph")
	if err != nil {
		return nil, nil, err
	}
	q, err := query.Open(plan, store)
	if err != nil {
		return nil, nil, err
	}
	defer q.Close()
	if err := q.Load("tck", nil, g.Inserts()); err != nil {
		return nil, nil, err
	}
	if err := q.Seal(result.State{}, 1000); err != nil {
		return nil, nil, err
	}
	if failures, err := q.Failures(1); err != nil || len(failures) > 0 {
		return nil, nil, fmt.Errorf("a row failed: %v %w", failures, err)
	}
	view, err := q.View()
	if err != nil {
		return nil, nil, err
	}
	defer view.Close()
	err = view.Scan(func(r result.Row) error { rows = append(rows, r.Values); return nil })
	return plan.Columns(), rows, err
}

// Inserts returns the changes that make the graph.
func (g *Graph) Inserts() []graph.Change {
	changes := make([]graph.Change, len(g.Elements))
	for i, e := range g.Elements {
		changes[i] = graph.Change{Op: graph.OpInsert, Element: e}
	}
	return changes
}

// create makes the elements of patterns once for each row, and binds their variables.
func (g *Graph) create(patterns string, rows []row) error {
	tree, err := parser.Parse("MATCH " + patterns + "\nRETURN 1")
	if err != nil {
		return err
	}
	for _, r := range rows {
		for _, p := range tree.Parts[0].Clauses[0].(*ast.Match).Patterns {
			if err := g.createPattern(p, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Graph) createPattern(p *ast.Pattern, r row) error {
	ids := make([]graph.ElementID, len(p.Nodes))
	for i, n := range p.Nodes {
		if n.Variable != nil {
			if v, ok := r[n.Variable.Text]; ok {
				ids[i] = v.AsElement().ID
				continue
			}
		}
		g.nodes++
		ids[i] = graph.ElementID(fmt.Sprintf("n%d", g.nodes))
		if err := g.add(&graph.Element{ID: ids[i]}, n.Variable, n.Labels, n.Properties, r); err != nil {
			return err
		}
	}
	for i, rel := range p.Relationships {
		start, end := ids[i], ids[i+1]
		if rel.Direction == ast.Left {
			start, end = end, start
		}
		id := graph.ElementID(fmt.Sprintf("r%d", len(g.Elements)))
		if err := g.add(&graph.Element{ID: id, Start: start, End: end}, rel.Variable, rel.Types, rel.Properties, r); err != nil {
			return err
		}
	}
	return nil
}

func (g *Graph) add(e *graph.Element, variable *ast.Name, labels ast.LabelExpr, properties ast.Expr, r row) error {
	e.Labels = labelsOf(labels, nil)
	if properties != nil {
		v, err := evaluate(properties, r)
		if err != nil {
			return err
		}
		var names []string
		for i, value := range v.AsMap().Values {
			if !value.IsNull() {
				names, e.Values = append(names, v.AsMap().Keys[i]), append(e.Values, value)
			}
		}
		e.Shape = graph.NewShape(names...)
	}
	g.Elements = append(g.Elements, *e)
	if variable != nil {
		r[variable.Text] = graph.ElementOf(e)
	}
	return nil
}

func labelsOf(l ast.LabelExpr, labels []string) []string {
	switch l := l.(type) {
	case *ast.LabelName:
		return append(labels, l.Name.Text)
	case *ast.LabelBinary:
		return labelsOf(l.Right, labelsOf(l.Left, labels))
	}
	return labels
}

// evaluate evaluates an expression on the variables of a row.
func evaluate(e ast.Expr, r row) (graph.Value, error) {
	names := slices.Sorted(maps.Keys(r))
	slots := len(names)
	errs := &token.Errors{}
	c := &eval.Compiler{
		Slot:  func(name string) (int, bool) { return slices.BinarySearch(names, name) },
		Alloc: func() int { slots++; return slots - 1 },
		Errs:  errs,
	}
	f := c.Compile(e)
	if err := errs.Err(); err != nil {
		return graph.Null, err
	}
	env := c.NewEnv(slots)
	for i, name := range names {
		env.Slots[i] = r[name]
	}
	return f(env)
}
