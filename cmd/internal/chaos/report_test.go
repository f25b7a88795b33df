package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// report sums seeds up.
type report struct {
	asked               uint64 // how many seeds there were to be
	seeds, failed, anew int
	impossible          []string // the names of faults that this machine does not allow
	commits             int64
	longest             recovery                   // of those that nothing disturbed
	took                map[string][]time.Duration // by kind and target of faults that were alone
	happened            map[string]int
}

func (r *report) add(v verdict) {
	if r.took == nil {
		r.took, r.happened = make(map[string][]time.Duration), make(map[string]int)
	}
	r.seeds++
	r.commits += v.commits
	r.anew += v.anew
	if v.failed() {
		r.failed++
	}
	for _, s := range v.steps {
		if s.took > r.longest.took {
			r.longest = s
		}
		for _, f := range s.faults {
			class := class(f)
			r.happened[class]++
			if len(s.faults) == 1 && s.took >= 0 {
				r.took[class] = append(r.took[class], s.took)
			}
		}
	}
}

// class is what faults are counted by: what happened to what, whichever worker it was.
func class(f fault) string {
	target := f.target
	for _, worker := range workers {
		if rest, ok := strings.CutPrefix(target, worker); ok {
			target = "worker" + rest
		}
	}
	return f.kind.name + " " + target
}

func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d seeds, %d failed, %d commits, results built anew %d times\n", r.seeds, r.asked, r.failed, r.commits, r.anew)
	if uint64(r.seeds) < r.asked {
		fmt.Fprintf(&b, "NOT TRIED: %d seeds, for which no time was left\n", r.asked-uint64(r.seeds))
	}
	if len(r.impossible) > 0 {
		fmt.Fprintf(&b, "LEFT OUT, since this machine does not allow it: %s\n", strings.Join(r.impossible, ", "))
	}
	if r.longest.took > 0 {
		fmt.Fprintf(&b, "a seed fails when results are not complete within %s of its last fault; the longest recovery took %s, after %s\n",
			currentBound, round(r.longest.took), r.longest.step)
	}
	fmt.Fprintf(&b, "%-28s %8s  recovery when it was alone: %5s %8s %8s\n", "fault", "times", "times", "median", "longest")
	for _, class := range slices.Sorted(maps.Keys(r.happened)) {
		fmt.Fprintf(&b, "%-28s %8d", class, r.happened[class])
		if took := slices.Sorted(slices.Values(r.took[class])); len(took) > 0 {
			fmt.Fprintf(&b, " %33d %8s %8s", len(took), round(took[len(took)/2]), round(took[len(took)-1]))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
