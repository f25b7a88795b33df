package postgres_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// panickingSink panics when it is asked what only one of a source's goroutines asks for.
type panickingSink struct {
	source.Sink
	of string
}

func (s panickingSink) panics(in string) {
	if s.of == in {
		panic("a bug in the " + in)
	}
}

func (s panickingSink) System() string          { s.panics("start"); return s.Sink.System() }
func (s panickingSink) Durable() graph.Position { s.panics("confirmer"); return s.Sink.Durable() }

func (s panickingSink) Measure(name string, value float64) {
	s.panics("watcher")
	s.Sink.Measure(name, value)
}

// TestPanicEndsTheRun: a panic in any goroutine of a source is the failure of its run, at once and not to be tried again.
func TestPanicEndsTheRun(t *testing.T) {
	for _, in := range []string{"start", "confirmer", "watcher"} {
		t.Run(in, func(t *testing.T) {
			d := newDB(t)
			d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
			s := d.source(`"tables": [{"name": "a"}]`)
			require.NoError(t, s.Provision(t.Context()))
			ended := make(chan error, 1)
			go func() { ended <- s.Run(t.Context(), "", panickingSink{sourcetest.NewSink(""), in}) }()
			select {
			case err := <-ended:
				require.Equal(t, failure.Panic, failure.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, "a bug in the "+in)
				require.Contains(t, failure.Describe(err).Details["stack"], "panic_test.go")
			case <-time.After(30 * time.Second):
				t.Fatal("the run goes on")
			}
		})
	}
}
