package postgres

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
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
