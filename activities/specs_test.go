package activities

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.uber.org/zap/zaptest"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// manyTables is a source of so many tables.
func manyTables(n int) json.RawMessage {
	tables := make([]string, n)
	for i := range tables {
		tables[i] = fmt.Sprintf(`{"name":"warehouse.fact_table_%d","label":"FactTable%d","key":["id"]}`, i, i)
	}
	return json.RawMessage(fmt.Sprintf(`{"name":"orders","kind":"x","config":{"tables":[%s]}}`, strings.Join(tables, ",")))
}

func (b *bench) put(name, spec string) string {
	b.t.Helper()
	ref, err := b.store.PutSpec(b.t.Context(), name, json.RawMessage(spec))
	require.NoError(b.t, err)
	return ref
}

func (b *bench) specs() map[string]string {
	b.t.Helper()
	list, err := b.store.ListSpecs(b.t.Context())
	require.NoError(b.t, err)
	all := make(map[string]string)
	for _, s := range list {
		all[s.Ref] = strings.Join(s.UsedBy, " ")
		if s.Incomplete {
			all[s.Ref] = "incomplete"
		}
	}
	return all
}

func TestSpecsByReference(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	require.Equal(t, "orders@1", b.put("orders", `{"name":"orders","n":12345678901234567890,"text":"a<b"}`))
	require.Equal(t, "orders@2", b.put("orders", `{"name":"other"}`))
	require.Equal(t, "orders@1", b.put("orders", ` {"text":"a<b", "n":12345678901234567890, "name":"orders"}`))
	require.Equal(t, "big@1", b.put("big", `{"name":"other"}`))
	spec, err := b.store.GetSpec(ctx, "orders@1")
	require.NoError(t, err)
	require.Equal(t, `{"n":12345678901234567890,"name":"orders","text":"a<b"}`, string(spec))

	large := manyTables(50_000)
	require.Greater(t, len(large), 3<<20)
	ref, err := b.store.PutSpec(ctx, "orders", large)
	require.NoError(t, err)
	require.Equal(t, "orders@3", ref)
	spec, err = b.store.GetSpec(ctx, ref)
	require.NoError(t, err)
	require.JSONEq(t, string(large), string(spec))

	_, err = b.store.PutSpec(ctx, "orders", json.RawMessage(`"`+strings.Repeat("x", stream.MaxObject)+`"`))
	require.ErrorContains(t, err, "the most is 8388608")
	for _, name := range []string{"", "Orders", "a.b.c.d", "a..b", "a@1"} {
		_, err = b.store.PutSpec(ctx, name, json.RawMessage(`{}`))
		require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err), name)
	}
	for ref, why := range map[string]string{"orders@4": "there is no spec", "none@1": "there is no spec", "orders": "name@version", "orders@0": "name@version", "a..b@1": "name@version"} {
		_, err = b.store.GetSpec(ctx, ref)
		require.ErrorContains(t, err, why)
		require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
		require.NotEmpty(t, failure.Of(err).Fix())
	}
}

// TestSpecsAreStoredAtOnce by many: each reference stands for one content.
func TestSpecsAreStoredAtOnce(t *testing.T) {
	b := newBench(t)
	const contents = 4
	var (
		mu   sync.Mutex
		refs = make(map[int]map[string]bool)
		all  sync.WaitGroup
	)
	for i := range 3 * contents {
		all.Go(func() {
			ref, err := b.store.PutSpec(t.Context(), "orders", json.RawMessage(fmt.Sprintf(`{"n":%d}`, i%contents)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil && refs[i%contents] == nil {
				refs[i%contents] = make(map[string]bool)
			}
			if err != nil {
				t.Error(err)
			} else {
				refs[i%contents][ref] = true
			}
		})
	}
	all.Wait()
	require.Len(t, b.specs(), contents)
	for n, of := range refs {
		require.Len(t, of, 1)
		for ref := range of {
			spec, err := b.store.GetSpec(t.Context(), ref)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf(`{"n":%d}`, n), string(spec))
		}
	}
}

// TestSpecsThatWereInterrupted are never seen in part, and are stored or deleted the next time.
func TestSpecsThatWereInterrupted(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	b.put("orders", `{"n":1}`)
	b.put("orders", `{"n":2}`)
	leave := func(version int, state string) {
		require.NoError(t, b.store.alterSpecs(ctx, "orders", func(all *specVersions) bool {
			all.find(version).State = state
			return true
		}))
	}
	leave(1, specStoring)
	leave(2, specDeleting)
	for _, ref := range []string{"orders@1", "orders@2"} {
		_, err := b.store.GetSpec(ctx, ref)
		require.ErrorContains(t, err, "there is no spec")
	}
	require.Equal(t, map[string]string{"orders@1": "incomplete", "orders@2": "incomplete"}, b.specs())
	require.Equal(t, "orders@1", b.put("orders", `{"n":1}`))
	require.Equal(t, "orders@3", b.put("orders", `{"n":2}`), "what is being deleted does not come back")
	require.NoError(t, b.store.DeleteSpec(ctx, "orders@2", false))
	require.Equal(t, map[string]string{"orders@1": "", "orders@3": ""}, b.specs())
	objects, err := b.store.specObjects(ctx)
	require.NoError(t, err)
	names, err := objects.Names(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"orders@1", "orders@3"}, names)
}

