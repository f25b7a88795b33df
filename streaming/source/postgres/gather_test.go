package postgres

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// counted counts the reads that reach it.
type counted struct {
	from  io.Reader
	reads int
}

func (c *counted) Read(p []byte) (int, error) { c.reads++; return c.from.Read(p) }

// socket is filled at a constant rate, as by a server that sends without end, and never empty.
type socket struct {
	perMilli int
	begin    time.Time
	taken    int
}

func (s *socket) Read(p []byte) (int, error) {
	due := max(int(time.Since(s.begin).Seconds()*1000*float64(s.perMilli))-s.taken, 1)
	n := min(due, len(p))
	s.taken += n
	return n, nil
}

func TestGathererReadsBusyStreamInLargePieces(t *testing.T) {
	from := &counted{from: &socket{perMilli: 20_000, begin: time.Now()}}
	g := &gatherer{from: from}
	for left, p := 2_000_000, make([]byte, readBuffer); left > 0; {
		n, err := g.Read(p)
		require.NoError(t, err)
		left -= n
	}
	require.Less(t, from.reads, 2_000_000/gatherLeast, "reads of 2 MB")
}

func TestGathererLeavesQuietStreamAlone(t *testing.T) {
	g := &gatherer{from: &socket{begin: time.Now()}} // one byte at a time
	begin := time.Now()
	one := make([]byte, 16)
	const pauses = 3
	for range pauses * (gatherAfter + 1) {
		_, err := g.Read(one)
		require.NoError(t, err)
	}
	require.LessOrEqual(t, g.quick, gatherAfter)
	require.GreaterOrEqual(t, time.Since(begin), gatherFor, "it was looked at whether much comes")
}

func TestGathererChangesNothing(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	for name, from := range map[string]io.Reader{
		"at once": bytes.NewReader(want), "by halves": iotest.HalfReader(bytes.NewReader(want)), "end with data": iotest.DataErrReader(bytes.NewReader(want)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := io.ReadAll(&gatherer{from: from})
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		})
	}
	_, err := (&gatherer{from: iotest.ErrReader(io.ErrClosedPipe)}).Read(make([]byte, 1))
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

// paced is a socket to which small messages come, each so long after the one before.
type paced struct {
	gap   func(message int) time.Duration
	taken int
	spent time.Duration // waiting for messages
}

func (p *paced) Read(b []byte) (int, error) {
	begin := time.Now()
	if d := p.gap(p.taken); d > 0 {
		time.Sleep(d)
	}
	p.taken++
	p.spent += time.Since(begin)
	return min(len(b), 60), nil
}

// TestGathererDoesNotDelayATransactionAlone has transactions of three messages come by themselves, a thousand a second,
// also behind a burst that made the stream count as busy. Time is virtual, so that nothing but the gatherer takes any.
func TestGathererDoesNotDelayATransactionAlone(t *testing.T) { synctest.Test(t, testTransactionAlone) }

func testTransactionAlone(t *testing.T) {
	const perTransaction, burst, transactions = 3, 10 * gatherAfter, 300
	from := &paced{gap: func(message int) time.Duration {
		if message >= burst && message%perTransaction == 0 {
			return time.Millisecond
		}
		return 0
	}}
	g := &gatherer{from: from}
	b := make([]byte, readBuffer)
	for range burst {
		_, err := g.Read(b)
		require.NoError(t, err)
	}
	var own []time.Duration // what the gatherer adds to each
	for tx := range transactions {
		before, begin := from.spent, time.Now()
		for range perTransaction {
			if tx > 0 { // the first may come while it is still seen whether the burst goes on
				require.Less(t, g.quick, gatherAfter, "transaction %d", tx)
			}
			_, err := g.Read(b)
			require.NoError(t, err)
		}
		own = append(own, time.Since(begin)-(from.spent-before))
	}
	require.LessOrEqual(t, own[0], gatherFor, "the first, behind the burst")
	require.Equal(t, make([]time.Duration, transactions-1), own[1:], "all others")
}

// TestGathererDelaysNothingForLong bounds what any message waits for, however busy the stream is.
func TestGathererDelaysNothingForLong(t *testing.T) {
	for _, perMilli := range []int{100, 1000, 5000, 20_000} {
		from := &timed{from: &socket{perMilli: perMilli, begin: time.Now()}}
		g := &gatherer{from: from}
		var own []time.Duration
		for b := make([]byte, readBuffer); len(own) < 200; {
			before, begin := from.spent, time.Now()
			_, err := g.Read(b)
			require.NoError(t, err)
			own = append(own, time.Since(begin)-(from.spent-before))
		}
		slices.Sort(own)
		require.Less(t, own[len(own)/2], 2*gatherFor, "%d bytes in a millisecond", perMilli)
	}
}

// timed adds up the time that reads take.
type timed struct {
	from  io.Reader
	spent time.Duration
}

func (c *timed) Read(p []byte) (int, error) {
	begin := time.Now()
	defer func() { c.spent += time.Since(begin) }()
	return c.from.Read(p)
}
