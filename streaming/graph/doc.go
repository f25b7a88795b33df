// Package graph is the property graph: its values, elements and changes, their Cypher ordering and their binary form.
//
// Everything that flows from a source to a query is made of these types. Values and elements are immutable once they
// left their maker and may be shared between goroutines.
package graph
