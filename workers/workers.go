package workers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
	"github.com/perdure/perdure/workflows"
)

// Host is what a process needs of the data plane; a pipeline.Host is one.
type Host interface {
	activities.Host
	RemoveOrphans(ctx context.Context, exists func(context.Context, component.ID) (bool, error)) error
}

var _ Host = (*pipeline.Host)(nil)

// TaskQueue is the queue that users name when they start a workflow.
const TaskQueue = activities.QueueWorkflows

// Options says what a process works with.
type Options struct {
	Client    client.Client
	Namespace string // of the client, for registering search attributes; "default" when empty
	// Data is the client's converter; nil where it is the SDK's.
	Data   converter.DataConverter
	Host   Host
	Stream *stream.Conn
	// HostID names the process. It must be the same after a restart with the same data directory, because that is how
	// queries find the disk their state is on.
	HostID  string
	Loops   *activities.Loops  // to be looked at; nil: nobody does
	Metrics *telemetry.Metrics // count attempts; nil: nobody sees them
	Log     *zap.Logger
	Limits
}

// Limits bound what a process does. Zero means the default.
type Limits struct {
	// MaxLoops is how many components the process may run at once; 10,000 when zero. More wait, without a sign, for a
	// place that no loop ever frees, so that it is a guard and not a means to spread load.
	MaxLoops int
	// HeartbeatRate is how many heartbeats a second the loops of the process send together, about; 100 when zero.
	HeartbeatRate int
	MaxCopies     int // copy workers that the process may run at once; 16 when zero
	// HeartbeatTimeout is how long the server waits for a heartbeat of a loop at least; 30 s when shorter.
	HeartbeatTimeout time.Duration
	// HandOver is how long what runs may take to hand over when the process stops; 25 s when zero.
	HandOver time.Duration
	// StopWithControlPlane ends loops while the Temporal server does not answer; otherwise they go on under their fences.
	StopWithControlPlane bool
	// StayOnStop has queries wait for this host to come back when the process stops, instead of going on elsewhere at once.
	StayOnStop bool
}

const (
	// stopWithin is how long a worker waits for activities that were told to stop. Their loops get stopMargin less, so that
	// they end before the worker gives them up.
	stopWithin = 25 * time.Second
	stopMargin = 5 * time.Second
	// heartbeatsEvery bounds how long the SDK holds a heartbeat back, and tries to send it. With a heartbeat timeout of 30 s
	// an attempt that cannot reach the server learns so 20 s after its last heartbeat, before the server starts the next.
	heartbeatsEvery = 10 * time.Second
	announceEvery   = activities.HostTTL / 3
)

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

