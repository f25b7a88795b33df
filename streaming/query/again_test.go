package query_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
)

// TestTheSameTransactionsGiveTheSameEvents applies transactions twice, grouped into other batches and with everything that
// is cached forgotten at other places. An event that somebody saw before a crash must come again byte for byte.
func TestTheSameTransactionsGiveTheSameEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := randomQuery(t)
		plan, err := query.Compile(text, query.Options{})
		require.NoError(t, err)
		world := make(map[graph.ElementID]*graph.Element)
		transactions := make([]graph.Transaction, rapid.IntRange(1, 12).Draw(t, "transactions"))
		for i := range transactions {
			for range rapid.IntRange(1, 4).Draw(t, "changes") {
				transactions[i].Changes = append(transactions[i].Changes, randomChange(t, world))
			}
		}
		require.Equal(t, derive(t, plan, transactions), derive(t, plan, transactions), text)
	})
}

// derive returns the events, encoded, of transactions applied in random batches.
func derive(t *rapid.T, plan *query.Plan, transactions []graph.Transaction) []string {
	backend := memory.New()
	open := func() *query.Query {
		s, err := backend.Open("again")
		require.NoError(t, err)
		q, err := query.Open(plan, s)
		require.NoError(t, err)
		return q
	}
	q := open()
	require.NoError(t, q.Begin(result.State{}))
	var encoded []string
	for offset := 0; offset < len(transactions); {
		n := rapid.IntRange(1, len(transactions)-offset).Draw(t, "batch")
		events, err := q.Apply(query.Batch{
			Source: "s", Offset: uint64(offset + n), Transactions: transactions[offset : offset+n],
		})
		require.NoError(t, err)
		offset += n
		for i := range events {
			encoded = append(encoded, string(result.AppendEvent(nil, &events[i])))
		}
		if rapid.Bool().Draw(t, "reopen") {
			require.NoError(t, q.Close())
			q = open()
		}
	}
	require.NoError(t, q.Close())
	return encoded
}
