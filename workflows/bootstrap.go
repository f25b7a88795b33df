package workflows

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// BootstrapInput starts a bootstrap: it gives one query the data that one source holds already.
type BootstrapInput struct {
	ID          string          `json:"bootstrapId"`
	Instance    string          `json:"instance"`
	Query       string          `json:"query"`                 // name
	Source      string          `json:"source"`                // name
	Spec        json.RawMessage `json:"spec"`                  // of the query
	SpecRef     string          `json:"specRef,omitempty"`     // in its place
	Parallelism int             `json:"parallelism,omitempty"` // copy workers; 0: as many as the source wants
	Rebuild     bool            `json:"rebuild,omitempty"`     // the query publishes all rows anew, and not what differs
	Labels      []string        `json:"labels,omitempty"`      // if any, only elements with one of them are read
}

// BootstrapResult is how a bootstrap ended well.
type BootstrapResult struct {
	ID        string `json:"bootstrapId"`
	Position  string `json:"lsn"`
	Rows      int64  `json:"rows,string"`
	Snapshots int    `json:"snapshots"` // how many it took
}

// BootstrapStatus is the answer to the query status of a bootstrap. What copy workers that still run have copied is in
// Progress, and in their heartbeats.
type BootstrapStatus struct {
	ID          string    `json:"bootstrapId"`
	Phase       string    `json:"phase"`
	Since       time.Time `json:"since"`
	Paused      bool      `json:"paused,omitempty"`
	Parallelism int       `json:"parallelism"` // 0: not decided yet
	Snapshot    int       `json:"snapshot"`    // generation
	Position    string    `json:"lsn,omitempty"`
	Tables      int       `json:"tables"`
	Chunks      int       `json:"chunks"`      // at most
	Rows        int64     `json:"rows,string"` // estimate of what the present snapshot has to copy
	ChunksDone  int       `json:"chunksDone"`
	RowsDone    int64     `json:"rowsDone,string"`
	// Progress is what the holder of the snapshot told last; nil: nothing of the present one.
	Progress *activities.BootstrapProgress `json:"progress,omitempty"`
	Workers  int                           `json:"workers"`
	// Failed are the tables that cannot be read; the others are copied.
	Failed    []activities.TableFailure `json:"failed,omitempty"`
	Commands  []Command                 `json:"commands,omitempty"`
	LastError *Report                   `json:"lastError,omitempty"`
}

// Report is a failure as status shows it.
type Report = failure.Report

// Phases of a bootstrap.
const (
	bootSubscribing  = "Subscribing"
	bootSnapshotting = "Snapshotting"
	bootPlanning     = "Planning"
	bootCopying      = "Copying"
	bootVerifying    = "Verifying"
	bootSealing      = "Sealing"
	bootSealed       = "Sealed"
	// bootNeedsOperator is that of a bootstrap that has copied all but tables that cannot be read, and holds no snapshot.
	bootNeedsOperator = "NeedsOperator"
)

const (
	defaultParallelism = 4
	maxParallelism     = 64
	// lostInARow is how many snapshots may be lost, one after the other and without progress, before the query is told.
	lostInARow = 5
	// lostPause is the wait before a snapshot is taken after one was lost, times how many were.
	lostPause = 5 * time.Second
)

// bootstrap is one bootstrap. It is a job: unlike a component it ends, and when it fails, it fails.
type bootstrap struct {
	root, ctx workflow.Context
	in        BootstrapInput
	status    BootstrapStatus
	core      core // its commands
	inbox     *inbox
	want      int // copy workers; 0: not known yet
	retries   retries
	waited    bool // for somebody, once at least

	hasAttributes func() bool
	attributes    *bool // whether there are search attributes; nil: that was of no interest yet

	// Of the present generation of the snapshot.
	ready     bool
	holder    workflow.CancelFunc
	lost      error // why the holder ended
	released  bool  // it did end
	workers   map[int]workflow.CancelFunc
	nextCopy  int
	kept      int64 // rows that were copied before
	exhausted bool  // no chunk is left
	failed    error // of a copy worker
}

