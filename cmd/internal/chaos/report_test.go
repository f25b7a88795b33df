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
	seeds, failed, anew int
	commits             int64
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
	fmt.Fprintf(&b, "%d seeds, %d failed, %d commits, results built anew %d times\n", r.seeds, r.failed, r.commits, r.anew)
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
