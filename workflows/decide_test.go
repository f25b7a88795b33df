package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ready is a component that could run at once.
func ready(change func(*situation)) situation {
	s := situation{Desired: Running, Declared: true, Validated: true, Provisioned: true, SourcesReady: true, Placed: true}
	if change != nil {
		change(&s)
	}
	return s
}

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		s    situation
		want action
	}{
		"everything is there":        {ready(nil), actRun},
		"not validated":              {ready(func(s *situation) { s.Validated = false }), actValidate},
		"not provisioned":            {ready(func(s *situation) { s.Provisioned = false }), actProvision},
		"sources missing":            {ready(func(s *situation) { s.SourcesReady = false }), actAwaitSources},
		"bootstrap needed":           {ready(func(s *situation) { s.NeedsBootstrap = true }), actBootstrap},
		"not placed":                 {ready(func(s *situation) { s.Placed = false }), actPlace},
		"spec cannot be read":        {ready(func(s *situation) { s.Declared = false }), actPark},
		"parked":                     {ready(func(s *situation) { s.Parked = true }), actPark},
		"breaker open":               {ready(func(s *situation) { s.Open = true }), actBreaker},
		"paused while parked":        {ready(func(s *situation) { s.Parked, s.Desired = true, Paused }), actRest},
		"stopped":                    {ready(func(s *situation) { s.Desired = Stopped }), actRest},
		"cancelled":                  {ready(func(s *situation) { s.Cancelled = true }), actLeave},
		"deleted while cancelled":    {ready(func(s *situation) { s.Cancelled, s.Deleting = true, true }), actTeardown},
		"deleted":                    {ready(func(s *situation) { s.Deleting = true }), actTeardown},
		"deleted while parked":       {ready(func(s *situation) { s.Deleting, s.Parked = true, true }), actTeardown},
		"torn down":                  {ready(func(s *situation) { s.Deleting, s.TornDown = true, true }), actClose},
		"teardown failed":            {ready(func(s *situation) { s.Deleting, s.Blocked = true, true }), actBlock},
		"teardown failed, forced":    {ready(func(s *situation) { s.Deleting, s.Blocked, s.Force = true, true, true }), actClose},
		"upgrade":                    {ready(func(s *situation) { s.Upgrade = true }), actContinue},
		"upgrade while stopped":      {ready(func(s *situation) { s.Upgrade, s.Desired = true, Stopped }), actContinue},
		"upgrade during a command":   {ready(func(s *situation) { s.Upgrade, s.Busy = true, true }), actWait},
		"long history":               {ready(func(s *situation) { s.Long, s.Desired = true, Paused }), actContinue},
		"teardown failed, cancelled": {ready(func(s *situation) { s.Deleting, s.Blocked, s.Cancelled = true, true, true }), actLeave},
		"cancelled during a command": {ready(func(s *situation) { s.Cancelled, s.Busy = true, true }), actWait},
		"waiting, history too long":  {ready(func(s *situation) { s.Task, s.Suggested = taskAwaitSources, true }), actCancel},
		"running":                    {ready(func(s *situation) { s.Task = taskRun }), actWait},
		"running, long history":      {ready(func(s *situation) { s.Task, s.Long = taskRun, true }), actWait},
		"running, history too long":  {ready(func(s *situation) { s.Task, s.Suggested = taskRun, true }), actDrain},
		"pause":                      {ready(func(s *situation) { s.Task, s.Desired = taskRun, Paused }), actDrain},
		"restart":                    {ready(func(s *situation) { s.Task, s.Restart = taskRun, true }), actDrain},
		"delete while running":       {ready(func(s *situation) { s.Task, s.Deleting = taskRun, true }), actDrain},
		"cancel while running":       {ready(func(s *situation) { s.Task, s.Cancelled = taskRun, true }), actDrain},
		"draining":                   {ready(func(s *situation) { s.Task, s.Ending, s.Desired = taskRun, draining, Paused }), actWait},
		"resumed while draining":     {ready(func(s *situation) { s.Task, s.Ending = taskRun, draining }), actWait},
		"drain overdue":              {ready(func(s *situation) { s.Task, s.Ending, s.Overdue = taskRun, draining, true }), actCancel},
		"cancel overdue":             {ready(func(s *situation) { s.Task, s.Ending, s.Overdue = taskRun, cancelling, true }), actFence},
		"fenced":                     {ready(func(s *situation) { s.Task, s.Ending = taskRun, fenced }), actAbandon},
		"pause while validating":     {ready(func(s *situation) { s.Task, s.Desired = taskValidate, Paused }), actCancel},
		"pause a bootstrap":          {ready(func(s *situation) { s.Task, s.Desired = taskBootstrap, Paused }), actHold},
		"bootstrap paused":           {ready(func(s *situation) { s.Task, s.Desired, s.ChildrenHeld = taskBootstrap, Paused, true }), actWait},
		"resume a bootstrap":         {ready(func(s *situation) { s.Task, s.ChildrenHeld = taskBootstrap, true }), actRelease},
		"stop a bootstrap":           {ready(func(s *situation) { s.Task, s.Desired = taskBootstrap, Stopped }), actCancel},
		"stop a paused bootstrap":    {ready(func(s *situation) { s.Task, s.Desired, s.ChildrenHeld = taskBootstrap, Stopped, true }), actCancel},
		"tearing down":               {ready(func(s *situation) { s.Task, s.Deleting, s.Desired = taskTeardown, true, Stopped }), actWait},
		"tearing down, forced":       {ready(func(s *situation) { s.Task, s.Deleting, s.Force = taskTeardown, true, true }), actCancel},
	} {
		require.Equal(t, c.want, decide(c.s), name)
	}
}