func (s *Set) bootstrap(ctx workflow.Context, raw converter.RawValue) (*BootstrapResult, error) {
	var in BootstrapInput
	if err := json.Unmarshal(payloadData(raw), &in); err != nil || in.Query == "" || in.Source == "" || in.Instance == "" {
		return nil, temporal.NewNonRetryableApplicationError(
			"the input must name instance, query and source and hold the query's spec", failure.ConfigInvalid.ID, err)
	}
	if in.SpecRef != "" && workflow.GetVersion(ctx, changeSpecRef, workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		if err := refuseSpec(in.Spec, in.SpecRef); err != nil {
			return nil, temporal.NewNonRetryableApplicationError(err.Error(), failure.ConfigInvalid.ID, nil)
		}
	}
	if in.ID == "" {
		in.ID = workflow.GetInfo(ctx).WorkflowExecution.ID
	}
	b := &bootstrap{root: ctx, in: in, want: min(max(in.Parallelism, 0), maxParallelism), inbox: inboxOf(ctx), hasAttributes: s.attributes}
	b.ctx, _ = workflow.NewDisconnectedContext(ctx)
	b.status.ID = in.ID
	if err := b.handle(); err != nil {
		return nil, err
	}
	result, err := b.run()
	if err != nil {
		_ = workflow.ExecuteActivity(withErrand(b.ctx, "remove what was copied", 5*time.Minute), bootstraps.AbandonBootstrap, b.ref()).Get(b.ctx, nil)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, b.failure(err)
	}
	return result, nil
}

// failure makes an activity's failure the bootstrap's own, so that it shows without the wrapping.
func (b *bootstrap) failure(err error) error {
	report := activities.ReportOf(err)
	return temporal.NewApplicationErrorWithOptions(report.Message, report.Code, temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{report}, Cause: err,
	})
}

func (b *bootstrap) ref() activities.BootstrapRef {
	return activities.BootstrapRef{
		ID: b.in.ID, Instance: b.in.Instance, Query: b.in.Query, Source: b.in.Source, SnapshotGeneration: b.status.Snapshot, Rebuild: b.in.Rebuild,
		Labels: b.in.Labels,
	}
}

func (b *bootstrap) answer() (BootstrapStatus, error) {
	s := b.status
	s.Parallelism, s.Workers, s.Commands = b.want, len(b.workers), b.core.Commands
	return s, nil
}

func (b *bootstrap) enter(phase string) {
	b.status.Phase, b.status.Since = phase, workflow.Now(b.ctx)
	b.upsert()
	b.describe()
}

// describe says for the UI what the status says.
func (b *bootstrap) describe() {
	s := &b.status
	var text strings.Builder
	fmt.Fprintf(&text, "**%s** since %s. Snapshot %d at `%s`: %d tables, about %d rows.\n",
		s.Phase, s.Since.UTC().Format(time.RFC3339), s.Snapshot, s.Position, s.Tables, s.Rows)
	if p := s.Progress; p != nil {
		fmt.Fprintf(&text, "\nAt %s: %d of about %d rows, %d per second; %d tables are copied.", p.At.Format(time.RFC3339), p.Rows, p.Estimate, p.RowsPerSecond, p.TablesCopied)
		if !p.Expected.IsZero() {
			fmt.Fprintf(&text, " All are expected at %s.", p.Expected.Format(time.RFC3339))
		}
		text.WriteString("\n\n| table | state | rows | about |\n|---|---|--:|--:|\n")
		for _, t := range p.Tables {
			fmt.Fprintf(&text, "| `%s` | %s | %d | %d |\n", t.Name, t.State, t.Rows, t.Estimate)
		}
	}
	b.describeFailed(&text)
	workflow.SetCurrentDetails(b.ctx, text.String())
}

