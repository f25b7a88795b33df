package postgres

import (
	"context"
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

const (
	confirmPause = 100 * time.Millisecond // between two confirmations of progress
	askInterval  = time.Second            // how often an idle server is asked how far it is
)

// confirmer tells the server how far everything is durable. It is the only writer of a streaming connection and works
// on its own, because the reader may be blocked by a full sink while the server still needs to hear from us.
type confirmer struct {
	wire      net.Conn
	sink      source.Sink
	floor     uint64 // what the slot has confirmed: less is never sent, since old servers would believe it
	interval  time.Duration
	wanted    chan struct{} // capacity one: the server asked for a status
	heardData atomic.Bool   // data came since the server was last asked
}

// soon has a status sent at once.
func (c *confirmer) soon() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

// run sends statuses until ctx ends (nil) or the connection breaks, which the reader will notice too.
func (c *confirmer) run(ctx context.Context) error {
	regular := time.NewTicker(c.interval)
	defer regular.Stop()
	ask := time.NewTicker(askInterval)
	defer ask.Stop()
	moved := c.sink.DurableChanged()
	var again <-chan time.Time
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-moved:
			moved, again = nil, time.After(confirmPause)
			err = c.send(false)
		case <-again:
			moved, again = c.sink.DurableChanged(), nil
		case <-c.wanted:
			err = c.send(false)
		case <-regular.C:
			err = c.send(false)
		case <-ask.C:
			if !c.heardData.Swap(false) {
				err = c.send(true)
			}
		}
		if err != nil {
			return err
		}
	}
}

// send sends one status: what is durable is what was received, flushed and applied. Zero says nothing.
func (c *confirmer) send(replyWanted bool) error {
	durable, err := parsePosition(c.sink.Durable())
	if err != nil {
		return err
	}
	if durable < c.floor {
		durable = 0
	}
	var b [5 + 34]byte
	b[0] = 'd' // CopyData
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	b[5] = 'r' // standby status update
	binary.BigEndian.PutUint64(b[6:], durable)
	binary.BigEndian.PutUint64(b[14:], durable)
	binary.BigEndian.PutUint64(b[22:], durable)
	binary.BigEndian.PutUint64(b[30:], uint64(time.Now().UnixMicro()-postgresEpoch))
	if replyWanted {
		b[38] = 1
	}
	if err := c.wire.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return failure.ConnectionLost.Errorf("confirming: %w", err)
	}
	if _, err := c.wire.Write(b[:]); err != nil {
		return failure.ConnectionLost.Errorf("confirming: %w", err)
	}
	return nil
}
