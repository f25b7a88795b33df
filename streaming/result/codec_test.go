package result_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
)

func event() *result.Event {
	return &result.Event{
		Sequence: 12, Source: "orders-db", Position: "0/16B3748",
		CommitTime: time.Date(2024, 5, 6, 7, 8, 9, 10, time.UTC), Columns: []string{"id", "a \"b\""},
		Diffs: []result.Diff{
			{Op: result.Added, Key: result.RowKey{1}, After: []graph.Value{graph.Int(1), graph.String("x")}},
			{Op: result.Updated, Key: result.RowKey{2}, Before: []graph.Value{graph.Int(2), graph.Null}, After: []graph.Value{graph.Int(2), graph.Float(1)}},
			{Op: result.Deleted, Key: result.RowKey{3}, Before: []graph.Value{graph.Int(3), graph.Bool(true)}},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	snapshot := &result.Event{Sequence: 13, Snapshot: true, More: true, Columns: []string{"id"}, CommitTime: time.Time{}}
	data := result.AppendMessage(nil, event(), snapshot)
	events, err := result.DecodeMessage(data)
	require.NoError(t, err)
	require.Len(t, events, 2)
	require.Equal(t, data, result.AppendMessage(nil, events...))
	require.Equal(t, event().Diffs[1].After[1].String(), events[0].Diffs[1].After[1].String())
	require.True(t, event().CommitTime.Equal(events[0].CommitTime))
	require.True(t, events[1].Snapshot)
	require.True(t, events[1].CommitTime.IsZero())
	for n := range data {
		_, err := result.DecodeMessage(data[:n])
		if err != nil {
			require.Equal(t, failure.BadRecord, failure.CodeOf(err))
		}
	}
}

func TestJSON(t *testing.T) {
	got, err := event().MarshalJSON()
	require.NoError(t, err)
	require.JSONEq(t, `{
		"sequence": 12, "source": "orders-db", "position": "0/16B3748", "commitTime": "2024-05-06T07:08:09.00000001Z", "snapshot": false,
		"diffs": [
			{"op": "added", "key": "01000000000000000000000000000000", "after": {"id": 1, "a \"b\"": "x"}},
			{"op": "updated", "key": "02000000000000000000000000000000", "before": {"id": 2, "a \"b\"": null}, "after": {"id": 2, "a \"b\"": 1.0}},
			{"op": "deleted", "key": "03000000000000000000000000000000", "before": {"id": 3, "a \"b\"": true}}
		]}`, string(got))
	row := result.Row{Values: []graph.Value{graph.Int(1), graph.Null}}
	require.Equal(t, `{"b":1,"a":null}`, string(result.RowJSON([]string{"b", "a"}, row)))
}

// FuzzDecodeMessage feeds damaged messages: no panic, and what decodes encodes to something that decodes to the same.
func FuzzDecodeMessage(f *testing.F) {
	f.Add(result.AppendMessage(nil, event()))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := result.DecodeMessage(data)
		if err != nil {
			require.Equal(t, failure.BadRecord, failure.CodeOf(err))
			return
		}
		again := result.AppendMessage(nil, events...)
		events, err = result.DecodeMessage(again)
		require.NoError(t, err)
		require.Equal(t, again, result.AppendMessage(nil, events...))
	})
}