func (b *bootstrap) run() (*BootstrapResult, error) {
	b.enter(bootSubscribing)
	err := workflow.ExecuteActivity(withErrand(b.root, "keep the changes from now on", 10*time.Minute), bootstraps.Subscribe, activities.PlanInput{BootstrapRef: b.ref(), Spec: b.in.Spec, SpecRef: b.in.SpecRef}).Get(b.root, nil)
	if err != nil {
		return nil, err
	}
	for inARow := 1; ; inARow++ {
		done := b.status.ChunksDone
		result, err := b.attempt()
		if err == nil {
			return result, nil
		}
		if b.root.Err() != nil {
			return nil, err
		}
		report := trimmed(activities.ReportOf(err))
		if errors.Is(err, errTablesFailed) || b.isKept(report) {
			if err := b.awaitRetry(err, report); err != nil {
				return nil, err
			}
			inARow = 0
			continue
		}
		if report.Code != failure.SnapshotLost.ID {
			return nil, err
		}
		b.status.LastError = &report
		if b.progressed(done) {
			inARow = 1
		}
		if inARow >= lostInARow {
			return nil, err
		}
		if err := sleep(b.root, time.Duration(inARow)*lostPause, "until the next snapshot"); err != nil {
			return nil, err
		}
	}
}

// progressed reports whether the snapshot that was lost had its use: while it was copied, rows came. What a copy worker that
// is cancelled or lost had done is in what the holder told. A complete copy of which the verification finds that its changes
// are lost was of none.
func (b *bootstrap) progressed(chunksBefore int) bool {
	chunks := b.status.ChunksDone > chunksBefore
	if workflow.GetVersion(b.ctx, "progress of lost snapshots", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return chunks
	}
	rows := b.status.Progress != nil && b.status.Progress.Rows > b.kept
	return b.status.Phase == bootCopying && (chunks || rows)
}

// attempt copies what is left under a new generation of the snapshot. It fails with SnapshotLost when that is lost.
func (b *bootstrap) attempt() (*BootstrapResult, error) {
	b.status.Snapshot++
	b.ready, b.lost, b.released, b.exhausted, b.failed = false, nil, false, false, nil
	b.status.Progress, b.kept = nil, 0
	b.workers = make(map[int]workflow.CancelFunc)
	b.enter(bootSnapshotting)
	b.hold()
	defer b.release()

	if err := b.await(func() bool { return b.ready }); err != nil {
		return nil, err
	}
	b.enter(bootPlanning)
	if err := b.plan(); err != nil {
		return nil, err
	}
	b.enter(bootCopying)
	if err := b.copy(); err != nil {
		return nil, err
	}
	b.enter(bootVerifying)
	var verified activities.Verified
	err := workflow.ExecuteActivity(withVerify(b.root), bootstraps.VerifyBootstrap, b.ref()).Get(b.root, &verified)
	if err == nil {
		err = b.verified(verified)
	}
	if err != nil {
		return nil, err
	}
	b.enter(bootSealing)
	var sealed activities.Sealed
	err = workflow.ExecuteActivity(withErrand(b.root, "seal", 10*time.Minute), bootstraps.SealBootstrap, b.ref()).Get(b.root, &sealed)
	if err != nil {
		return nil, err
	}
	b.enter(bootSealed)
	return &BootstrapResult{ID: b.in.ID, Position: sealed.Position, Rows: sealed.Rows, Snapshots: b.status.Snapshot}, nil
}

// hold starts the holder of the snapshot. It tells by a signal when the snapshot is open.
func (b *bootstrap) hold() {
	ctx, cancel := workflow.WithCancel(b.ctx)
	b.holder = cancel
	generation := b.status.Snapshot
	held := workflow.ExecuteActivity(withHoldSnapshot(ctx, fmt.Sprintf("hold-%d", generation)), bootstraps.HoldSnapshot, b.ref())
	workflow.Go(b.ctx, func(ctx workflow.Context) {
		err := held.Get(ctx, nil)
		if generation != b.status.Snapshot {
			return
		}
		b.released = true
		if err == nil {
			err = failure.SnapshotLost.Errorf("it gave up")
		}
		switch report := activities.ReportOf(err); {
		case report.Class == failure.Transient.String():
			b.lost = failure.SnapshotLost.Errorf("the holder of snapshot %d ended: %s", generation, report.Message)
		default:
			b.lost = err
		}
	})
}

