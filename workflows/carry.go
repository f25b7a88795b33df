package workflows

import (
	"encoding/json"

	"github.com/perdure/perdure/streaming/failure"
)

// What a run of a workflow hands to the next, in bytes of JSON: each run's history begins with it. A spec comes on top.
const (
	mostCarried       = 16 << 10
	mostCarriedMember = 1 << 10 // more of it for each component of an instance
)

// fit makes a state small enough to be carried over. What can be spared goes in order, each as long as there is any of it and
// the state is too large.
func fit(state any, most int, spare ...func() bool) {
	for _, less := range spare {
		for sizeOf(state) > most && less() {
		}
	}
}

func sizeOf(state any) int {
	data, err := json.Marshal(state)
	if err != nil {
		return 0 // ContinueAsNew says so
	}
	return len(data)
}

const shortText = 100

// spare is what a workflow can do without, in order: the texts of what is long done, and then that it was done.
func (c *core) spare() []func() bool {
	const askedAgain = 16 // requests that are most likely to come again
	keep := func(n int) func() bool {
		return func() bool {
			if len(c.Requests) <= n {
				return false
			}
			c.Requests = c.Requests[1:]
			return true
		}
	}
	return []func() bool{
		func() bool {
			most := min(len(c.Unexpected), askedAgain)
			shortened := len(c.Unexpected) > most
			c.Unexpected = c.Unexpected[:most]
			for i, name := range c.Unexpected {
				shortened = shortened || len(name) > maxName
				c.Unexpected[i] = shorten(name, maxName)
			}
			return shortened
		},
		c.shortenCommand,
		keep(askedAgain),
		func() bool { return c.Breaker.LastError != nil && spareReport(&c.Breaker.LastError.Report, 1000) },
		func() bool {
			if len(c.Commands) <= 1 {
				return false
			}
			c.Commands = c.Commands[1:]
			return true
		},
		c.shortenRequest,
		func() bool { return c.Breaker.LastError != nil && spareReport(&c.Breaker.LastError.Report, shortText) },
		keep(0),
	}
}

// shortenCommand shortens the texts of the oldest command whose texts are long.
func (c *core) shortenCommand() bool {
	for i := range c.Commands {
		done := &c.Commands[i]
		if max(len(done.Error), len(done.Result), len(done.Reason)) > shortText || len(done.Causes) > 0 || done.Fix != "" {
			done.Error, done.Result, done.Reason = shorten(done.Error, shortText), shorten(done.Result, shortText), shorten(done.Reason, shortText)
			done.Causes, done.Fix = nil, ""
			return true
		}
	}
	return false
}

func (c *core) shortenRequest() bool {
	for i := range c.Requests {
		if r := &c.Requests[i]; len(r.Error) > shortText {
			r.Error = shorten(r.Error, shortText)
			return true
		}
	}
	return false
}

// spareReport leaves of a report what failed, and reports whether that made it shorter.
func spareReport(r *failure.Report, most int) bool {
	shortened := len(r.Message) > most || len(r.Causes) > 0 || len(r.Details) > 0
	r.Message, r.Causes, r.Details = shorten(r.Message, most), nil, nil
	if most <= shortText {
		shortened = shortened || len(r.Fix) > most
		r.Fix = shorten(r.Fix, most)
	}
	return shortened
}

// fit bounds what is carried over of a component. Its run has ended, and so has what that told of itself.
func (s *State) fit() {
	s.Condition = nil
	fit(s, mostCarried, s.spare()...)
}

// fit bounds what is carried over of an instance, each part for itself: there may be many members.
func (s *InstanceState) fit() {
	for i := range s.Members {
		m := &s.Members[i]
		fit(m, mostCarriedMember, m.spare(2*shortText), m.spare(shortText/2), m.spare(0))
	}
	fit(&s.Problems, mostCarried/4, func() bool {
		if len(s.Problems) == 0 {
			return false
		}
		s.Problems = s.Problems[:len(s.Problems)-1]
		return true
	})
	fit(&s.core, mostCarried*3/4, s.core.spare()...)
}

func (m *member) spare(most int) func() bool {
	return func() bool {
		shortened := m.Failure != nil && spareReport(m.Failure, most)
		e := &m.Seen.Error
		shortened = shortened || max(len(e.Message), len(e.Fix)) > most
		e.Message, e.Fix = shorten(e.Message, most), shorten(e.Fix, most)
		return shortened
	}
}
