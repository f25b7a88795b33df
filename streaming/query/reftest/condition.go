package reftest

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// column draws an expression of any kind for a column.
func (g *generator) column(s *scope, depth int) column {
	c := column{variable: variable{name: g.name("c")}}
	elements := s.kinds(node, relationship)
	switch rapid.IntRange(0, 13).Draw(g.T, "column") {
	case 12:
		if nodes := s.kinds(node); len(nodes) > 0 {
			n := pick(g.T, nodes...).name
			c.kind, c.text = list, g.pick("labels("+n+")", "["+n+", "+n+"]", "keys("+n+" {.x, .y})")
			if strings.HasPrefix(c.text, "[") {
				c.item = node
			}
			break
		}
		fallthrough
	case 13:
		if lists := s.of(func(v variable) bool { return v.isList() && v.item == node }); len(lists) > 0 && depth > 0 {
			l := pick(g.T, lists...)
			if g.once(3) {
				c.kind, c.text = number, fmt.Sprintf("reduce(t = 0, i IN %s | t + COUNT { (i)--(:A) } * CASE WHEN %s (i)-[:T]->() THEN 1 ELSE 2 END)", l.name, g.pick("", "NOT"))
				break
			}
			c.kind, c.text = l.kind, fmt.Sprintf("[i IN %s WHERE i IS NOT NULL AND %s (i)-[:T]->()%s | COUNT { (i)--(:A) }%s]", l.name, g.pick("", "NOT"), g.pick("", " AND 6 / i.x > 1"), g.pick("", " + i.x", " / i.y"))
			break
		}
		fallthrough
	case 0:
		c.kind, c.text = truth, g.condition(s, depth-1)
		if g.once(6) {
			c.text = g.pick("rand() < 1", "size(randomUUID()) > 1", "timestamp() IS NOT NULL") // which is remembered with the row
		}
	case 1:
		c.kind, c.text = number, g.number(s, depth)
	case 2:
		c.kind, c.text = mapping, "{x: "+g.scalar(s, 0)+", y: "+g.scalar(s, 0)+"}"
	case 3:
		c.kind, c.text = list, "["+g.scalar(s, 0)+", "+g.scalar(s, 0)+"]"
	case 4:
		if lists := s.of(variable.isList); len(lists) > 0 {
			v := pick(g.T, lists...)
			x := variable{name: g.name("i"), kind: v.item}
			inner := &scope{vars: append(s.inner().vars, x)}
			c.kind, c.text = v.kind, fmt.Sprintf("[%s IN %s WHERE %s | %s]", x.name, v.name, g.condition(inner, 0), g.scalar(inner, 0))
			break
		}
		fallthrough
	case 5:
		if depth > 0 {
			c.kind, c.text = bag, g.pick(g.comprehension(s), g.collection(s, depth-1))
			break
		}
		fallthrough
	case 6:
		if len(elements) > 0 {
			v := pick(g.T, elements...)
			c.kind, c.text = mapping, v.name+g.pick(" {.x, .y}", " {.*}", " {.x, z: 1}", " {.*, x: 0}")
			break
		}
		fallthrough
	default:
		c.text = g.scalar(s, depth)
	}
	return c
}

// property draws a property of something, or a constant.
func (g *generator) property(s *scope) string {
	vars := s.kinds(node, relationship, mapping)
	if len(vars) == 0 {
		return g.plainValue(s)
	}
	return pick(g.T, vars...).name + g.pick(".x", ".x", ".y")
}

// plainValue draws a variable that is a value by itself, or a constant.
func (g *generator) plainValue(s *scope) string {
	if vars := s.kinds(scalar, number); len(vars) > 0 && !g.once(3) {
		return pick(g.T, vars...).name
	}
	return g.pick("1", "2", "'a'", "null", "1.0")
}

// itemOf draws an item of a list whose order is determined.
func (g *generator) itemOf(l string) string {
	g.usesOrder = true
	return g.pick("head("+l+")", "last("+l+")", l+"[0]", l+"[1]", l+"[-2]", "head("+l+"[1..])", "head(reverse("+l+"))", "head(tail("+l+"))")
}

