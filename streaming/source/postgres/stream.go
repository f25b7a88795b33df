package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

const (
	tickInterval  = 500 * time.Millisecond
	firstRetry    = 500 * time.Millisecond
	longestRetry  = 30 * time.Second
	steadyAfter   = 5 * time.Second // how long a stream must last to be more than a try that fails late
	goodbyeBound  = 5 * time.Second
	writeTimeout  = 10 * time.Second
	lookEvery     = 256 // messages between looks at the clock while data keeps coming
	headerLength  = 25  // of a message with WAL data: kind, start, end, time
	keepaliveSize = 18  // of a keepalive: kind, end, time, reply wanted
)

// Run implements source.Source. It returns nil when ctx ends, and otherwise only errors that a retry cannot help.
func (s *Source) Run(ctx context.Context, from graph.Position, sink source.Sink) error {
	last, err := parsePosition(from)
	if err != nil {
		return err
	}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.RandomizationFactor = firstRetry, longestRetry, 0.3
	lost, unstaged := false, uint64(0)
	known, err := decodeLayouts(sink.Schema())
	if err != nil {
		return err
	}
	for {
		st := &stream{source: s, sink: sink, last: last, unstaged: unstaged}
		st.known.Store(&known)
		err := st.run(ctx, func() {
			if lost {
				s.log.Info("streaming again", zap.String("position", string(position(last))))
			}
			lost = false
			wait.Reset()
		})
		last, known, unstaged = st.last, *st.known.Load(), st.unstaged
		if ctx.Err() == nil && err != nil {
			if last, err = s.goOn(ctx, sink, last, err); err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errTablesChanged) {
			s.log.Info("tables changed: streaming begins anew with what they are now", zap.String("position", string(position(last))))
			continue
		}
		if !failure.ClassOf(err).Retryable() {
			return fmt.Errorf("streaming from slot %s: %w", s.slot, withPosition(err, last))
		}
		pause := wait.NextBackOff()
		s.log.Warn("streaming was interrupted", zap.Error(err), zap.String("code", failure.CodeOf(err).ID),
			zap.String("position", string(position(last))), zap.Duration("retryIn", pause))
		lost = true
		sink.Interrupted(err)
		if !waitTicking(ctx, sink, pause) {
			return nil
		}
	}
}

// withPosition adds where streaming stopped to an error's details.
func withPosition(err error, last uint64) error {
	var e *failure.Error
	if last != 0 && errors.As(err, &e) {
		return e.Code().Errorf("%w", err).WithFix("%s", e.Fix()).WithDetail("position", string(position(last)))
	}
	return err
}

// pause waits, or returns why not.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitTicking waits while telling the watchdog that all is well; false when ctx ended.
func waitTicking(ctx context.Context, sink source.Sink, d time.Duration) bool {
	for ; d > 0; d -= tickInterval {
		sink.Tick()
		if pause(ctx, min(d, tickInterval)) != nil {
			return false
		}
	}
	return true
}

// ticking runs do, which waits for the server, while telling the watchdog that all is well.
func ticking(sink source.Sink, do func() error) error {
	done := failure.Go(do)
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		sink.Tick()
		select {
		case err := <-done:
			return err
		case <-ticker.C:
		}
	}
}

// stream is one connection's worth of streaming.
type stream struct {
	source *Source
	sink   source.Sink
	last   uint64 // end of the last transaction appended, or where we stood idle after it
	// unstaged is where a transaction commits that could not be appended with what was staged of it. Up to there nothing is.
	unstaged uint64

	conn      *pgconn.PgConn
	wire      net.Conn
	assembler assembler
	progress  inProgress
	rejected  int // rows, since then
	since     time.Time
	side      side
	visible   uint32 // a transaction that the side connection sees
	confirmer confirmer
	known     atomic.Pointer[[]layout] // what tables look like behind what was appended; for the watcher
	look      chan struct{}            // capacity one: the watcher is to look at the tables
}

// errTablesChanged ends a connection so that the next one knows the tables as they are.
var errTablesChanged = errors.New("tables changed")

