package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

const (
	pingInterval  = 5 * time.Second
	aliveInterval = time.Second
	blockSize     = 8192
	// rowsPerPage is assumed of tables that were never analysed.
	rowsPerPage = 80
)

// HoldSnapshot implements source.Snapshotter.
//
// The position comes from a temporary slot: the server gives its consistent point, the end of a WAL record, together
// with a snapshot that holds exactly the transactions whose commit record stands before that record. A commit record
// either ends at or below the consistent point or begins at or above it, and a transaction's position is the end of
// its commit record: so those at or below the snapshot's position are in it, the others are not. A snapshot and
// pg_current_wal_lsn() could not promise that, since a transaction becomes visible some time after its commit record.
//
// The slot's own snapshot ends with the next replication command, so an ordinary transaction imports it and exports it
// again.
func (s *Source) HoldSnapshot(ctx context.Context, ready func(source.Snapshot) error, alive func()) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	if _, err := s.exec(ctx, conn, "SET statement_timeout = 0"); err != nil {
		return wrap(err, "preparing the snapshot's connection")
	}
	snapshot, err := s.takeSnapshot(ctx, conn, alive)
	if err != nil {
		return err
	}
	if err := ready(snapshot); err != nil {
		return err
	}
	return s.keepSnapshot(ctx, conn, alive)
}

// takeSnapshot leaves conn in a transaction that holds the snapshot.
func (s *Source) takeSnapshot(ctx context.Context, conn *pgx.Conn, alive func()) (source.Snapshot, error) {
	replication, err := s.connectReplication(ctx)
	if err != nil {
		return source.Snapshot{}, err
	}
	defer hangUp(ctx, replication) // drops the temporary slot
	system, err := s.identify(ctx, replication)
	if err != nil {
		return source.Snapshot{}, err
	}
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails
	name := s.slot[:min(len(s.slot), maxIdentifier-14)] + "_snap_" + hex.EncodeToString(suffix)
	waiting, stop := context.WithTimeout(ctx, s.config.SlotTimeout)
	defer stop()
	slot, err := createTemporarySlot(waiting, replication, name, alive)
	switch {
	case waiting.Err() != nil && ctx.Err() == nil:
		return source.Snapshot{}, failure.Timeout.Errorf("creating the temporary slot %s: transactions that were running did not end within %s", name, s.config.SlotTimeout).
			WithFix("Nothing: it is tried again. End old transactions: SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL; or raise slotTimeout.")
	case err != nil:
		return source.Snapshot{}, wrap(err, "creating the temporary slot %s", name)
	}
	point, err := parsePosition(graph.Position(slot.ConsistentPoint))
	if err != nil {
		return source.Snapshot{}, fmt.Errorf("reading the snapshot's position: %w", err)
	}
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	if err := importSnapshot(bounded, conn, slot.SnapshotName); err != nil {
		return source.Snapshot{}, err
	}
	snapshot := source.Snapshot{Position: position(point), System: system, TakenAt: time.Now().UTC()}
	var isolation, current string
	err = conn.QueryRow(bounded, "SELECT pg_export_snapshot(), current_setting('transaction_isolation'), pg_current_wal_lsn()::text").
		Scan(&snapshot.Name, &isolation, &current)
	if err != nil {
		return source.Snapshot{}, wrap(err, "exporting the snapshot")
	}
	now, err := parsePosition(graph.Position(current))
	switch {
	case err != nil:
		return source.Snapshot{}, fmt.Errorf("reading the server's position: %w", err)
	case isolation != "repeatable read":
		return source.Snapshot{}, failure.SnapshotLost.Errorf("checking the snapshot: the isolation level is %s", isolation)
	case point == 0 || point > now:
		return source.Snapshot{}, failure.SnapshotLost.Errorf("checking the snapshot: its position %s is not before the server's %s", snapshot.Position, current)
	}
	snapshot.Schema, err = s.schema(ctx, conn)
	return snapshot, err
}

