// Package query keeps the answer of a standing query up to date: it applies changes of the graph and yields the
// differences of the result set.
//
// Invariants:
//
//  1. After each transaction the result set equals a fresh evaluation of the query on the graph as it then is.
//  2. A batch changes graph, operator state, view, checkpoint and outbox in one commit of the index, or nothing.
//  3. The same state and batch give the same events, byte for byte; sequences grow by one.
//  4. An expression that fails takes out its row and nothing else; the row is counted, and returns by itself.
package query

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher"
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
)

// engineVersion changes when stored state of an earlier engine must not be read by this one.
const engineVersion = "1"

// Options are what a query needs beside its text.
type Options struct {
	// Parameters are the values of $name in the text.
	Parameters map[string]graph.Value
}

// Plan is a compiled query. It may be opened by one Query at a time.
type Plan struct {
	plan        *plan.Plan
	fingerprint string
}

// Compile compiles a query. What is wrong with it is one QueryInvalid failure that shows every problem with its line,
// column and a caret.
func Compile(text string, o Options) (*Plan, error) {
	tree, err := cypher.Parse(text)
	if err != nil {
		return nil, err
	}
	p, err := plan.New(tree, o.Parameters)
	if err != nil {
		return nil, failure.QueryInvalid.Errorf("%w", err)
	}
	return &Plan{plan: p, fingerprint: fingerprint(tree, p.Columns, o.Parameters)}, nil
}

// fingerprint covers all that stored state depends on: two texts that differ in layout only have the same one.
func fingerprint(tree *ast.Query, columns []string, parameters map[string]graph.Value) string {
	h := sha256.New()
	parts := append([]string{engineVersion, ast.Format(tree)}, columns...)
	used := usedParameters(tree)
	for _, name := range used {
		parts = append(parts, name, string(graph.AppendValue(nil, parameters[name])))
	}
	for _, part := range parts {
		sum := sha256.Sum256([]byte(part))
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func usedParameters(tree *ast.Query) (names []string) {
	ast.WalkQuery(tree, func(e ast.Expr) bool {
		if p, ok := e.(*ast.Parameter); ok {
			names = append(names, p.Name)
		}
		return true
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// Columns returns the names of the result's columns.
func (p *Plan) Columns() []string { return p.plan.Columns }

// Fingerprint says whether stored state fits the plan.
func (p *Plan) Fingerprint() string { return p.fingerprint }

// Explain describes for people how matches are found and what is stored.
func (p *Plan) Explain() string { return p.plan.Explain() }

// Labels returns the labels and types of the elements that the plan reads, in order; nil means all.
func (p *Plan) Labels() []string {
	needs := p.Needs().Properties
	if _, all := needs[""]; all {
		return nil
	}
	labels := make([]string, 0, len(needs))
	for l := range needs {
		labels = append(labels, l)
	}
	slices.Sort(labels)
	return labels
}

// Needs says what a plan reads, so that sources send nothing else.
type Needs struct {
	// Properties lists by label or type the properties that are read, "*" standing for all of them. The label "" stands
	// for every element: the plan has a pattern without a label.
	Properties map[string][]string
}

// Needs says which properties of which elements the plan reads.
func (p *Plan) Needs() Needs {
	needs := make(map[string][]string)
	for i := range p.plan.Positions {
		position := &p.plan.Positions[i]
		labels := position.Candidates()
		if labels == nil {
			labels = []string{""}
		}
		properties := position.Properties
		if position.All {
			properties = []string{"*"}
		}
		for _, l := range labels {
			list := append(slices.Clone(needs[l]), properties...)
			slices.SortFunc(list, strings.Compare)
			if list = slices.Compact(list); len(list) > 0 && list[0] == "*" {
				list = list[:1]
			}
			needs[l] = list
		}
	}
	return Needs{Properties: needs}
}
