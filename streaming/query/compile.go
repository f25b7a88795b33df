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
	"time"

	"github.com/perdure/perdure/streaming/cypher"
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/operator"
	"github.com/perdure/perdure/streaming/query/internal/plan"
)

// engineVersion changes when stored state of an earlier engine must not be read by this one.
const engineVersion = "3"

// Options are what a query needs beside its text.
type Options struct {
	// Parameters are the values of $name in the text.
	Parameters map[string]graph.Value
	// OnError says what becomes of a row for which an expression fails; "" is SkipRows.
	OnError ErrorPolicy
	// MaxPathSteps is how many relationships variable-length patterns may follow because of one change; beyond, the query
	// stops with PatternUnbounded. 0 is DefaultMaxPathSteps, a negative number no limit.
	MaxPathSteps int
	// MaxRows is how many rows patterns and lists may make because of one change; beyond, the query stops with
	// TooManyRows. 0 is DefaultMaxRows, a negative number no limit.
	MaxRows int
	// Analyze has the query measure its nodes, for Query.Analyze. It costs time for every row.
	Analyze bool
	// Now is the time at which a query starts that has processed nothing yet; nil is time.Now. Afterwards its clock is
	// that of the changes.
	Now func() time.Time
}

// The usual limits.
const (
	DefaultMaxPathSteps = 1_000_000
	DefaultMaxRows      = 10_000_000
)

// ErrorPolicy says what becomes of a row for which an expression fails.
type ErrorPolicy string

// The policies.
const (
	SkipRows  ErrorPolicy = "skip" // the row is left out, counted, and returns by itself
	NullRows  ErrorPolicy = "null" // a value that fails is null; the row is counted all the same
	StopQuery ErrorPolicy = "stop" // the batch fails with RowFailed
)

var policies = map[ErrorPolicy]operator.Policy{
	"": operator.Skip, SkipRows: operator.Skip, NullRows: operator.Null, StopQuery: operator.Stop,
}

func (o *Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// Plan is a compiled query. It may be opened by one Query at a time.
type Plan struct {
	plan        *plan.Plan
	options     Options
	fingerprint string
}

// Compile compiles a query. What is wrong with it is one QueryInvalid failure that shows every problem with its line,
// column and a caret.
func Compile(text string, o Options) (*Plan, error) {
	if _, ok := policies[o.OnError]; !ok {
		return nil, failure.ConfigInvalid.Errorf("onError is skip, null or stop, not %q", string(o.OnError))
	}
	p := &Plan{options: o}
	err := failure.Guard(func() error {
		tree, err := cypher.Parse(text)
		if err != nil {
			return err
		}
		if p.plan, err = plan.New(tree, o.Parameters); err != nil {
			return failure.QueryInvalid.Errorf("%w", err)
		}
		p.fingerprint = fingerprint(tree, p.plan.Columns, &o)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// fingerprint covers all that stored state depends on: two texts that differ in layout only have the same one.
func fingerprint(tree *ast.Query, columns []string, o *Options) string {
	h := sha256.New()
	parts := append([]string{engineVersion, ast.Format(tree)}, columns...)
	if policies[o.OnError] != operator.Skip { // the usual one adds nothing
		parts = append(parts, "on error "+string(o.OnError))
	}
	used := usedParameters(tree)
	for _, name := range used {
		parts = append(parts, name, string(graph.AppendValue(nil, o.Parameters[name])))
	}
	for _, part := range parts {
		sum := sha256.Sum256([]byte(part))
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func usedParameters(tree *ast.Query) (names []string) {
	var visit func(e ast.Expr) bool
	visit = func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.Parameter:
			names = append(names, e.Name)
		case *ast.Subquery:
			ast.WalkQuery(e.Query, visit)
		}
		return true
	}
	ast.WalkQuery(tree, visit)
	slices.Sort(names)
	return slices.Compact(names)
}

// Columns returns the names of the result's columns.
func (p *Plan) Columns() []string { return p.plan.Columns }

// Fingerprint says whether stored state fits the plan.
func (p *Plan) Fingerprint() string { return p.fingerprint }
