package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
)

// kind is what is known of a value when the query is compiled.
type kind uint8

const (
	anything kind = iota
	boolean
	integer
	float
	text
	list
	mapping
	node
	relationship
	path
)

func (k kind) String() string {
	return [...]string{"value", "BOOLEAN", "INTEGER", "FLOAT", "STRING", "LIST", "MAP", "NODE", "RELATIONSHIP", "PATH"}[k]
}

// a returns the name of the kind with its article.
func (k kind) a() string {
	if k == integer {
		return "an " + k.String()
	}
	return "a " + k.String()
}

// is reports whether a value may be of one of the kinds.
func (k kind) is(kinds ...kind) bool { return k == anything || slices.Contains(kinds, k) }

// typ is the kind of a value and, for a list, of all its items.
type typ struct{ kind, item kind }

// or is the type of something that is a value of t or of u.
func (t typ) or(u typ) typ {
	if t.kind != u.kind {
		return typ{}
	}
	if t.item != u.item {
		t.item = anything
	}
	return t
}

func typeOf(v graph.Value) typ {
	switch v.Kind() {
	case graph.KindBool:
		return typ{kind: boolean}
	case graph.KindInt:
		return typ{kind: integer}
	case graph.KindFloat, graph.KindDecimal:
		return typ{kind: float}
	case graph.KindString:
		return typ{kind: text}
	case graph.KindMap:
		return typ{kind: mapping}
	case graph.KindList:
		t := typ{kind: list}
		for i, item := range v.AsList() {
			if k := typeOf(item).kind; i == 0 || k == t.item {
				t.item = k
			} else {
				t.item = anything
				break
			}
		}
		return t
	}
	return typ{}
}

// variable is what a name stands for.
type variable struct {
	slot int
	typ  typ
}

// grouped is in place of the slot of a variable that has no single value, as rows have been put in groups.
const grouped = -2

// scope is the variables that an expression may use. Names that no text can contain are those of anonymous elements.
type scope map[string]variable

// with returns a scope that has the variables of both; those of other hide those of s.
func (s scope) with(other scope) scope {
	merged := maps.Clone(s)
	if merged == nil {
		merged = make(scope)
	}
	maps.Copy(merged, other)
	return merged
}

// names returns the names that a query can use, in order.
func (s scope) names() []string {
	var names []string
	for name, v := range s {
		if v.slot != grouped && !strings.HasPrefix(name, hidden) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hidden starts the names that no text can contain.
const hidden = "\x00"

// use is what expressions read of the element, or of the elements, in a slot.
type use struct {
	properties []string
	all        bool
	labels     bool
}

func (u *use) property(name string) {
	if !slices.Contains(u.properties, name) {
		u.properties = append(u.properties, name)
	}
}

func (u *use) add(other use) {
	for _, name := range other.properties {
		u.property(name)
	}
	u.all = u.all || other.all
	u.labels = u.labels || other.labels || other.all
}
