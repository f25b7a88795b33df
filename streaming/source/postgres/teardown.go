package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

const dropPause = 50 * time.Millisecond

// dropSlot drops a slot that is ours. Whoever still uses it, an attempt that was cut off, is ended, since the
// component is about to be gone or to have another one. One that somebody else made in its place, in another database or
// for another plugin, stays.
func (s *Source) dropSlot(ctx context.Context, conn *pgx.Conn, name, database string) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for {
		var pid *uint32
		var ended bool
		rows, err := conn.Query(ctx, `SELECT active_pid::oid, active_pid IS NOT NULL AND pg_terminate_backend(active_pid) FROM pg_replication_slots
			WHERE slot_name = $1 AND plugin = 'pgoutput' AND database = $2`, name, database)
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
			_, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", name)
			if err = wrap(err, "dropping slot %s", name); err == nil || failure.CodeOf(err) == failure.SlotMissing {
				return nil
			} else if failure.CodeOf(err) != failure.ServerBusy {
				return err
			}
		}
		if err := pause(ctx, dropPause); err != nil {
			return wrap(err, "waiting for slot %s to be free", name)
		}
	}
}

// dropPublication drops a publication, if it says that it is ours.
func (s *Source) dropPublication(ctx context.Context, conn *pgx.Conn, name string) error {
	p, err := s.publicationState(ctx, conn, name)
	if err != nil || p == nil || !s.ours(p) {
		return err
	}
	_, err = s.exec(ctx, conn, fmt.Sprintf("DROP PUBLICATION IF EXISTS %s", quote(name)))
	return wrap(err, "dropping publication %s", name)
}
