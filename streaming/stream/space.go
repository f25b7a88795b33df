package stream

import (
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// The embedded server reserves nothing: bounds of logs say how far these may grow, and thousands of logs with generous
// bounds have room on a small disk for as long as they are nearly empty. What keeps the disk from running full, which no
// other program on it would like, is that the server takes nothing more while there is little space.
const (
	spaceLooked  = time.Second
	leastSpace   = 512 << 20 // or, where that is less,
	leastPercent = 2         // of the disk
)

// spaceGuard looks at the space of the disk that a server writes to.
type spaceGuard struct {
	space func() (free, total uint64, err error)
	limit func(full bool) error // what it does when space gets scarce, and when that is over
	log   *zap.Logger

	full bool
	once sync.Once
	stop chan struct{}
	done chan struct{}
}

// guardSpace starts a guard; close ends it.
func guardSpace(dir string, ns *server.Server, space func(dir string) (free, total uint64, err error), log *zap.Logger) *spaceGuard {
	g := &spaceGuard{
		space: func() (uint64, uint64, error) { return space(dir) },
		limit: func(full bool) error {
			var limits map[string]server.JetStreamAccountLimits // none: the standard ones
			if full {
				limits = map[string]server.JetStreamAccountLimits{"": {MaxMemory: -1, MaxStore: 0, MaxStreams: -1, MaxConsumers: -1}}
			}
			return ns.GlobalAccount().UpdateJetStreamLimits(limits)
		},
		log: log.With(zap.String("dir", dir)), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go g.run()
	return g
}

func (g *spaceGuard) run() {
	defer close(g.done)
	ticker := time.NewTicker(spaceLooked)
	defer ticker.Stop()
	for {
		g.look()
		select {
		case <-ticker.C:
		case <-g.stop:
			return
		}
	}
}

func (g *spaceGuard) look() {
	free, total, err := g.space()
	if err != nil {
		return // a disk that cannot even be asked says so when it is written to
	}
	least := min(leastSpace, total/100*leastPercent)
	if g.full {
		least += least / 2 // so that it does not change at every look
	}
	full := free < least
	if full == g.full {
		return
	}
	if err := g.limit(full); err != nil {
		g.log.Error("the stream server cannot be told about the space on its disk", zap.Error(err))
		return
	}
	g.full = full
	if full {
		g.log.Error("the stream server's disk is nearly full: it takes nothing until there is more space", zap.Uint64("freeBytes", free), zap.Uint64("neededBytes", least))
	} else {
		g.log.Info("the stream server's disk has space again", zap.Uint64("freeBytes", free))
	}
}

func (g *spaceGuard) close() {
	g.once.Do(func() { close(g.stop) })
	<-g.done
}
