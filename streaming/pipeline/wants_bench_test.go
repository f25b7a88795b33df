package pipeline

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/source"
)

// BenchmarkWants puts down what many queries that start at once read of one source.
func BenchmarkWants(b *testing.B) {
	const queries = 200
	h := newRig(b).host()
	for n := 0; b.Loop(); n++ {
		var all errgroup.Group
		for i := range queries {
			all.Go(func() error {
				return h.want(b.Context(), "default", fmt.Sprintf("source-%d", n), fmt.Sprintf("query-%d", i), source.Wanted{"Item": {Properties: []string{"name", "price"}}})
			})
		}
		require.NoError(b, all.Wait())
	}
	b.ReportMetric(float64(b.N*queries)/b.Elapsed().Seconds(), "queries/s")
}