func TestBoundOfATeardown(t *testing.T) {
	for seconds, want := range map[int]time.Duration{0: teardownBound, -1: teardownBound, 7: 7 * time.Second, 10_000_000_000: mostTeardown} {
		require.Equal(t, want, (&deletion{Seconds: seconds}).within(), seconds)
	}
}

// TestDecideInvariants goes through all situations.
func TestDecideInvariants(t *testing.T) {
	ends := map[action]bool{actWait: true, actHold: true, actRelease: true, actDrain: true, actCancel: true, actFence: true, actAbandon: true}
	check := func(s situation) {
		act := decide(s)
		switch {
		case s.Task != noTask && !ends[act]:
			t.Fatalf("%s begins while %s is in flight: %+v", act, s.Task, s)
		case s.Task == noTask && act != actWait && ends[act]:
			t.Fatalf("%s though nothing is in flight: %+v", act, s)
		case act == actRun && (s.Desired != Running || s.Parked || s.Open || s.Deleting || s.Cancelled || !s.Declared ||
			!s.Validated || !s.Provisioned || !s.SourcesReady || s.NeedsBootstrap || !s.Placed):
			t.Fatalf("it runs: %+v", s)
		case act == actContinue && (s.Busy || s.Deleting || s.Cancelled):
			t.Fatalf("a new history begins: %+v", s)
		case act == actClose && !s.Deleting:
			t.Fatalf("it closes: %+v", s)
		case act == actWait && s.Task == noTask && !s.Busy:
			t.Fatalf("it waits for nothing: %+v", s)
		case act == actDrain && (s.Task != taskRun || s.Ending != notEnding):
			t.Fatalf("it drains: %+v", s)
		case act == actFence && (s.Task != taskRun || !s.Overdue):
			t.Fatalf("it fences: %+v", s)
		case s.Task == taskRun && s.Ending == notEnding && act != actDrain && (s.Deleting || s.Cancelled || s.Desired != Running):
			t.Fatalf("a run goes on that nobody wants: %+v", s)
		}
	}
	flags := []func(*situation){
		func(s *situation) { s.Declared = true }, func(s *situation) { s.Cancelled = true }, func(s *situation) { s.Deleting = true },
		func(s *situation) { s.Force = true }, func(s *situation) { s.TornDown = true }, func(s *situation) { s.Blocked = true },
		func(s *situation) { s.Restart = true }, func(s *situation) { s.Upgrade = true }, func(s *situation) { s.Parked = true },
		func(s *situation) { s.Open = true }, func(s *situation) { s.Overdue = true }, func(s *situation) { s.ChildrenHeld = true },
		func(s *situation) { s.Validated = true }, func(s *situation) { s.Provisioned = true },
		func(s *situation) { s.NeedsBootstrap = true }, func(s *situation) { s.Placed = true },
		func(s *situation) { s.Suggested = true }, func(s *situation) { s.Busy = true },
	}
	tasks := []task{noTask, taskValidate, taskBootstrap, taskRun, taskTeardown}
	endings := []ending{notEnding, draining, cancelling, fenced}
	for bits := range 1 << len(flags) {
		var s situation
		s.SourcesReady = true
		for i, set := range flags {
			if bits>>i&1 == 1 {
				set(&s)
			}
		}
		s.Desired = []Desired{Running, Paused, Stopped}[bits%3]
		for _, s.Task = range tasks {
			if s.Task == noTask {
				check(s)
				continue
			}
			for _, s.Ending = range endings {
				check(s)
			}
		}
	}
}
