package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// tables looks at each table by what Provision does with it, as if the spec had no other, so that a problem of one does
// not hide those of the others.
func (d *doctor) tables(ctx context.Context) error {
	adapted, err := d.adapted(ctx, d.conn)
	if err != nil {
		return err
	}
	for _, l := range adapted.missing {
		d.bad(source.Check{Name: "table", Object: l.Spec, Severity: source.Warning, Code: failure.TableMissing.ID, Found: l.gone().Error(),
			Wanted: "a table that can be read", Fix: "The source goes on without it: " + missingWayOut + "."})
	}
	d.Source = &adapted.Source
	fit := true
	for i, t := range d.config.Tables {
		if i < len(adapted.specs) && adapted.specs[i] != t.Name {
			d.bad(source.Check{Name: "table", Object: adapted.specs[i], Severity: source.Warning, Found: "it is " + t.Name + " by now", Wanted: "its name in the spec",
				Fix: "The source goes on with it: " + renameWayOut(t.Label) + "."})
		}
		ok, err := d.table(ctx, t)
		if err != nil {
			return err
		}
		fit = fit && ok
	}
	if !fit {
		return nil
	}
	if d.catalog, err = d.loadCatalog(ctx, d.conn); err != nil { // what is left: relationships
		d.failed("relationship", "", err, "foreign keys that name the key of their target")
		return nil
	}
	for _, t := range d.catalog.tables {
		if t.relates {
			start, end := t.ends[0], t.ends[1]
			d.good("relationship", t.label, "from %s by (%s) to %s by (%s) of each row of %s", start.target, strings.Join(start.columns, ", "), end.target, strings.Join(end.columns, ", "), t.name)
		}
		for _, e := range t.edges {
			d.good("relationship", e.kind, "from %s to %s by (%s)", t.label, e.target, strings.Join(e.columns, ", "))
		}
	}
	return nil
}

func (d *doctor) table(ctx context.Context, t Table) (ok bool, err error) {
	alone := *d.Source
	t.Type, t.Start, t.End = "", nil, nil
	alone.config.Tables, alone.config.Relationships = []Table{t}, nil
	c, err := alone.loadCatalog(ctx, d.conn)
	if err != nil {
		if failure.ClassOf(err).Retryable() {
			return false, err
		}
		d.failed("table", t.Name, err, wantedOf(err))
		if failure.CodeOf(err) == failure.KeyMissing {
			d.checks[len(d.checks)-1].SQL, err = d.keyFor(ctx, t)
			return false, err
		}
		return false, nil
	}
	found := c.tables[0]
	var (
		owner, identity string
		owns            bool
	)
	err = d.conn.QueryRow(ctx, `SELECT pg_get_userbyid(relowner)::text, pg_has_role(relowner, 'USAGE'),
			CASE relreplident WHEN 'd' THEN 'DEFAULT' WHEN 'f' THEN 'FULL' WHEN 'i' THEN 'USING INDEX' ELSE 'NOTHING' END
		FROM pg_class WHERE oid = $1`, found.oid).Scan(&owner, &owns, &identity)
	if err != nil {
		return false, err
	}
	d.good("table", t.Name, "owned by %s, key (%s), replica identity %s", owner, strings.Join(found.key, ", "), identity)
	if !owns {
		d.foreign = append(d.foreign, found.name.String())
	}
	if err := d.checkGrants(ctx, d.conn, c); err != nil {
		d.failed("select", t.Name, err, "the privilege to read it, for snapshots")
	} else {
		d.good("select", t.Name, "%s may read it", d.facts.role)
	}
	return true, nil
}

// wantedOf says what a table must have that loadCatalog refuses.
func wantedOf(err error) string {
	switch failure.CodeOf(err) {
	case failure.TableMissing:
		return "a table of that name"
	case failure.ColumnMissing:
		return "columns of these names"
	case failure.KeyMissing:
		return "a primary key, or a key in the spec"
	case failure.ReplicaIdentityMissing:
		return "a replica identity that holds the key"
	}
	return "an ordinary or partitioned table"
}

