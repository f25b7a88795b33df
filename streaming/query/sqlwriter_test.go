package query_test

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// endOrder marks an ORDER BY that gives the result its order.
const endOrder = "\nORDER BY "

// sqlWriter makes up a query in both languages at once.
type sqlWriter struct {
	*rapid.T
	names   int
	cypher  []string // clauses
	from    string
	where   []string
	nodes   []sqlNode
	values  []sqlValue // of numbers
	ordered bool
}

// sqlNode is a node or relationship that both languages have bound. Its columns are prefix + id, x, y.
type sqlNode struct {
	name, prefix string
	table        string // of a relationship t or u
}

// sqlValue is an expression in both languages.
type sqlValue struct{ cypher, sql string }

func (w *sqlWriter) once(n int) bool { return rapid.IntRange(0, n-1).Draw(w.T, "once") == n-1 }

func (w *sqlWriter) pick(list ...string) string { return rapid.SampledFrom(list).Draw(w.T, "pick") }

func (w *sqlWriter) name(prefix string) string {
	w.names++
	return fmt.Sprintf("%s%d", prefix, w.names)
}

// query returns the same query in Cypher and in SQL.
func (w *sqlWriter) query() (cypher, sql string) {
	if w.once(6) {
		word := w.pick("\nUNION\n", "\nUNION ALL\n")
		left, leftSQL := w.part()
		right := &sqlWriter{T: w.T, names: w.names}
		cypher, sql = right.part()
		return left + word + cypher, leftSQL + word + sql
	}
	w.clauses()
	columns := w.columns()
	sql = w.selection(columns)
	cypher = strings.Join(w.cypher, "\n") + "\nRETURN " + list(columns.cypher, " AS ")
	if columns.distinct {
		cypher = strings.Replace(cypher, "RETURN ", "RETURN DISTINCT ", 1)
	}
	if w.once(3) {
		w.ordered = true
		order, limit := w.order(len(columns.cypher))
		cypher += "\nORDER BY " + order + limit.cypher
		sql += endOrder + order + limit.sql
	}
	return cypher, sql
}

// part draws a part of a UNION.
func (w *sqlWriter) part() (cypher, sql string) {
	w.match("MATCH ")
	var columns columnPair
	for _, v := range []sqlValue{w.number(), w.text()} {
		columns.add(v)
	}
	return strings.Join(w.cypher, "\n") + "\nRETURN " + list(columns.cypher, " AS "), w.selection(columns)
}

// columnPair is the columns of a projection.
type columnPair struct {
	cypher, sql []string
	group       []string // of sql
	distinct    bool
	aggregated  bool
}

func (c *columnPair) add(v sqlValue) {
	c.cypher, c.sql = append(c.cypher, v.cypher), append(c.sql, v.sql)
}

// list names expressions c1, c2...
func list(exprs []string, as string) string {
	named := make([]string, len(exprs))
	for i, e := range exprs {
		named[i] = fmt.Sprintf("%s%sc%d", e, as, i+1)
	}
	return strings.Join(named, ", ")
}

func (w *sqlWriter) selection(c columnPair) string {
	text := "SELECT "
	if c.distinct {
		text += "DISTINCT "
	}
	text += list(c.sql, " AS ") + "\nFROM " + w.from
	if len(w.where) > 0 {
		text += "\nWHERE (" + strings.Join(w.where, ")\n  AND (") + ")"
	}
	if c.aggregated && len(c.group) > 0 {
		text += "\nGROUP BY " + strings.Join(c.group, ", ")
	}
	return text
}

func (w *sqlWriter) order(columns int) (order string, limit sqlValue) {
	var keys []string
	for i := range columns {
		keys = append(keys, fmt.Sprintf("c%d%s", i+1, w.pick("", " DESC")))
	}
	keys = rapid.Permutation(keys).Draw(w.T, "keys")
	limits := []sqlValue{{}, {" LIMIT 2", " LIMIT 2"}, {" SKIP 1 LIMIT 3", " OFFSET 1 LIMIT 3"}, {" SKIP 1", " OFFSET 1"}}
	return strings.Join(keys, ", "), rapid.SampledFrom(limits).Draw(w.T, "limit")
}

