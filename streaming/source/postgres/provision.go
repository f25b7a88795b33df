package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

const oldestServer = 140000 // pgoutput in binary and scans of ctid ranges

// Provision implements source.Source. The publication comes before the slot: the slot decodes from its creation on,
// and must find the publication there.
func (s *Source) Provision(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	if err := s.checkServer(ctx, conn); err != nil {
		return err
	}
	tables, err := s.loadCatalog(ctx, conn)
	if err != nil {
		return err
	}
	if err := s.checkGrants(ctx, conn, tables); err != nil {
		return err
	}
	slot, err := s.slotState(ctx, conn)
	if err != nil {
		return err
	}
	if slot == nil {
		if err := s.checkCapacity(ctx, conn); err != nil {
			return err
		}
	}
	created, err := s.ensurePublication(ctx, conn, tables, slot != nil)
	if err != nil {
		return err
	}
	if slot != nil {
		return nil
	}
	if err := s.createSlot(ctx, conn); err != nil {
		if created {
			err = errors.Join(err, s.undo(ctx, fmt.Sprintf("DROP PUBLICATION IF EXISTS %s", quote(s.publication))))
		}
		return err
	}
	return nil
}

// undo runs a statement that removes what a failing call made, on a connection of its own since the other one may be
// the reason of the failure, and also when the call's context has ended.
func (s *Source) undo(ctx context.Context, statement string) error {
	ctx, cancel := s.bounded(context.WithoutCancel(ctx))
	defer cancel()
	conn, err := s.connect(ctx)
	if err != nil {
		return fmt.Errorf("undoing: %w", err)
	}
	defer hangUp(ctx, conn)
	_, err = conn.Exec(ctx, statement)
	return wrap(err, "undoing")
}

