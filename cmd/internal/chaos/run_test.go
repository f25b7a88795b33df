package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "go.temporal.io/sdk/temporal"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/workflows"
)

// verdict is how a seed ended.
type verdict struct {
	plan    plan
	err     error
	steps   []recovery
	commits int64
	anew    int      // result sets that were built anew
	named   []string // failures that the status of a component told meanwhile
	exits   []string // of processes that nobody killed; those that are not excused fail the seed
	took    time.Duration
}

// recovery is how long it took after a step's faults until results contained what had been written by their end, and the
// hook had it.
type recovery struct {
	step
	took time.Duration // negative: another step came in between
}

func (v verdict) failed() bool { return v.err != nil }

func (v verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: ", v.plan.seed)
	if v.failed() {
		fmt.Fprintf(&b, "FAILED: %v", v.err)
	} else {
		fmt.Fprintf(&b, "ok, %d commits in %s", v.commits, v.took.Round(100*time.Millisecond))
	}
	for _, s := range v.steps {
		fmt.Fprintf(&b, "\n    %s: ", s.step)
		if s.took < 0 {
			b.WriteString("the next one came before recovery")
		} else {
			fmt.Fprintf(&b, "recovered in %s", s.took.Round(10*time.Millisecond))
		}
	}
	for what, list := range map[string][]string{"named meanwhile": v.named, "ended by themselves": v.exits} {
		if len(list) > 0 {
			fmt.Fprintf(&b, "\n    %s: %s", what, strings.Join(list, "; "))
		}
	}
	if v.anew > 0 {
		fmt.Fprintf(&b, "\n    results built anew: %d", v.anew)
	}
	return b.String()
}

// run does what a plan says, and compares.
func (e *environment) run(ctx context.Context, p plan) (v verdict) {
	began := time.Now()
	v.plan = p
	fmt.Fprintf(e.log, "--- seed %d: %s\n", p.seed, p)
	anew := e.builtAnew()
	watch := e.watch(ctx)
	c := e.startClients(ctx, p.seed)
	v.steps, v.err = e.steps(ctx, p)
	c.close()
	if v.err == nil {
		v.err = e.check(ctx)
	}
	watch.close()
	e.voided = e.voided || p.voids()
	v.commits, v.took, v.anew = c.commits.Load(), time.Since(began), e.builtAnew()-anew
	for _, what := range slices.Sorted(maps.Keys(watch.named)) {
		if !e.named[what] { // an attempt tells of the one before it for as long as it lasts
			v.named = append(v.named, what)
		}
	}
	e.named = watch.named
	v.err = errors.Join(v.err, watch.err)
	if v.anew > 0 && !e.voided {
		v.err = errors.Join(v.err, fmt.Errorf("results were built anew %d times, and none of the faults is a reason to", v.anew))
	}
	for _, s := range e.services {
		for _, x := range s.unasked() {
			v.exits = append(v.exits, x.String())
			if slices.Contains(workers, x.name) && !x.excused() {
				v.err = errors.Join(v.err, fmt.Errorf("a worker ended by itself, or not as it was told to: %s", x))
			}
		}
	}
	return v
}

func (e *environment) builtAnew() (n int) {
	for _, f := range e.followers {
		n += f.Anew()
	}
	return n
}

// steps makes the faults, and measures how long recovery took.
func (e *environment) steps(ctx context.Context, p plan) ([]recovery, error) {
	recoveries := make([]recovery, len(p.steps))
	var late error // of the last step: those before it may have been disturbed
	var measuring sync.WaitGroup
	defer measuring.Wait()
	for i, s := range p.steps {
		recoveries[i] = recovery{step: s, took: -1}
		if err := e.step(ctx, s); err != nil {
			return recoveries[:i], err
		}
		ended := time.Now()
		position, err := e.written(ctx)
		if err != nil {
			return recoveries[:i], err
		}
		measured, stop := context.WithCancel(ctx)
		defer stop()
		measuring.Go(func() {
			if late = e.current(measured, currentBound, position); late == nil {
				recoveries[i].took = time.Since(ended)
			}
		})
		if !sleep(ctx, s.quiet) {
			return recoveries[:i], ctx.Err()
		}
		if i < len(p.steps)-1 {
			stop()
			measuring.Wait()
		}
	}
	measuring.Wait()
	return recoveries, late
}

// step makes faults at the same time and returns when the last of them is over.
func (e *environment) step(ctx context.Context, s step) error {
	errs := make([]error, len(s.faults))
	var wg sync.WaitGroup
	for i, f := range s.faults {
		wg.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			end, err := f.kind.begin(bounded, e, f.target)
			if err == nil && end != nil {
				sleep(ctx, f.length)
				ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
				defer cancel()
				err = end(ending)
			}
			if err != nil {
				errs[i] = fmt.Errorf("making the fault %s: %w", f, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// watch looks at the status of all components while faults happen.
type watch struct {
	close func()
	named map[string]bool // what was said to be wrong: read after close
	err   error           // a component needed somebody
}

func (e *environment) watch(ctx context.Context) *watch {
	w := &watch{named: make(map[string]bool)}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	w.close = func() { cancel(); <-done }
	go func() {
		defer close(done)
		for sleep(ctx, 500*time.Millisecond) {
			for _, group := range e.components() {
				for _, c := range group {
					w.look(ctx, e, c)
				}
			}
		}
	}()
	return w
}

func (w *watch) look(ctx context.Context, e *environment, c declared) {
	s, err := e.status(ctx, c.id)
	if err != nil {
		return // while Temporal or the workers are away
	}
	if last := s.Breaker.LastError; (s.Phase == workflows.PhaseNeedsOperator || s.Phase == workflows.PhaseBreakerOpen) && last != nil {
		w.err = fmt.Errorf("%s was in phase %s: %s: %s", c.id, s.Phase, last.Code, last.Message)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	described, err := e.temporal.DescribeWorkflowExecution(ctx, c.id.String(), "")
	if err != nil {
		return
	}
	for _, a := range described.GetPendingActivities() {
		if a.GetLastFailure() != nil {
			report := activities.ReportOf(sdk.GetDefaultFailureConverter().FailureToError(a.GetLastFailure()))
			w.named[fmt.Sprintf("%s %s (%.100s)", c.id, report.Code, report.Message)] = true
		}
	}
}
