package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

// DDL is not in the stream. It is learned of at two places. The server describes a table before the first change of a row
// that follows after the DDL; see learn. And the watcher compares the catalog with what is known: at the start, now and
// then, and when the server describes a table. What it finds it writes into the WAL as a logical message, which
// comes to the reader behind the DDL and, if the reader has not learned it by then, makes it known at a position of its
// own; see announced. So nothing is ever told of before it happened.

// look reads the catalog as far as it fits the spec still. What was known before may have changed: tables and columns of
// keys have the names that they have now, and those that cannot be read any more are missing, as are columns that the spec
// names. What was not known must be as the spec says.
//
// Columns that were left out before come to be known by supply alone, unless settled says that this is the moment.
func (s *Source) look(ctx context.Context, conn *pgx.Conn, known []layout, settled bool) (*catalog, []layout, error) {
	f := &follower{Source: *s, known: known, settled: settled, now: make(map[tableName]*Table)}
	// All of it as it was at one moment: DDL may go on.
	if _, err := s.exec(ctx, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return nil, nil, wrap(err, "looking at tables")
	}
	c, layouts, err := f.look(ctx, conn, s.config)
	if _, end := s.exec(ctx, conn, "ROLLBACK"); err == nil {
		err = wrap(end, "looking at tables")
	}
	if err == nil {
		f.findRows(ctx, conn, c, layouts) // outside, so that no lock is held while another one is waited for
	}
	return c, layouts, err
}

