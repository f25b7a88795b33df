package postgres

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// watcher looks at the slot beside the stream: how much WAL the server keeps for it, how fast that grows, and when the
// server will give the slot up. And it looks for DDL that the stream does not tell of.
type watcher struct {
	source *Source
	sink   source.Sink
	known  *atomic.Pointer[[]layout] // what tables look like to the reader
	look   <-chan struct{}           // they may be others

	chooser   chooser
	problem   string // why it could not look at them
	announced []byte // the latest that was written about tables, while it is not known

	last   retention
	growth float64 // bytes a second, lately
	warned bool
}

// retention is what the server keeps for a slot.
type retention struct {
	at       time.Time
	status   string // reserved, extended, unreserved or lost
	retained int64  // bytes from the oldest that the slot needs
	age      int64  // transactions since the oldest whose catalog rows vacuum must keep for the slot
	lag      int64  // bytes from what we have confirmed
	left     int64  // bytes that may be written before the server gives the slot up; negative: as many as there is room for
}

// Facts that are noted.
const (
	noteWAL = "retainedWAL" // how much WAL is retained
	noteDDL = "tablesWatch" // why nobody looks for changes of tables
)

// run looks once in an interval until ctx ends (nil) or the slot is lost. Not being able to look says nothing about the
// stream.
func (w *watcher) run(ctx context.Context) error {
	ticker := time.NewTicker(w.source.config.StatusInterval)
	defer ticker.Stop()
	w.chooser = chooser{source: w.source, sink: w.sink}
	slot := true // look at it as well
	pause := settlePause
	for {
		waits, err := w.round(ctx, slot)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && failure.CodeOf(err) == failure.SlotInvalidated:
			return err
		case err != nil:
			w.sink.Note(noteWAL, "unknown: "+err.Error())
		}
		var settled <-chan time.Time
		if waits {
			settled = time.After(pause)
		} else {
			pause = settlePause
		}
		select {
		case <-ticker.C:
			slot = true
		case <-w.look:
			slot = false
		case <-w.sink.WantedChanged():
			slot, pause = false, settlePause
		case <-settled: // each look is a connection
			slot, pause = false, min(2*pause, max(settlePause, w.source.config.StatusInterval))
		case <-ctx.Done():
			return nil
		}
	}
}

// round looks once and reports whether the publication's columns wait for transactions to end.
func (w *watcher) round(ctx context.Context, slot bool) (waits bool, err error) {
	conn, err := w.source.connect(ctx)
	if err != nil {
		return false, err
	}
	defer hangUp(ctx, conn)
	problem := ""
	if w.announced, err = w.source.announce(ctx, conn, *w.known.Load(), w.announced); err != nil {
		problem = err.Error()
	}
	if !conn.IsClosed() { // where nothing can be told, as by a standby, what is there is served still
		if waits, err = w.chooser.choose(ctx, conn, *w.known.Load(), slot); err != nil {
			w.sink.Note(noteColumns, err.Error())
		}
	}
	if problem != w.problem {
		w.problem = problem
		w.sink.Note(noteDDL, problem)
	}
	if !slot {
		return waits, nil
	}
	now, err := w.source.retention(ctx, conn)
	switch {
	case err != nil:
		return waits, err
	case now.status == "lost":
		return waits, failure.SlotInvalidated.Errorf("watching the slot: the server has given up %s", w.source.slot).WithDetail("slot", w.source.slot)
	}
	w.judge(now)
	return waits, nil
}

func (s *Source) retention(ctx context.Context, conn *pgx.Conn) (r retention, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	r.at = time.Now()
	err = conn.QueryRow(ctx, `SELECT wal_status, coalesce(pg_wal_lsn_diff(here, restart_lsn), 0)::bigint, coalesce(pg_wal_lsn_diff(here, confirmed_flush_lsn), 0)::bigint,
			coalesce(safe_wal_size, -1), coalesce(age(catalog_xmin), 0)
		FROM pg_replication_slots, coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) here
		WHERE slot_name = $1`, s.slot).Scan(&r.status, &r.retained, &r.lag, &r.left, &r.age)
	if err == pgx.ErrNoRows { //nolint:errorlint // it is returned as it is
		return r, failure.SlotMissing.Errorf("watching the slot: %s does not exist", s.slot)
	}
	return r, wrap(err, "watching the slot")
}

// judge compares what is retained with the time before, and tells about it.
func (w *watcher) judge(now retention) {
	if elapsed := now.at.Sub(w.last.at).Seconds(); !w.last.at.IsZero() && elapsed > 0 {
		const weight = 0.3 // of the latest look
		w.growth += weight * (float64(now.retained-w.last.retained)/elapsed - w.growth)
	}
	w.last = now
	w.sink.Note(noteWAL, w.String())
	w.sink.Measure("lag_bytes", float64(now.lag))
	w.sink.Measure("wal_retained_bytes", float64(now.retained))
	w.sink.Measure("catalog_xmin_age_transactions", float64(now.age))
	w.sink.Measure("wal_growth_bytes_per_second", w.growth)
	left, until := math.NaN(), math.NaN() // without a limit there are none
	if now.left >= 0 {
		left = float64(now.left)
		if w.growth > 0 {
			until = left / w.growth
		}
	}
	w.sink.Measure("wal_safe_bytes", left)
	w.sink.Measure("wal_safe_seconds", until)
	if endangered := now.status == "unreserved"; endangered != w.warned {
		w.warned = endangered
		if endangered {
			w.source.log.Warn("the server is about to give up the slot: it must be read faster, or max_slot_wal_keep_size raised",
				zap.String("slot", w.source.slot), zap.Int64("retainedBytes", now.retained))
		}
	}
}

// String says for people what is retained, how it grows and what that leads to.
func (w *watcher) String() string {
	text := fmt.Sprintf("%d MiB", w.last.retained>>20)
	perMinute := int64(w.growth * 60)
	if perMinute >= 1<<20 {
		text += fmt.Sprintf(", growing by %d MiB a minute", perMinute>>20)
	}
	switch {
	case w.last.status == "unreserved":
		text += "; the server is about to give the slot up"
	case w.last.left >= 0 && perMinute >= 1<<20:
		left := time.Duration(float64(w.last.left) / w.growth * float64(time.Second))
		text += fmt.Sprintf("; max_slot_wal_keep_size is reached in %s", left.Round(time.Minute))
	case w.last.left >= 0:
		text += fmt.Sprintf("; the server gives the slot up after %d MiB more", w.last.left>>20)
	}
	return text
}
