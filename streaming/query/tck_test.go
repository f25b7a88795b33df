package query_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/cyphertest"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/query/querytest"
	"github.com/perdure/perdure/streaming/query/tcktest"
)

// TestTCK asks the questions of openCypher's technology compatibility kit, each in four ways: of a graph that is there
// before, of one that comes element by element in three orders, of one from which look-alikes are removed again, and of
// one from which everything is removed at the end.
//
// testdata/tck-skip.txt lists the scenarios that are known to fail; one that is listed and passes is an error too.
func TestTCK(t *testing.T) {
	if testing.Short() {
		t.Skip("the whole TCK takes long: make test runs it a second time without -short and the race detector, which has nothing to find in one goroutine")
	}
	scenarios := cyphertest.ReadOnly(cyphertest.TCK(t))
	skipped := readSkipped(t)
	passed := 0
	for _, s := range scenarios {
		t.Run(s.Name, func(t *testing.T) {
			err := check(t, s)
			reason, known := skipped[s.Name]
			switch {
			case err == nil && known:
				t.Error("it passes, so it must not be listed any longer")
			case err == nil:
				passed++
			case known:
				t.Skipf("%s: %v", reason, err)
			default:
				t.Errorf("%v\n%s\n%s", err, strings.Join(s.Setup, "\n"), s.Query)
			}
		})
	}
	t.Logf("TCK: %d of %d read-only scenarios", passed, len(scenarios))
}

// readSkipped reads the names of scenarios, one a line; the lines with # above it say why.
func readSkipped(t *testing.T) map[string]string {
	f, err := os.Open(filepath.Join("testdata", "tck-skip.txt"))
	require.NoError(t, err)
	defer f.Close()
	reasons, why := make(map[string]string), ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		switch comment, isComment := strings.CutPrefix(line, "# "); {
		case isComment:
			why = strings.TrimSpace(why + " " + comment)
		case line != "":
			require.NotEmpty(t, why, "%s is listed without a reason", line)
			reasons[line], why = why, ""
		default:
			why = "" // of the list as a whole
		}
	}
	return reasons
}

// problems makes errors of what a session requires.
type problems struct{ first error }

type stop struct{}

func (p *problems) Helper() {}

func (p *problems) Errorf(format string, args ...any) {
	if p.first == nil {
		p.first = fmt.Errorf(format, args...)
	}
}

func (p *problems) FailNow() { panic(stop{}) }

func (p *problems) catch() {
	if r := recover(); r != nil {
		if _, ours := r.(stop); !ours {
			p.Errorf("panic: %v", r)
		}
	}
}

func check(t *testing.T, s cyphertest.Scenario) (err error) {
	var g tcktest.Graph
	for _, statement := range s.Setup {
		if err := g.Run(statement); err != nil {
			return fmt.Errorf("making the graph: %w", err)
		}
	}
	parameters := make(map[string]graph.Value)
	for _, p := range s.Parameters {
		_, rows, err := g.Ask("RETURN "+p[1]+" AS value", nil)
		if err != nil {
			return fmt.Errorf("reading a parameter: %w", err)
		}
		parameters[p[0]] = rows[0][0]
	}
	plan, err := query.Compile(s.Query, query.Options{Parameters: parameters})
	if err != nil {
		return expectedError(s.Expect, err)
	}
	if s.Expect.Error != "" && s.Expect.Phase == "compile time" {
		return fmt.Errorf("it is accepted, and should be refused: %s", s.Expect.Kind)
	}
	if s.Expect.Columns != nil && !slices.Equal(plan.Columns(), s.Expect.Columns) {
		return fmt.Errorf("the columns are %q, not %q", plan.Columns(), s.Expect.Columns)
	}
	want, err := rowsWanted(s.Expect)
	if err != nil {
		return err
	}
	w := ways{scenario: s, graph: g, parameters: parameters, want: want}
	empty, err := w.empty()
	if err != nil {
		return err
	}
	if err := w.loaded(); err != nil {
		return fmt.Errorf("data first: %w", err)
	}
	for seed := range uint64(3) {
		if err := w.shuffled(seed, empty); err != nil {
			return fmt.Errorf("query first, order %d: %w", seed, err)
		}
	}
	return nil
}

// expectedError compares an error of the compiler with what is expected.
func expectedError(want cyphertest.Expect, err error) error {
	var list *token.Errors
	switch {
	case want.Error == "" || !errors.As(err, &list):
		return err
	case want.Phase == "runtime":
		return fmt.Errorf("it should fail when it is run: %w", err)
	}
	for _, e := range list.List {
		if want.Kind == "*" || string(e.Kind) == want.Kind {
			return nil
		}
	}
	return fmt.Errorf("%s is expected: it is %s: %w", want.Kind, list.List[0].Kind, err)
}

