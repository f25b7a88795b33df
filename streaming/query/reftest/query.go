package reftest

import (
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// Query is a random query.
type Query struct {
	Text string
	// UsesOrder says that it looks into lists in a way that depends on the order of their items.
	UsesOrder bool
}

// NewQuery draws a query. Nearly all are accepted by the engine.
func NewQuery(t *rapid.T) Query {
	g := &generator{T: t}
	text := g.single(&scope{}, 2)
	if once(t, 8) {
		text = g.union()
	}
	return Query{Text: text, UsesOrder: g.usesOrder}
}

// kind is the type of a variable, as far as the generator has to know it.
type kind uint8

const (
	scalar kind = iota // whatever a property may be
	number
	truth
	node
	relationship
	path
	list // whose order is determined
	bag  // a list whose order is not
	mapping
)

// variable is one that a query has bound. Item is the kind of a list's items.
type variable struct {
	name       string
	kind, item kind
}

func (v variable) isElement() bool { return v.kind == node || v.kind == relationship }

func (v variable) isList() bool { return v.kind == list || v.kind == bag }

// scope is what the next clause may use.
type scope struct {
	vars    []variable
	outer   int  // how many of vars surround the query
	ordered bool // rows have an order that says everything
}

func (s *scope) of(fits func(variable) bool) (list []variable) {
	for _, v := range s.vars {
		if fits(v) {
			list = append(list, v)
		}
	}
	return list
}

func (s *scope) kinds(kinds ...kind) []variable {
	return s.of(func(v variable) bool { return slices.Contains(kinds, v.kind) })
}

// inner returns a copy for a subquery.
func (s *scope) inner() *scope {
	return &scope{vars: slices.Clone(s.vars), outer: len(s.vars)}
}

type generator struct {
	*rapid.T
	names     int
	usesOrder bool
	unbounded bool     // there is a pattern of any length
	clause    []string // relationships of the MATCH clause at hand, which all differ
}

func (g *generator) once(n int) bool { return once(g.T, n) }

func (g *generator) name(prefix string) string {
	g.names++
	return fmt.Sprintf("%s%d", prefix, g.names)
}

func (g *generator) pick(list ...string) string { return pick(g.T, list...) }

// single draws a query without UNION. depth bounds the nesting of subqueries and the number of clauses.
func (g *generator) single(s *scope, depth int) string {
	var clauses []string
	add := func(clause string) { clauses = append(clauses, clause) }
	switch rapid.IntRange(0, 9).Draw(g.T, "first") {
	case 8:
		add(g.match(s, true, depth))
	case 9:
		add(g.unwind(s, depth))
	default:
		add(g.match(s, false, depth))
	}
	for range pick(g.T, 0, 1, 1, 2, 2, 3) * depth / 2 {
		switch g.pick("WITH", "SORT", "MATCH", "MATCH", "OPTIONAL", "OPTIONAL", "UNWIND", "WITH") {
		case "SORT":
			add(g.sort(s))
			add(g.gather(s))
		case "MATCH":
			add(g.match(s, false, depth))
		case "OPTIONAL":
			add(g.match(s, true, depth))
		case "UNWIND":
			add(g.unwind(s, depth))
		default:
			add(g.projection("WITH", s, depth))
		}
	}
	add(g.projection("RETURN", s, depth))
	return strings.Join(clauses, "\n")
}

// union draws a query of parts with the same columns.
func (g *generator) union() string {
	part := func() string {
		s := &scope{}
		return g.match(s, g.once(4), 1) + "\nRETURN " + g.pick("", "DISTINCT ") + g.scalar(s, 1) + " AS c, " + g.element(s) + " AS d"
	}
	word := g.pick("\nUNION\n", "\nUNION ALL\n")
	text := part() + word + part()
	if g.once(4) {
		text += word + part()
	}
	return text
}

// element draws a node or relationship, or null.
func (g *generator) element(s *scope) string {
	if vars := s.kinds(node, relationship); len(vars) > 0 {
		return pick(g.T, vars...).name
	}
	return "null"
}

func (g *generator) match(s *scope, optional bool, depth int) string {
	word := "MATCH "
	if optional {
		word = "OPTIONAL MATCH "
	}
	hops := 2
	if len(s.vars) > 4 {
		hops = 1
	}
	g.clause = nil
	text := word + g.path(s, hops, true)
	if g.once(5) {
		text += ", " + g.path(s, 1, true)
	}
	if g.once(3) {
		text += "\nWHERE " + g.condition(s, depth)
	}
	s.ordered = false
	return text
}

// path draws a pattern; names says that it may bind variables.
func (g *generator) path(s *scope, most int, names bool) string {
	text := ""
	if names && g.once(7) {
		p := variable{name: g.name("p"), kind: path}
		defer func() { s.vars = append(s.vars, p) }()
		text = p.name + " = "
	}
	text += g.node(s, names, 2)
	for range rapid.IntRange(0, most).Draw(g.T, "hops") {
		rel := g.relationship(s, names)
		text += g.pick("-"+rel+"->", "<-"+rel+"-", "-"+rel+"-") + g.node(s, names, 6)
	}
	return text
}

// node draws a node, once in so many times one that is bound.
func (g *generator) node(s *scope, names bool, again int) string {
	name := ""
	switch bound := s.kinds(node); {
	case len(bound) > 0 && (g.once(again) || len(bound) > 3 && !g.once(3)): // products become large
		name = pick(g.T, bound...).name
	case names && !g.once(5):
		name = g.name("n")
		s.vars = append(s.vars, variable{name: name, kind: node})
	}
	return "(" + name + g.labels("A", "B") + g.inside(s, name) + ")"
}

func (g *generator) labels(a, b string) string {
	return g.pick("", "", "", "", "", "", "", "", ":"+a, ":"+b, ":"+a+"|"+b, ":!"+b, ":%", ":("+a+"|"+b+")&!"+b)
}

// inside draws the properties and the condition in a pattern.
func (g *generator) inside(s *scope, name string) string {
	if !g.once(20) {
		return ""
	}
	if name != "" && g.once(3) {
		return " WHERE " + name + ".y " + g.pick("> 1", "IS NULL", "<> 'a'")
	}
	value := g.pick("1", "2", "'a'")
	if vars := s.of(func(v variable) bool { return v.isElement() && v.name != name }); len(vars) > 0 && g.once(3) {
		value = pick(g.T, vars...).name + ".y"
	}
	return " {x: " + value + "}"
}

func (g *generator) relationship(s *scope, names bool) string {
	name, length := "", ""
	v := variable{name: g.name("r"), kind: relationship}
	if g.once(4) {
		length = g.pick("*1..2", "*0..1", "*2", "*0..2", "*..2", "*2..3", "*")
		if length == "*" && g.unbounded { // two of them have very many matches
			length = "*1"
		}
		g.unbounded = g.unbounded || length == "*"
		v.kind, v.item = list, relationship
	}
	if names && g.once(2) {
		name = v.name
		g.clause = append(g.clause, name)
		s.vars = append(s.vars, v)
	} else if bound := g.rebound(s, v); names && len(bound) > 0 && g.once(3) {
		name = pick(g.T, bound...).name
		g.clause = append(g.clause, name)
	}
	types := g.labels("T", "U")
	if length != "" && strings.HasPrefix(types, ":%") {
		types = "" // %* reads like modulo to people
	}
	return "[" + name + types + length + g.inside(s, name) + "]"
}

// rebound returns what may stand for a relationship, or a list of them, once more. It was bound by an earlier clause.
func (g *generator) rebound(s *scope, v variable) []variable {
	return s.of(func(bound variable) bool {
		return bound.kind == v.kind && bound.item == v.item && !slices.Contains(g.clause, bound.name)
	})
}

func (g *generator) unwind(s *scope, depth int) string {
	v := variable{name: g.name("u")}
	source := g.pick("[1, 2]", "[1, null, 'a']", "range(0, 2)", "[1, 1.0, 3]")
	if g.once(10) {
		source = g.pick("[]", "null", "1")
	}
	if lists := s.of(variable.isList); len(lists) > 0 && !g.once(4) {
		l := pick(g.T, lists...)
		source, v.kind = l.name, l.item
	} else if paths := s.kinds(path); len(paths) > 0 && g.once(2) {
		source, v.kind = "nodes("+pick(g.T, paths...).name+")", node
		if g.once(3) {
			source, v.kind = strings.Replace(source, "nodes", "relationships", 1), relationship
		}
	} else if g.once(3) {
		source = "[" + g.scalar(s, depth) + ", " + g.scalar(s, 0) + "]"
	}
	s.vars = append(s.vars, v)
	return "UNWIND " + source + " AS " + v.name
}

// column is one of a projection.
type column struct {
	text string
	variable
}

// projection draws WITH or RETURN and makes s what it leaves.
func (g *generator) projection(word string, s *scope, depth int) string {
	if word == "RETURN" && s.outer == 0 && len(s.vars) > 0 && len(s.of(variable.isList)) == 0 && g.once(10) {
		return word + g.pick(" ", " DISTINCT ") + "*"
	}
	if word == "WITH" && s.outer == 0 && len(s.vars) > 0 && g.once(8) {
		c := g.column(s, depth)
		s.vars = append(s.vars, c.variable)
		return word + " *, " + c.text + " AS " + c.name
	}
	aggregated := g.once(3)
	var columns []column
	if aggregated {
		columns = g.aggregated(s, depth)
	} else {
		columns = g.plain(word, s, depth)
	}
	hasBag := slices.ContainsFunc(columns, func(c column) bool { return c.kind == bag })
	text := word + " "
	distinct := !hasBag && g.once(6)
	if distinct {
		text += "DISTINCT "
	}
	var parts []string
	for _, c := range columns {
		if c.text == c.name {
			parts = append(parts, c.text)
		} else {
			parts = append(parts, c.text+" AS "+c.name)
		}
	}
	text += strings.Join(parts, ", ")
	ordered := s.ordered && !distinct && !aggregated
	if g.once(3) {
		var order string
		order, ordered = g.order(s, columns, hasBag, aggregated, distinct || aggregated)
		text += order
	}
	if g.once(5) && !(hasBag && word == "WITH") {
		text += g.pick(" LIMIT 1", " LIMIT 2", " SKIP 1", " SKIP 1 LIMIT 2", " LIMIT 1 + 2", " LIMIT 3", " LIMIT 5", " SKIP 0 LIMIT 2")
	}
	s.vars = s.vars[:s.outer:s.outer]
	for _, c := range columns {
		s.vars = append(s.vars, c.variable)
	}
	s.ordered = ordered
	if word == "WITH" && g.once(4) {
		text += "\nWHERE " + g.condition(s, depth)
	}
	return text
}

// order draws ORDER BY, mostly one that says everything about the order of rows.
func (g *generator) order(s *scope, columns []column, hasBag, aggregated, closed bool) (text string, total bool) {
	var keys []string
	if !closed && g.once(3) {
		keys = append(keys, g.scalar(s, 0)+g.pick("", " DESC"))
	}
	total = !hasBag && !g.once(4)
	var names []string
	for _, c := range columns {
		if c.kind != bag {
			key := c.name
			if aggregated && c.text != c.name && g.once(3) {
				key = c.text // the column is meant
			}
			names = append(names, key+g.pick("", " DESC", " ASC"))
		}
	}
	if total {
		keys = append(keys, rapid.Permutation(names).Draw(g.T, "keys")...)
	} else if len(names) > 0 {
		keys = append(keys, g.pick(names...))
	}
	if len(keys) == 0 {
		return "", false
	}
	return " ORDER BY " + strings.Join(keys, ", "), total
}

// sort draws WITH and an order that says everything.
func (g *generator) sort(s *scope) string {
	var names, keys []string
	vars := s.vars[:s.outer:s.outer]
	for _, v := range s.vars[s.outer:] {
		if v.kind != bag {
			names, vars = append(names, v.name), append(vars, v)
			keys = append(keys, v.name+g.pick("", " DESC"))
		}
	}
	if len(names) == 0 {
		return g.projection("WITH", s, 0)
	}
	first := g.property(s) + g.pick("", " DESC")
	s.vars, s.ordered = vars, true
	return "WITH " + strings.Join(names, ", ") + " ORDER BY " + first + ", " + strings.Join(rapid.Permutation(keys).Draw(g.T, "keys"), ", ")
}

// gather draws WITH and lists of values, in the order of the rows.
func (g *generator) gather(s *scope) string {
	kind := bag
	if s.ordered {
		kind = list
	}
	var parts []string
	vars := s.vars[:s.outer:s.outer]
	if keys := s.kinds(node); len(keys) > 0 && g.once(2) {
		if v := pick(g.T, keys...); slices.Contains(s.vars[s.outer:], v) {
			parts, vars = append(parts, v.name), append(vars, v)
		}
	}
	for range rapid.IntRange(1, 2).Draw(g.T, "lists") {
		v := variable{name: g.name("l"), kind: kind}
		parts, vars = append(parts, "collect("+g.pick("", "", "DISTINCT ")+g.property(s)+") AS "+v.name), append(vars, v)
	}
	s.vars, s.ordered = vars, false
	return "WITH " + strings.Join(parts, ", ")
}

// plain draws columns without aggregations.
func (g *generator) plain(word string, s *scope, depth int) (columns []column) {
	for _, v := range s.vars[s.outer:] {
		if word == "WITH" && !g.once(4) || g.once(3) {
			c := column{v.name, v}
			if g.once(5) {
				c.name = g.name("v")
			}
			columns = append(columns, c)
		}
	}
	for len(columns) == 0 || g.once(2) && len(columns) < 6 {
		columns = append(columns, g.column(s, depth))
	}
	return columns
}

// aggregated draws keys and aggregations.
func (g *generator) aggregated(s *scope, depth int) (columns []column) {
	if keys := s.of(func(v variable) bool { return v.kind != bag }); len(keys) > 0 {
		for range rapid.IntRange(0, 2).Draw(g.T, "keys") {
			v := pick(g.T, keys...)
			if !slices.ContainsFunc(columns, func(c column) bool { return c.name == v.name }) && slices.Contains(s.vars[s.outer:], v) {
				columns = append(columns, column{v.name, v})
			}
		}
	}
	if g.once(2) {
		columns = append(columns, column{g.scalar(s, 1), variable{name: g.name("k")}})
	}
	for range rapid.IntRange(1, 3).Draw(g.T, "aggregations") {
		columns = append(columns, g.aggregation(s, depth))
	}
	return columns
}

func (g *generator) aggregation(s *scope, depth int) column {
	c := column{variable: variable{name: g.name("a"), kind: number}}
	distinct := g.pick("", "", "DISTINCT ")
	switch rapid.IntRange(0, 9).Draw(g.T, "aggregation") {
	case 0:
		c.text = "count(*)"
	case 1:
		c.text = "count(" + distinct + g.element(s) + ")"
	case 2:
		c.text = "sum(" + distinct + g.scalar(s, depth-1) + ")"
		if g.once(8) {
			c.text = "sum(9223372036854775807 - " + g.number(s, 0) + ")" // which overflows with the second row
		}
	case 3:
		c.text = "avg(" + distinct + g.number(s, depth-1) + ")"
	case 4:
		c.kind, c.text = scalar, g.pick("min", "max")+"("+distinct+g.scalar(s, depth-1)+")"
	case 5:
		c.text = g.pick("stDev", "stDevP") + "(" + distinct + g.number(s, 0) + ")"
	case 6:
		c.text = g.pick("percentileCont", "percentileDisc") + "(" + g.number(s, 0) + ", " + g.pick("0.5", "0.3", "0", "1") + ")"
	case 7:
		c.text = g.pick("count(*) + 1", "10 / count(*)", "sum("+g.number(s, 0)+") / count(*)", "size(collect("+g.scalar(s, 0)+"))")
	case 8:
		c.text = "count(" + distinct + g.scalar(s, depth-1) + ")"
	default:
		c.kind, c.text = bag, "collect("+distinct+g.scalar(s, depth-1)+")"
		if vars := s.kinds(node, relationship); len(vars) > 0 && g.once(3) {
			v := pick(g.T, vars...)
			c.item, c.text = v.kind, "collect("+distinct+v.name+")"
		}
		if s.ordered {
			c.kind = list
		}
	}
	return c
}
