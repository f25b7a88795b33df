package postgres

import (
	"context"
	"errors"
	"fmt"
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
	adapted, err := s.adapted(ctx, conn)
	if err != nil {
		return err
	}
	tables, err := adapted.loadCatalog(ctx, conn)
	if err != nil {
		return err
	}
	if err := s.checkGrants(ctx, conn, tables); err != nil {
		return err
	}
	slot, err := s.slotState(ctx, conn)
	if s.renewable(err) {
		return nil // Run renews it, which has to tell what is lost
	}
	if err != nil {
		return err
	}
	if slot == nil {
		if err := s.checkCapacity(ctx, conn); err != nil {
			return err
		}
	}
	created, err := s.ensurePublication(ctx, conn, tables, slot != nil)
	if s.renewable(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if slot != nil {
		return nil
	}
	if err := s.createSlot(ctx, conn); err != nil {
		if created { // a slot that is there although the call failed, whose answer was lost, is of no use without it
			err = errors.Join(err, s.undo(ctx, fmt.Sprintf(`DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s AND NOT active)
				THEN DROP PUBLICATION IF EXISTS %s; END IF; END $$`, literal(s.slot), quote(s.publication))))
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
	var names, hidden, statements []string
	for _, t := range c.tables {
		switch {
		case !t.readable:
			names = append(names, t.name.String())
		case t.hidesRows:
			hidden = append(hidden, t.name.String())
		}
	}
	if len(names)+len(hidden) == 0 {
		return nil
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var role string
	if err := conn.QueryRow(ctx, "SELECT current_user::text").Scan(&role); err != nil {
		return wrap(err, "reading the role's name")
	}
	if len(names) == 0 {
		return failure.PermissionDenied.Errorf("checking grants: row security hides rows from %s, which the stream would have, of %s", role, strings.Join(hidden, ", ")).
			WithDetail("table", strings.Join(hidden, ", ")).
			WithFix("Run ALTER ROLE %s BYPASSRLS; then signal resume.", quote(role))
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

func (s *Source) exec(ctx context.Context, conn *pgx.Conn, statement string) (string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	tag, err := conn.Exec(ctx, statement)
	return tag.String(), err
}