// scalar draws an expression of what a property may be.
func (g *generator) scalar(s *scope, depth int) string {
	if lists := s.of(func(v variable) bool { return v.kind == list && v.item == scalar }); len(lists) > 0 && g.once(3) {
		return g.itemOf(pick(g.T, lists...).name)
	}
	if depth <= 0 {
		if g.once(4) {
			return g.plainValue(s)
		}
		return g.property(s)
	}
	switch rapid.IntRange(0, 12).Draw(g.T, "scalar") {
	case 11:
		return fmt.Sprintf("CASE %s WHEN 1 THEN %s WHEN %s THEN 'same' END", g.property(s), g.scalar(s, 0), g.property(s))
	case 12:
		if elements := s.kinds(node, relationship); len(elements) > 0 {
			return pick(g.T, elements...).name + "['" + g.pick("x", "y") + "']"
		}
		return g.property(s)
	case 5:
		return g.number(s, depth-1)
	case 6:
		return fmt.Sprintf("coalesce(%s, %s)", g.property(s), g.scalar(s, depth-1))
	case 7:
		return fmt.Sprintf("CASE WHEN %s THEN %s ELSE %s END", g.condition(s, depth-1), g.scalar(s, 0), g.scalar(s, 0))
	case 8:
		return g.plainValue(s)
	case 9:
		if rels := s.kinds(relationship); len(rels) > 0 {
			r := pick(g.T, rels...).name
			return g.pick("type("+r+")", "startNode("+r+").x", "endNode("+r+").y", "elementId(startNode("+r+"))")
		}
		return g.property(s)
	case 10:
		if elements := s.kinds(node, relationship); len(elements) > 0 {
			return "elementId(" + pick(g.T, elements...).name + ")"
		}
		return g.property(s)
	}
	return g.property(s)
}

// number draws an expression that is a number, null or an error.
func (g *generator) number(s *scope, depth int) string {
	switch rapid.IntRange(0, 7).Draw(g.T, "number") {
	case 2:
		return fmt.Sprintf("(%s %s %s)", g.property(s), g.pick("+", "-", "*"), g.pick("1", "2", g.property(s)))
	case 3:
		return fmt.Sprintf("(6 / %s)", g.property(s))
	case 4:
		if lists := s.of(variable.isList); len(lists) > 0 {
			l := pick(g.T, lists...).name
			return g.pick("size("+l+")", "reduce(t = 0, i IN "+l+" | t + 1)")
		}
		return g.property(s)
	case 5:
		if paths := s.kinds(path); len(paths) > 0 {
			p := pick(g.T, paths...).name
			return g.pick("length("+p+")", "size(nodes("+p+"))")
		}
		return g.property(s)
	case 6, 7:
		if depth > 0 {
			return "COUNT { " + g.subquery(s, depth-1) + " }"
		}
	}
	return g.property(s)
}

// subquery draws what stands in EXISTS { } and COUNT { }.
func (g *generator) subquery(s *scope, depth int) string {
	inner := s.inner()
	switch rapid.IntRange(0, 6).Draw(g.T, "subquery") {
	case 6:
		other := s.inner()
		return g.match(inner, false, 0) + " RETURN " + g.scalar(inner, 0) + " AS c UNION" + g.pick(" ", " ALL ") +
			g.match(other, false, 0) + " RETURN " + g.scalar(other, 0) + " AS c"
	case 4:
		return g.match(inner, false, depth) + " " + g.projection("WITH", inner, 0) + " " + g.projection("RETURN", inner, 0)
	case 5:
		return g.match(inner, false, depth) + " " + g.projection("RETURN", inner, 0)
	}
	text := g.path(inner, 2, true)
	if g.once(2) {
		text += " WHERE " + g.condition(inner, depth)
	}
	return text
}

