package activities

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

func TestCheckSource(t *testing.T) {
	b := newBench(t)
	env := b.environment(nil)
	warning := pipeline.Check{Name: "leftover", Object: "x", Severity: "warning", Component: "source.default.gone"}
	found := []pipeline.Check{
		{Name: "wal_level", OK: true},
		{Name: "leftover", Object: "y", Severity: "warning", Component: "source.default.stopped"},
		{Name: "leftover", Object: "z", Severity: "warning", Component: orders},
		warning,
	}
	b.host.check = func(ctx context.Context) ([]pipeline.Check, error) {
		deadline, bounded := ctx.Deadline()
		require.True(t, bounded)
		require.Less(t, time.Until(deadline), time.Minute)
		return append([]pipeline.Check(nil), found...), nil
	}
	check := func(in string) (SourceChecks, error) {
		var input CheckInput
		require.NoError(t, json.Unmarshal([]byte(in), &input))
		value, err := env.ExecuteActivity(b.Sources.CheckSource, input)
		if err != nil {
			return SourceChecks{}, err
		}
		var got SourceChecks
		require.NoError(t, value.Get(&got))
		return got, nil
	}
	for _, component := range []string{"source.default.stopped", orders} {
		require.NoError(t, b.store.write(t.Context(), specsBucket, component, json.RawMessage(`{"name":"orders","kind":"x"}`)))
	}
	want := SourceChecks{Component: orders, OK: true, Checks: []pipeline.Check{found[0], found[2], warning}}
	for _, in := range []string{`{"spec":{"name":"orders","kind":"x"}}`, `{"component":"source.default.orders"}`} {
		got, err := check(in)
		require.NoError(t, err)
		require.Equal(t, want, got, "what another source uses, though it is stopped, is left out")
	}
	found = append(found, pipeline.Check{Name: "select", Severity: pipeline.Blocking, Code: failure.PermissionDenied.ID})
	got, err := check(`{"component":"source.default.orders"}`)
	require.NoError(t, err)
	require.False(t, got.OK)

	for in, says := range map[string]string{
		`{}`:                               "component: must be of the form",
		`{"component":"query.default.x"}`:  "component: must be of the form",
		`{"component":"source.default.x"}`: "was never provisioned",
		`{"spec":{"kind":"x","nam":"y"}}`:  "nam: unknown field",
	} {
		_, err := check(in)
		require.Equal(t, failure.ConfigInvalid.ID, ReportOf(err).Code, in)
		require.ErrorContains(t, err, says)
	}
	b.host.check = func(context.Context) ([]pipeline.Check, error) { panic("odd") }
	_, err = check(`{"component":"source.default.orders"}`)
	require.Equal(t, failure.Panic.ID, ReportOf(err).Code)
}
