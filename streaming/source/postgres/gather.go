package postgres

import (
	"io"
	"time"
)

const (
	// gatherAfter is how many reads in a row must find something at once for a stream to count as busy. A transaction
	// of some rows does not take as many.
	gatherAfter = 32
	// gatherWait is how long a read may wait so that it found something at once.
	gatherWait = 200 * time.Microsecond
	// gatherFor is how long data of a busy stream collects.
	gatherFor = time.Millisecond
	// gatherLeast is how many bytes must come in that time for the stream to stay busy.
	gatherLeast = 4 << 10
)

// gatherer reads a busy stream in large pieces. The server sends every message of replication by itself, and a reader
// that is quicker than the server is woken by each of them, which costs more than to decode a row. So while much comes,
// it is left to collect in the socket for a moment. A stream that pauses, whose latency counts, is read at once.
type gatherer struct {
	from  io.Reader
	quick int  // reads in a row that found something at once
	full  bool // the last read filled the buffer: more is there already
}

// Read implements io.Reader.
func (g *gatherer) Read(p []byte) (int, error) {
	gathered := g.quick >= gatherAfter && !g.full
	if gathered {
		time.Sleep(gatherFor)
	}
	begin := time.Now()
	n, err := g.from.Read(p)
	if time.Since(begin) > gatherWait || gathered && n < gatherLeast {
		g.quick = 0
	} else {
		g.quick++
	}
	g.full = n == len(p)
	return n, err
}
