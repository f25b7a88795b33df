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
// inserted. PERDURE_SOAK says for how long; the long form is 30 minutes.
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
	tick, look := time.NewTicker(every), time.NewTicker(min(time.Second, length/100))
	defer tick.Stop()
	defer look.Stop()
	var (
		sizes   []int64
		changes int
		began   = time.Now()
	)
	for time.Since(began) < length {
		select {
		case <-tick.C:
			_, err := conn.Exec(ctx, fmt.Sprintf(`
				WITH d AS (DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT %d)),
					u AS (UPDATE orders SET total = total + 1 WHERE id IN (SELECT id FROM orders ORDER BY id DESC LIMIT %d))
				INSERT INTO orders (customer_id, total) SELECT 1 + i %% 20, i FROM generate_series(1, %d) i`, deleted, updated, inserted))
			require.NoError(t, err)
			changes += inserted + updated + deleted
		case <-look.C:
			sizes = append(sizes, worker.rss(t))
		}
	}
	rate := float64(changes) / time.Since(began).Seconds()
	s.requireEqualsSQL(f, 60*time.Second)
	third := len(sizes) / 3
	require.Positive(t, third)
	before, after := slices.Max(sizes[third:2*third]), slices.Max(sizes[2*third:])
	t.Logf("%.0f changes/s for %s; the worker had at most %d MiB, in the last third %d MiB", rate, length, before>>20, after>>20)
	require.Less(t, after, before+before/4+32<<20, "memory is flat")
}