func (w *sqlWriter) clauses() {
	w.match("MATCH ")
	for range rapid.IntRange(0, 2).Draw(w.T, "clauses") {
		switch rapid.IntRange(0, 4).Draw(w.T, "clause") {
		case 0:
			w.match("MATCH ")
		case 1, 2:
			w.optional()
		case 3:
			name := w.name("v")
			w.cypher = append(w.cypher, "UNWIND [1, 2, null] AS "+name)
			w.from += " CROSS JOIN (VALUES (1::bigint), (2), (null)) AS " + name + "(n)"
			w.values = append(w.values, sqlValue{name, name + ".n"})
		default:
			w.with()
		}
	}
}

// hop is one relationship of a pattern with the node at its end.
type hop struct {
	cypher, table, from, to, end string
}

var hops = map[string][]hop{
	"a": {{"-[%s:T]->", "t", "src", "dst", "b"}, {"-[%s:U]->", "u", "src", "dst", "a"}, {"<-[%s:U]-", "u", "dst", "src", "a"}},
	"b": {{"<-[%s:T]-", "t", "dst", "src", "a"}},
}

// joined is a pattern in both languages.
type joined struct {
	cypher string
	from   string
	on     []string
	bound  []sqlNode
}

// pattern draws a path, from a node that is bound or from a new one. Relationships of one clause differ.
func (w *sqlWriter) pattern(most int) (p joined) {
	var at sqlNode
	starts := w.starts()
	if len(starts) > 0 && !w.once(3) {
		at = rapid.SampledFrom(starts).Draw(w.T, "start")
		p.cypher = "(" + at.name + ")"
	} else {
		at = w.newNode(w.pick("a", "a", "b"))
		p.cypher, p.from, p.bound = "("+at.name+":"+strings.ToUpper(at.table)+")", at.table+" "+at.name, []sqlNode{at}
	}
	least := 0
	if p.from == "" {
		least = 1
	}
	for range rapid.IntRange(least, max(least, most)).Draw(w.T, "hops") {
		h := rapid.SampledFrom(hops[at.table]).Draw(w.T, "hop")
		e := sqlNode{name: w.name("e"), table: h.table}
		e.prefix = e.name + "."
		end := w.newNode(h.end)
		p.cypher += fmt.Sprintf(h.cypher, e.name) + "(" + end.name + ")"
		if p.from != "" {
			p.from += " CROSS JOIN "
		}
		p.from += h.table + " " + e.name + " CROSS JOIN " + end.table + " " + end.name
		p.on = append(p.on, e.prefix+h.from+" = "+at.prefix+"id", e.prefix+h.to+" = "+end.prefix+"id")
		for _, other := range p.bound {
			if other.table == e.table && other.name[0] == 'e' {
				p.on = append(p.on, e.prefix+"id <> "+other.prefix+"id")
			}
		}
		p.bound = append(p.bound, e, end)
		at = end
	}
	return p
}

func (w *sqlWriter) newNode(table string) sqlNode {
	name := w.name("n")
	return sqlNode{name, name + ".", table}
}

// starts returns the nodes that are bound.
func (w *sqlWriter) starts() (list []sqlNode) {
	for _, n := range w.nodes {
		if n.table == "a" || n.table == "b" {
			list = append(list, n)
		}
	}
	return list
}

func (w *sqlWriter) match(word string) {
	p := w.pattern(rapid.SampledFrom([]int{0, 1, 1, 2, 3}).Draw(w.T, "most"))
	w.cypher = append(w.cypher, word+p.cypher)
	if w.from != "" {
		w.from += " CROSS JOIN "
	}
	w.from += p.from
	w.where = append(w.where, p.on...)
	w.nodes = append(w.nodes, p.bound...)
	if w.once(3) {
		c := w.condition(2)
		w.cypher[len(w.cypher)-1] += "\nWHERE " + c.cypher
		w.where = append(w.where, c.sql)
	}
}