// run connects and streams until ctx ends or something breaks.
func (st *stream) run(ctx context.Context, started func()) error {
	st.side.source = st.source
	st.look = make(chan struct{}, 1)
	st.progress.dir = st.source.settings.SpillDir
	defer func() {
		st.side.close(ctx)
		st.progress.close()
	}()
	if err := ticking(st.sink, func() error { return st.start(ctx) }); err != nil {
		if st.conn != nil {
			hangUp(ctx, st.conn)
		}
		return err
	}
	started()
	st.since = time.Now()
	st.wire = st.conn.Conn()
	confirming, stop := context.WithCancel(ctx)
	beside := func(run func(context.Context) error) <-chan error {
		return failure.Go(func() error {
			err := failure.Guard(func() error { return run(confirming) })
			if err != nil {
				_ = st.wire.Close() // wakes the reader
			}
			return err
		})
	}
	confirmed := beside(st.confirmer.run)
	watched := beside((&watcher{source: st.source, sink: st.sink, known: &st.known, look: st.look}).run)
	wake := context.AfterFunc(ctx, func() { _ = st.wire.SetReadDeadline(time.Unix(1, 0)) })
	err := st.read(ctx)
	wake()
	stop()
	if broken := <-confirmed; err == nil || failure.CodeOf(broken) == failure.Panic {
		err = broken
	}
	if lost := <-watched; lost != nil {
		err = lost // the reason of all others
	}
	if ctx.Err() != nil {
		err = st.goodbye()
	} else if errors.Is(err, errTablesChanged) {
		err = errors.Join(err, st.goodbye())
	}
	hangUp(ctx, st.conn)
	return err
}

// start prepares everything up to the moment at which the server begins to send.
func (st *stream) start(ctx context.Context) error {
	s := st.source
	slot, tables, err := st.prepare(ctx)
	if err != nil {
		return err
	}
	st.assembler = assembler{
		decoder:   decoder{types: tables.types},
		catalog:   tables,
		relations: make(map[uint32]*relation),
		floor:     st.last,
		resolve:   st.resolve,
		fetch:     st.fetch,
		reject: func(ctx context.Context, cause error, record []byte) error {
			return st.reject(ctx, withLSN(cause, st.assembler.end), record)
		},
		remaining:  st.remaining,
		attributes: st.attributes,
		files:      st.files,
		described:  st.wakeWatcher,
		prefix:     s.messagePrefix(),
		chooses:    s.config.Publish == publishNeeded && tables.publication != nil && s.ours(tables.publication),
		known:      *st.known.Load(),
	}
	st.assembler.rawText = st.assembler.catalog.rawText
	st.assembler.reload = func(oid uint32) error { return st.resolve(ctx, []uint32{oid}) }
	st.assembler.serverText = func(oid uint32, src []byte) (string, error) { return st.side.text(ctx, oid, src) }
	st.progress.early = newEarly(st.sink, &st.assembler, func() bool { return st.last < st.unstaged })
	if st.conn, err = s.connectReplication(ctx); err != nil {
		return err
	}
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	system, err := identifySystem(bounded, st.conn)
	if err != nil {
		return err
	}
	if err := st.identify(bounded, system); err != nil {
		return err
	}
	if uint64(system.XLogPos) < st.last {
		return failure.WrongSystem.Errorf("the server stands at %s, before our position %s", system.XLogPos, position(st.last))
	}
	err = pglogrepl.StartReplication(bounded, st.conn, quote(s.slot), pglogrepl.LSN(st.last), pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		// A large transaction is to be sent while it is in progress: else the server keeps it on its disk, and we wait for all
		// of it when it has committed.
		PluginArgs: []string{"proto_version '2'", "streaming 'on'", "publication_names " + literal(quote(s.publication)), "binary 'true'", "messages 'true'"},
	})
	if err != nil {
		return wrap(err, "starting replication")
	}
	st.confirmer = confirmer{wire: st.conn.Conn(), sink: st.sink, floor: slot.confirmed, interval: s.config.StatusInterval, wanted: make(chan struct{}, 1)}
	return nil
}

// prepare checks over an ordinary connection that streaming can work, and reads the tables. What they look like is learned
// at once only when nothing was known before.
func (st *stream) prepare(ctx context.Context) (*slotState, *catalog, error) {
	conn, err := st.source.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer hangUp(ctx, conn)
	slot, err := st.source.checkResume(ctx, conn, st.last)
	if err != nil {
		return nil, nil, err
	}
	known := *st.known.Load()
	tables, now, err := st.source.look(ctx, conn, known, false)
	if err != nil {
		return nil, nil, err
	}
	if known == nil {
		if err := st.source.findRewritten(ctx, conn, tables, nil, now); err != nil {
			return nil, nil, err
		}
		st.learned(now)
	} else if renewed, other := renewAsked(known, now); other {
		st.learned(renewed)
	} else {
		st.noteTables(known)
	}
	return slot, tables, nil
}