func (f *follower) look(ctx context.Context, conn *pgx.Conn, spec Config) (*catalog, []layout, error) {
	f.lenient = true
	if err := f.follow(ctx, conn, spec); err != nil {
		return nil, nil, err
	}
	c, err := f.loadCatalog(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	if err := f.published(ctx, conn, c); err != nil {
		return nil, nil, err
	}
	for i, t := range c.tables {
		t.spec, t.asked = f.specs[i], spec.asked(f.specs[i])
		if l := labelled(f.known, t.label); l != nil && l.OID == t.oid && !f.settled {
			t.leaveOut(func(col column) bool { return l.leavesOut(col.num) }, true)
			t.leaveOutRows(l, c.publication)
		}
	}
	return c, append(c.layouts(), f.missing...), nil
}

// findRows finds out which partitions that were not known before had rows when they were attached. Those of a partition
// that was created as one came afterwards, and the stream has them. Where that cannot be seen, there may have been rows.
func (f *follower) findRows(ctx context.Context, conn *pgx.Conn, c *catalog, layouts []layout) {
	for i, t := range c.tables {
		known := labelled(f.known, t.label)
		if known == nil || len(known.Parts) == 0 {
			continue
		}
		for j := range layouts[i].Parts {
			p := &layouts[i].Parts[j]
			if known.hasPart(p.OID) {
				continue
			}
			leaf := t.leaves[slices.IndexFunc(t.leaves, func(leaf *table) bool { return leaf.oid == p.OID })]
			bounded, cancel := f.bounded(ctx)
			err := conn.QueryRow(bounded, `SELECT EXISTS (SELECT FROM (SELECT xmin FROM ONLY `+leaf.name.sql()+` LIMIT 10000) r
				WHERE age(r.xmin) >= (SELECT min(age(i.xmin)) FROM pg_inherits i WHERE i.inhrelid IN (SELECT relid FROM pg_partition_ancestors($1))))`, p.OID).Scan(&p.Full)
			cancel()
			p.Full = p.Full || err != nil
		}
	}
}

// follower is a source whose spec is adapted to what became of its tables.
type follower struct {
	Source
	known   []layout
	settled bool
	specs   []string // names of its tables in the spec as it was
	missing []layout
	now     map[tableName]*Table // by the name in the spec as it was; those that are there
}

// found is what there is of a table that was known.
type found struct {
	name    tableName
	primary bool // it has a primary key
	columns map[int16]string
	types   map[int16]uint32
}

func (f *follower) follow(ctx context.Context, conn *pgx.Conn, spec Config) error {
	tables, err := f.find(ctx, conn)
	if err != nil {
		return err
	}
	f.config.Tables, f.config.Relationships = nil, nil
	for _, t := range spec.Tables {
		name, err := parseTableName(t.Name)
		if err != nil {
			return failure.ConfigInvalid.Errorf("tables: %w", err)
		}
		adapted := t
		adapted.Label = t.label(name)
		if l := labelled(f.known, adapted.Label); l != nil && l.Spec == t.Name {
			reason := ""
			if table, there := tables[l.OID]; there {
				reason = l.adapt(&adapted, table)
			} else if there, err = f.exists(ctx, conn, name); err != nil { // another one of that name
				return err
			} else if !there {
				reason = "it was dropped"
			}
			if reason != "" {
				f.missing = append(f.missing, layout{Spec: l.Spec, Asked: spec.asked(l.Spec), Label: l.Label, Missing: reason, OID: l.OID, Name: l.Name, Key: l.Key, Edges: l.Edges})
				continue
			}
		}
		f.now[name] = &adapted
		f.config.Tables, f.specs = append(f.config.Tables, adapted), append(f.specs, t.Name)
	}
	for i := range f.config.Tables {
		f.adaptEnds(&f.config.Tables[i], tables)
	}
	for _, r := range spec.Relationships {
		owner, target := f.named(r.Table), f.named(r.References)
		if owner == nil || target == nil && r.References != "" {
			continue
		}
		if r.Table = owner.Name; target != nil {
			r.References = target.Name
		}
		if l := labelled(f.known, owner.Label); l != nil && l.Missing == "" {
			var numbers []int16 // none: it was gone before
			if e := l.edge(r.Type); e != nil {
				numbers = e.Columns
			}
			if table, there := tables[l.OID]; there {
				if r.Columns, there = table.current(r.Columns, numbers); !there {
					continue
				}
			}
		}
		f.config.Relationships = append(f.config.Relationships, r)
	}
	return nil
}

// named returns the adapted spec of a table, nil when it is not there.
func (f *follower) named(text string) *Table {
	name, err := parseTableName(text)
	if err != nil {
		return nil
	}
	return f.now[name]
}

// adaptEnds gives the ends of a join table the names that their columns and tables have now. What is not there any more
// stays as it is, for a message that says so.
func (f *follower) adaptEnds(t *Table, tables map[uint32]found) {
	l := labelled(f.known, t.Label)
	for i, end := range []**End{&t.Start, &t.End} {
		if *end == nil {
			continue
		}
		adapted := **end
		if target := f.named(adapted.References); target != nil {
			adapted.References = target.Name
		}
		if l != nil && len(l.Ends) == 2 {
			if table, there := tables[l.OID]; there {
				if names, ok := table.current(adapted.Columns, l.Ends[i].Columns); ok {
					adapted.Columns = names
				}
			}
		}
		*end = &adapted
	}
}

// adapt makes the spec of a table what became of it, or says why it cannot be read any more.
func (l *layout) adapt(t *Table, now found) (reason string) {
	if name, err := parseTableName(t.Name); err != nil || name != now.name {
		t.Name = now.name.sql()
	}
	if len(t.Key) > 0 {
		var there bool
		if t.Key, there = now.current(t.Key, l.Key); !there {
			return "columns of its key are gone"
		}
	} else if !t.WholeRow && !now.primary {
		return "it has no primary key"
	}
	if len(t.Columns) > 0 { // an empty list would be all
		t.Columns = slices.DeleteFunc(slices.Clone(t.Columns), func(c string) bool { return !now.has(c) })
		if len(t.Columns) == 0 {
			return "it has none of the columns in the spec"
		}
	}
	return ""
}

// current returns columns that the spec names if they are there, or else the names that the ones of these numbers have now.
func (f found) current(spec []string, numbers []int16) (names []string, there bool) {
	if !slices.ContainsFunc(spec, func(name string) bool { return !f.has(name) }) {
		return spec, true
	}
	for _, num := range numbers {
		if f.columns[num] == "" {
			return nil, false
		}
		names = append(names, f.columns[num])
	}
	return names, len(names) > 0
}

func (f found) has(column string) bool {
	for _, name := range f.columns {
		if name == column {
			return true
		}
	}
	return false
}

// find looks for the tables that were known, by their OIDs.
func (f *follower) find(ctx context.Context, conn *pgx.Conn) (map[uint32]found, error) {
	var ids []uint32
	for _, l := range f.known {
		ids = append(ids, l.OID)
	}
	return f.Source.find(ctx, conn, ids)
}

func (s *Source) find(ctx context.Context, conn *pgx.Conn, ids []uint32) (map[uint32]found, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := conn.Query(ctx, `SELECT r.oid, n.nspname::text, r.relname::text, EXISTS (SELECT FROM pg_index WHERE indrelid = r.oid AND indisprimary),
			array_agg(attnum), array_agg(attname::text), array_agg(atttypid)
		FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace JOIN pg_attribute ON attrelid = r.oid AND attnum > 0 AND NOT attisdropped
		WHERE r.oid = ANY ($1::oid[]) GROUP BY 1, 2, 3, 4`, ids)
	if err != nil {
		return nil, wrap(err, "looking for tables")
	}
	tables := make(map[uint32]found)
	var (
		oid     uint32
		table   found
		numbers []int16
		names   []string
		types   []uint32
	)
	_, err = pgx.ForEachRow(rows, []any{&oid, &table.name.schema, &table.name.table, &table.primary, &numbers, &names, &types}, func() error {
		table.columns, table.types = make(map[int16]string, len(names)), make(map[int16]uint32, len(names))
		for i, num := range numbers {
			table.columns[num], table.types[num] = names[i], types[i]
		}
		tables[oid] = table
		return nil
	})
	return tables, wrap(err, "looking for tables")
}

func (s *Source) exists(ctx context.Context, conn *pgx.Conn, name tableName) (exists bool, err error) {
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace WHERE n.nspname = $1 AND r.relname = $2)`,
		name.schema, name.table).Scan(&exists)
	return exists, wrap(err, "looking for table %s", name)
}

// attribute is a row of pg_attribute: a column, perhaps one that was dropped.
type attribute struct {
	column
	dropped bool
}

// learn compares how the server describes a table with what is known of it. It gives the columns their numbers and returns
// the table as it is here, nil when it cannot be read any more. The description holds no numbers, so the catalog is asked;
// it may be further than the stream is, and what cannot be told apart then is taken for another column. primary says
// which columns are the primary key; nil when that does not matter.
func (a *assembler) learn(ctx context.Context, t *table, columns []column, primary []bool) (*table, error) {
	known := labelled(a.known, t.label)
	if known == nil || known.Missing != "" || known.OID != t.oid {
		number(columns, t.all, nil)
		return t, nil
	}
	before := slices.Concat(known.Columns, known.Unsent)
	number(columns, before, nil)
	now := *known
	now.Name = t.name.String()
	// What was left out before may be here already, and counts when it is announced.
	here := func() []column {
		return slices.DeleteFunc(t.keptOf(columns), func(c column) bool { return known.leavesOut(c.num) })
	}
	if now.Columns = here(); !slices.EqualFunc(known.Columns, now.Columns, sameColumn) {
		attributes, file, err := a.attributes(ctx, t.oid)
		if err != nil {
			return nil, err
		}
		number(columns, before, attributes)
		now.File, now.Columns = file, here()
		if a.chooses {
			now.leaveOut(known.Columns, columns, attributes)
		}
		for i := range now.Columns {
			c := &now.Columns[i]
			c.filled = c.num == 0 || slices.ContainsFunc(attributes, func(a attribute) bool { return a.num == c.num && a.filled })
		}
		now.tellTypes(a.types)
		if now.computes(known) {
			found, err := a.files(ctx, t.files())
			if err != nil {
				return nil, err
			}
			now.lookAgain(found)
		}
	} else {
		now.Columns = known.Columns
	}
	if now.Key = t.keyHere(columns, primary, known.Key); !slices.Equal(now.Key, t.numbers(t.key)) {
		t = t.keyed(columns, now.Key)
	}
	gone := func(num int16) bool { return now.column(num) == nil }
	if slices.ContainsFunc(now.Key, gone) {
		now.Missing, t = "columns of its key are gone", nil
	}
	now.Edges = slices.DeleteFunc(slices.Clone(now.Edges), func(e layoutOfEdge) bool { return slices.ContainsFunc(e.Columns, gone) })
	if a.taken || now.like(known) { // it was told of, or there is nothing to tell
		return t, nil
	}
	all := slices.Clone(a.known)
	*labelled(all, known.Label) = now
	a.learned(all)
	return t, nil
}

// keyHere returns the numbers of the columns that identify rows: those that were known, unless the primary key is another.
func (t *table) keyHere(columns []column, primary []bool, known []int16) []int16 {
	var here []int16
	for i, is := range primary {
		if is {
			here = append(here, columns[i].num)
		}
	}
	same := func(other []int16) bool {
		return len(here) == len(other) && !slices.ContainsFunc(here, func(num int16) bool { return !slices.Contains(other, num) })
	}
	switch {
	case len(here) == 0 || slices.Contains(here, 0) || same(known):
		return known
	case same(t.numbers(t.primary)): // which has its order
		return t.numbers(t.primary)
	}
	return here
}

// keyed returns the table with another key than the catalog says.
func (t *table) keyed(columns []column, key []int16) *table {
	other := *t
	other.key, other.required = nil, slices.Concat(t.required, key)
	for _, num := range key {
		for _, c := range columns {
			if c.num == num {
				other.key = append(other.key, c.name)
			}
		}
	}
	return &other
}

// leaveOut notes which columns that were known before the table has still, though the server does not describe them. One
// that it describes and that is not kept has another name than the spec's by now.
func (l *layout) leaveOut(known, described []column, attributes []attribute) {
	l.Unsent = slices.Clone(l.Unsent)
	for _, c := range known {
		if numbered(described, c.num) == nil && slices.ContainsFunc(attributes, func(a attribute) bool { return a.num == c.num && !a.dropped }) {
			l.Unsent = append(l.Unsent, c)
		}
	}
	slices.SortFunc(l.Unsent, byNumber)
}

func sameColumn(a, b column) bool { return a.name == b.name && a.oid == b.oid && a.mod == b.mod }

// keptOf returns those of some columns that become properties.
func (t *table) keptOf(columns []column) []column {
	return slices.DeleteFunc(slices.Clone(columns), func(c column) bool { return !t.keeps(c) })
}

// number finds the numbers of columns, which are in the order of these, by what was known before and by the attributes
// that the table has by now; 0 is what cannot be told.
func number(columns, known []column, attributes []attribute) {
	by := func(prefer ...func(c column) int16) bool {
		last := int16(0)
		for i := range columns {
			columns[i].num = 0
			for _, find := range prefer {
				if columns[i].num = find(columns[i]); columns[i].num != 0 {
					break
				}
			}
			if columns[i].num == 0 {
				continue
			}
			if columns[i].num <= last {
				return false
			}
			last = columns[i].num
		}
		return true
	}
	among := func(list []column, same func(a, b column) bool) func(column) int16 {
		return func(c column) int16 {
			for _, k := range list {
				if same(k, c) {
					return k.num
				}
			}
			return 0
		}
	}
	named := func(a, b column) bool { return a.name == b.name }
	var live []column
	for _, a := range attributes {
		if !a.dropped {
			live = append(live, a.column)
		}
	}
	// Names may have been exchanged, in which case only the catalog knows, or given anew behind this.
	if !by(among(known, sameColumn), among(live, named), among(known, named)) && !by(among(live, named)) && !by(among(known, named)) {
		for i := range columns {
			columns[i].num = 0
		}
	}
	fillGaps(columns, attributes)
}

// fillGaps numbers columns whose names are others again by now, where as many attributes are between their neighbours.
func fillGaps(columns []column, attributes []attribute) {
	for from := 0; from < len(columns); from++ {
		if columns[from].num != 0 {
			continue
		}
		to := from
		for to < len(columns) && columns[to].num == 0 {
			to++
		}
		var between []int16
		for _, a := range attributes {
			if (from == 0 || a.num > columns[from-1].num) && (to == len(columns) || a.num < columns[to].num) {
				between = append(between, a.num)
			}
		}
		for i := range to - from {
			if len(between) == to-from {
				columns[from+i].num = between[i]
			}
		}
		from = to
	}
}

// attributes reads all columns that a table ever had, and where its rows are.
func (st *stream) attributes(ctx context.Context, oid uint32) (all []attribute, file uint32, err error) {
	err = st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT attname::text, attnum, attisdropped, "+filledColumn+`, relfilenode
			FROM pg_attribute a JOIN pg_class r ON r.oid = attrelid WHERE attrelid = $1 AND attnum > 0 ORDER BY attnum`, oid)
		if err != nil {
			return wrap(err, "reading columns")
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a attribute, err error) {
			return a, row.Scan(&a.name, &a.num, &a.dropped, &a.filled, &file)
		})
		return wrap(err, "reading columns")
	})
	return all, file, err
}