// optional draws OPTIONAL MATCH: a left join with a subquery that sees what is left of it.
func (w *sqlWriter) optional() {
	p := w.pattern(2)
	before := w.nodes
	w.nodes = append(w.nodes[:len(w.nodes):len(w.nodes)], p.bound...)
	text := "OPTIONAL MATCH " + p.cypher
	on := p.on
	if w.once(2) {
		c := w.condition(1)
		text += "\nWHERE " + c.cypher
		on = append(on, c.sql)
	}
	w.cypher = append(w.cypher, text)
	alias := w.name("o")
	if len(on) == 0 {
		on = []string{"true"}
	}
	w.from += "\n  LEFT JOIN LATERAL (SELECT " + exposed(p.bound) + " FROM " + p.from + " WHERE (" + strings.Join(on, ") AND (") + ")) " + alias + " ON true"
	w.nodes = before
	for _, n := range p.bound {
		w.nodes = append(w.nodes, sqlNode{n.name, alias + "." + n.name + "_", n.table})
	}
}

// exposed lists the columns of nodes, for a subquery.
func exposed(nodes []sqlNode) string {
	var columns []string
	for _, n := range nodes {
		for _, column := range []string{"id", "x", "y"} {
			columns = append(columns, n.prefix+column+" AS "+n.name+"_"+column)
		}
	}
	return strings.Join(columns, ", ")
}

// with draws WITH: a subquery. Nodes live on only when nothing is aggregated.
func (w *sqlWriter) with() {
	alias := w.name("w")
	var columns columnPair
	nodes := w.nodes
	if columns.aggregated = w.once(2); columns.aggregated {
		nodes = nil
		key := w.number()
		columns.add(key)
		columns.group = append(columns.group, key.sql)
		columns.add(w.aggregation())
	} else {
		columns.add(w.number())
		columns.add(w.number())
	}
	inner := w.selection(columns)
	text := "WITH "
	for _, n := range nodes {
		text += n.name + ", "
		inner = strings.Replace(inner, "SELECT ", "SELECT "+exposed([]sqlNode{n})+", ", 1)
	}
	w.values = nil
	var named []string
	for i, e := range columns.cypher {
		name := w.name("v")
		named = append(named, e+" AS "+name)
		w.values = append(w.values, sqlValue{name, fmt.Sprintf("%s.c%d", alias, i+1)})
	}
	text += strings.Join(named, ", ")
	w.nodes = nil
	for _, n := range nodes {
		w.nodes = append(w.nodes, sqlNode{n.name, alias + "." + n.name + "_", n.table})
	}
	w.from, w.where = "("+inner+") "+alias, nil
	if w.once(2) {
		c := w.condition(1)
		text += "\nWHERE " + c.cypher
		w.where = append(w.where, c.sql)
	}
	w.cypher = append(w.cypher, text)
}

// columns draws what the query returns.
func (w *sqlWriter) columns() (c columnPair) {
	if c.aggregated = w.once(3); c.aggregated {
		for range rapid.IntRange(0, 2).Draw(w.T, "keys") {
			key := w.value()
			c.add(key)
			c.group = append(c.group, key.sql)
		}
		for range rapid.IntRange(1, 2).Draw(w.T, "aggregations") {
			c.add(w.aggregation())
		}
		return c
	}
	c.distinct = w.once(4)
	for range rapid.IntRange(1, 3).Draw(w.T, "columns") {
		c.add(w.value())
	}
	return c
}

func (w *sqlWriter) aggregation() sqlValue {
	n := w.number()
	switch rapid.IntRange(0, 6).Draw(w.T, "aggregation") {
	case 0:
		return sqlValue{"count(*)", "count(*)"}
	case 1:
		return sqlValue{"count(" + n.cypher + ")", "count(" + n.sql + ")"}
	case 2:
		return sqlValue{"sum(" + n.cypher + ")", "coalesce(sum(" + n.sql + "), 0)::bigint"}
	case 3:
		return sqlValue{"min(" + n.cypher + ")", "min(" + n.sql + ")"}
	case 4:
		return sqlValue{"max(" + n.cypher + ")", "max(" + n.sql + ")"}
	case 5:
		return sqlValue{"avg(" + n.cypher + ")", "sum(" + n.sql + ")::float8 / nullif(count(" + n.sql + "), 0)"}
	}
	return sqlValue{"count(DISTINCT " + n.cypher + ")", "count(DISTINCT " + n.sql + ")"}
}

