package chaos

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// perEnvironment is how many seeds share one environment, since to start one takes longer than a seed.
const perEnvironment = 10

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(serve(role))
	}
	os.Exit(m.Run())
}

// TestNothingIsLostRepeatedOrDiverges tries seeds: PERDURE_SEEDS says how many, PERDURE_FIRST with which to begin,
// PERDURE_SEED is one alone, PERDURE_FOR bounds the time within which another seed is begun, PERDURE_FAULT names the one kind
// of faults to deal. Without any of them it is one cycle, which has every kind.
func TestNothingIsLostRepeatedOrDiverges(t *testing.T) {
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	first, count := number(t, "PERDURE_FIRST", 1), number(t, "PERDURE_SEEDS", cycle)
	if one := number(t, "PERDURE_SEED", 0); one > 0 {
		first, count = one, 1
	}
	drawn, only := kinds, os.Getenv("PERDURE_FAULT")
	if only != "" {
		drawn = slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.name != only })
		require.NotEmpty(t, drawn, "there are no faults called %q", only)
	}
	bound := length(t, "PERDURE_FOR", 0)
	deadline := time.Now().Add(cmp.Or(bound, 6*time.Minute))
	r := report{asked: count}
	defer func() { t.Logf("%s", r.String()) }()
	var e *environment
	for seed := first; seed < first+count && ctx.Err() == nil; seed++ {
		if seed > first && time.Now().After(deadline) {
			if t.Logf("no time is left for seed %d and those after it", seed); bound == 0 { // nobody wanted it to be short
				t.Fail()
			}
			break
		}
		if e == nil {
			var err error
			e, err = newEnvironment(ctx)
			require.NoError(t, err)
			t.Cleanup(e.close)
			r.impossible = e.impossible(drawn)
		}
		p := newPlan(seed, drawn, e.has)
		v := e.run(ctx, p)
		if ctx.Err() != nil {
			t.Error("interrupted")
			break
		}
		r.add(v)
		t.Logf("%s", v)
		if v.failed() {
			e.keep = true
			t.Errorf("seed %d failed: state and logs are in %s; to run it alone: make chaos SEED=%d FAULT='%s'", seed, e.dir, seed, only)
		}
		if e.seeds++; v.failed() || e.seeds == perEnvironment {
			e.close()
			e = nil
		}
	}
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}

func length(t *testing.T, name string, otherwise time.Duration) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err, name)
	return d
}

// until polls until check returns nil; its last error tells what was waited for in vain.
func until(ctx context.Context, bound time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return fmt.Errorf("%s: not within %s: %w", what, bound, err)
		}
	}
}

// sleep reports whether ctx has lasted as long.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
