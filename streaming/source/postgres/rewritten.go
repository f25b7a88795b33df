package postgres

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

// Some commands give a table, or a partition, another file without a change of a row in the stream. What they did shows in
// the transactions that its rows are of. VACUUM FULL, CLUSTER and SET TABLESPACE keep them. ALTER TABLE that computes values
// anew makes all rows its own, and TRUNCATE, which the stream does not have of a partition, leaves none. So where a row is
// older than the look before, nothing happened to rows; where none is, something may have.

// stored is where rows of a table are: in the table or, each by itself, in its partitions.
type stored struct {
	OID  uint32 `json:"oid"`
	File uint32 `json:"file,omitempty"` // 0: another one since the transaction Since, of which the stream has told
	// Since is the first transaction that the look that found the file may not have seen, in all its 64 bits; with File 0 the
	// lower half of the one that truncated the table.
	Since int64 `json:"since,omitempty"`
	// Anew says that the rows from before are not there any more.
	Anew bool `json:"anew,omitempty"`
}

// sameFile reports whether there is nothing to learn. When a file was seen first does not count.
func (s stored) sameFile(other stored) bool {
	return s.OID == other.OID && s.File == other.File && (s.File != 0 || s.Since == other.Since)
}

func storedIn(all []stored, oid uint32) (stored, bool) {
	at := slices.IndexFunc(all, func(s stored) bool { return s.OID == oid })
	if at < 0 {
		return stored{}, false
	}
	return all[at], true
}

// file is what the catalog says of where rows are.
type file struct {
	stored
	by  uint32 // the transaction that changed the catalog last
	end int64  // transactions from there on have not begun
}

// files looks where the rows of tables are.
func files(ctx context.Context, conn *pgx.Conn, oids []uint32) (map[uint32]file, error) {
	rows, err := conn.Query(ctx, `SELECT r.oid, r.relfilenode, r.xmin::text::bigint, pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
		FROM pg_class r, pg_current_snapshot() s WHERE r.oid = ANY ($1::oid[])`, oids)
	if err != nil {
		return nil, wrap(err, "looking where rows are")
	}
	all := make(map[uint32]file)
	var f file
	var by int64
	_, err = pgx.ForEachRow(rows, []any{&f.OID, &f.File, &by, &f.Since, &f.end}, func() error {
		f.by = uint32(by)
		all[f.OID] = f
		return nil
	})
	return all, wrap(err, "looking where rows are")
}

// findRewritten finds out where rows are, and what that says about them beside what is known.
func (s *Source) findRewritten(ctx context.Context, conn *pgx.Conn, c *catalog, known, now []layout) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var oids []uint32
	for _, t := range c.tables {
		oids = append(oids, t.files()...)
	}
	found, err := files(ctx, conn, oids)
	if err != nil {
		return err
	}
	for i, t := range c.tables {
		l := labelled(known, t.label)
		for _, part := range t.leavesOrSelf() {
			is, there := found[part.oid]
			if !there {
				continue // it was dropped meanwhile
			}
			if l != nil {
				if err := s.judge(ctx, conn, part, l.Stored, &is); err != nil {
					return err
				}
			}
			now[i].Stored = append(now[i].Stored, is.stored)
		}
	}
	return nil
}

// judge says whether the rows of a file are those of the one that was known.
func (s *Source) judge(ctx context.Context, conn *pgx.Conn, t *table, known []stored, is *file) error {
	switch was, there := storedIn(known, t.oid); {
	case !there:
	case was.File == is.File:
		is.stored = was
	case was.File == 0:
		is.Anew = is.by != uint32(was.Since)
	default:
		kept, err := s.keptRows(ctx, conn, t, was.Since, is.end)
		is.Anew = !kept
		return err
	}
	return nil
}

// files is findRewritten's look for the reader.
func (st *stream) files(ctx context.Context, oids []uint32) (found map[uint32]file, err error) {
	return found, st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		found, err = files(ctx, conn, oids)
		return err
	})
}

// keptRows reports whether a table has rows from before a transaction, none of which would have outlived what wrote it anew.
// Where that cannot be seen, it is not so.
func (s *Source) keptRows(ctx context.Context, conn *pgx.Conn, t *table, since, end int64) (kept bool, err error) {
	const comparable, enough = 1 << 30, 10_000 // transactions, whose numbers in rows have 32 bits; rows
	if end-since > comparable {
		return false, nil
	}
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM (SELECT xmin FROM ONLY `+t.name.sql()+` LIMIT $2) r WHERE age(r.xmin) > age($1::text::xid))`,
		strconv.FormatUint(uint64(uint32(since)), 10), enough).Scan(&kept)
	if err = wrap(err, "looking for rows of %s that were kept", t.name); err != nil && failure.ClassOf(err).Retryable() {
		return false, err
	}
	return kept, nil
}

func (t *table) leavesOrSelf() []*table {
	if t.partitioned {
		return t.leaves
	}
	return []*table{t}
}

// truncatedHere notes that the stream has told that a table has other files from here on.
func (a *assembler) truncatedHere(r *relation) {
	l := labelled(a.known, r.table.label)
	if l == nil || len(l.Stored) == 0 {
		return
	}
	all := slices.Clone(a.known)
	l = labelled(all, r.table.label)
	l.Stored = slices.Clone(l.Stored)
	for i := range l.Stored {
		l.Stored[i] = stored{OID: l.Stored[i].OID, Since: int64(a.xid)}
	}
	a.known, a.news = all, true
}

// computes reports whether what is told of a table's columns explains that its rows were written anew.
func (l *layout) computes(old *layout) bool {
	return slices.ContainsFunc(l.Columns, func(is column) bool {
		was := old.column(is.num)
		return was == nil && is.filled || was != nil && (was.oid != is.oid || was.mod != is.mod)
	})
}

// rewritten reports whether rows of a table may be others without a change that was told of.
func (l *layout) rewritten(old *layout) bool {
	return !l.computes(old) && slices.ContainsFunc(l.Stored, func(s stored) bool {
		was, there := storedIn(old.Stored, s.OID)
		return s.Anew && there && !was.sameFile(s)
	})
}

// lookAgain notes where rows are now that a change of the table's columns wrote them anew.
func (l *layout) lookAgain(found map[uint32]file) {
	l.Stored = slices.Clone(l.Stored)
	for i := range l.Stored {
		if f, there := found[l.Stored[i].OID]; there {
			l.Stored[i] = f.stored
		}
	}
}

// otherNames reports whether labels of enums or attributes of composite types are others than before. New labels say nothing
// about rows that exist.
func (l *layout) otherNames(old *layout) bool {
	for part, is := range l.Types {
		if was, there := old.Types[part]; there && was != is {
			return true
		}
	}
	return false
}

// tellTypes says what values of the columns' types are made of. What was known of them, which is of this place of the
// stream, stays.
func (l *layout) tellTypes(types *typeMap) {
	told := make(map[string]string)
	for _, c := range slices.Concat(l.Columns, l.Unsent) {
		types.tell(c.oid, told)
	}
	for part, was := range l.Types {
		if _, there := told[part]; there {
			told[part] = was
		}
	}
	l.Types = told
}

// tell collects what the values of a type are called: the labels of enums and the attributes of composite types.
func (m *typeMap) tell(oid uint32, into map[string]string) {
	t := m.known[oid]
	if t == nil {
		return
	}
	for _, named := range t.names {
		oid, name, _ := strings.Cut(named, " ")
		into[oid] = name
	}
	for _, c := range t.attributes {
		m.tell(c.oid, into)
	}
	if t.kind != 'b' || t.array {
		m.tell(t.part, into)
	}
}