func (w *sqlWriter) value() sqlValue {
	switch rapid.IntRange(0, 5).Draw(w.T, "value") {
	case 0, 1:
		return w.text()
	case 2:
		if starts := w.starts(); len(starts) > 0 {
			n := rapid.SampledFrom(starts).Draw(w.T, "node")
			return sqlValue{"elementId(" + n.name + ")", n.prefix + "id"}
		}
	}
	return w.number()
}

func (w *sqlWriter) property(name string) (v sqlValue, ok bool) {
	if len(w.nodes) == 0 {
		return v, false
	}
	n := rapid.SampledFrom(w.nodes).Draw(w.T, "element")
	return sqlValue{n.name + "." + name, n.prefix + name}, true
}

func (w *sqlWriter) text() sqlValue {
	if v, ok := w.property("y"); ok {
		return v
	}
	return sqlValue{"'a'", "'a'::text"}
}

func (w *sqlWriter) number() sqlValue {
	v, ok := w.property("x")
	switch {
	case len(w.values) > 0 && (!ok || w.once(3)):
		v = rapid.SampledFrom(w.values).Draw(w.T, "value")
	case !ok:
		v = sqlValue{"1", "1::bigint"}
	}
	switch {
	case w.once(8):
		return sqlValue{"(" + v.cypher + " + 1)", "(" + v.sql + " + 1)"}
	case w.once(8):
		return sqlValue{"coalesce(" + v.cypher + ", 0)", "coalesce(" + v.sql + ", 0)"}
	}
	return v
}

// condition draws a condition on what is bound.
func (w *sqlWriter) condition(depth int) sqlValue {
	if depth > 0 && w.once(3) {
		left, right := w.condition(depth-1), w.condition(depth-1)
		word := w.pick(" AND ", " OR ")
		return sqlValue{"(" + left.cypher + word + right.cypher + ")", "(" + left.sql + word + right.sql + ")"}
	}
	n := w.number()
	switch rapid.IntRange(0, 8).Draw(w.T, "condition") {
	case 0:
		word := w.pick(" IS NULL", " IS NOT NULL")
		return sqlValue{n.cypher + word, n.sql + word}
	case 1:
		return sqlValue{n.cypher + " IN [1, 3, null]", n.sql + " IN (1, 3, null)"}
	case 2:
		c := w.condition(0)
		return sqlValue{"NOT (" + c.cypher + ")", "NOT (" + c.sql + ")"}
	case 3:
		other := w.number()
		return sqlValue{n.cypher + " = " + other.cypher, n.sql + " = " + other.sql}
	case 4:
		v := w.text()
		word := w.pick(" >= 'b'", " = 'a'", " <> 'b'")
		return sqlValue{v.cypher + word, v.sql + word}
	case 5, 6:
		if starts := w.starts(); len(starts) > 0 {
			return w.exists(rapid.SampledFrom(starts).Draw(w.T, "node"))
		}
	}
	word := w.pick(" > 1", " <= 2", " <> 2", " = 1")
	return sqlValue{n.cypher + word, n.sql + word}
}

// exists draws EXISTS or COUNT of what a node is related with.
func (w *sqlWriter) exists(n sqlNode) sqlValue {
	h := rapid.SampledFrom(hops[n.table]).Draw(w.T, "hop")
	e, end := w.name("e"), w.name("n")
	pattern := "(" + n.name + ")" + fmt.Sprintf(h.cypher, e) + "(" + end + ")"
	inner := fmt.Sprintf("FROM %s %s JOIN %s %s ON %s.id = %s.%s WHERE %s.%s = %sid", h.table, e, h.end, end, end, e, h.to, e, h.from, n.prefix)
	if w.once(2) {
		pattern += " WHERE " + end + ".x >= " + n.name + ".x"
		inner += " AND " + end + ".x >= " + n.prefix + "x"
	}
	if w.once(3) {
		return sqlValue{"COUNT { " + pattern + " } > 1", "(SELECT count(*) " + inner + ") > 1"}
	}
	not := w.pick("", "NOT ")
	return sqlValue{not + "EXISTS { " + pattern + " }", not + "EXISTS (SELECT 1 " + inner + ")"}
}
