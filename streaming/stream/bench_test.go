package stream_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/stream"
)

var sizes = []struct {
	name string
	n    int
}{{"128B", 128}, {"1KiB", 1 << 10}, {"64KiB", 64 << 10}}

func benchServer(b *testing.B) *stream.Conn {
	b.Helper()
	server, err := stream.Serve(stream.ServerOptions{Dir: b.TempDir(), Log: zap.NewNop()})
	require.NoError(b, err)
	b.Cleanup(func() { stop(b, server) })
	conn := connect(b, stream.Options{Server: server})
	b.Cleanup(conn.Close)
	return conn
}

// BenchmarkAppend measures one fsynced message after the other.
func BenchmarkAppend(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			conn := benchServer(b)
			w := writer(b, conn, openLog(b, conn, "L"), 1)
			data := make([]byte, size.n)
			b.SetBytes(int64(size.n))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				_, err := w.Append(b.Context(), fmt.Sprintf("orders:0/%X:0", i), data)
				require.NoError(b, err)
			}
		})
	}
}

// BenchmarkRead measures a reader that is behind.
func BenchmarkRead(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			conn := benchServer(b)
			log := openLog(b, conn, "L")
			data := make([]byte, size.n)
			stored := min(100_000, 256<<20/size.n)
			fill(b, conn, log, stored, data)
			r, err := log.Read(b.Context(), 0)
			require.NoError(b, err)
			b.SetBytes(int64(size.n))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n++; n > stored {
					r.Close()
					if r, err = log.Read(b.Context(), 0); err != nil {
						b.Fatal(err)
					}
					n = 1
				}
				if _, err := r.Next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			r.Close()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}

// BenchmarkReadPart reads one message of a log that goes on behind it, as for each large transaction that is applied: with the
// end told and without.
func BenchmarkReadPart(b *testing.B) {
	conn := benchServer(b)
	log := openLog(b, conn, "L")
	fill(b, conn, log, 500, make([]byte, 200<<10))
	for name, open := range map[string]func(from uint64) (*stream.Reader, error){
		"to its end": func(from uint64) (*stream.Reader, error) { return log.ReadTo(b.Context(), from, from) },
		"open":       func(from uint64) (*stream.Reader, error) { return log.Read(b.Context(), from) },
	} {
		b.Run(name, func(b *testing.B) {
			i := uint64(0)
			for b.Loop() {
				i++
				r, err := open(2 + i%300)
				require.NoError(b, err)
				_, err = r.Next(b.Context())
				require.NoError(b, err)
				r.Close()
			}
		})
	}
}

// fill stores n messages quickly: many on their way at a time.
func fill(b *testing.B, conn *stream.Conn, log *stream.Log, n int, data []byte) {
	b.Helper()
	w := log.NewSharedWriter()
	const parallel = 64
	done := make(chan error, parallel)
	for p := range parallel {
		go func() {
			for i := p; i < n; i += parallel {
				if _, err := w.Append(b.Context(), fmt.Sprintf("orders:0/%X:0", i), data); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range parallel {
		require.NoError(b, <-done)
	}
}

// BenchmarkLatency measures one hop: from Append to the reader having the message, and the part of it after the
// acknowledgement.
func BenchmarkLatency(b *testing.B) {
	conn := benchServer(b)
	log := openLog(b, conn, "L")
	w := writer(b, conn, log, 1)
	r, err := log.Read(b.Context(), 0)
	require.NoError(b, err)
	defer r.Close()
	arrived := make(chan time.Time)
	go func() {
		defer close(arrived)
		for {
			if _, err := r.Next(b.Context()); err != nil {
				return
			}
			arrived <- time.Now()
		}
	}()
	data := make([]byte, 256)
	var hops, acks []time.Duration
	i := 0
	for b.Loop() {
		i++
		start := time.Now()
		acked := make(chan time.Duration, 1)
		go func() {
			_, err := w.Append(b.Context(), fmt.Sprint(i), data)
			if err != nil {
				b.Error(err)
			}
			acked <- time.Since(start)
		}()
		hops = append(hops, (<-arrived).Sub(start))
		acks = append(acks, <-acked)
	}
	report := func(name string, d []time.Duration) {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(d[len(d)*99/100].Microseconds()), name+"-p99-µs")
	}
	report("hop", hops)
	report("ack", acks)
}
