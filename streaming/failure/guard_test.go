package failure_test

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
)

func TestPanicsAreFailures(t *testing.T) {
	var missing map[string]int
	for _, run := range []func(func() error) error{failure.Guard, func(f func() error) error { return <-failure.Go(f) }} {
		require.NoError(t, run(func() error { return nil }))
		require.Equal(t, io.EOF, run(func() error { return io.EOF }))

		err := run(func() error { panic("no such thing") })
		require.Equal(t, failure.Panic, failure.CodeOf(err))
		require.ErrorContains(t, err, "no such thing")
		require.Contains(t, failure.Describe(err).Details["stack"], "guard_test.go")

		cause := errors.New("cause")
		require.ErrorIs(t, run(func() error { panic(cause) }), cause)
		require.Equal(t, failure.Panic, failure.CodeOf(run(func() error { missing["x"] = 1; return nil })))
	}
}