// learned passes on what tables look like behind what was appended.
func (st *stream) learned(known []layout) {
	before := st.known.Swap(&known)
	st.sink.Learn(encodeLayouts(known))
	st.noteTables(known)
	if leavesOut(*before) {
		st.wakeWatcher() // columns may have come, for which somebody waits
	}
}

func (st *stream) noteTables(known []layout) {
	st.sink.Note("tablesMissing", missingTables(known))
	st.sink.Note("tablesRenamed", renamedTables(known))
}

func (st *stream) wakeWatcher() {
	select {
	case st.look <- struct{}{}:
	default:
	}
}

// read takes messages until ctx ends (nil) or the connection is of no use any more.
func (st *stream) read(ctx context.Context) error {
	frontend := st.conn.Frontend()
	heard := time.Now()
	steady := false
	var looked time.Time
	for n := 0; ; n++ {
		if n%lookEvery == 0 || frontend.ReadBufferLen() == 0 {
			if now := time.Now(); now.Sub(looked) >= tickInterval {
				looked = now
				st.sink.Tick()
				if !steady && now.Sub(st.since) >= steadyAfter {
					steady = true
					st.sink.Interrupted(nil)
				}
				if err := st.wire.SetReadDeadline(now.Add(2 * tickInterval)); err != nil {
					return wrap(err, "reading changes")
				}
			}
			if ctx.Err() != nil { // after the deadline was set, so that the one that ends the wait is not undone
				return nil
			}
		}
		message, err := frontend.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if ctx.Err() != nil {
				return nil
			}
			if silence := time.Since(heard); silence > st.source.config.ReceiveTimeout {
				return failure.ConnectionLost.Errorf("reading changes: the server has been silent for %s", silence.Round(time.Second))
			}
			looked = time.Time{}
			continue
		}
		if err != nil {
			return wrap(err, "reading changes")
		}
		heard = looked // precise enough, and free
		if heard.IsZero() {
			heard = time.Now()
		}
		if err := st.take(ctx, message); err != nil {
			return err
		}
	}
}

// take handles one message of the server.
func (st *stream) take(ctx context.Context, message pgproto3.BackendMessage) error {
	switch m := message.(type) {
	case *pgproto3.CopyData:
		switch {
		case len(m.Data) > headerLength && m.Data[0] == 'w':
			st.confirmer.heardData.Store(true)
			return st.data(ctx, binary.BigEndian.Uint64(m.Data[1:]), m.Data[headerLength:])
		case len(m.Data) == keepaliveSize && m.Data[0] == 'k':
			st.keepalive(binary.BigEndian.Uint64(m.Data[1:]), m.Data[17] != 0)
			return nil
		}
		return failure.BadRecord.Errorf("the server sent a message that is neither data nor a keepalive")
	case *pgproto3.ErrorResponse:
		return wrap(pgconn.ErrorResponseToPgError(m), "reading changes")
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		return nil
	case *pgproto3.CopyDone, *pgproto3.CommandComplete:
		return failure.ConnectionLost.Errorf("reading changes: the server ended the stream")
	}
	return failure.BadRecord.Errorf("the server sent an unexpected %T", message)
}

// data takes one message of the plugin. What transactions in progress send is staged, or kept until they commit.
func (st *stream) data(ctx context.Context, lsn uint64, src []byte) error {
	replayed := 0
	st.assembler.borrows = true // of what take keeps, for as long as it does
	taken, err := st.progress.take(ctx, src, committing{
		replay: func(message []byte) error {
			if replayed++; replayed%lookEvery == 0 {
				st.sink.Tick()
			}
			return st.change(ctx, 0, message)
		},
		done:   func() error { return st.appendPart(ctx, 1) },
		staged: func(t *unfinished) error { return st.appendStaged(ctx, t) },
	})
	st.assembler.borrows = false
	if !taken && err == nil {
		return st.change(ctx, lsn, src)
	}
	if taken && st.progress.block == nil {
		st.sink.Note("transactionsInProgress", st.progress.String())
	}
	return err
}

// change takes one message about transactions, and hands over what is complete, or large enough, with it. lsn is where in
// the WAL the record is, 0 when that is not known.
func (st *stream) change(ctx context.Context, lsn uint64, src []byte) error {
	tx, err := st.assembler.message(ctx, src)
	if err == nil && tx == nil {
		return st.appendPart(ctx, partBytes)
	}
	if err != nil {
		if lsn == 0 {
			lsn = st.assembler.end
		}
		return st.reject(ctx, withLSN(err, lsn), src)
	}
	return st.append(ctx, tx)
}

