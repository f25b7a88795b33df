package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// slotState is a row of pg_replication_slots.
type slotState struct {
	confirmed   uint64
	pid         uint32 // of the backend that uses it, 0 for none
	application string // of that backend
}

// slotState looks at the slot. Missing is nil; one that cannot serve us is an error.
func (s *Source) slotState(ctx context.Context, conn *pgx.Conn) (*slotState, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var (
		state                             slotState
		kind, plugin, database, here, wal string
		temporary                         bool
		confirmed                         string
	)
	err := conn.QueryRow(ctx, `SELECT slot_type, coalesce(plugin::text, ''), coalesce(database::text, ''), current_database()::text, temporary,
			coalesce(wal_status, ''), coalesce(confirmed_flush_lsn::text, ''), coalesce(active_pid, 0)::oid,
			coalesce((SELECT application_name FROM pg_stat_activity WHERE pid = active_pid), '')
		FROM pg_replication_slots WHERE slot_name = $1`, s.slot).
		Scan(&kind, &plugin, &database, &here, &temporary, &wal, &confirmed, &state.pid, &state.application)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, wrap(err, "reading the slot")
	case kind != "logical" || plugin != "pgoutput" || database != here || temporary:
		return nil, failure.SlotTaken.Errorf("checking the slot: %s exists as a %s slot of plugin %q in database %q", s.slot, kind, plugin, database).
			WithDetail("slot", s.slot)
	case wal == "lost":
		return nil, failure.SlotInvalidated.Errorf("checking the slot: the server has invalidated %s", s.slot).WithDetail("slot", s.slot)
	}
	if confirmed != "" {
		if state.confirmed, err = parsePosition(graph.Position(confirmed)); err != nil {
			return nil, fmt.Errorf("reading the slot: %w", err)
		}
	}
	return &state, nil
}

func (s *Source) checkCapacity(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var slots, maxSlots, senders, maxSenders int
	err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_stat_replication), current_setting('max_wal_senders')::int`).Scan(&slots, &maxSlots, &senders, &maxSenders)
	switch {
	case err != nil:
		return wrap(err, "reading slots and senders")
	case slots >= maxSlots:
		return failure.SlotCapacity.Errorf("checking capacity: all %d replication slots are in use", maxSlots)
	case senders >= maxSenders:
		return failure.SlotCapacity.Errorf("checking capacity: all %d WAL senders are in use", maxSenders)
	}
	return nil
}

// createSlot waits for all transactions that are running, within the bound of a statement. What a failing call leaves,
// as when the answer is lost, is on record.
func (s *Source) createSlot(ctx context.Context, conn *pgx.Conn, m *made) error {
	if err := m.intend(ctx, m.slot(s.slot)); err != nil {
		return err
	}
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	var at string
	options := ""
	err := conn.QueryRow(bounded, `SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 AND NOT pg_is_in_recovery()
		THEN ', failover => true' ELSE '' END`).Scan(&options) // standbys may have the slot, too; one on a standby cannot be passed on
	if err == nil {
		err = conn.QueryRow(bounded, "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput'"+options+")", s.slot).Scan(&at)
	}
	if err = wrap(err, "creating slot %s", s.slot); failure.CodeOf(err) == failure.SlotTaken { // somebody was quicker
		return errors.Join(s.notOurs(), m.forget(ctx, m.slot(s.slot)))
	}
	if failure.CodeOf(err) == failure.Timeout {
		return failure.Of(err).WithFix("Nothing: it is tried again. The server waits for transactions that are running; end old ones: SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL.")
	}
	if err != nil {
		return err
	}
	p, err := s.publicationState(ctx, conn, s.publication)
	if err != nil || p == nil || !s.ours(p) {
		return err
	}
	_, err = s.exec(ctx, conn, fmt.Sprintf("COMMENT ON PUBLICATION %s IS %s", quote(s.publication), literal(s.marked(at))))
	return wrap(err, "noting the slot's creation")
}

// slotMade returns the name of the slot that was created for the publication, if it was noted, and the position, 0 when
// that was not.
func (p *publication) slotMade() (name string, at uint64) {
	_, mark, _ := strings.Cut(p.comment, slotMark)
	name, text, ok := strings.Cut(mark, madeMark)
	if !ok {
		return "", 0
	}
	lsn, err := parsePosition(graph.Position(text))
	if err != nil {
		return "", 0
	}
	return strings.TrimSpace(name), lsn
}

// checkResume looks at everything that streaming from a position depends on, and shuts out an older attempt that still
// holds the slot.
func (s *Source) checkResume(ctx context.Context, conn *pgx.Conn, from uint64) (*slotState, error) {
	slot, err := s.slotState(ctx, conn)
	if err != nil {
		return nil, err
	}
	if slot == nil {
		return nil, failure.SlotMissing.Errorf("checking the slot: %s does not exist", s.slot).WithDetail("slot", s.slot)
	}
	p, err := s.publicationState(ctx, conn, s.publication)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, failure.PublicationConflict.Errorf("checking the publication: %s does not exist", s.publication).
			WithFix("Signal reconfigure to have it created again.")
	}
	if from != 0 && from < slot.confirmed { // it never knows of more than we have on record
		return nil, failure.SlotMissing.Errorf("checking the slot: %s stands at %s, after the last position %s: it was created anew, or somebody else has moved it", s.slot, position(slot.confirmed), position(from)).
			WithDetail("slot", s.slot).WithDetail("position", string(position(from)))
	}
	if slot.pid != 0 && s.olderAttempt(slot.application) {
		s.log.Warn("an older attempt holds the slot: ending it", zap.String("slot", s.slot), zap.Uint32("pid", slot.pid), zap.String("application", slot.application))
		if _, err := s.exec(ctx, conn, fmt.Sprintf("SELECT pg_terminate_backend(%d)", slot.pid)); err != nil {
			return nil, wrap(err, "ending an older attempt")
		}
	}
	return slot, nil
}
