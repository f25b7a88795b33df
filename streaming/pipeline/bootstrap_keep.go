package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/stream"
)

// What was copied from snapshots that are lost stays of use. A scope that is complete needs nothing more. One that is not is
// continued by a scope of the next snapshot: the old one keeps its finished chunks, under its own generation and with its own
// position, the new one has the same places to copy again, but only what is new there since (source.Chunk.Since), and all that
// was not finished. Of a label that has elements from several snapshots, the first one's position decides which changes are
// applied, although some elements are from later ones. This is why that is right, for one element e and snapshots at L1 < L2;
// of more, take the first and the last that have a part.
//
//   - Without a change of e in (L1, L2], e is at the same place in both, since the scope has the same layout, and has been
//     copied with that place, whichever snapshot it was from. Both copies are the same.
//   - With changes in between, all of them are applied, in order, to some copy of e or to none. If the last is a delete, e is
//     not there, as at L2. Otherwise e has what the changes since the last insert or delete gave explicitly, each as at L2.
//     What none gave was not changed in (L1, L2], with no delete or insert in between, so that every copy of e has it as it was
//     at L1 and at L2. There is a copy if there is anything that no change gave, as the source reads what came to a
//     place since L1 again unless the changes tell of it completely. Which copy is loaded last does not matter.
//   - That goes for relationships as for nodes: they have ids of their own, and one that a row does not have any more is
//     deleted by the change that took it away. A key that changed is a delete and an insert of another element.
//   - A change that empties a scope would take elements with it that were copied behind it. Then the layout is another one,
//     nothing is kept, and the position is L2. So it is where elements look otherwise at L2 than at L1; where they did
//     in between only, the change log tells of it behind L1, and the query does not go on (fits).
//
// Behind L2 all is as ever, and nothing is published before the changes up to there are applied.

// divide separates the scopes of earlier snapshots whose labels are complete from all others.
func divide(scopes []*storedScope, generation int, keep bool) (kept, rest []*storedScope) {
	open := make(map[string]bool) // labels that are not complete
	usable := func(s *storedScope) bool {
		followed := !s.Continued || slices.ContainsFunc(scopes, func(o *storedScope) bool { return o.Name == s.Name && o.generation > s.generation })
		return keep && s.copied() && followed && s.generation < generation && !slices.ContainsFunc(s.Labels, func(l string) bool { return open[l] })
	}
	for again := true; again; {
		again = false
		for _, s := range scopes {
			if usable(s) {
				continue
			}
			for _, l := range s.Labels {
				again = again || !open[l]
				open[l] = true
			}
		}
	}
	for _, s := range scopes {
		if usable(s) {
			kept = append(kept, s)
		} else {
			rest = append(rest, s)
		}
	}
	return kept, rest
}

// goOn has scopes that are planned, all of one snapshot, go on with those of earlier ones, in order, where these are of use.
func goOn(planned, earlier []*storedScope) (continued, dropped []*storedScope) {
	for _, s := range earlier {
		at := slices.IndexFunc(planned, func(p *storedScope) bool { return p.generation > s.generation && p.goesOnWith(&s.scopeRecord) })
		if at < 0 {
			dropped = append(dropped, s)
			continue
		}
		continued = append(continued, s)
		planned[at].take(&s.scopeRecord)
	}
	return continued, dropped
}

// goesOnWith reports whether what was copied of an earlier scope is a part of this one.
func (s *scopeRecord) goesOnWith(old *scopeRecord) bool {
	return s.Layout != "" && s.Layout == old.Layout && s.Name == old.Name && slices.Equal(s.Labels, old.Labels) &&
		(s.Properties == nil) == (old.Properties == nil) && slices.Equal(s.Properties, old.Properties) &&
		maps.EqualFunc(s.Only, old.Only, slices.Equal) &&
		slices.ContainsFunc(old.Chunks, func(c chunkRecord) bool { return old.since(c) != "" })
}

// since returns the mark of the last snapshot from which a chunk was copied, "" if from none.
func (s *scopeRecord) since(c chunkRecord) string {
	if c.Copied && c.Attempt > 0 {
		return s.Mark
	}
	return c.Since
}

// take makes the chunks those of an earlier scope. What is behind the last one that was copied is divided anew.
func (s *scopeRecord) take(old *scopeRecord) {
	s.Chunks, s.Rate = nil, old.Rate
	copied := 0
	for i, c := range old.Chunks {
		c = chunkRecord{To: c.To, Since: old.since(c)}
		if s.Chunks = append(s.Chunks, c); c.Since != "" {
			copied = i + 1
		}
	}
	s.Chunks = s.Chunks[:copied]
}

// end leaves of a scope what was copied. Chunks that were not have no attempt, so that nothing of them is loaded.
func (s *scopeRecord) end() {
	for i, c := range s.Chunks {
		if !c.Copied {
			s.Chunks[i] = chunkRecord{To: c.To, Since: c.Since, Copied: true}
		}
	}
	s.Places, s.Continued, s.Failed = s.from(len(s.Chunks)), true, nil
}

// forget deletes scopes, whose labels are then copied again from the next snapshot: first those that go on with others.
func forget(ctx context.Context, b *stream.Bucket, scopes []*storedScope) error {
	for _, scope := range slices.Backward(scopes) {
		if err := b.Delete(ctx, scope.key); err != nil && !errors.Is(err, stream.ErrMissing) {
			return fmt.Errorf("deleting a scope of an earlier snapshot: %w", err)
		}
	}
	return nil
}

// keptLabels returns the labels of which elements come from earlier snapshots, with the lowest position of those.
func keptLabels(scopes []*storedScope, generation int) map[string]graph.Position {
	labels := make(map[string]graph.Position)
	for _, s := range scopes {
		if s.generation == generation {
			continue
		}
		for _, l := range s.Labels {
			if p, is := labels[l]; !is || s.Position.Compare(p) < 0 {
				labels[l] = s.Position
			}
		}
	}
	return labels
}

// continuedLabels returns the labels of scopes that go on with those of earlier snapshots.
func continuedLabels(scopes []*storedScope, generation int) (labels []string) {
	for _, s := range scopes {
		if s.generation == generation && slices.ContainsFunc(s.Chunks, func(c chunkRecord) bool { return c.Since != "" }) {
			labels = append(labels, s.Labels...)
		}
	}
	return labels
}