// schema says what elements look like in the snapshot that conn is in. It leaves no locks, which would hold up DDL.
func (s *Source) schema(ctx context.Context, conn *pgx.Conn) (map[string]string, error) {
	if _, err := s.exec(ctx, conn, "SAVEPOINT look"); err != nil {
		return nil, wrap(err, "looking at tables")
	}
	adapted, err := s.adapted(ctx, conn)
	if err != nil {
		return nil, err
	}
	f := &follower{Source: *s, now: make(map[tableName]*Table)}
	_, layouts, err := f.look(ctx, conn, adapted.config)
	if err != nil {
		return nil, err
	}
	if _, err := s.exec(ctx, conn, "ROLLBACK TO look"); err != nil {
		return nil, wrap(err, "looking at tables")
	}
	schema := make(map[string]string)
	for i := range layouts {
		for _, label := range layouts[i].labels() {
			schema[label] = layouts[i].state()
		}
	}
	return schema, nil
}

// createTemporarySlot waits for all transactions that are running and says meanwhile that it is alive.
func createTemporarySlot(ctx context.Context, conn *pgconn.PgConn, name string, alive func()) (pglogrepl.CreateReplicationSlotResult, error) {
	var slot pglogrepl.CreateReplicationSlotResult
	done := failure.Go(func() (err error) {
		slot, err = pglogrepl.CreateReplicationSlot(ctx, conn, quote(name), "pgoutput", pglogrepl.CreateReplicationSlotOptions{
			Temporary: true, SnapshotAction: "EXPORT_SNAPSHOT", Mode: pglogrepl.LogicalReplication})
		return err
	})
	ticker := time.NewTicker(aliveInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return slot, err
		case <-ticker.C:
			alive()
		}
	}
}

// identify returns the identity of the server and its timeline.
func (s *Source) identify(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	system, err := identifySystem(ctx, conn)
	if err != nil {
		return "", err
	}
	return identity(system), nil
}

// importSnapshot begins a transaction that sees what the exporter saw.
func importSnapshot(ctx context.Context, conn *pgx.Conn, name string) error {
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return wrap(err, "importing the snapshot")
	}
	if _, err := conn.Exec(ctx, "SET TRANSACTION SNAPSHOT "+literal(name)); err != nil {
		if ctx.Err() != nil || conn.IsClosed() {
			return wrap(err, "importing the snapshot")
		}
		return failure.SnapshotLost.Errorf("importing the snapshot: %w", err)
	}
	return nil
}

func (s *Source) keepSnapshot(ctx context.Context, conn *pgx.Conn, alive func()) error {
	for {
		alive()
		if pause(ctx, pingInterval) != nil {
			return nil
		}
		bounded, cancel := s.bounded(ctx)
		_, err := conn.Exec(bounded, "SELECT 1")
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return failure.SnapshotLost.Errorf("holding the snapshot: %w", err)
		}
	}
}

// PlanSnapshot implements source.Snapshotter. A scope is a table, and its places are blocks.
func (s *Source) PlanSnapshot(ctx context.Context, snapshot source.Snapshot, wanted source.Wanted) (source.SnapshotPlan, error) {
	plan := source.SnapshotPlan{Pace: source.Pace{
		Parallelism: s.config.SnapshotParallelism, ChunkTime: s.config.ChunkTime, RowsPerSecond: int64(s.config.SnapshotRowsPerSecond),
	}}
	conn, err := s.connect(ctx)
	if err != nil {
		return plan, err
	}
	defer hangUp(ctx, conn)
	adapted, err := s.adapted(ctx, conn)
	if err != nil {
		return plan, err
	}
	for _, l := range adapted.missing {
		if wanted.Any(l.labels()...) {
			return plan, l.gone()
		}
	}
	tables, err := adapted.loadCatalog(ctx, conn)
	if err != nil {
		return plan, err
	}
	if err := s.published(ctx, conn, tables); err != nil {
		return plan, err
	}
	stored, err := s.storedFiles(ctx, conn, snapshot, tables)
	if err != nil {
		return plan, err
	}
	for _, t := range tables.tables {
		scope := source.Scope{Name: t.name.sql(), Labels: []string{t.label}}
		for _, e := range t.edges {
			scope.Labels = append(scope.Labels, e.kind)
		}
		if !wanted.Any(scope.Labels...) {
			continue
		}
		if t.unpublished { // its rows would stay as they are in the snapshot
			return plan, failure.PublicationConflict.Errorf("reading %s: the publication %s does not have it", t.name, s.publication).
				WithDetail("table", t.name.String()).
				WithFix("Run ALTER PUBLICATION %s ADD TABLE %s; then signal rebootstrap.", quote(s.publication), t.from())
		}
		scope.Properties = wanted.Properties(scope.Labels...)
		if missing := slices.IndexFunc(t.unsent, func(col column) bool { return has(scope.Properties, col.name) }); missing >= 0 {
			return plan, failure.SnapshotLost.Errorf("reading %s: the publication does not have column %s", t.name, t.unsent[missing].name)
		}
		if scope.Only = t.rows; !scope.Only.Covers(t.restricted(tables, wanted)) {
			return plan, failure.SnapshotLost.Errorf("reading %s: the publication does not have all rows", t.name)
		}
		if err := s.measure(ctx, conn, t, &scope); err != nil {
			return plan, err
		}
		scope.Layout, scope.Mark = t.layoutIn(snapshot, stored)
		plan.Scopes = append(plan.Scopes, scope)
	}
	return plan, nil
}

