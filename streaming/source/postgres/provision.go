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
	m, err := s.madeHere(ctx, conn)
	if err != nil {
		return err
	}
	err = s.makeAll(ctx, conn, m, tables)
	if err != nil && !s.renewable(err) { // else Run renews what is lost, and tells of it
		return errors.Join(err, s.unmake(ctx, m))
	}
	return m.settle(ctx, m.slot(s.slot), m.publication(s.publication))
}

// makeAll makes the publication and the slot, where they are not there yet.
func (s *Source) makeAll(ctx context.Context, conn *pgx.Conn, m *made, tables *catalog) error {
	known, err := s.sameServer(ctx, m)
	if err != nil {
		return err
	}
	s.learn(m, tables.publication)
	moved := m.find(m.slot(s.slot))
	if moved != nil && moved.Database == m.here.Database {
		moved = nil
	}
	var slot *slotState
	if moved == nil {
		slot, err = s.slotState(ctx, conn)
		if (slot != nil || failure.CodeOf(err) == failure.SlotInvalidated) && m.find(m.slot(s.slot)) == nil && !s.config.AdoptSlot {
			return s.notOurs()
		}
		if err != nil {
			return err
		}
	}
	err = s.ensurePublication(ctx, conn, m, tables, slot != nil)
	if err == nil && slot == nil && known && slices.ContainsFunc(m.things, func(t thing) bool { return t.Slot != "" && t.System == m.here.System && !t.Making }) {
		err = failure.SlotMissing.Errorf("checking the slot: %s does not exist, though changes were read from one", s.slot).WithDetail("slot", s.slot)
	}
	if moved != nil && (err == nil || s.renewable(err)) { // the databases of a server share the names of slots
		if err := errors.Join(s.dropSlot(ctx, conn, moved.Slot, moved.Database), m.forget(ctx, *moved)); err != nil {
			return err
		}
	}
	if err != nil || slot != nil {
		return err
	}
	if err := s.checkCapacity(ctx, conn); err != nil {
		return err
	}
	return s.createSlot(ctx, conn, m)
}

// sameServer makes sure that the server is the one that was read before, if one was: nothing is to be made at another
// one, and what is at that one is still of use when the spec is corrected.
func (s *Source) sameServer(ctx context.Context, m *made) (known bool, err error) {
	if s.settings.Read == nil {
		return false, nil
	}
	system, err := s.settings.Read(ctx)
	if err != nil || system == "" {
		return false, err
	}
	if server, _, _ := strings.Cut(system, "/"); server != m.here.System {
		return false, failure.WrongSystem.Errorf("the server's system identifier is %s, and was %s", m.here.System, server)
	}
	return true, nil
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
			statements = append(statements, grant(t.name, role))
		}
	}
	return failure.PermissionDenied.Errorf("checking grants: %s may not read %s", role, strings.Join(names, ", ")).
		WithDetail("table", strings.Join(names, ", ")).
		WithFix("Run %s then signal resume.", strings.Join(statements, " "))
}

// grant is what lets a role read a table.
func grant(t tableName, role string) string {
	return fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %s;", quote(t.schema), quote(role), t.sql(), quote(role))
}

func (s *Source) exec(ctx context.Context, conn *pgx.Conn, statement string) (string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	tag, err := conn.Exec(ctx, statement)
	return tag.String(), err
}
