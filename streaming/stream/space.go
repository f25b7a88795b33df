package stream

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
)

// The embedded server reserves nothing: bounds of logs say how far these may grow, and thousands of logs with generous
// bounds have room on a small disk for as long as they are nearly empty. What keeps the disk from running full, which no
// other program on it would like, is that there is less and less that the server takes. First the logs that yield get
// nothing more: these are consumed and trimmed, for which those who consume have to write what they make of it and how far
// they are. When there is no room for that either, the server takes nothing.
//
// Between the two there must be room for what is written while a log is read on: results and a checkpoint or two.
var (
	yieldReserve = reserve{percent: 5, least: 64 << 20, most: 2 << 30}
	lastReserve  = reserve{percent: 2, least: 16 << 20, most: 512 << 20}
)

const (
	spaceLooked = 100 * time.Millisecond // in which even a fast writer does not get through the last reserve
	spaceTold   = time.Second
	// spaceHolds is how long those who were told that space is short go by it without being told again.
	spaceHolds = 5 * spaceTold
	// spaceSubject is where an embedded server tells those who are connected to it. Every server is listened to: another
	// one says nothing.
	spaceSubject = "perdure.space"
)

// reserve is space that is to stay free: a part of the disk, within bounds.
type reserve struct{ percent, least, most uint64 }

func (r reserve) of(total uint64) uint64 { return min(max(total/100*r.percent, r.least), r.most) }

// lacks reports whether there is less. Once there was, a little more is needed, so that it does not change at every look;
// little, since nobody can trim more than there is in the logs.
func (r reserve) lacks(free, total uint64, before bool) bool {
	bytes := r.of(total)
	if before {
		bytes += bytes / 8
	}
	return free < bytes
}

// space is how much there is on a disk.
type space string

const (
	spaceAmple space = "ample"
	spaceShort space = "short" // logs that yield get none
	spaceNone  space = "none"
)

// spaceGuard looks at the space of the disk that a server writes to.
type spaceGuard struct {
	space func() (free, total uint64, err error)
	limit func(full bool) error // has the server take nothing more, or all again
	conn  *nats.Conn            // tells
	log   *zap.Logger

	now  space
	told time.Time
	once sync.Once
	stop chan struct{}
	done <-chan error
}

// guardSpace starts a guard; close ends it.
func guardSpace(dir string, ns *server.Server, space func(dir string) (free, total uint64, err error), log *zap.Logger) (*spaceGuard, error) {
	conn, err := nats.Connect("", nats.InProcessServer(ns), nats.Name("perdure-space"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, failure.StreamUnavailable.Errorf("connecting to the stream server to tell about its disk: %w", err)
	}
	g := &spaceGuard{
		space: func() (uint64, uint64, error) { return space(dir) },
		limit: func(full bool) error {
			var limits map[string]server.JetStreamAccountLimits // none: the standard ones
			if full {
				limits = map[string]server.JetStreamAccountLimits{"": {MaxMemory: -1, MaxStore: 0, MaxStreams: -1, MaxConsumers: -1}}
			}
			return ns.GlobalAccount().UpdateJetStreamLimits(limits)
		},
		conn: conn, log: log.With(zap.String("dir", dir)), now: spaceAmple, stop: make(chan struct{}),
	}
	g.done = failure.Go(g.run)
	return g, nil
}

func (g *spaceGuard) run() error {
	ticker := time.NewTicker(spaceLooked)
	defer ticker.Stop()
	for {
		if err := failure.Guard(g.look); err != nil {
			g.log.Error("the stream server's disk cannot be watched", zap.Any("failure", failure.Describe(err)))
		}
		select {
		case <-ticker.C:
		case <-g.stop:
			return nil
		}
	}
}

func (g *spaceGuard) look() error {
	free, total, err := g.space()
	if err != nil {
		return nil // a disk that cannot even be asked says so when it is written to
	}
	before := g.now
	changeErr := g.change(free, total)
	if g.now == before && (g.now == spaceAmple || time.Since(g.told) < spaceTold) {
		return changeErr
	}
	g.told = time.Now()
	if err := g.conn.Publish(spaceSubject, []byte(g.now)); err != nil {
		return errors.Join(changeErr, fmt.Errorf("telling about its space: %w", err))
	}
	return changeErr
}

func (g *spaceGuard) change(free, total uint64) error {
	now := spaceAmple
	switch {
	case lastReserve.lacks(free, total, g.now == spaceNone):
		now = spaceNone
	case yieldReserve.lacks(free, total, g.now != spaceAmple):
		now = spaceShort
	}
	if now == g.now {
		return nil
	}
	if now == spaceNone || g.now == spaceNone {
		if err := g.limit(now == spaceNone); err != nil {
			return fmt.Errorf("telling the server about it: %w", err)
		}
	}
	g.now = now
	bytes := zap.Uint64("freeBytes", free)
	switch now {
	case spaceNone:
		g.log.Error("the stream server's disk is nearly full: it takes nothing until there is more space", bytes, zap.Uint64("neededBytes", lastReserve.of(total)))
	case spaceShort:
		g.log.Warn("the stream server's disk is short of space: logs that yield are not appended to until there is more", bytes, zap.Uint64("neededBytes", yieldReserve.of(total)))
	default:
		g.log.Info("the stream server's disk has space again", bytes)
	}
	return nil
}

func (g *spaceGuard) close() {
	g.once.Do(func() { close(g.stop) })
	<-g.done
	g.conn.Close()
}

// listenForSpace has the connection know when it is told that space is short.
func (c *Conn) listenForSpace() error {
	_, err := c.nats.Subscribe(spaceSubject, func(m *nats.Msg) {
		if space(m.Data) == spaceAmple {
			c.short.Store(nil)
			return
		}
		until := time.Now().Add(spaceHolds)
		c.short.Store(&until)
	})
	if err != nil {
		return fmt.Errorf("listening for the space on the disk of the stream server: %w", err)
	}
	return nil
}

// ShortOfSpace reports whether the server, if it is an embedded one, has so little space on its disk that logs that yield
// are not appended to. It becomes known within moments.
func (c *Conn) ShortOfSpace() bool {
	until := c.short.Load()
	return until != nil && time.Now().Before(*until)
}

// yield returns why nothing can be appended to the log for now, if that is so.
func (l *Log) yield(id string) error {
	if !l.yields || !l.conn.ShortOfSpace() {
		return nil
	}
	return failure.StreamFull.Errorf("appending %s to log %s: the stream server's disk is short of space, which is left to those who read the log", id, l.name)
}
