package store

import (
	"cmp"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
)

// link keeps scans, property indexes and adjacency as e wants them, where old wanted them otherwise.
func (s *Elements) link(b index.Batch, old, e *Element) error {
	if err := s.linkScans(b, old, e); err != nil {
		return err
	}
	if err := s.linkIndexes(b, old, e); err != nil {
		return err
	}
	linked := func(e *Element) bool { return e != nil && e.IsRelationship() }
	if linked(old) && linked(e) && old.Start == e.Start && old.End == e.End && old.Labels[0] == e.Labels[0] {
		return nil
	}
	if linked(old) {
		if err := s.detach(b, old); err != nil {
			return err
		}
	}
	if linked(e) {
		return s.attach(b, e)
	}
	return nil
}

// relevanceOf returns the relevance of an element, which may be nil or, when loading, nothing but an id.
func relevanceOf(e *Element) *Relevance {
	if e == nil || e.kind == nil {
		return &Relevance{}
	}
	return e.Relevance()
}

func (s *Elements) linkScans(b index.Batch, old, e *Element) error {
	was, is := relevanceOf(old), relevanceOf(e)
	if was == is || len(was.Scans)+len(is.Scans) == 0 {
		return nil
	}
	for _, scan := range was.Scans {
		if !slices.Contains(is.Scans, scan) {
			s.key = appendScanKey(s.key[:0], scan, old.ID)
			if err := b.Delete(s.key); err != nil {
				return err
			}
		}
	}
	for _, scan := range is.Scans {
		if !slices.Contains(was.Scans, scan) {
			s.key = appendScanKey(s.key[:0], scan, e.ID)
			if err := b.Set(s.key, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Elements) linkIndexes(b index.Batch, old, e *Element) error {
	was, is := relevanceOf(old), relevanceOf(e)
	for _, i := range was.indexes {
		v := old.Get(s.indexes[i].Property)
		if v.IsNull() || slices.Contains(is.indexes, i) && graph.Identical(v, e.Get(s.indexes[i].Property)) {
			continue
		}
		s.key = append(appendIndexPrefix(s.key[:0], i, v), old.ID...)
		if err := b.Delete(s.key); err != nil {
			return err
		}
	}
	for _, i := range is.indexes {
		v := e.Get(s.indexes[i].Property)
		if v.IsNull() || slices.Contains(was.indexes, i) && graph.Identical(v, old.Get(s.indexes[i].Property)) {
			continue
		}
		s.key = append(appendIndexPrefix(s.key[:0], i, v), e.ID...)
		if err := b.Set(s.key, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Elements) attach(b index.Batch, e *Element) error {
	number, err := s.names.label(b, e.Labels[0])
	if err != nil {
		return err
	}
	s.key = appendAdjacencyKey(s.key[:0], e.Start, Outgoing, number, e.ID)
	if err := b.Set(s.key, []byte(e.End)); err != nil {
		return err
	}
	s.key = appendAdjacencyKey(s.key[:0], e.End, Incoming, number, e.ID)
	if err := b.Set(s.key, []byte(e.Start)); err != nil {
		return err
	}
	s.cacheLink(side{e.Start, Outgoing}, number, e.ID, e.End)
	s.cacheLink(side{e.End, Incoming}, number, e.ID, e.Start)
	return nil
}

func (s *Elements) detach(b index.Batch, e *Element) error {
	number, err := s.names.label(b, e.Labels[0])
	if err != nil {
		return err
	}
	s.key = appendAdjacencyKey(s.key[:0], e.Start, Outgoing, number, e.ID)
	if err := b.Delete(s.key); err != nil {
		return err
	}
	s.key = appendAdjacencyKey(s.key[:0], e.End, Incoming, number, e.ID)
	if err := b.Delete(s.key); err != nil {
		return err
	}
	s.cacheUnlink(side{e.Start, Outgoing}, number, e.ID)
	s.cacheUnlink(side{e.End, Incoming}, number, e.ID)
	return nil
}

// cacheLink adds a neighbour to a cached list in place, so that a node with many neighbours is not read again for each
// new one. Nobody walks a list while elements change.
func (s *Elements) cacheLink(at side, number uint32, relationship, node graph.ElementID) {
	n, ok := s.adjacent.Get(at)
	if !ok {
		return
	}
	i, found := n.find(number, relationship)
	if found {
		n.list[i].Node, n.list[i].node = graph.ElementID(strings.Clone(string(node))), nil
		return
	}
	size := len(relationship) + len(node) + neighbourOverhead
	n.list = slices.Insert(n.list, i, Neighbour{
		Relationship: graph.ElementID(strings.Clone(string(relationship))), Node: graph.ElementID(strings.Clone(string(node))), Type: number,
	})
	n.size += size
	s.adjacent.Grow(size)
}

func (s *Elements) cacheUnlink(at side, number uint32, relationship graph.ElementID) {
	if n, ok := s.adjacent.Get(at); ok {
		if i, found := n.find(number, relationship); found {
			n.list = slices.Delete(n.list, i, i+1)
		}
	}
}

func (n *neighbours) find(number uint32, relationship graph.ElementID) (at int, found bool) {
	return slices.BinarySearchFunc(n.list, relationship, func(other Neighbour, id graph.ElementID) int {
		if c := cmp.Compare(other.Type, number); c != 0 {
			return c
		}
		return cmp.Compare(other.Relationship, id)
	})
}