func TestSpecsThatAreDeleted(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	b.put("orders", `{"n":1}`)
	require.NoError(t, b.store.DeleteSpec(ctx, "orders@1", false))
	require.ErrorContains(t, b.store.DeleteSpec(ctx, "orders@1", false), "there is no spec orders@1")
	require.Equal(t, "orders@2", b.put("orders", `{"n":1}`), "no version is used twice")
	require.NoError(t, b.store.useSpec(ctx, orders, "orders@2"))
	require.ErrorContains(t, b.store.DeleteSpec(ctx, "orders@2", false), "is used by ["+orders+"]")
	require.NoError(t, b.store.DeleteSpec(ctx, "orders@2", true))
	require.Empty(t, b.specs())
}

// TestSpecsOfAComponentGoWithIt: those that were stored for it, and of these the earlier ones when it runs with a later one.
func TestSpecsOfAComponentGoWithIt(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	spec := func(n int) string { return fmt.Sprintf(`{"name":"orders","kind":"x","policy":{"drainSeconds":%d}}`, n) }
	mine := b.put("orders", spec(1))
	first, second := b.put(orders, spec(1)), b.put(orders, spec(2))
	require.Equal(t, orders+"@3", b.put(orders, spec(1)), "an earlier one may just be going")
	runWith := func(generation uint64, ref string) {
		require.NoError(t, b.Control.RequestDrain(ctx, GenerationInput{orders, generation}))
		_, err := b.environment(nil).ExecuteActivity(b.Sources.SourceRun, RunInput{Component: orders, Generation: generation, SpecRef: ref})
		require.NoError(t, err)
	}
	runWith(1, first)
	require.Equal(t, map[string]string{mine: "", first: orders, second: "", orders + "@3": ""}, b.specs())
	runWith(2, second)
	require.Equal(t, map[string]string{mine: "", second: orders, orders + "@3": ""}, b.specs())
	runWith(3, mine)
	require.Equal(t, map[string]string{mine: orders, second: "", orders + "@3": ""}, b.specs())
	_, err := b.environment(nil).ExecuteActivity(b.Sources.TeardownSource, TeardownInput{Component: orders, SpecRef: "gone@1"})
	require.NoError(t, err, "which needs no spec")
	require.Equal(t, map[string]string{mine: ""}, b.specs())
}

// TestActivitiesReadSpecs wherever they are given a reference, and say at once that there is none.
func TestActivitiesReadSpecs(t *testing.T) {
	b := newBench(t)
	env := b.environment(nil)
	ref := b.put("orders", `{"name":"orders","kind":"x","policy":{"drainSeconds":7},"config":{"tables":[]}}`)
	value, err := env.ExecuteActivity(b.Control.ReadSpec, SpecRefInput{SpecRef: ref})
	require.NoError(t, err)
	var head SpecHead
	require.NoError(t, value.Get(&head))
	require.Equal(t, SpecHead{Name: "orders", Policy: PolicyHead{DrainSeconds: 7}}, head)

	_, err = env.ExecuteActivity(b.Sources.ValidateSource, SpecInput{Component: orders, SpecRef: ref})
	require.NoError(t, err)
	_, err = env.ExecuteActivity(b.Sources.ProvisionSource, SpecInput{Component: orders, SpecRef: ref})
	require.NoError(t, err)
	var kept provisionedSpec
	_, err = b.store.read(t.Context(), specsBucket, orders, &kept)
	require.NoError(t, err)
	require.Equal(t, provisionedSpec{component.SourceSpec{Name: "orders"}, ref}, kept, "the large spec is not kept once more")
	spec, found, err := b.store.provisionedSource(t.Context(), orders)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "x", spec.Kind)

	for _, a := range []struct{ activity, input any }{
		{b.Control.ReadSpec, SpecRefInput{"none@1"}},
		{b.Sources.ValidateSource, SpecInput{SpecRef: "none@1"}},
		{b.Queries.ValidateQuery, SpecInput{SpecRef: "none@1"}},
		{b.Queries.QueryRun, RunInput{Component: "query.default.q", SpecRef: "none@1"}},
		{b.Reactions.ReactionRun, RunInput{Component: "reaction.default.r", SpecRef: "none@1"}},
		{b.Reactions.SkipResult, ResultInput{Seq: "7", SpecRef: "none@1"}},
		{b.Bootstraps.PlanChunks, PlanInput{SpecRef: "none@1"}},
		{b.Bootstraps.Subscribe, PlanInput{SpecRef: "none@1"}},
	} {
		_, err := env.ExecuteActivity(a.activity, a.input)
		var failed *temporal.ApplicationError
		require.ErrorAs(t, err, &failed)
		require.True(t, failed.NonRetryable())
		report := ReportOf(err)
		require.Equal(t, failure.ConfigInvalid.ID, report.Code)
		require.Contains(t, report.Fix, "perdure spec put")
	}
}

// TestSpecsOnAServerThatIsAway are waited for: that is no mistake in a spec.
func TestSpecsOnAServerThatIsAway(t *testing.T) {
	server, err := stream.Serve(stream.ServerOptions{Dir: t.TempDir(), Listen: "127.0.0.1:0", Log: zaptest.NewLogger(t)})
	require.NoError(t, err)
	conn, err := stream.Connect(t.Context(), stream.Options{
		URL: server.URL(), RequestTimeout: 300 * time.Millisecond, AppendTimeout: 300 * time.Millisecond, Log: zaptest.NewLogger(t),
	})
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	store := NewStore(conn)
	ref, err := store.PutSpec(t.Context(), "orders", json.RawMessage(`{"name":"orders"}`))
	require.NoError(t, err)
	require.NoError(t, server.Close(t.Context()))
	_, err = store.GetSpec(t.Context(), ref)
	require.Equal(t, failure.StreamUnavailable, failure.CodeOf(err))
	require.True(t, failure.ClassOf(err).Retryable())
}
