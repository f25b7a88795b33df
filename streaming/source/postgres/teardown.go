package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

// Teardown implements source.Source. The slot goes first: it pins the server's WAL.
func (s *Source) Teardown(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	if err := s.dropSlot(ctx, conn); err != nil {
		return err
	}
	p, err := s.publicationState(ctx, conn)
	if err != nil || p == nil || !strings.HasPrefix(p.comment, s.ownership()) {
		return err
	}
	_, err = s.exec(ctx, conn, fmt.Sprintf("DROP PUBLICATION IF EXISTS %s", quote(s.publication)))
	return wrap(err, "dropping the publication")
}

const dropPause = 50 * time.Millisecond

// dropSlot drops the slot if it is ours. Whoever still uses it, an attempt that was cut off, is ended, since the
// component is about to be gone.
func (s *Source) dropSlot(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for {
		var pid *uint32
		var ended bool
		rows, err := conn.Query(ctx, `SELECT active_pid::oid, active_pid IS NOT NULL AND pg_terminate_backend(active_pid) FROM pg_replication_slots
			WHERE slot_name = $1 AND plugin = 'pgoutput' AND database = current_database()`, s.slot)
		if err != nil {
			return wrap(err, "looking for the slot")
		}
		tag, err := pgx.ForEachRow(rows, []any{&pid, &ended}, func() error { return nil })
		if err != nil {
			return wrap(err, "ending the slot's user")
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
		if pid == nil {
			_, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", s.slot)
			if err = wrap(err, "dropping slot %s", s.slot); err == nil || failure.CodeOf(err) == failure.SlotMissing {
				return nil
			} else if failure.CodeOf(err) != failure.ServerBusy {
				return err
			}
		}
		if err := pause(ctx, dropPause); err != nil {
			return wrap(err, "waiting for slot %s to be free", s.slot)
		}
	}
}