// release closes the snapshot and waits until nothing of this generation is left.
func (b *bootstrap) release() {
	b.holder()
	for _, k := range workflow.DeterministicKeys(b.workers) {
		b.workers[k]()
	}
	_ = workflow.Await(b.ctx, func() bool { return b.released && len(b.workers) == 0 })
}

// await waits for a condition, for the loss of the snapshot, or for the end of the bootstrap.
func (b *bootstrap) await(done func() bool) error {
	for {
		err := workflow.Await(b.root, func() bool { return !b.inbox.empty() || b.released || done() })
		if err != nil {
			return err
		}
		b.takeSignals()
		switch {
		case done():
			return nil
		case b.released:
			return b.lost
		}
	}
}

func (b *bootstrap) plan() error {
	ctx, cancel := workflow.WithCancel(b.root)
	defer cancel()
	var (
		plan  activities.BootstrapPlan
		ended bool
		err   error
	)
	workflow.Go(ctx, func(ctx workflow.Context) {
		err = workflow.ExecuteActivity(withPlanChunks(ctx), bootstraps.PlanChunks, activities.PlanInput{BootstrapRef: b.ref(), Spec: b.in.Spec, SpecRef: b.in.SpecRef}).Get(ctx, &plan)
		ended = true
	})
	if lost := b.await(func() bool { return ended }); lost != nil {
		return lost
	}
	b.status.Tables, b.status.Chunks, b.status.Rows, b.kept = plan.Tables, plan.Chunks, plan.Rows, plan.Kept
	if b.want == 0 {
		b.want = min(cmp.Or(plan.Parallelism, defaultParallelism), maxParallelism)
	}
	return err
}

// copy keeps as many copy workers busy as are wanted, until no chunk is left but those of tables that failed.
func (b *bootstrap) copy() error {
	for {
		switch {
		case b.failed != nil:
			return b.failed
		case b.retries.wanted():
			if err := b.beginRetries(); err != nil {
				return err
			}
			continue
		case b.exhausted && len(b.workers) == 0:
			return nil
		}
		want := min(b.want, b.status.Chunks)
		if b.status.Paused {
			want = 0
		} else if want == 0 {
			want = 1 // it finds that there is nothing to do
		}
		running := workflow.DeterministicKeys(b.workers)
		for i := len(running); i < want && !b.exhausted; i++ {
			b.startCopy()
		}
		for i := want; i < len(running); i++ {
			b.workers[running[i]]() // its chunk is copied again by another
		}
		workers, paused, wanted := len(b.workers), b.status.Paused, b.want
		err := b.await(func() bool {
			return b.failed != nil || b.retries.wanted() || len(b.workers) != workers || b.status.Paused != paused || b.want != wanted
		})
		if err != nil {
			return err
		}
	}
}

func (b *bootstrap) startCopy() {
	ctx, cancel := workflow.WithCancel(b.ctx)
	b.nextCopy++
	number, generation, epoch := b.nextCopy, b.status.Snapshot, b.retries.epoch
	b.workers[number] = cancel
	id := fmt.Sprintf("copy-%d-%d", generation, number)
	copying := workflow.ExecuteActivity(withCopyWorker(ctx, id), bootstraps.CopyWorker, activities.CopyInput{BootstrapRef: b.ref(), Worker: id})
	workflow.Go(b.ctx, func(ctx workflow.Context) {
		var copied activities.CopyResult
		err := copying.Get(ctx, &copied)
		b.status.ChunksDone += copied.Chunks
		b.status.RowsDone += copied.Rows
		delete(b.workers, number)
		switch {
		case err == nil:
			b.exhausted = b.exhausted || epoch == b.retries.epoch
		case !temporal.IsCanceledError(err) && b.failed == nil:
			b.failed = err
		}
	})
}
