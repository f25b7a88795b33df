package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// plan is what happens in one seed.
type plan struct {
	seed  uint64
	steps []step
}

// step is a fault, or two that begin at the same time, and how long nothing happens afterwards. What is to recover has
// that time; if it is short, it is disturbed while it recovers.
type step struct {
	faults []fault
	quiet  time.Duration
}

// fault is one fault at one place.
type fault struct {
	kind   *kind
	target string
	length time.Duration
}

func (f fault) String() string {
	if f.kind.instant {
		return strings.TrimSpace(f.kind.name + " " + f.target)
	}
	return fmt.Sprintf("%s %s for %s", f.kind.name, f.target, f.length)
}

func (s step) String() string {
	texts := make([]string, len(s.faults))
	for i, f := range s.faults {
		texts[i] = f.String()
	}
	return strings.Join(texts, " with ") + fmt.Sprintf(", quiet for %s", s.quiet)
}

func (p plan) String() string {
	texts := make([]string, len(p.steps))
	for i, s := range p.steps {
		texts[i] = s.String()
	}
	return strings.Join(texts, "; ")
}

// newPlan draws a plan from the kinds of faults. One that the machine does not allow keeps its place in the lottery, so
// that a seed means the same elsewhere, except for such faults, which are left out.
func newPlan(seed uint64, kinds []kind, has func(*kind) bool) plan {
	r := rand.New(rand.NewPCG(seed, 0))
	p := plan{seed: seed}
	for left := 2 + r.IntN(3); left > 0; {
		var s step
		for range min(left, 1+r.IntN(4)/3) {
			f := draw(r, kinds)
			left--
			if has(f.kind) && (len(s.faults) == 0 || s.faults[0].target != f.target && s.faults[0].kind.place != f.kind.place) {
				s.faults = append(s.faults, f)
			}
		}
		s.quiet = time.Duration(r.IntN(1500)) * time.Millisecond
		if r.IntN(2) == 0 {
			s.quiet += 3 * time.Second
		}
		if len(s.faults) > 0 {
			p.steps = append(p.steps, s)
		}
	}
	return p
}

func draw(r *rand.Rand, kinds []kind) fault {
	sum := 0
	for i := range kinds {
		sum += kinds[i].weight
	}
	n := r.IntN(sum)
	i := 0
	for ; n >= kinds[i].weight; i++ {
		n -= kinds[i].weight
	}
	k := &kinds[i]
	f := fault{kind: k, target: k.targets[r.IntN(len(k.targets))]}
	span := time.Duration(r.Float64() * float64(k.most-k.least))
	if k.tail > 0 && r.IntN(6) == 0 {
		span = k.most - k.least + time.Duration(r.Float64()*float64(k.tail-k.most))
	}
	f.length = (k.least + span).Round(10 * time.Millisecond)
	return f
}
