package operator

import (
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Chain is all operators of a plan, connected.
type Chain struct {
	*Context
	Match *Match
	Exit  *Exit
	aggs  []*Aggregate
	first Input
}

// NewChain connects the operators of a plan.
func NewChain(p *plan.Plan, elements *store.Elements, cacheBytes int) *Chain {
	c := &Chain{Context: &Context{}}
	c.Exit = NewExit(c.Context)
	var rows Rows = c.Exit
	if p.Distinct {
		d := NewDistinct(c.Context, len(p.Columns), cacheBytes, rows)
		c.aggs = append(c.aggs, d.Aggregate)
		rows = d
	}
	if p.Grouped {
		a := NewAggregate(c.Context, GroupSpec{
			Operator: groupOfReturn, Keys: p.Keys, Aggregates: p.Aggregates, Items: p.Items, Env: p.GroupEnv(),
		}, cacheBytes, rows)
		c.aggs = append(c.aggs, a)
		c.first = a
	} else {
		c.first = NewProject(c.Context, p.Items, rows)
	}
	c.Match = NewMatch(c.Context, p, elements, c.first)
	return c
}

// Begin makes the rows that are there before any input.
func (c *Chain) Begin() error {
	if a, ok := c.first.(*Aggregate); ok {
		return a.Begin()
	}
	return nil
}

// Diffs ends a transaction: it returns what it did to the result set.
func (c *Chain) Diffs() ([]result.Diff, error) {
	if err := c.first.Flush(); err != nil {
		return nil, err
	}
	return c.Exit.Diffs()
}

// Save writes to the batch what the operators keep in memory.
func (c *Chain) Save() error {
	for _, a := range c.aggs {
		if err := a.Save(); err != nil {
			return err
		}
	}
	return nil
}

// Reset forgets everything that is not stored.
func (c *Chain) Reset() {
	c.Exit.Reset()
	for _, a := range c.aggs {
		a.Reset()
	}
}
