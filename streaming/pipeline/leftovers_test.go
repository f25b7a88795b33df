package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/stream"
)

// TestLeftovers: all that a source and a query have on the server is known as theirs, and only what they have is named that
// have no workflow.
func TestLeftovers(t *testing.T) {
	r, src, query, _ := newFollowing(t, often, 50)
	r.anotherCheckpoint(rand.New(rand.NewPCG(1, 5)))
	query.drained()
	src.drained()
	control, err := r.conn.Bucket(t.Context(), stream.BucketOptions{Name: "control"})
	require.NoError(t, err)
	for _, key := range []string{"query.default.late", "bootstrap.default.late.shop.1", "deleted", "reaction.default.Notes"} {
		_, err := control.Put(t.Context(), key, []byte("{}"))
		require.NoError(t, err)
	}
	look := func(there ...component.Kind) []Check {
		checks, err := Leftovers(t.Context(), r.conn, []string{"control"}, func(_ context.Context, id component.ID) (bool, error) {
			for _, kind := range there {
				if id.Kind == kind {
					return true, nil
				}
			}
			return false, nil
		})
		require.NoError(t, err)
		return checks
	}
	none := []Check{{Name: "leftover", OK: true, Found: "none"}}
	require.Equal(t, none, look(component.Source, component.Query))

	checks := look(component.Source)
	require.Len(t, checks, 1)
	require.Equal(t, "query.default.late", checks[0].Component)
	require.Equal(t, "keys of bucket bootstrap, keys of bucket checkpoints, keys of bucket control, keys of bucket fences, "+
		"keys of bucket queries, keys of bucket subscriptions, stream OBJ_CKPT_default_late, stream RES_default_late, "+
		"of a component without a workflow", checks[0].Found)
	require.Contains(t, checks[0].Commands, "nats stream rm -f RES_default_late")
	require.Contains(t, checks[0].Commands, "nats stream purge -f KV_subscriptions --subject '$KV.subscriptions.default.shop.late'")
	require.Contains(t, checks[0].Commands, "nats stream purge -f KV_bootstrap --subject '$KV.bootstrap.default.late.>'")

	checks = look(component.Query)
	require.Len(t, checks, 1)
	require.Equal(t, "source.default.shop", checks[0].Component)
	require.Contains(t, checks[0].Found, "stream CHG_default_shop")
	require.Contains(t, checks[0].Found, "keys of bucket positions")

	require.NoError(t, r.host().TeardownQuery(t.Context(), often))
	require.NoError(t, control.Delete(t.Context(), "query.default.late"))
	require.NoError(t, control.Delete(t.Context(), "bootstrap.default.late.shop.1"))
	require.NoError(t, r.host().TeardownSource(t.Context(), shop))
	require.Equal(t, none, look())

	_, err = control.Put(t.Context(), "query.default.late", []byte("{}"))
	require.NoError(t, err)
	unknown := errors.New("the server does not answer")
	_, err = Leftovers(t.Context(), r.conn, []string{"control"}, func(context.Context, component.ID) (bool, error) { return false, unknown })
	require.ErrorIs(t, err, unknown)
}
