package pipeline

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
)

// TestBeginningWithinALargeTransaction has a query begin where the change log ends with some fragments of a transaction:
// one that reads a snapshot, which has that transaction, and one that takes the changes from then on.
func TestBeginningWithinALargeTransaction(t *testing.T) {
	t.Run("in parts", func(t *testing.T) { beginningWithin(t, false) })
	t.Run("staged", func(t *testing.T) { beginningWithin(t, true) })
}

func beginningWithin(t *testing.T, stages bool) {
	large := func(r *rig, name string) {
		var changes []graph.Change
		for i := range 9 {
			changes = append(changes, item(graph.OpInsert, "Item", i, name, 20+i))
		}
		r.book.commit(changes...)
	}
	begin := func(t *testing.T) (r *rig, finish func()) {
		r = newRig(t)
		r.book.parts, r.book.stages = true, stages
		reached, finished := make(chan struct{}), make(chan struct{})
		second := 0
		r.book.between = func(part int) { // in the goroutine of the source
			if part == 1 {
				second++
			}
			if part == 2 && second == 2 { // it begins twice
				close(reached)
				<-finished
			}
		}
		r.stock(30)
		r.readySource()
		large(r, "large")
		<-reached
		log, err := r.conn.OpenLog(t.Context(), changeLog("default", "shop"))
		require.NoError(t, err)
		release := sync.OnceFunc(func() { close(finished) })
		t.Cleanup(release)
		within := func() bool {
			last, err := log.Last(t.Context())
			require.NoError(t, err)
			if last == nil {
				return false
			}
			batch, err := new(graph.Decoder).Decode(last.Data)
			require.NoError(t, err)
			return len(batch.Transactions) == 1 && batch.Transactions[0].Fragment == 1
		}
		eventually(t, within, "the log ends within a transaction")
		return r, func() {
			require.True(t, within())
			release()
		}
	}
	t.Run("with a snapshot", func(t *testing.T) {
		r, finish := begin(t)
		ref := BootstrapRef{ID: "first", Instance: "default", Query: auto.Name, Source: "shop", SnapshotGeneration: 1}
		_, err := r.host().Subscribe(t.Context(), ref, auto)
		require.NoError(t, err)
		finish()
		r.bootstrap("first")
		query := r.startQuery(auto)
		r.settled("late")
		large(r, "again")
		r.settled("late")
		query.kill()
		large(r, "after a restart")
		r.startQuery(auto)
		r.settled("late")
	})
	t.Run("without one", func(t *testing.T) {
		r, finish := begin(t)
		query := r.startQuery(late)
		eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
		query.kill() // and has not come beyond the place where it began
		query = r.startQuery(late)
		eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
		finish()
		end := r.book.commit(item(graph.OpInsert, "Item", 100, "new", 50))
		r.settledAt("late", end, map[string]string{"100": `{"id":100,"name":"new","amount":50}`})
	})
}