// Run serves all task queues until ctx ends or a worker cannot go on. It stops in two bounded stages: first the workers
// of what is short, so that other processes, or the next one, decide what becomes of what is handed over, then those of what
// has something to hand over.
func Run(ctx context.Context, o Options) error {
	if !hostPattern.MatchString(o.HostID) {
		return failure.ConfigInvalid.Errorf("host id %q must be letters, digits, dashes and underscores", o.HostID)
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Metrics == nil {
		o.Metrics = telemetry.NewMetrics("")
	}
	o.Namespace, o.HandOver = cmp.Or(o.Namespace, "default"), cmp.Or(o.HandOver, stopWithin)
	p := &process{Options: o, log: o.Log, store: activities.NewStore(o.Stream), fatal: make(chan error, 16)}
	p.attributes = newAttributes(o.Client, o.Namespace, o.Log)
	p.attributes.look(ctx)
	p.releaseOrphans(ctx)
	short, long := p.workers()

	announcing, endAnnouncing := context.WithCancel(ctx)
	defer endAnnouncing()
	p.announce(announcing)
	var background sync.WaitGroup
	for _, keep := range []func(context.Context){p.keepAnnounced, p.keepRemovingOrphans, p.attributes.keep, p.keepWatchingHealth} {
		background.Go(func() {
			if err := failure.Guard(func() error { keep(announcing); return nil }); err != nil {
				p.fatal <- err
			}
		})
	}

	err := start(append(short, long...))
	if err == nil {
		p.log.Debug("workers started", zap.String(telemetry.KeyHost, o.HostID))
		select {
		case <-ctx.Done():
		case err = <-p.fatal:
			err = fmt.Errorf("serving a task queue: %w", err)
		}
	}
	endAnnouncing()
	background.Wait()
	p.withdraw(ctx)
	stopInTurn(short, long)
	return err
}

// process is the workers of one process.
type process struct {
	Options
	log        *zap.Logger
	store      *activities.Store
	attributes *attributes
	fatal      chan error
}

// served is a worker object that may or may not have started.
type served struct {
	worker  worker.Worker
	queue   string
	started bool
}

// workers makes one worker object for each queue, so that a loop that holds its slot for months, or a copy that is busy
// for hours, never keeps a short errand from running.
func (p *process) workers() (short, long []*served) {
	set := activities.New(activities.Options{
		Host: p.Host, Store: p.store, HostID: p.HostID, Loops: p.Loops, HeartbeatRate: p.HeartbeatRate, Metrics: p.Metrics, Log: p.log,
		StopWithControlPlane: p.StopWithControlPlane, HeartbeatTimeout: p.HeartbeatTimeout, HandOver: p.HandOver - stopMargin,
		StayOnStop: p.StayOnStop,
	})
	loops := func(r worker.ActivityRegistry) {
		r.RegisterActivity(set.Sources)
		r.RegisterActivity(set.Queries)
		r.RegisterActivity(set.Reactions)
		r.RegisterActivity(set.Instances)
	}
	copies := func(r worker.ActivityRegistry) { r.RegisterActivity(set.Bootstraps) }

	maxLoops, maxCopies := p.MaxLoops, p.MaxCopies
	if maxLoops <= 0 {
		maxLoops = 10_000
	}
	if maxCopies <= 0 {
		maxCopies = 16
	}
	long = []*served{
		p.activities(activities.QueueRun, maxLoops, 2, loops),
		p.activities(activities.HostQueue(p.HostID), maxLoops, 2, loops),
		p.activities(activities.QueueSnapshot, maxLoops, 1, copies),
		p.activities(activities.QueueBootstrap, maxCopies, 2, copies),
	}
	short = []*served{
		p.activities(activities.QueueControl, 64, 2, func(r worker.ActivityRegistry) {
			loops(r) // for what validates, provisions and tears down
			copies(r)
			r.RegisterActivity(set.Control)
		}),
		p.workflows(),
	}
	return short, long
}

func (p *process) options() worker.Options {
	return worker.Options{
		Identity:                     Identity(p.HostID),
		WorkerStopTimeout:            p.HandOver,
		MaxHeartbeatThrottleInterval: heartbeatsEvery,
		DisableRegistrationAliasing:  true,
		OnFatalError: func(err error) {
			select {
			case p.fatal <- err:
			default:
			}
		},
	}
}

func (p *process) activities(queue string, slots, pollers int, register func(worker.ActivityRegistry)) *served {
	o := p.options()
	o.DisableWorkflowWorker = true
	o.Interceptors = []interceptor.WorkerInterceptor{activities.Counter(p.Metrics)}
	o.MaxConcurrentActivityExecutionSize = slots
	o.MaxConcurrentActivityTaskPollers = pollers
	w := worker.New(p.Client, queue, o)
	register(w)
	return &served{worker: w, queue: queue}
}

func (p *process) workflows() *served {
	o := p.options()
	o.LocalActivityWorkerOnly = true
	o.Interceptors = []interceptor.WorkerInterceptor{workflows.Interceptor(p.Data)}
	// A bug in workflow code blocks the workflows it hits, until a build without it goes on with them.
	o.WorkflowPanicPolicy = worker.BlockWorkflow
	w := worker.New(p.Client, TaskQueue, o)
	workflows.New(p.attributes.usable.Load).Register(w)
	return &served{worker: w, queue: TaskQueue}
}

func start(all []*served) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() {
			if err := failure.Guard(s.worker.Start); err != nil {
				errs[i] = fmt.Errorf("starting the worker of task queue %s: %w", s.queue, err)
				return
			}
			s.started = true
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stop ends workers at the same time, since each may take until its bound.
func stop(all []*served) {
	var wg sync.WaitGroup
	for _, s := range all {
		if s.started {
			wg.Go(s.worker.Stop)
		}
	}
	wg.Wait()
}

// shortWithin is how long the workers of what is short may take to stop before the others begin to.
const shortWithin = time.Second

// stopInTurn ends workers, and the second ones when the first are likely to take nothing more from the server: a task that
// is given to a worker that stops is lost, and done again when its time is over.
func stopInTurn(first, second []*served) {
	done := failure.Go(func() error { stop(first); return nil })
	select {
	case <-done:
		stop(second)
	case <-time.After(shortWithin):
		stop(second)
		<-done
	}
}

const errandWithin = 5 * time.Second

// releaseOrphans frees what the process before left when it was killed. When that fails, overdue heartbeats free it.
func (p *process) releaseOrphans(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*errandWithin)
	defer cancel()
	if err := releaseOrphans(ctx, p.Client, p.Namespace, p.HostID); err != nil {
		p.log.Warn("attempts of the process before could not be released", zap.String(telemetry.KeyHost, p.HostID), zap.Error(err))
	}
}

// announce says once that the host is alive. A stream server that does not answer is logged and asked again later:
// until it does, nothing can run anyway.
func (p *process) announce(ctx context.Context) {
	callCtx, cancel := context.WithTimeout(ctx, errandWithin)
	defer cancel()
	if err := p.store.AnnounceHost(callCtx, p.HostID); err != nil && ctx.Err() == nil {
		p.log.Warn("the host could not be announced", zap.String(telemetry.KeyHost, p.HostID), zap.Error(err))
	}
}

func (p *process) keepAnnounced(ctx context.Context) {
	ticker := time.NewTicker(announceEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.announce(ctx)
		}
	}
}

// withdraw keeps new loops from being placed here. When it fails, the announcement runs out by itself.
func (p *process) withdraw(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), errandWithin)
	defer cancel()
	if err := p.store.WithdrawHost(ctx, p.HostID); err != nil {
		p.log.Debug("the host could not be withdrawn", zap.String(telemetry.KeyHost, p.HostID), zap.Error(err))
	}
}
