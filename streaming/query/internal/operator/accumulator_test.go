package operator

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// TestAccumulatorsForget gives values to an accumulator and takes some back, in any order, with restarts between: its
// answer and its state are those of one that never saw what is gone.
func TestAccumulatorsForget(t *testing.T) {
	names := []string{
		"count", "sum", "avg", "min", "max", "collect", "stdev", "stdevp", "percentilecont", "percentiledisc",
	}
	rapid.Check(t, func(t *rapid.T) {
		a := &plan.Aggregation{
			Name: rapid.SampledFrom(names).Draw(t, "name"), Distinct: rapid.Bool().Draw(t, "distinct"),
			Arg: eval.Slot(0),
		}
		if a.Name == "percentilecont" || a.Name == "percentiledisc" {
			a.Extra = eval.Slot(1)
		}
		batch := emptyBatch(t)
		acc := newAccumulator(a, 1, result.RowKey{}, 0)
		var there []*input
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			if len(there) > 0 && rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
				at := rapid.IntRange(0, len(there)-1).Draw(t, "which")
				require.NoError(t, acc.add(batch, there[at], -1))
				there = slices.Delete(there, at, at+1)
			} else {
				in := anyInput(t, a.Name, uint64(i))
				if acc.check(in) != nil {
					continue
				}
				require.NoError(t, acc.add(batch, in, 1))
				there = append(there, in)
			}
			if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
				_, err := acc.value(batch) // state is written after the value was asked for
				require.True(t, err == nil || err.Error() != "")
				record := acc.append(nil)
				acc = newAccumulator(a, 1, result.RowKey{}, 0)
				r := store.Reader{Src: record}
				acc.read(&r)
				require.NoError(t, r.Err)
				require.Empty(t, r.Src)
			}
		}
		other, fresh := emptyBatch(t), newAccumulator(a, 1, result.RowKey{}, 0)
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(there), func(i, j int) { there[i], there[j] = there[j], there[i] })
		for _, in := range there {
			require.NoError(t, fresh.add(other, in, 1))
		}
		want, wantErr := fresh.value(other)
		got, err := acc.value(batch)
		require.Equal(t, wantErr, err)
		require.Equal(t, want.String(), got.String(), "%s of %d", a.Name, len(there))
		require.Equal(t, contents(t, other), contents(t, batch))
		if len(there) == 0 || a.Name != "sum" && a.Name != "avg" { // a sum of decimals may have seen more digits
			require.Equal(t, fresh.append(nil), acc.append(nil))
		}
	})
}

func emptyBatch(t *rapid.T) index.Batch {
	s, err := memory.New().Open("test")
	require.NoError(t, err)
	return s.NewBatch()
}

func contents(t *rapid.T, r index.Reader) (list []string) {
	require.NoError(t, r.Scan(nil, nil, func(key, value []byte) (bool, error) {
		list = append(list, string(key), string(value))
		return true, nil
	}))
	return list
}

func anyInput(t *rapid.T, name string, number uint64) *input {
	in := &input{row: &plainRow{}, extra: graph.Float(0.5)}
	binary.BigEndian.PutUint64(in.row.(*plainRow).key[:], number)
	if name == "collect" {
		in.order = string(graph.AppendKey(nil, graph.Int(rapid.Int64Range(0, 3).Draw(t, "order"))))
	}
	decimal, _, err := apd.NewFromString(rapid.SampledFrom([]string{"1.00", "2.5", "-0.125", "1e3", "7"}).Draw(t, "decimal"))
	require.NoError(t, err)
	in.value = rapid.SampledFrom([]graph.Value{
		graph.Int(rapid.Int64().Draw(t, "int")), graph.Int(1), graph.Int(2), graph.Float(1), graph.Float(2.5),
		graph.Float(rapid.Float64().Draw(t, "float")), graph.Float(math.Inf(1)), graph.Float(math.NaN()), graph.Float(1e308),
		graph.Decimal(decimal), graph.String("text"), graph.DurationOf(graph.Duration{Months: 1, Seconds: -3, Nanoseconds: 5}),
	}).Draw(t, "value")
	return in
}

func TestPercentiles(t *testing.T) {
	s, err := memory.New().Open("test")
	require.NoError(t, err)
	for _, c := range []struct {
		name  string
		share float64
		want  string
	}{
		{"percentiledisc", 0, "10"}, {"percentiledisc", 0.25, "10"}, {"percentiledisc", 0.26, "20"}, {"percentiledisc", 0.5, "20"},
		{"percentiledisc", 1, "40"}, {"percentilecont", 0, "10.0"}, {"percentilecont", 0.5, "25.0"}, {"percentilecont", 1, "40.0"},
		{"percentilecont", 0.1, "13.0"},
	} {
		b := s.NewBatch()
		a := &plan.Aggregation{Name: c.name, Arg: eval.Slot(0), Extra: eval.Slot(1)}
		acc := newAccumulator(a, 1, result.RowKey{}, 0)
		for _, v := range []int64{40, 10, 30, 20} {
			require.NoError(t, acc.add(b, &input{value: graph.Int(v), extra: graph.Float(c.share)}, 1))
		}
		v, err := acc.value(b)
		require.NoError(t, err)
		require.Equal(t, c.want, v.String(), "%s %v", c.name, c.share)
		b.Discard()
	}
}

// TestDeviationOfCloseNumbers has numbers that differ little from each other, which an inexact sum of squares does not
// see.
func TestDeviationOfCloseNumbers(t *testing.T) {
	d := &deviation{name: "stDev"}
	for _, f := range []float64{1e15 + 1, 1e15 + 2, 1e15 + 3} {
		require.NoError(t, d.add(nil, &input{value: graph.Float(f)}, 1))
	}
	v, err := d.value(nil)
	require.NoError(t, err)
	require.Equal(t, "1.0", v.String())
}
