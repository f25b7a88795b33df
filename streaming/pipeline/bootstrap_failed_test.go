package pipeline

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// TestScopeThatCannotBeRead: it is left out, in later snapshots too, until it is to be read again; what others have is kept.
func TestScopeThatCannotBeRead(t *testing.T) {
	r := newRig(t)
	r.stock(1000)
	src := r.readySource()
	h := r.host()
	both := auto
	both.Query = "MATCH (i:Item) WHERE i.amount > $least OPTIONAL MATCH (o:Other {name: 'none'}) RETURN i.id AS id, i.name AS name, i.amount AS amount"
	ref := BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop", SnapshotGeneration: 1}
	_, err := h.Subscribe(t.Context(), ref, both)
	require.NoError(t, err)
	snapshot := r.hold(ref)
	_, err = h.PlanChunks(t.Context(), ref, shop, both)
	require.NoError(t, err)

	var mu sync.Mutex
	read, denied := make(map[string]int), true
	r.book.failChunk = func(c source.Chunk) error {
		mu.Lock()
		defer mu.Unlock()
		if read[c.Name]++; c.Name == "Item" && denied && c.To > 3*chunkRows {
			return failure.PermissionDenied.Errorf("reading items")
		}
		return nil
	}
	again := func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		before := read
		read = make(map[string]int)
		return before
	}
	failed := func() []FailedScope {
		t.Helper()
		all, err := h.FailedScopes(t.Context(), ref)
		require.NoError(t, err)
		return all
	}
	var told []FailedScope
	copied, err := h.CopyChunks(t.Context(), ref, shop, "worker", func(p CopyProgress) { told = p.Failed })
	require.NoError(t, err)
	require.Equal(t, failed(), copied.Failed)
	require.Equal(t, failed(), told)
	require.Len(t, told, 1)
	require.Equal(t, "Item", told[0].Name)
	require.Equal(t, failure.PermissionDenied.ID, told[0].Report.Code)
	require.NotZero(t, told[0].At)
	reads := again()
	require.Equal(t, 4, reads["Item"], "three chunks and the one that failed")
	require.Positive(t, reads["Other"])
	progress, err := h.CopiedSoFar(t.Context(), ref)
	require.NoError(t, err)
	require.Equal(t, []ScopeProgress{{Name: "Item", State: Failed, Rows: 300, Estimate: 1000}, {Name: "Other", State: Copied, Rows: 1000, Estimate: 1000}}, progress)
	require.Error(t, h.VerifyBootstrap(t.Context(), ref, shop, func() {}), "it is not complete")

	// In the same snapshot, what was copied of it is not read again.
	require.NoError(t, h.RetryScopes(t.Context(), ref, []string{"Other", "Items"}))
	require.Len(t, failed(), 1)
	require.NoError(t, h.RetryScopes(t.Context(), ref, []string{`"Item"`}))
	require.Empty(t, failed())
	r.copyAll(ref, 1)
	require.Len(t, failed(), 1)
	require.Equal(t, map[string]int{"Item": 1}, again())

	// The next snapshot does not try it.
	snapshot.release(t)
	r.book.scribble(rand.New(rand.NewPCG(2, 2)), 100)
	ref.SnapshotGeneration = 2
	snapshot = r.hold(ref)
	plan, err := h.PlanChunks(t.Context(), ref, shop, both)
	require.NoError(t, err)
	require.Equal(t, int64(1000), plan.Kept, "the other table")
	r.copyAll(ref, 2)
	require.Empty(t, again())
	require.Len(t, failed(), 1)

	mu.Lock()
	denied = false
	mu.Unlock()
	require.NoError(t, h.RetryScopes(t.Context(), ref, nil))
	r.copyAll(ref, 2)
	reads = again()
	require.Zero(t, reads["Other"])
	require.Positive(t, reads["Item"])
	require.NoError(t, h.VerifyBootstrap(t.Context(), ref, shop, func() {}))
	_, _, err = h.SealBootstrap(t.Context(), ref)
	require.NoError(t, err)
	snapshot.release(t)
	r.query = both
	query := r.startQuery(both)
	r.settled("late")
	query.drained()
	src.drained()
}

// TestWhatIsNoScopesOwn: what was read cannot be kept, or may be read by the next try.
func TestWhatIsNoScopesOwn(t *testing.T) {
	permanent := failure.PermissionDenied.Errorf("x")
	require.True(t, isOfScope(&unreadableError{permanent}))
	for _, err := range []error{nil, permanent, &unreadableError{failure.ConnectionLost.Errorf("x")}, &unreadableError{failure.SnapshotLost.Errorf("x")}, &unreadableError{failure.FencedOff.Errorf("x")}, &unreadableError{failure.Panic.Errorf("x")}} {
		require.False(t, isOfScope(err), "%v", err)
	}
}
