package postgres

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

// announcement is what a logical message says: what became of tables.
type announcement struct {
	Before []layout `json:"before"`
	Now    []layout `json:"now"`
}

// like reports whether it says the same as one that was written.
func (a *announcement) like(written []byte) bool {
	var other announcement
	like := func(a, b layout) bool { return a.like(&b) }
	return len(written) > 0 && json.Unmarshal(written, &other) == nil && slices.EqualFunc(a.Before, other.Before, like) && slices.EqualFunc(a.Now, other.Now, like)
}

// announce compares what is known with the catalog and writes the differences into the WAL. They are empty when there are
// none.
func (s *Source) announce(ctx context.Context, conn *pgx.Conn, known []layout, last []byte) (announced []byte, err error) {
	a, err := s.differences(ctx, conn, known)
	if err != nil {
		return nil, err
	}
	if len(a.Before)+len(a.Now) == 0 {
		return nil, nil
	}
	if a.like(last) {
		return last, nil // it is on its way
	}
	data, _ := json.Marshal(a) // has nothing that cannot be encoded
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	if _, err = conn.Exec(bounded, "SELECT pg_logical_emit_message(true, $1, $2::text)", s.messagePrefix(), string(data)); err != nil {
		return nil, wrap(err, "writing into the WAL what became of tables")
	}
	return data, nil
}

// differences compares what is known with the catalog. Some of what a look sees is newer than the rest: functions of the
// server know nothing of the transaction's snapshot, and may have waited for the very DDL that they then see. So what a
// look finds counts when the next one finds it, too, but for where rows are, which is looked at last and may change all the time.
func (s *Source) differences(ctx context.Context, conn *pgx.Conn, known []layout) (a announcement, err error) {
	var last []layout
	for range mostLooks {
		c, now, err := s.look(ctx, conn, known, false)
		if err != nil {
			return a, err
		}
		if err := s.findRewritten(ctx, conn, c, known, now); err != nil {
			return a, err
		}
		if a = compare(known, now); len(a.Before)+len(a.Now) == 0 || slices.EqualFunc(last, now, func(a, b layout) bool { return a.likeButStored(&b) }) {
			return a, nil
		}
		last = now
	}
	return announcement{}, nil
}

// mostLooks is how often tables are looked at before they are left to the next round, because they do not stand still.
const mostLooks = 3

func compare(known, now []layout) (a announcement) {
	for i := range now {
		before := labelled(known, now[i].Label)
		if before != nil && before.like(&now[i]) {
			continue
		}
		if a.Now = append(a.Now, now[i]); before != nil {
			a.Before = append(a.Before, *before)
		}
	}
	for i := range known {
		if labelled(now, known[i].Label) == nil {
			a.Before = append(a.Before, known[i])
		}
	}
	return a
}

// messagePrefix marks the logical messages that are for us.
func (s *Source) messagePrefix() string { return "perdure " + s.slot }

// announced takes a logical message. A table of which something was learned since the watcher looked is left to the next
// look. Where rows are stored does not matter to decoding: the stream, which every TRUNCATE would end otherwise, goes on.
func (a *assembler) announced(src []byte) error {
	const header = 1 + 8 // flags, position
	if !a.open || a.taken || len(src) < header {
		return nil
	}
	prefix, rest, ok := cutText(src[header:])
	if !ok || prefix != a.prefix || len(rest) < 4 || int(binary.BigEndian.Uint32(rest)) != len(rest)-4 {
		return nil // somebody else's
	}
	var said announcement
	if err := json.Unmarshal(rest[4:], &said); err != nil {
		return failure.StateCorrupt.Errorf("decoding what the watcher says of tables: %w", err)
	}
	now := slices.Clone(a.known)
	applied := false
	for _, l := range append(slices.Clone(said.Now), said.Before...) {
		before, after, have := labelled(said.Before, l.Label), labelled(said.Now, l.Label), labelled(now, l.Label)
		if (before == nil) != (have == nil) || before != nil && !before.like(have) {
			continue
		}
		applied = true
		if after == nil || have == nil || !have.likeButStored(after) {
			a.renewed = true
		}
		now = slices.DeleteFunc(now, func(k layout) bool { return k.Label == l.Label })
		if after != nil {
			now = append(now, *after)
		}
	}
	if applied {
		a.learned(now)
	}
	return nil
}

// learned makes what tables look like from here on known, with what that says about elements.
func (a *assembler) learned(now []layout) {
	a.schema = append(a.schema, schemaChanges(a.types, a.known, now)...)
	a.known, a.news = now, true
}
