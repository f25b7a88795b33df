package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/telemetry"
)

// page is a reaction whose clients are a function.
type page func(ctx context.Context, results reaction.Results) error

func (page) Kind() string { return "page" }

func (p page) New(json.RawMessage, reaction.Settings) (reaction.Reaction, error) { return p, nil }

func (page) Close(context.Context) error { return nil }

func (p page) Serve(ctx context.Context, results reaction.Results) error { return p(ctx, results) }

// TestWhatClientsComeForIsTold: each event that a client gets is measured and is a span in the trace of its transaction, also
// one that the client does not take and that comes again when it does.
func TestWhatClientsComeForIsTold(t *testing.T) {
	r := newRig(t)
	r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
	r.metrics = telemetry.NewMetrics("")
	told := r.trace(t, 1)
	gone := errors.New("the client is gone")
	r.reactions = []reaction.Factory{page(func(ctx context.Context, results reaction.Results) error {
		err := results.Follow(ctx, "late", 0, func(e *result.Event) error {
			if e.Sequence == 2 {
				return gone
			}
			return nil
		}, nil)
		if !errors.Is(err, gone) {
			return err
		}
		return results.Follow(ctx, "late", 1, func(*result.Event) error { return nil }, nil)
	})}
	r.readySource()
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	running := r.startReactionOf(component.ReactionSpec{Name: "notify", Kind: "page", Queries: []string{"late"}})
	r.book.commit(item(graph.OpInsert, "Item", 1, "x", 100))
	r.book.commit(item(graph.OpUpdate, "Item", 1, "x", 101))

	queries, all := told.await("query", 2), told.await("reaction", 3)
	for i, want := range []struct{ sequence, outcome string }{{"1", telemetry.Delivered}, {"2", telemetry.GivenUp}, {"2", telemetry.Delivered}} {
		require.Equal(t, want.sequence, value(all[i], telemetry.KeySequence))
		require.Equal(t, want.outcome, value(all[i], "outcome"))
		require.Equal(t, "notify", value(all[i], telemetry.KeyReaction))
		parent := queries[0]
		if value(parent, telemetry.KeySequence) != want.sequence {
			parent = queries[1]
		}
		requireChild(t, parent, all[i])
	}
	require.NotEqual(t, all[1].SpanContext.SpanID(), all[2].SpanContext.SpanID())

	text := r.scrape()
	for series, count := range map[string]string{"attempts_total": "3", "deliveries_total": "2", "delivery_seconds_count": "2", "end_to_end_seconds_count": "2"} {
		require.Contains(t, text, "perdure_reaction_"+series+`{instance="default",reaction="notify"} `+count)
	}
	running.drained()
	require.NotContains(t, r.scrape(), `reaction="notify"`)
}

func (r *rig) scrape() string {
	w := httptest.NewRecorder()
	r.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}
