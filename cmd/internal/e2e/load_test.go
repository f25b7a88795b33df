package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMemoryStaysFlatUnderLoad writes 2,000 row changes a second, in transactions of 100, with as many rows deleted as
// inserted. PERDURE_SOAK says for how long; the long form is 30 minutes, in which 2 MiB a minute are seen.
func TestMemoryStaysFlatUnderLoad(t *testing.T) {
	length := 20 * time.Second
	if text := os.Getenv("PERDURE_SOAK"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	s := newSystem(t, externalWorkers)
	s.env = append(s.env, "GOMEMLIMIT=256MiB")
	worker := s.startWorker("worker")
	s.startOrders()
	s.startComponent("Reaction", "reaction.default.file", object{"spec": object{
		"name": "file", "kind": "log", "queries": []string{"open-orders"}, "config": object{"output": os.DevNull},
	}})
	s.awaitPhase("reaction.default.file", "Running", 30*time.Second)
	f := s.follow("open-orders")
	conn := s.connect()
	ctx, cancel := context.WithTimeout(context.Background(), length+time.Minute)
	defer cancel()
	const every, inserted, updated, deleted = 50 * time.Millisecond, 30, 40, 30
	const wanted = float64(inserted+updated+deleted) / float64(every) * float64(time.Second)
	look := time.NewTicker(min(time.Second, length/100))
	defer look.Stop()
	var (
		sizes   []float64
		changes int
		began   = time.Now()
		next    = time.After(0)
	)
	for due := began; time.Since(began) < length; {
		select {
		case <-next: // those that are late are made up for
			due = due.Add(every)
			next = time.After(time.Until(due))
			_, err := conn.Exec(ctx, fmt.Sprintf(`
				WITH d AS (DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT %d)),
					u AS (UPDATE orders SET total = total + 1 WHERE id IN (SELECT id FROM orders ORDER BY id DESC LIMIT %d))
				INSERT INTO orders (customer_id, total) SELECT 1 + i %% 20, i FROM generate_series(1, %d) i`, deleted, updated, inserted))
			require.NoError(t, err)
			changes += inserted + updated + deleted
		case <-look.C:
			sizes = append(sizes, float64(worker.rss(t)))
		}
	}
	rate := float64(changes) / time.Since(began).Seconds()
	s.requireEqualsSQL(f, 60*time.Second)
	sizes = sizes[len(sizes)/3:] // at first, it grows to what it needs
	grown := growth(sizes) / (1 << 20)
	// A collection more or less is much of a short time and little of a long one.
	most := 32 + 64*min(1, time.Minute.Seconds()/length.Seconds())
	t.Logf("%.0f changes/s for %s; the worker had at most %.0f MiB and grew by %.1f MiB in the last two thirds, of %.1f that are allowed",
		rate, length, slices.Max(sizes)/(1<<20), grown, most)
	require.Greater(t, rate, 0.9*wanted, "the load is what it is to be")
	require.Less(t, grown, most, "memory is flat")
}

// growth returns how much a line through values that are evenly spaced, by least squares, rises from the first to the last.
func growth(values []float64) float64 {
	n := float64(len(values))
	var weighted, squares float64
	for i, v := range values {
		x := float64(i) - (n-1)/2
		weighted += x * v
		squares += x * x
	}
	return weighted / squares * (n - 1)
}

func TestGrowth(t *testing.T) {
	var values []float64
	for i := range 1000 {
		values = append(values, 100+float64(i)/10+30*float64(i%7)) // the sawtooth of collections
	}
	require.InDelta(t, 99.9, growth(values), 2)
}