// reject goes on without a row that cannot be decoded, if that is wanted; otherwise it returns the cause.
func (st *stream) reject(ctx context.Context, cause error, record []byte) error {
	err := ticking(st.sink, func() error {
		return st.source.reject(ctx, position(st.assembler.end), cause, record)
	})
	if err == nil {
		st.rejected++
		st.sink.Note("deadLetters", fmt.Sprintf("%d since %s; the last: %s", st.rejected, st.since.UTC().Format(time.RFC3339), cause))
	}
	return err
}

// appendPart hands over what the transaction at hand has so far, if its messages had that many bytes.
func (st *stream) appendPart(ctx context.Context, least int) error {
	part, number, err := st.assembler.part(ctx, least)
	if err != nil || part == nil {
		return err
	}
	if err := st.sink.AppendPart(ctx, part, number, false); err != nil {
		return fmt.Errorf("appending changes: %w", err)
	}
	st.assembler.reuse()
	return nil
}

// appendStaged makes what was staged of the transaction at hand its first part.
func (st *stream) appendStaged(ctx context.Context, t *unfinished) error {
	if st.assembler.taken {
		st.sink.Unstage(uint64(t.xid))
		return nil
	}
	if err := st.sink.AppendStaged(ctx, uint64(t.xid), st.assembler.commitTime); err != nil {
		st.unstaged = st.assembler.end
		return fmt.Errorf("appending changes: %w", err)
	}
	st.assembler.parts = 1
	return nil
}

// withLSN adds to the error of a record that cannot be taken where in the WAL the record is.
func withLSN(err error, lsn uint64) error {
	e := failure.Of(err)
	if e == nil || e.Code().Class.Retryable() {
		return err
	}
	at := string(position(lsn))
	return e.Code().Errorf("record at %s: %w", at, err).WithFix("%s", e.Fix()).WithDetail("lsn", at)
}

func (st *stream) append(ctx context.Context, tx *graph.Transaction) error {
	end, err := parsePosition(tx.Position)
	if err != nil {
		return err
	}
	switch parts := st.assembler.parts; {
	case parts > 0:
		err = st.sink.AppendPart(ctx, tx, parts, true)
	case len(tx.Changes)+len(tx.Schema) == 0:
		st.idle(end)
		return st.pass()
	default:
		err = st.sink.Append(ctx, tx)
	}
	if err != nil {
		return fmt.Errorf("appending changes: %w", err)
	}
	st.last = max(st.last, end)
	for i := range tx.Schema {
		st.source.log.Info(tx.Schema[i].String(), zap.String("position", string(tx.Position)))
	}
	return st.pass()
}

// pass passes on what was learned in the transaction that was appended.
func (st *stream) pass() error {
	if !st.assembler.news {
		return nil
	}
	st.assembler.news = false
	st.learned(st.assembler.known)
	if st.assembler.renewed {
		return errTablesChanged
	}
	return nil
}

// keepalive says how far the server has read the WAL. Between transactions, everything before is with the sink or was
// of no interest, so that we stand there too; this is what lets the server drop WAL of tables that we do not watch.
func (st *stream) keepalive(end uint64, replyWanted bool) {
	if !st.assembler.open {
		st.idle(end)
	}
	if replyWanted {
		st.confirmer.soon()
	}
}

func (st *stream) idle(end uint64) {
	if end > st.last {
		st.last = end
		st.sink.Idle(position(end))
	}
}

// goodbye ends the stream in order: the last durable position is confirmed, and when the server has answered, the slot
// is free. What the server still sends is dropped; it comes again.
func (st *stream) goodbye() error {
	deadline := time.Now().Add(goodbyeBound)
	if err := st.wire.SetDeadline(deadline); err != nil {
		return wrap(err, "ending the stream")
	}
	if err := st.confirmer.send(false); err != nil {
		return err
	}
	frontend := st.conn.Frontend()
	frontend.Send(&pgproto3.CopyDone{})
	if err := frontend.Flush(); err != nil {
		return wrap(err, "ending the stream")
	}
	for {
		message, err := frontend.Receive()
		if err != nil {
			return wrap(err, "ending the stream")
		}
		switch m := message.(type) {
		case *pgproto3.ReadyForQuery:
			return nil
		case *pgproto3.ErrorResponse:
			return wrap(pgconn.ErrorResponseToPgError(m), "ending the stream")
		}
	}
}

// resolve learns types that appeared while streaming.
func (st *stream) resolve(ctx context.Context, oids []uint32) error {
	return st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) error { return st.assembler.types.load(ctx, conn, oids) })
}