// comprehension draws a pattern comprehension.
func (g *generator) comprehension(s *scope) string {
	inner := s.inner()
	text := "[" + g.node(inner, true, 3) + "-" + g.relationship(inner, true) + g.pick("->", "-") + g.node(inner, true, 3)
	if g.once(2) {
		text += " WHERE " + g.condition(inner, 0)
	}
	return text + " | " + g.property(inner) + "]"
}

// collection draws COLLECT { }.
func (g *generator) collection(s *scope, depth int) string {
	inner := s.inner()
	text := "COLLECT { " + g.match(inner, false, depth) + " RETURN " + g.pick("", "DISTINCT ") + g.scalar(inner, 0) + " AS c"
	return text + g.pick("", "", " ORDER BY c", " ORDER BY c DESC LIMIT 2") + " }"
}

// condition draws what may stand behind WHERE.
func (g *generator) condition(s *scope, depth int) string {
	if depth > 0 && g.once(3) {
		left, right := g.condition(s, depth-1), g.condition(s, depth-1)
		return g.pick("("+left+" AND "+right+")", "("+left+" OR "+right+")", "("+left+" XOR "+right+")", "NOT ("+left+")")
	}
	nodes, lists := s.kinds(node), s.of(variable.isList)
	if len(s.kinds(node, relationship, mapping, scalar, number)) == 0 {
		return g.pick("true", "true", "1 < 2", "null")
	}
	switch rapid.IntRange(0, 16).Draw(g.T, "condition") {
	case 4:
		return g.property(s) + g.pick(" IS NOT NULL", " IS NOT NULL", " IS NULL")
	case 5:
		return g.pick("", "NOT ") + g.property(s) + " IN " + g.pick("[1, 'a', null]", "[1, 2, 'a']", "[0, 3]")
	case 6, 7:
		return g.property(s) + " = " + g.property(s)
	case 8:
		return "6 / " + g.property(s) + " > 2"
	case 9:
		if len(nodes) > 0 {
			return pick(g.T, nodes...).name + g.pick(":A", ":B", ":A|B", ":!C")
		}
	case 10, 11:
		if len(nodes) > 0 && depth >= 0 {
			predicate := "(" + pick(g.T, nodes...).name + ")" + g.pick("-", "<-") + "[" + g.labels("T", "U") + g.pick("", "", "*1..2") + "]-" + g.node(s, false, 4)
			return g.pick("", "NOT ") + g.pick(predicate, "exists("+predicate+")")
		}
	case 12, 13:
		if depth > 0 {
			return g.pick("", "NOT ") + "EXISTS { " + g.subquery(s, depth-1) + " }"
		}
	case 14:
		if len(nodes) > 1 {
			return pick(g.T, nodes...).name + g.pick(" = ", " <> ") + pick(g.T, nodes...).name
		}
	case 15, 16:
		if len(lists) > 0 {
			return g.quantifier(pick(g.T, lists...), s, depth)
		}
	}
	return g.scalar(s, depth-1) + " " + g.pick("<>", "<", "<=", ">", ">=", "=") + " " + g.pick("1", "1", "1", "2", "'a'")
}

// quantifier draws a condition on a list, at times one that looks at the graph for each item.
func (g *generator) quantifier(l variable, s *scope, depth int) string {
	word := g.pick("any", "all", "none", "single")
	switch {
	case l.item == node && depth > 0 && g.once(2):
		return fmt.Sprintf("%s(i IN %s WHERE (i)-->(:A))", word, l.name)
	case l.item == node || l.item == relationship:
		return fmt.Sprintf("%s(i IN %s WHERE i.x %s)", word, l.name, g.pick("> 1", "IS NULL", "= 1", "= "+g.property(s)))
	}
	if l.kind == list && g.once(3) {
		g.usesOrder = true
		return l.name + g.pick(" = [1, 2]", " = [1]", " < [2]", "[0] = 1", " <> []")
	}
	return fmt.Sprintf("%s(i IN %s WHERE i %s)", word, l.name, g.pick("> 1", "IS NULL", "= 1", "= "+g.property(s)))
}
