package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// A slot that is lost takes changes with it that nobody can bring back. Unless it is to stop, the source then creates
// another slot and says in the change log that changes are lost; the queries read the tables again, from a snapshot
// that lies behind the new slot's beginning.

// onLossStop is the value of onSlotLoss with which a source stops.
const onLossStop = "stop"

// renewable reports whether an error says that changes are lost, and the source is to go on nevertheless. A server with
// another identity is not among them: somebody must say whether that is the one meant.
func (s *Source) renewable(err error) bool {
	if s.config.OnSlotLoss == onLossStop {
		return false
	}
	code := failure.CodeOf(err)
	return code == failure.SlotMissing || code == failure.SlotInvalidated || code == failure.TimelineDiverged
}

// goOn puts a new slot in the place of the one that is lost, if that is what err says, tells so in the change log behind
// the position last, and returns where to go on, or the error that is left. It may be called again when it failed
// half-way: until the change log says so, the new slot is one that does not begin where we stand.
func (s *Source) goOn(ctx context.Context, sink source.Sink, last uint64, err error) (uint64, error) {
	if !s.renewable(err) {
		return last, err
	}
	var (
		at     uint64
		system string
		known  = sink.System()
	)
	renewed := ticking(sink, func() (err error) { at, system, err = s.renew(ctx, known, last); return err })
	if renewed != nil {
		return last, fmt.Errorf("creating the slot anew: %w; it is lost: %w", renewed, err)
	}
	lost := graph.SchemaChange{Op: graph.SchemaMissed, From: string(position(last)), To: s.config.OnSlotLoss}
	err = sink.Append(ctx, &graph.Transaction{Position: position(at), CommitTime: time.Now().UTC(), Schema: []graph.SchemaChange{lost}})
	if err != nil {
		return last, err
	}
	sink.Identify(system)
	s.log.Warn("the replication slot was lost and is created anew: the queries read the tables again",
		zap.String("slot", s.slot), zap.String("after", lost.From), zap.String("position", string(position(at))))
	return at, nil
}

// renew creates the slot anew and returns where it begins and whose it is; known is the system that the one before was of.
func (s *Source) renew(ctx context.Context, known string, last uint64) (at uint64, system string, err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return 0, "", err
	}
	defer hangUp(ctx, conn)
	replication, err := s.connectReplication(ctx)
	if err != nil {
		return 0, "", err
	}
	defer hangUp(ctx, replication)
	if system, err = s.identify(ctx, replication); err != nil {
		return 0, "", err
	}
	if server, _, _ := strings.Cut(system, "/"); known != "" && !strings.HasPrefix(known, server+"/") {
		return 0, "", failure.WrongSystem.Errorf("the server is %s, and was %s", system, known)
	}
	m, err := s.madeHere(ctx, conn)
	if err != nil {
		return 0, "", err
	}
	if err := s.dropLost(ctx, conn, m); err != nil {
		return 0, "", err
	}
	// Positions must go on ascending, also when the server that was promoted is behind what we have read.
	if err := s.advance(ctx, conn, last); err != nil {
		return 0, "", err
	}
	adapted, err := s.adapted(ctx, conn)
	if err != nil {
		return 0, "", err
	}
	tables, err := adapted.loadCatalog(ctx, conn)
	if err != nil {
		return 0, "", err
	}
	if err := s.ensurePublication(ctx, conn, m, tables, true); err != nil {
		return 0, "", err
	}
	if err := s.createSlot(ctx, conn, m); err != nil {
		return 0, "", err
	}
	if err := m.settle(ctx, m.slot(s.slot), m.publication(s.publication)); err != nil {
		return 0, "", err
	}
	slot, err := s.slotState(ctx, conn)
	if err == nil && (slot == nil || slot.confirmed <= last) {
		err = failure.SlotMissing.Errorf("slot %s does not begin after our position %s", s.slot, position(last))
	}
	if err != nil {
		return 0, "", err
	}
	return slot.confirmed, system, nil
}

// dropLost drops the slot if there is one, with the attempt that holds it: it has our name, but it is not the one that we
// have read from.
func (s *Source) dropLost(ctx context.Context, conn *pgx.Conn, m *made) error {
	slot, err := s.slotState(ctx, conn)
	if err != nil && failure.CodeOf(err) != failure.SlotInvalidated {
		return err
	}
	if err == nil && slot == nil {
		return nil
	}
	p, err := s.publicationState(ctx, conn, s.publication)
	if err != nil {
		return err
	}
	if s.learn(m, p); m.find(m.slot(s.slot)) == nil {
		return failure.SlotTaken.Errorf("slot %s is not the one that was read from, and this source did not make it", s.slot).WithDetail("slot", s.slot).
			WithFix("If nobody else reads from it, run %s or choose another slot in the spec; then signal resume or reconfigure.", dropSlotSQL(s.slot))
	}
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	_, err = conn.Exec(bounded, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL`, s.slot)
	if err == nil {
		_, err = conn.Exec(bounded, `SELECT pg_drop_replication_slot($1)`, s.slot)
	}
	if err = wrap(err, "dropping slot %s, which is lost", s.slot); failure.CodeOf(err) == failure.SlotMissing {
		return nil
	}
	return err
}

// advance writes WAL until the server's position lies behind ours. A server that lacks more than a failover can explain
// is left alone.
func (s *Source) advance(ctx context.Context, conn *pgx.Conn, last uint64) error {
	const step, most = 1 << 20, 256 << 20
	for written := 0; ; written += step {
		here, err := s.serverPosition(ctx, conn)
		if err != nil || here > last {
			return err
		}
		if last-here > most || written > 2*most {
			return failure.WrongSystem.Errorf("the server stands at %s, far before our position %s", position(here), position(last))
		}
		bounded, cancel := s.bounded(ctx)
		_, err = conn.Exec(bounded, `SELECT pg_logical_emit_message(false, 'perdure', repeat(' ', $1))`, step)
		cancel()
		if err != nil {
			return wrap(err, "advancing the server's position")
		}
	}
}

func (s *Source) serverPosition(ctx context.Context, conn *pgx.Conn) (uint64, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var text string
	if err := conn.QueryRow(ctx, `SELECT pg_current_wal_lsn()::text`).Scan(&text); err != nil {
		return 0, wrap(err, "asking for the server's position")
	}
	at, err := parsePosition(graph.Position(text))
	if err != nil {
		return 0, fmt.Errorf("asking for the server's position: %w", err)
	}
	return at, nil
}
