// Package cyphertest reads the scenarios of openCypher's technology compatibility kit (TCK): what graph there is, what is
// asked, and what the answer is.
package cyphertest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gherkin "github.com/cucumber/gherkin/go/v26"
	messages "github.com/cucumber/messages/go/v21"
)

// Scenario is one query on one graph.
type Scenario struct {
	Name       string   // "clauses/match/Match1 [1] ...", with the number of the example
	Setup      []string // statements that make the graph
	Parameters [][2]string
	Query      string
	Writes     bool // the query does, or calls a procedure
	Expect     Expect
}

// Expect is what a query is to answer: rows, or an error.
type Expect struct {
	Columns []string
	Rows    [][]string // values as the TCK writes them
	Ordered bool       // the rows have this order
	// AnyListOrder says that lists are equal whatever order their items have.
	AnyListOrder bool

	Error string // such as "SyntaxError"; empty: there is none
	Phase string // "compile time", "runtime" or "any time"
	Kind  string // such as "UndefinedVariable", or "*"
}

// TCK returns the scenarios of the kit in the directory that the environment variable TCK names, else in shared/tck
// beside the project. Without a kit the test is skipped and says so.
func TCK(t testing.TB) []Scenario {
	t.Helper()
	dir := os.Getenv("TCK")
	if dir == "" {
		out, err := exec.Command("go", "env", "GOMOD").Output()
		if err != nil {
			t.Fatalf("looking for the project: %v", err)
		}
		dir = filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "..", "shared", "tck")
	}
	if _, err := os.Stat(filepath.Join(dir, "features")); err != nil {
		t.Skipf("there is no TCK in %s: set the environment variable TCK to a directory with openCypher's features and graphs", dir)
	}
	scenarios, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return scenarios
}

// ReadOnly returns the scenarios whose queries only read.
func ReadOnly(all []Scenario) []Scenario {
	return slices.DeleteFunc(slices.Clone(all), func(s Scenario) bool { return s.Writes })
}

// read reads all scenarios below a directory that holds features and graphs, in the order of their files. Those with
// steps that only other features have, such as procedures, are left out.
func read(dir string) ([]Scenario, error) {
	graphs, err := readGraphs(filepath.Join(dir, "graphs"))
	if err != nil {
		return nil, err
	}
	root := os.DirFS(filepath.Join(dir, "features"))
	var all []Scenario
	err = fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".feature" {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		number := 0
		id := func() string { number++; return fmt.Sprint(number) }
		document, err := gherkin.ParseGherkinDocument(f, id)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		counts := make(map[string]int)
		for _, pickle := range gherkin.Pickles(*document, name, id) {
			counts[pickle.Name]++
			s, known, err := scenarioOf(pickle, graphs)
			if err != nil {
				return fmt.Errorf("reading %s, %s: %w", name, pickle.Name, err)
			}
			s.Name = strings.TrimSuffix(name, ".feature") + " " + pickle.Name
			if n := counts[pickle.Name]; n > 1 {
				s.Name += fmt.Sprintf(", example %d", n)
			}
			if known {
				all = append(all, s)
			}
		}
		return nil
	})
	return all, err
}

// readGraphs reads the graphs that scenarios name.
func readGraphs(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.cypher"))
	graphs := make(map[string]string)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		graphs[strings.TrimSuffix(filepath.Base(file), ".cypher")] = string(text)
	}
	return graphs, err
}

var (
	namedGraph = regexp.MustCompile(`^the (\S+) graph$`)
	expectsErr = regexp.MustCompile(`^an? (\S+) should be raised at (compile time|runtime|any time): (\S+)$`)
)

func scenarioOf(p *messages.Pickle, graphs map[string]string) (s Scenario, known bool, err error) {
	for _, step := range p.Steps {
		text := strings.TrimSuffix(step.Text, ":")
		switch {
		case text == "an empty graph", text == "any graph", text == "no side effects", strings.HasPrefix(text, "the side effects"):
		case namedGraph.MatchString(text):
			name := namedGraph.FindStringSubmatch(text)[1]
			if graphs[name] == "" {
				return s, false, fmt.Errorf("there is no graph %s", name)
			}
			s.Setup = append(s.Setup, graphs[name])
		case text == "having executed":
			s.Setup = append(s.Setup, step.Argument.DocString.Content)
		case text == "parameters are":
			for _, row := range step.Argument.DataTable.Rows {
				s.Parameters = append(s.Parameters, [2]string{row.Cells[0].Value, row.Cells[1].Value})
			}
		case text == "executing query":
			s.Query = step.Argument.DocString.Content
		case text == "executing control query":
			if s.Query != "" { // which makes the graph that this one is asked of
				s.Setup = append(s.Setup, s.Query)
			}
			s.Query, s.Expect = step.Argument.DocString.Content, Expect{}
		case expectsErr.MatchString(text):
			m := expectsErr.FindStringSubmatch(text)
			s.Expect = Expect{Error: m[1], Phase: m[2], Kind: m[3]}
		case text == "the result should be empty":
			s.Expect = Expect{}
		case strings.HasPrefix(text, "the result should be"):
			s.Expect = rowsOf(step.Argument.DataTable)
			s.Expect.Ordered = strings.Contains(text, "in order")
			s.Expect.AnyListOrder = strings.Contains(text, "ignoring element order for lists")
		default:
			return s, false, nil // of a kind that only other features have, such as procedures
		}
	}
	s.Writes = writes(s.Query)
	return s, true, nil
}

func rowsOf(t *messages.PickleTable) (e Expect) {
	for i, row := range t.Rows {
		var cells []string
		for _, c := range row.Cells {
			cells = append(cells, c.Value)
		}
		if i == 0 {
			e.Columns = cells
		} else {
			e.Rows = append(e.Rows, cells)
		}
	}
	return e
}

var (
	quoted  = regexp.MustCompile(`'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|` + "`[^`]*`|//[^\n]*")
	writing = regexp.MustCompile(`(?i)(^|[^.:$\w])(CREATE|MERGE|SET|DELETE|REMOVE|FOREACH|CALL)\b`)
)

// writes reports whether a query has a clause that writes, or calls a procedure.
func writes(query string) bool { return writing.MatchString(quoted.ReplaceAllString(query, "''")) }
