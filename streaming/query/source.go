package query

import (
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
)

// Elements of several sources share one store, where ids must differ. Ids of the first source stay as they are, unless
// they contain a slash, which gets another one in front; ids of other sources get their source's name, which has no
// slash, and a slash in front. So an id tells
// its source, and a query of one source shows the ids that the source gave.

// prefix returns what stands before the ids of a source; "" for the first one.
func (q *Query) prefix(source string) string {
	q.meta.Source(source)
	if q.meta.Sources[0].Name == source {
		return ""
	}
	return source + "/"
}

func qualify(prefix string, id graph.ElementID) graph.ElementID {
	switch {
	case id == "":
		return ""
	case prefix != "":
		return graph.ElementID(prefix) + id
	case strings.IndexByte(string(id), '/') >= 0:
		return "/" + id
	}
	return id
}

// owns reports whether an element belongs to the source of a prefix.
func (q *Query) owns(prefix string, id graph.ElementID) bool {
	if prefix != "" {
		return true // the prefix told
	}
	return id[0] == '/' || strings.IndexByte(string(id), '/') < 0
}

// sortedNames returns the sources of a state in an order that does not depend on chance, as new ones are numbered by it.
func sortedNames(positions map[string]graph.Position, offsets map[string]uint64) []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(positions)), maps.Keys(offsets))
	slices.Sort(names)
	return slices.Compact(names)
}