// keyFor offers a primary key where a unique index already does the work of one.
func (d *doctor) keyFor(ctx context.Context, t Table) ([]string, error) {
	name, err := parseTableName(t.Name)
	if err != nil {
		return nil, err
	}
	var columns []string
	err = d.conn.QueryRow(ctx, `SELECT array_agg(quote_ident(attname) ORDER BY k.ord)
		FROM pg_index i, unnest(indkey) WITH ORDINALITY k (num, ord), pg_attribute a
		WHERE indrelid = $1::text::regclass AND indisunique AND indisvalid AND indimmediate AND indpred IS NULL AND indexprs IS NULL
			AND k.ord <= indnkeyatts AND attrelid = indrelid AND attnum = k.num
		GROUP BY indexrelid HAVING bool_and(attnotnull) ORDER BY count(*), indexrelid LIMIT 1`, name.sql()).Scan(&columns)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return []string{fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (%s);", name.sql(), strings.Join(columns, ", "))}, err
}

// publicationCheck looks at the publication, and at what making one takes where there is none.
func (d *doctor) publicationCheck(ctx context.Context) error {
	if d.catalog == nil {
		d.skipped("publication", "not all tables are as they must be")
		return nil
	}
	p, err := d.publicationState(ctx, d.conn, d.publication)
	if err != nil {
		return err
	}
	var lists []string
	for _, t := range d.catalog.tables {
		lists = append(lists, t.from())
	}
	if p == nil {
		d.newPublication(strings.Join(lists, ", "))
		return nil
	}
	var owner string
	if err := d.conn.QueryRow(ctx, "SELECT pg_get_userbyid(pubowner)::text FROM pg_publication WHERE pubname = $1", d.publication).Scan(&owner); err != nil {
		return err
	}
	if err := d.loadPublished(ctx, d.conn, p); err != nil {
		return err
	}
	if !d.ours(p) || len(d.foreign) > 0 { // what is ours is adapted, where we may
		if err := d.checkPublication(p, d.catalog); err != nil {
			d.failed("publication", d.publication, err, "all changes of all tables of the spec")
			return nil
		}
	}
	d.good("publication", d.publication, "owned by %s, holds the tables", owner)
	d.columns(p)
	return nil
}

// columns says which columns and rows of its tables a publication has, where they follow from queries.
func (d *doctor) columns(p *publication) {
	c := source.Check{Name: "columns", Object: d.publication, Severity: source.Warning, Wanted: "with publish: needed, a publication that the source alters"}
	switch {
	case d.config.Publish != publishNeeded:
		return
	case d.facts.version < oldestWithLists:
		c.Found, c.Fix = "all columns and rows are sent: only Postgres 15 and newer know lists of columns", "Upgrade the server, or set publish to all."
	case !d.ours(p):
		c.Found = "all columns and rows of the publication are sent, since somebody else made it"
		c.Fix = "Let the source make one of its own, by another name in publication, or set publish to all."
	case d.facts.recovering:
		c.Found, c.Fix = "the columns and rows that the publication has on the primary are sent: a standby cannot alter it", "Read from the primary, or set publish to all."
	case len(d.foreign) > 0:
		c.Found = fmt.Sprintf("%s cannot alter it: it does not own %s", d.facts.role, strings.Join(d.foreign, ", "))
		c.Fix = "Make the role the owner of the tables, or set publish to all."
	default:
		var sent []string
		for _, t := range d.catalog.tables {
			if have := p.table(t.name); have != nil {
				of := t.name.String()
				if have.filter != "" {
					of += " where " + have.filter
				}
				sent = append(sent, fmt.Sprintf("%d of %d columns of %s", min(len(have.columns), len(t.all)), len(t.all), of))
			}
		}
		d.good("columns", d.publication, "%s", strings.Join(sent, ", "))
		return
	}
	d.bad(c)
}

// newPublication looks at what making the publication takes.
func (d *doctor) newPublication(list string) {
	f := &d.facts
	c := source.Check{Name: "publication", Object: d.publication, Severity: source.Blocking, Code: failure.PermissionDenied.ID}
	switch {
	case len(d.foreign) > 0:
		c.Found = fmt.Sprintf("does not exist, and %s cannot make it: it does not own %s", f.role, strings.Join(d.foreign, ", "))
		c.Wanted = "a publication, or a role that owns the tables"
		c.Fix = "Run the SQL as the owner of the tables or a superuser."
		c.SQL = []string{fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish_via_partition_root = true);", quote(d.publication), list)}
		d.bad(c)
	case !f.mayCreate:
		c.Found = fmt.Sprintf("does not exist, and %s cannot make it: it may not CREATE in the database", f.role)
		c.Wanted = "a publication, or the privilege to make one"
		c.Fix = "Run the SQL as the owner of the database or a superuser."
		c.SQL = []string{fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s;", quote(f.database), quote(f.role))}
		d.bad(c)
	default:
		d.good("publication", d.publication, "is made when the source starts")
	}
}

// slotRow is what a server tells about a slot; fields that its version does not know stay empty.
type slotRow struct {
	Active   bool   `json:"active"`
	Status   string `json:"wal_status"`
	Reason   string `json:"invalidation_reason"`
	Failover bool   `json:"failover"`
	Safe     *int64 `json:"safe_wal_size"`
}

// slotFacts are a slot's row and the bytes of WAL that the server keeps for it.
const slotFacts = `to_jsonb(s), coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint`

func (d *doctor) slotRow(ctx context.Context) (row slotRow, kept int64, err error) {
	var raw []byte
	err = d.conn.QueryRow(ctx, "SELECT "+slotFacts+" FROM pg_replication_slots s WHERE slot_name = $1", d.slot).Scan(&raw, &kept)
	if err == nil {
		err = json.Unmarshal(raw, &row)
	}
	return row, kept, err
}

func (d *doctor) slotCheck(ctx context.Context) error {
	state, err := d.slotState(ctx, d.conn)
	if err != nil {
		switch failure.CodeOf(err) {
		case failure.SlotTaken, failure.SlotInvalidated:
			d.failed("slot", d.slot, err, "a slot of ours that the server keeps WAL for")
			c := &d.checks[len(d.checks)-1]
			c.SQL = []string{dropSlotSQL(d.slot)}
			if row, _, err := d.slotRow(ctx); err == nil && row.Reason != "" {
				c.Found += ": " + row.Reason
			}
			return nil
		}
		return err
	}
	p, err := d.publicationState(ctx, d.conn, d.publication)
	if err != nil {
		return err
	}
	m, err := d.madeHere(ctx, d.conn)
	if err != nil {
		return err
	}
	d.learn(m, p)
	_, unknown := m.record.(*kept) // where nobody is asked what the source has made, nothing can be said of it
	switch {
	case state == nil && p != nil && d.ours(p) && strings.Contains(p.comment, slotMark):
		d.failed("slot", d.slot, failure.SlotMissing.Errorf("it does not exist, though one was created for the publication %s", d.publication), "the slot that the source was started with")
		return nil
	case state != nil && !unknown && m.find(m.slot(d.slot)) == nil && !d.config.AdoptSlot:
		d.failed("slot", d.slot, d.notOurs(), "a slot that the source made, or no slot yet")
		return nil
	case state == nil:
		d.good("slot", d.slot, "is made when the source starts")
		return nil
	}
	row, kept, err := d.slotRow(ctx)
	if err != nil {
		return err
	}
	use := "nobody uses it"
	if row.Active {
		use = fmt.Sprintf("in use by process %d %s", state.pid, state.application)
	}
	found := fmt.Sprintf("%s; the server keeps %s of WAL for it (%s)", strings.TrimSpace(use), sizeText(kept), row.Status)
	if row.Status == "unreserved" || row.Safe != nil && *row.Safe < kept { // more than half of the limit is used up
		d.bad(source.Check{Name: "slot", Object: d.slot, Severity: source.Warning, Code: failure.SlotInvalidated.ID, Found: found + ", which comes near its limit",
			Wanted: "less than half of max_slot_wal_keep_size", Fix: "Start the source, or raise the limit by the SQL as a superuser.",
			SQL: []string{setting("max_slot_wal_keep_size", fmt.Sprintf("%dMB", max(4*kept>>20, 1024))), reload}})
		return nil
	}
	d.good("slot", d.slot, "%s", found)
	return nil
}

func dropSlotSQL(name string) string {
	return fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", literal(name))
}

func sizeText(bytes int64) string {
	if bytes < 10<<20 {
		return fmt.Sprintf("%d kB", bytes>>10)
	}
	return fmt.Sprintf("%d MB", bytes>>20)
}

// transactions looks for those that have written and do not end: a slot, also the one that a snapshot takes for a moment,
// begins only when all that ran before have ended.
func (d *doctor) transactions(ctx context.Context) error {
	rows, err := d.conn.Query(ctx, `
		SELECT 'of process ' || pid || ' (' || coalesce(NULLIF(application_name, ''), usename, '?') || ')', format('SELECT pg_terminate_backend(%s);', pid)
		FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND backend_type = 'client backend' AND clock_timestamp() - xact_start > $1
		UNION ALL
		SELECT 'prepared as ' || gid, format('ROLLBACK PREPARED %L;', gid) FROM pg_prepared_xacts WHERE clock_timestamp() - prepared > $1
		ORDER BY 1`, d.config.StatementTimeout)
	if err != nil {
		return err
	}
	var which, sql string
	tag, err := pgx.ForEachRow(rows, []any{&which, &sql}, func() error {
		d.bad(source.Check{Name: "transaction", Object: which, Severity: source.Warning, Found: "is open for longer than statementTimeout, and keeps slots from being made",
			Wanted: "transactions that end", Fix: "Let it end, or end it by the SQL as a superuser.", SQL: []string{sql}})
		return nil
	})
	if err != nil || tag.RowsAffected() > 0 {
		return err
	}
	var all bool
	if err := d.conn.QueryRow(ctx, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')").Scan(&all); err != nil {
		return err
	}
	if !all {
		d.skipped("transaction", "without pg_read_all_stats only prepared and own ones show, none of which is old")
		return nil
	}
	d.good("transaction", "", "none is open for long")
	return nil
}

// failover asks what becomes of the slot when a standby takes over. WAL senders that serve no logical slot serve standbys.
func (d *doctor) failover(ctx context.Context) error {
	f := &d.facts
	c := source.Check{Name: "failover", Severity: source.Warning, Wanted: "a slot that standbys have, too"}
	switch {
	case f.recovering:
		d.skipped("failover", "the server is a standby itself")
		return nil
	case !f.counted:
		d.skipped("failover", "WAL senders are not known")
		return nil
	case f.senders <= f.streams:
		d.good("failover", "", "no standby is connected")
		return nil
	case f.version < 170000:
		c.Found = "a standby is connected, which before version 17 does not have the slot: after a failover the tables are read anew"
		c.Fix = "Let the cluster's manager keep the slot (Patroni: slots), or upgrade the server to 17."
		d.bad(c)
		return nil
	case !f.haveSlot:
		d.skipped("failover", "the slot does not exist yet")
		return nil
	}
	row, _, err := d.slotRow(ctx)
	switch {
	case err != nil:
		return err
	case !row.Failover:
		c.Found = "a standby is connected, and the slot is not marked for failover: after one the tables are read anew"
		c.Fix = fmt.Sprintf("On a connection with replication=database, while the source is stopped, run ALTER_REPLICATION_SLOT %s (FAILOVER true); and set sync_replication_slots and hot_standby_feedback to on at the standbys.", quote(d.slot))
	case f.synchronizedSlots == "":
		c.Found = "synchronized_standby_slots is empty: the source may be ahead of the standby that takes over"
		c.Wanted = "the physical slots of the standbys"
		c.Fix = "Set synchronized_standby_slots to the names of the standbys' physical slots and reload the server."
	default:
		d.good("failover", "", "the slot is marked for failover, and waits for %s", f.synchronizedSlots)
		return nil
	}
	d.bad(c)
	return nil
}

// leftovers lists slots and publications that bear our name and that nobody uses. Whether the source that they were made
// for is only stopped, we cannot know.
func (d *doctor) leftovers(ctx context.Context) error {
	rows, err := d.conn.Query(ctx, `
		WITH marks AS (SELECT pubname, obj_description(oid, 'pg_publication') AS mark FROM pg_publication
			WHERE starts_with(obj_description(oid, 'pg_publication'), 'Made by Perdure for '))
		SELECT 'slot', slot_name::text, coalesce(mark, ''),
			coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint
		FROM pg_replication_slots LEFT JOIN marks ON pubname = slot_name AND starts_with(slot_name, 'perdure_') OR strpos(mark, '; slot ' || slot_name || ' made at ') > 0
		WHERE (starts_with(slot_name, 'perdure_') OR mark <> '') AND database = current_database() AND NOT active AND NOT temporary AND slot_name <> $1
		UNION ALL
		SELECT 'publication', pubname::text, mark, 0
		FROM marks
		WHERE pubname <> $2
			AND NOT EXISTS (SELECT FROM pg_replication_slots WHERE (slot_name = pubname OR strpos(mark, '; slot ' || slot_name || ' made at ') > 0) AND active)
		ORDER BY 1 DESC, 2`, d.slot, d.publication)
	if err != nil {
		return err
	}
	var (
		kind, name, comment string
		kept                int64
	)
	tag, err := pgx.ForEachRow(rows, []any{&kind, &name, &comment, &kept}, func() error {
		component, _, _ := strings.Cut(strings.TrimPrefix(comment, "Made by Perdure for "), ";")
		c := source.Check{Name: "leftover", Object: name, Severity: source.Warning, Component: component, Wanted: "only what a source uses",
			Fix: "If the source that it was made for is gone, and not only stopped, run the SQL."}
		if kind == "slot" {
			c.Found, c.SQL = fmt.Sprintf("a slot that nobody uses; the server keeps %s of WAL for it", sizeText(kept)), []string{dropSlotSQL(name)}
		} else {
			c.Found, c.SQL = "a publication that nobody uses", []string{fmt.Sprintf("DROP PUBLICATION %s;", quote(name))}
		}
		if component != "" {
			c.Found += "; it was made for " + component
		}
		d.bad(c)
		return nil
	})
	if err == nil && tag.RowsAffected() == 0 {
		d.good("leftover", "", "none")
	}
	return err
}
