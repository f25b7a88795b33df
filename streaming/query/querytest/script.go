package querytest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query"
)

// Run runs the scripts in a folder, files named *.test, and each query of a script in all the other ways of replay.go.
func Run(t *testing.T, dir string) {
	datadriven.Walk(t, dir, func(t *testing.T, path string) {
		if filepath.Ext(path) != ".test" {
			return
		}
		s := &script{t: t}
		datadriven.RunTest(t, path, s.command)
		s.end()
		for i := range s.stories {
			replay(t, &s.stories[i])
		}
	})
}

// story is a query with what happened to it and what it answered.
type story struct {
	text       string
	parameters map[string]graph.Value
	elements   []graph.Change
	batches    [][][]graph.Change // transactions of each batch
	views      [][]string         // after loading and after each batch
	timed      bool               // the answer depends on when what happened, so that there is one way only
}

type script struct {
	t        *testing.T
	elements []graph.Change
	session  *Session
	story    story
	stories  []story
}

func (s *script) end() {
	if s.session != nil {
		s.session.Close()
		if !s.story.timed {
			s.stories = append(s.stories, s.story)
		}
		s.session = nil
	}
}

func (s *script) command(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "graph":
		transactions, err := ParseChanges(d.Input)
		require.NoError(t, err, d.Pos)
		s.elements = slices.Concat(transactions...)
		return ""
	case "query":
		return s.query(t, d)
	case "expect":
		_, err := query.Compile(d.Input, query.Options{Parameters: s.parameters(t, d)})
		require.Error(t, err, d.Pos)
		return err.Error()
	case "explain":
		return s.session.plan.Explain()
	case "apply":
		return s.apply(t, d)
	case "advance":
		return s.advance(t, d)
	case "snapshot":
		return lines(s.session.View(), "no rows")
	case "errors":
		failures, err := s.session.Query.Failures(100)
		require.NoError(t, err)
		require.EqualValues(t, len(failures), s.session.Query.Stats().FailedRows)
		var list []string
		for _, f := range failures {
			list = append(list, f.Origin+": "+f.Cause)
		}
		slices.Sort(list)
		return lines(list, "no errors")
	}
	d.Fatalf(t, "unknown command %q", d.Cmd)
	return ""
}

func lines(list []string, empty string) string {
	if len(list) == 0 {
		return empty
	}
	return strings.Join(list, "\n")
}

func (s *script) parameters(t *testing.T, d *datadriven.TestData) map[string]graph.Value {
	for _, arg := range d.CmdArgs {
		if arg.Key == "parameters" {
			p, err := ParseParameters(strings.Join(arg.Vals, ", "))
			require.NoError(t, err, d.Pos)
			return p
		}
	}
	return nil
}

func (s *script) query(t *testing.T, d *datadriven.TestData) string {
	s.end()
	s.story = story{text: d.Input, parameters: s.parameters(t, d), elements: s.elements}
	s.session = NewSession(t, memory.New(), s.story.text, s.story.parameters)
	s.session.Load(s.elements)
	s.story.views = append(s.story.views, s.session.View())
	return lines(s.session.View(), "no rows")
}

// advance moves the clock forward.
func (s *script) advance(t *testing.T, d *datadriven.TestData) string {
	require.Len(t, d.CmdArgs, 1, d.Pos)
	by, err := time.ParseDuration(d.CmdArgs[0].Key)
	require.NoError(t, err, d.Pos)
	s.story.timed = true
	var out []string
	for i, e := range s.session.Advance(by) {
		if i > 0 {
			out = append(out, "commit")
		}
		out = append(out, s.session.EventText(&e)...)
	}
	return lines(out, "no change")
}

func (s *script) apply(t *testing.T, d *datadriven.TestData) string {
	transactions, err := ParseChanges(d.Input)
	require.NoError(t, err, d.Pos)
	var out []string
	for i, e := range s.session.Apply(transactions...) {
		if i > 0 {
			out = append(out, "commit")
		}
		out = append(out, s.session.EventText(&e)...)
	}
	s.story.batches = append(s.story.batches, transactions)
	s.story.views = append(s.story.views, s.session.View())
	return lines(out, "no change")
}