func rowsWanted(e cyphertest.Expect) (rows []string, err error) {
	for _, cells := range e.Rows {
		var texts []string
		for _, cell := range cells {
			text, err := tcktest.Normal(cell, e.AnyListOrder)
			if err != nil {
				return nil, err
			}
			texts = append(texts, text)
		}
		rows = append(rows, strings.Join(texts, " | "))
	}
	if !e.Ordered {
		slices.Sort(rows)
	}
	return rows, nil
}

// ways are the ways in which a scenario is checked.
type ways struct {
	scenario   cyphertest.Scenario
	graph      tcktest.Graph
	parameters map[string]graph.Value
	want       []string
}

func (w *ways) session(f func(s *querytest.Session) error) (err error) {
	var p problems
	defer func() {
		if p.first != nil {
			err = p.first
		}
	}()
	defer p.catch()
	s := querytest.NewSession(&p, memory.New(), w.scenario.Query, w.parameters)
	defer s.Close()
	return f(s)
}

// rows returns the answer as it is.
func (w *ways) rows(s *querytest.Session) (rows []string) {
	for _, r := range s.Rows() {
		var texts []string
		for _, v := range r.Values {
			texts = append(texts, tcktest.Text(v, w.scenario.Expect.AnyListOrder))
		}
		rows = append(rows, strings.Join(texts, " | "))
	}
	if !w.scenario.Expect.Ordered {
		slices.Sort(rows)
	}
	return rows
}

// verdict holds the answer against what is expected.
func (w *ways) verdict(s *querytest.Session) error {
	failures, err := s.Query.Failures(1)
	if err != nil {
		return err
	}
	if e := w.scenario.Expect; e.Error != "" {
		if len(failures) == 0 {
			return fmt.Errorf("no row fails: %s is expected", e.Kind)
		}
		return nil
	}
	if len(failures) > 0 {
		return fmt.Errorf("a row fails: %s", failures[0].Cause)
	}
	if got := w.rows(s); !slices.Equal(got, w.want) {
		return fmt.Errorf("the answer is\n\t%s\nand should be\n\t%s", strings.Join(got, "\n\t"), strings.Join(w.want, "\n\t"))
	}
	return nil
}

// empty returns the answer on an empty graph.
func (w *ways) empty() (rows []string, err error) {
	err = w.session(func(s *querytest.Session) error {
		s.Begin()
		rows = w.rows(s)
		return nil
	})
	return rows, err
}

func (w *ways) loaded() error {
	return w.session(func(s *querytest.Session) error {
		s.Load(w.graph.Inserts())
		return w.verdict(s)
	})
}

// shuffled brings the elements one by one, with look-alikes between them that go again, and in the end removes them all.
func (w *ways) shuffled(seed uint64, empty []string) error {
	r := rand.New(rand.NewPCG(seed, 1))
	inserts := w.graph.Inserts()
	return w.session(func(s *querytest.Session) error {
		s.Begin()
		for _, i := range r.Perm(len(inserts)) {
			s.Apply(inserts[i : i+1])
		}
		if err := w.verdict(s); err != nil {
			return err
		}
		noise := lookAlikes(inserts)
		for _, i := range r.Perm(len(noise)) {
			s.Apply(noise[i : i+1])
		}
		for _, i := range r.Perm(len(noise)) {
			s.Apply(deletes(noise[i : i+1]))
		}
		if err := w.verdict(s); err != nil {
			return fmt.Errorf("after noise: %w", err)
		}
		for _, i := range r.Perm(len(inserts)) {
			s.Apply(deletes(inserts[i : i+1]))
		}
		if got := w.rows(s); !slices.Equal(got, empty) {
			return fmt.Errorf("after everything is deleted the answer is\n\t%s\nand should be that of an empty graph\n\t%s", strings.Join(got, "\n\t"), strings.Join(empty, "\n\t"))
		}
		return nil
	})
}

// lookAlikes copies the elements with other ids. Relationships run between copies and originals in turn.
func lookAlikes(inserts []graph.Change) []graph.Change {
	copies := slices.Clone(inserts)
	for i := range copies {
		e := &copies[i].Element
		e.ID += "'"
		if e.IsRelationship() && i%2 == 0 {
			e.Start += "'"
		}
		if e.IsRelationship() && i%3 == 0 {
			e.End += "'"
		}
	}
	return copies
}

func deletes(changes []graph.Change) []graph.Change {
	gone := slices.Clone(changes)
	for i := range gone {
		gone[i].Op = graph.OpDelete
	}
	return gone
}
