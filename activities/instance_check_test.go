package activities

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/catalog"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream/streamtest"
)

// validated is a set with a real data plane.
func validated(t *testing.T) *Set {
	conn := streamtest.Start(t)
	host, err := pipeline.NewHost(pipeline.Options{
		Stream: conn, Sources: catalog.Sources(), Reactions: catalog.Reactions(), Index: memory.New(), HostID: "h1",
		Secret: func(string) (string, error) { return "postgres://localhost/shop", nil },
	})
	require.NoError(t, err)
	return New(Options{Host: host, Store: NewStore(conn), HostID: "h1"})
}

const (
	goodSource   = `{"name":"shop","kind":"postgres","config":{"url":{"$secret":"env:X"},"tables":[{"name":"public.orders","label":"Order"}]}}`
	goodQuery    = `{"name":"all","query":"MATCH (o:Order) RETURN o.id AS id","sources":["shop"]}`
	goodReaction = `{"name":"print","kind":"log","queries":["all"]}`
)

func TestInstanceThatIsValid(t *testing.T) {
	set := validated(t)
	for _, id := range []string{"instance.default", "instance.other"} {
		spec := fmt.Sprintf(`{"sources":[%s],"queries":[%s],"reactions":[%s]}`, goodSource, goodQuery, goodReaction)
		checks, err := set.Instances.ValidateInstance(t.Context(), SpecInput{Component: id, Spec: json.RawMessage(spec)})
		require.NoError(t, err)
		require.Empty(t, checks.Problems)
	}
}

// All that is wrong is found at once, each with the component that it is in.
func TestInstanceThatIsNotValid(t *testing.T) {
	spec := `{"name":"mine","sourcez":[],
		"sources":[` + goodSource + `, {"name":"shop","kind":"oracle"}, {"name":"Bad Name","kind":"postgres","config":{"url":{"$secret":"env:X"},"tables":[{"name":"public.orders"}]}}, 7],
		"queries":[
			{"name":"all","query":"MATCH (o:Order) RETURN o.id AS id","sources":["shop","nowhere","second","all"]},
			{"name":"second","query":"MATCH (o:Order RETURN o","sources":["all"]},
			{"name":"third","instance":"elsewhere","query":"MATCH (o) RETURN o","sources":["shop"],"limit":1}],
		"reactions":[
			{"name":"print","kind":"log","queries":["all","nothing","shop"]},
			{"kind":"log","queries":["all"]}]}`
	checks, err := validated(t).Instances.ValidateInstance(t.Context(), SpecInput{
		Component: "instance.default", Spec: json.RawMessage(spec), Unexpected: []string{"desird"},
	})
	require.NoError(t, err)
	var lines []string
	for _, p := range checks.Problems {
		lines = append(lines, fmt.Sprintf("%s: %s: %s", p.Component, p.Code, p.Message))
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{
		": ConfigInvalid: desird: unknown field",
		": ConfigInvalid: sourcez: unknown field, did you mean sources?",
		`: ConfigInvalid: name: must be left out or be "default", is "mine"`,
		"source shop: ConfigInvalid: name: is declared twice",
		`source shop: ConfigInvalid: kind: there is no source of kind "oracle"`,
		"source Bad Name: ConfigInvalid: name: must be lower-case",
		"sources[3]: ConfigInvalid: a component must be an object",
		"query all: ConfigInvalid: sources[1]: the instance has no source nowhere",
		"query all: ConfigInvalid: sources[2]: second is a query; a query reads sources and cannot read queries, itself included",
		"query all: ConfigInvalid: sources[3]: all is a query",
		"query second: ConfigInvalid: sources[0]: all is a query",
		"query second: QueryInvalid: ",
		`query third: ConfigInvalid: instance: must be left out or be "default", is "elsewhere"`,
		"query third: ConfigInvalid: limit: unknown field",
		"reaction print: ConfigInvalid: queries[1]: the instance has no query nothing",
		"reaction print: ConfigInvalid: queries[2]: shop is a source; a reaction gets the results of queries",
		"reactions[1]: ConfigInvalid: name:",
	} {
		require.Contains(t, all, want)
	}
}

// TestProblemsAreBounded: those that are left out are counted.
func TestProblemsAreBounded(t *testing.T) {
	few := []Problem{{Message: "a"}, {Message: "b"}}
	require.Equal(t, few, bounded(few))
	many := make([]Problem, 100)
	require.Equal(t, "and 36 more problems", bounded(many)[maxProblems].Message)
	for n := range many {
		many[n].Message = strings.Repeat("x", maxProblem)
	}
	cut := bounded(many)
	require.Len(t, cut, maxAllProblems/maxProblem+1)
	require.Equal(t, "and 92 more problems", cut[len(cut)-1].Message)
}