// measure says how many blocks a table has, or its largest partition, and about how many rows.
func (s *Source) measure(ctx context.Context, conn *pgx.Conn, t *table, scope *source.Scope) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var largest, total int64
	var rows, pages float64
	err := conn.QueryRow(ctx, `SELECT coalesce(max(pg_relation_size(r.oid)), 0), coalesce(sum(pg_relation_size(r.oid)), 0)::bigint,
			coalesce(sum(r.reltuples) FILTER (WHERE r.reltuples >= 0 AND r.relpages > 0), 0)::float8,
			coalesce(sum(r.relpages) FILTER (WHERE r.reltuples >= 0 AND r.relpages > 0), 0)::float8
		FROM pg_class r WHERE r.oid = ANY ($1::oid[])`, t.files()).
		Scan(&largest, &total, &rows, &pages)
	if err != nil {
		return wrap(err, "measuring %s", t.name)
	}
	perPage := float64(rowsPerPage)
	if pages > 0 {
		perPage = max(rows/pages, 0.01)
	}
	scope.Places = (largest + blockSize - 1) / blockSize
	scope.Rows = int64(perPage * float64(total) / blockSize)
	scope.Least = max(1, int64(float64(s.config.ChunkRows)/max(float64(scope.Rows), 1)*float64(scope.Places)))
	return nil
}

// VerifySnapshot implements source.Snapshotter.
func (s *Source) VerifySnapshot(ctx context.Context, snapshot source.Snapshot) error {
	err := s.verifySnapshot(ctx, snapshot)
	if s.renewable(err) { // another snapshot will do when Run has renewed the slot
		return failure.SnapshotLost.Errorf("changes after the snapshot are lost: %w", err)
	}
	return err
}

func (s *Source) verifySnapshot(ctx context.Context, snapshot source.Snapshot) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	slot, err := s.slotState(ctx, conn)
	if err != nil {
		return err
	}
	if slot == nil {
		return failure.SlotMissing.Errorf("verifying the snapshot: slot %s does not exist", s.slot).WithDetail("slot", s.slot)
	}
	point, err := parsePosition(snapshot.Position)
	if err != nil {
		return err
	}
	p, err := s.publicationState(ctx, conn, s.publication)
	if err != nil {
		return err
	}
	if p == nil {
		p = &publication{}
	}
	if _, at := p.slotMade(); at > point {
		return failure.SlotMissing.Errorf("verifying the snapshot: slot %s was created anew, after the snapshot's position %s", s.slot, snapshot.Position).WithDetail("slot", s.slot)
	}
	replication, err := s.connectReplication(ctx)
	if err != nil {
		return err
	}
	defer hangUp(ctx, replication)
	system, err := s.identify(ctx, replication)
	if err != nil {
		return err
	}
	if system != snapshot.System {
		server, _, _ := strings.Cut(system, "/")
		if strings.HasPrefix(snapshot.System, server+"/") {
			return failure.TimelineDiverged.Errorf("verifying the snapshot: it was taken on timeline %s, this is %s", snapshot.System, system)
		}
		return failure.WrongSystem.Errorf("verifying the snapshot: it was taken of server and timeline %s, this is %s", snapshot.System, system)
	}
	return nil
}
