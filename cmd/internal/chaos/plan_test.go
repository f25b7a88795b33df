package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// plan is what happens in one seed.
type plan struct {
	seed  uint64
	steps []step
}

// step is a fault, or up to four that begin at the same time, and how long nothing happens afterwards. What is to recover has
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

// cycle is how many seeds, of which the first is 1 more than a multiple of it, have each kind of faults between them. So
// many are tried by default.
const cycle = 5

// voids reports whether results may be built anew because of a fault of the plan.
func (p plan) voids() bool {
	return slices.ContainsFunc(p.steps, func(s step) bool {
		return slices.ContainsFunc(s.faults, func(f fault) bool { return f.kind.voids })
	})
}

// newPlan makes a plan of the kinds of faults that a seed is dealt. One that the machine does not allow is left out.
func newPlan(seed uint64, kinds []kind, has func(*kind) bool) plan {
	r := rand.New(rand.NewPCG(seed, 0))
	p := plan{seed: seed}
	for hand := deal(seed, kinds); len(hand) > 0; {
		var s step
		for n := 1 + r.IntN(4); n > 0 && len(hand) > 0; n-- {
			f := draw(r, hand[0])
			if slices.ContainsFunc(s.faults, f.meets) {
				break
			}
			hand = hand[1:]
			if has(f.kind) {
				s.faults = append(s.faults, f)
			}
		}
		s.quiet = time.Duration(r.IntN(1500)) * time.Millisecond
		if r.IntN(3) == 0 {
			s.quiet += 3 * time.Second
		}
		if len(s.faults) > 0 {
			p.steps = append(p.steps, s)
		}
	}
	return p
}

// meets reports whether two faults cannot happen at once.
func (f fault) meets(other fault) bool {
	return f.target == other.target || f.kind.place == other.kind.place
}

// deal returns a seed's part of the kinds, which are shuffled for each cycle. Of a few, each comes more than once.
func deal(seed uint64, kinds []kind) (hand []*kind) {
	const least, shuffle = 3, 2827 // with which no seed of the first cycle is very short, and all of it lasts 100 s and what recovery takes
	r := rand.New(rand.NewPCG((seed-1)/cycle, shuffle))
	for dealt := 0; dealt < least*cycle; {
		for _, i := range r.Perm(len(kinds)) {
			if uint64(dealt)%cycle == (seed-1)%cycle {
				hand = append(hand, &kinds[i])
			}
			dealt++
		}
	}
	return hand
}

func draw(r *rand.Rand, k *kind) fault {
	f := fault{kind: k, target: k.targets[r.IntN(len(k.targets))]}
	span := time.Duration(r.Float64() * float64(k.most-k.least))
	if k.tail > 0 && r.IntN(10) == 0 {
		span = k.most - k.least + time.Duration(r.Float64()*float64(k.tail-k.most))
	}
	f.length = (k.least + span).Round(10 * time.Millisecond)
	return f
}

// TestEachCycleHasEveryFault: however few seeds are tried, if only a cycle, each kind of faults is among them.
func TestEachCycleHasEveryFault(t *testing.T) {
	all := func(*kind) bool { return true }
	for first := uint64(1); first < 20*cycle; first += cycle {
		happened := make(map[*kind]int)
		for seed := first; seed < first+cycle; seed++ {
			p := newPlan(seed, kinds, all)
			require.Equal(t, p.String(), newPlan(seed, kinds, all).String(), "a seed has one plan")
			for _, s := range p.steps {
				for i, f := range s.faults {
					happened[f.kind]++
					require.False(t, slices.ContainsFunc(s.faults[:i], f.meets), "%s", p)
				}
			}
		}
		for i := range kinds {
			require.Equal(t, 1, happened[&kinds[i]], "%s %s from seed %d on", kinds[i].name, kinds[i].targets, first)
		}
	}
	for seed := range uint64(2 * cycle) {
		require.NotEmpty(t, newPlan(1+seed, kinds[:1], all).steps, "a kind alone comes in each seed")
	}
}