func (s *Source) checkServer(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var (
		version         int
		walLevel, role  string
		mayReplicate    bool
		isManaged, isIn bool
	)
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_user::text,
		(SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),
		EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication'),
		EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'MEMBER'))`).
		Scan(&version, &walLevel, &role, &mayReplicate, &isManaged, &isIn)
	switch {
	case err != nil:
		return wrap(err, "reading the server's settings")
	case version < oldestServer:
		return failure.Unsupported.Errorf("checking the server: its version is %d.%d, at least 14 is needed", version/10000, version%100)
	case walLevel != "logical":
		return failure.WalLevelNotLogical.Errorf("checking the server: wal_level is %s", walLevel)
	case !mayReplicate && !isIn && isManaged:
		return failure.PermissionDenied.Errorf("checking the role: %s may not replicate", role).
			WithFix("Run GRANT rds_replication TO %s; then signal resume.", quote(role))
	case !mayReplicate && !isIn:
		return failure.PermissionDenied.Errorf("checking the role: %s may not replicate", role).
			WithFix("Run ALTER ROLE %s REPLICATION; then signal resume.", quote(role))
	}
	return nil
}

func (s *Source) checkGrants(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	var names, statements []string
	for _, t := range c.tables {
		if !t.readable {
			names = append(names, t.name.String())
		}
	}
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var role string
	if err := conn.QueryRow(ctx, "SELECT current_user::text").Scan(&role); err != nil {
		return wrap(err, "reading the role's name")
	}
	for _, t := range c.tables {
		if !t.readable {
			statements = append(statements, fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %s;",
				quote(t.name.schema), quote(role), t.name.sql(), quote(role)))
		}
	}
	return failure.PermissionDenied.Errorf("checking grants: %s may not read %s", role, strings.Join(names, ", ")).
		WithDetail("table", strings.Join(names, ", ")).
		WithFix("Run %s then signal resume.", strings.Join(statements, " "))
}

// ownership marks a publication as ours, so that we alter and drop no other, and says which slot was made for it:
// should that slot be missing later, changes are lost, which a new slot would hide.
func (s *Source) ownership() string {
	return fmt.Sprintf("Made by Perdure for source.%s.%s", s.settings.Instance, s.settings.Name)
}

const slotMark = "; slot made at "

type publication struct {
	comment   string
	allTables bool
	complete  bool // publishes all kinds of changes
	viaRoot   bool
	tables    []string // schema.table, quoted
	filtered  []string // with a row filter or not all columns
}

func (s *Source) publicationState(ctx context.Context, conn *pgx.Conn) (*publication, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	p := &publication{}
	err := conn.QueryRow(ctx, `SELECT coalesce(obj_description(oid, 'pg_publication'), ''), puballtables,
			pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot
		FROM pg_publication WHERE pubname = $1`, s.publication).Scan(&p.comment, &p.allTables, &p.complete, &p.viaRoot)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err, "reading the publication")
	}
	// Row filters and column lists came with version 15.
	rows, err := conn.Query(ctx, `SELECT quote_ident(schemaname) || '.' || quote_ident(tablename),
			coalesce(to_jsonb(t) ->> 'rowfilter', '') <> '' OR EXISTS (
				SELECT FROM pg_attribute a WHERE a.attrelid = format('%I.%I', schemaname, tablename)::regclass
				AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND to_jsonb(t) ? 'attnames' AND NOT to_jsonb(t) -> 'attnames' ? attname::text)
		FROM pg_publication_tables t WHERE pubname = $1`, s.publication)
	if err != nil {
		return nil, wrap(err, "reading the publication")
	}
	var (
		name    string
		partial bool
	)
	_, err = pgx.ForEachRow(rows, []any{&name, &partial}, func() error {
		p.tables = append(p.tables, name)
		if partial {
			p.filtered = append(p.filtered, name)
		}
		return nil
	})
	return p, wrap(err, "reading the publication")
}

// ensurePublication creates the publication, adapts one that is ours or checks a foreign one.
func (s *Source) ensurePublication(ctx context.Context, conn *pgx.Conn, c *catalog, haveSlot bool) (created bool, err error) {
	p, err := s.publicationState(ctx, conn)
	if err != nil {
		return false, err
	}
	wanted := make([]string, len(c.tables))
	partitioned := false
	for i, t := range c.tables {
		wanted[i] = t.from()
		partitioned = partitioned || t.partitioned
	}
	list := strings.Join(wanted, ", ")
	switch {
	case p == nil:
		return true, s.createPublication(ctx, conn, list)
	case !strings.HasPrefix(p.comment, s.ownership()):
		return false, s.checkPublication(ctx, conn, p, c, partitioned)
	case !haveSlot && strings.Contains(p.comment, slotMark):
		return false, failure.SlotMissing.Errorf("checking the slot: %s does not exist, though it was created for the publication %s", s.slot, s.publication).
			WithDetail("slot", s.slot)
	}
	same, err := s.covers(ctx, conn, p, c)
	if err != nil || same && len(p.tables) == len(c.tables) {
		return false, err
	}
	_, err = s.exec(ctx, conn, fmt.Sprintf("ALTER PUBLICATION %s SET TABLE %s", quote(s.publication), list))
	return false, wrap(err, "altering the publication")
}

func (s *Source) exec(ctx context.Context, conn *pgx.Conn, statement string) (string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	tag, err := conn.Exec(ctx, statement)
	return tag.String(), err
}

func (s *Source) createPublication(ctx context.Context, conn *pgx.Conn, list string) error {
	statement := fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish_via_partition_root = true)", quote(s.publication), list)
	_, err := s.exec(ctx, conn, fmt.Sprintf("BEGIN; %s; COMMENT ON PUBLICATION %s IS %s; COMMIT", statement, quote(s.publication), literal(s.ownership())))
	if err = wrap(err, "creating the publication"); failure.CodeOf(err) == failure.PermissionDenied {
		return failure.Of(err).WithFix("As the owner of the tables run %s; then signal resume.", statement)
	}
	return err
}

// covers reports whether the publication holds all tables of the spec.
func (s *Source) covers(ctx context.Context, conn *pgx.Conn, p *publication, c *catalog) (bool, error) {
	missing, err := s.uncovered(ctx, conn, p, c)
	return len(missing) == 0, err
}

func (s *Source) uncovered(ctx context.Context, conn *pgx.Conn, p *publication, c *catalog) (missing []string, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for _, t := range c.tables {
		var quoted string
		if err := conn.QueryRow(ctx, "SELECT quote_ident($1) || '.' || quote_ident($2)", t.name.schema, t.name.table).Scan(&quoted); err != nil {
			return nil, wrap(err, "comparing the publication")
		}
		if !slices.Contains(p.tables, quoted) {
			missing = append(missing, t.name.sql())
		} else if slices.Contains(p.filtered, quoted) {
			missing = append(missing, t.name.sql())
		}
	}
	return missing, nil
}

// checkPublication checks one that somebody else made. It may hold more than is needed.
func (s *Source) checkPublication(ctx context.Context, conn *pgx.Conn, p *publication, c *catalog, partitioned bool) error {
	name := quote(s.publication)
	missing, err := s.uncovered(ctx, conn, p, c)
	switch {
	case err != nil:
		return err
	case !p.complete:
		return failure.PublicationConflict.Errorf("checking the publication: %s does not publish all kinds of changes", s.publication).
			WithFix("Run ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate'); then signal resume.", name)
	case partitioned && !p.viaRoot:
		return failure.PublicationConflict.Errorf("checking the publication: %s publishes partitions instead of the partitioned table", s.publication).
			WithFix("Run ALTER PUBLICATION %s SET (publish_via_partition_root = true); then signal resume.", name)
	case len(missing) > 0:
		return failure.PublicationConflict.Errorf("checking the publication: %s lacks, or filters, %s", s.publication, strings.Join(missing, ", ")).
			WithFix("Run ALTER PUBLICATION %s ADD TABLE %s; or choose another publication name in the spec, then signal resume.", name, strings.Join(missing, ", "))
	}
	return nil
}
