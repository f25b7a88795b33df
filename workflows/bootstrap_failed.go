package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// errTablesFailed ends an attempt that has copied all but tables that cannot be read.
var errTablesFailed = errors.New("tables cannot be read")

// retries is what is to be tried again of the tables that failed.
type retries struct {
	all    bool
	tables []string
	// Those that were asked for change what copy workers look for: one that began before does not know that nothing is left.
	epoch int
}

func (r *retries) wanted() bool { return r.all || len(r.tables) > 0 }

// plain is a table's name without the quotation marks of SQL, which people leave out.
func plain(table string) string { return strings.ReplaceAll(table, `"`, "") }

func (b *bootstrap) failedAt(table string) int {
	return slices.IndexFunc(b.status.Failed, func(f activities.TableFailure) bool { return f.Table == plain(table) })
}

// tableFailed takes what a copy worker tells of a table.
func (b *bootstrap) tableFailed(f activities.TableFailure) {
	if at := b.failedAt(f.Table); at >= 0 {
		b.status.Failed[at] = f
		return
	}
	b.status.Failed = append(b.status.Failed, f)
	if len(b.status.Failed) == 1 {
		b.tellQuery(false) // of the others it hears when all else is copied
	}
	b.describe()
}

// refuseRetry says why a table cannot be tried again, if so.
func (b *bootstrap) refuseRetry(table string) error {
	switch names := b.failedNames(); {
	case table == "" && (len(names) > 0 || b.status.Phase == bootNeedsOperator):
		return nil
	case len(names) == 0:
		return errors.New("no table has failed")
	case b.failedAt(table) < 0:
		return fmt.Errorf("%s is none of the tables that failed: %s", shorten(table, maxName), shorten(strings.Join(names, ", "), maxProblems))
	}
	return nil
}

func (b *bootstrap) failedNames() []string {
	var names []string
	for _, f := range b.status.Failed {
		names = append(names, f.Table)
	}
	return names
}

// retry has a table that failed, or all of them, copied again. It reports whether there is anything to do.
func (b *bootstrap) retry(table string) bool {
	if b.refuseRetry(table) != nil {
		return false
	}
	if table == "" {
		b.retries.all, b.status.Failed = true, nil
	} else {
		at := b.failedAt(table)
		b.retries.tables = append(b.retries.tables, b.status.Failed[at].Table)
		b.status.Failed = slices.Delete(b.status.Failed, at, at+1)
	}
	b.tellQuery(false)
	b.describe()
	return true
}

// begin puts on record that tables are to be copied again.
func (b *bootstrap) beginRetries() error {
	r := &b.retries
	in := activities.RetryInput{BootstrapRef: b.ref(), Tables: r.tables}
	if r.all {
		in.Tables = nil
	}
	r.all, r.tables = false, nil
	r.epoch++
	b.exhausted = false
	return workflow.ExecuteActivity(withErrand(b.root, "have tables that failed copied again", 10*time.Minute), bootstraps.RetryTables, in).Get(b.root, nil)
}

// verified takes which tables cannot be read, now that all others are copied. Those that are to be tried again are none.
func (b *bootstrap) verified(v activities.Verified) error {
	if len(v.Failed) == 0 {
		return nil
	}
	b.status.Failed = slices.DeleteFunc(v.Failed, func(f activities.TableFailure) bool {
		return b.retries.all || slices.Contains(b.retries.tables, f.Table)
	})
	return errTablesFailed
}

// isKept reports whether a failure for good leaves what was copied before as it is. Only a bootstrap that waited for somebody
// is known to be looked after, so that any other ends, and its query says why.
func (b *bootstrap) isKept(report failure.Report) bool {
	phases := []string{bootSnapshotting, bootPlanning, bootCopying}
	return b.waited && permanent(report) && slices.Contains(phases, b.status.Phase)
}

// awaitRetry waits, without a snapshot, until what failed is to be tried again.
func (b *bootstrap) awaitRetry(err error, report failure.Report) error {
	if !b.retries.wanted() {
		b.waited = true
		if errors.Is(err, errTablesFailed) {
			report = b.failedReport()
		}
		b.status.LastError = &report
		if b.attributes == nil {
			found := workflow.SideEffect(b.ctx, func(workflow.Context) any { return b.hasAttributes() })
			b.attributes = new(bool)
			if err := found.Get(b.attributes); err != nil {
				return err
			}
		}
		b.enter(bootNeedsOperator)
		b.tellQuery(true)
		workflow.GetLogger(b.ctx).Error("the bootstrap needs somebody", "bootstrap", b.in.ID, "code", report.Code, "error", report.Message, "fix", report.Fix)
	}
	for !b.retries.wanted() || b.status.Paused {
		if err := workflow.Await(b.root, func() bool { return !b.inbox.empty() || b.retries.wanted() && !b.status.Paused }); err != nil {
			return err
		}
		b.takeSignals()
	}
	return b.beginRetries()
}

// failedReport says of all tables that failed what the first one's failure says of that one.
func (b *bootstrap) failedReport() failure.Report {
	failed := b.status.Failed
	const most = 5
	names := b.failedNames()
	list := strings.Join(names[:min(len(names), most)], ", ")
	report := failed[0].Failure
	if more := len(names) - most; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	report.Message = fmt.Sprintf("cannot copy %s of source %s: %s", list, b.in.Source, report.Message)
	if len(names) > 1 {
		report.Fix += fmt.Sprintf(" The status of %s has the reasons of all.", b.in.ID)
	}
	return trimmed(report)
}

// tellQuery tells the query which tables failed, if any, and whether there is nothing left to do but to wait for somebody.
func (b *bootstrap) tellQuery(waits bool) {
	t := trouble{ID: b.in.ID, Source: b.in.Source, Waits: waits, At: workflow.Now(b.ctx)}
	if len(b.status.Failed) > 0 && !waits {
		report := b.failedReport()
		b.status.LastError = &report
	}
	if len(b.status.Failed) > 0 || waits {
		t.Failure = b.status.LastError
	}
	for _, name := range b.failedNames() {
		if t.Tables = append(t.Tables, shorten(name, maxName)); len(t.Tables) == mostTables {
			break
		}
	}
	t.More = len(b.status.Failed) - len(t.Tables)
	query := workflow.GetInfo(b.ctx).ParentWorkflowExecution
	if query == nil {
		return
	}
	told := workflow.SignalExternalWorkflow(b.ctx, query.ID, query.RunID, signalTrouble, t)
	workflow.Go(b.ctx, func(ctx workflow.Context) { _ = told.Get(ctx, nil) }) // one that has ended need not know
}

// mostTables is how many tables status and UI name of those that failed.
const mostTables = 20

// describeFailed tells which tables failed, and what to do.
func (b *bootstrap) describeFailed(text *strings.Builder) {
	s := &b.status
	if s.Phase == bootNeedsOperator {
		fmt.Fprintf(text, "\nWhat could be copied is kept, and so are all changes since; no snapshot is held. Signal `%s` when the cause is removed.\n", CommandRetryTable)
		if len(s.Failed) == 0 && s.LastError != nil {
			describeError(text, "Cannot go on", *s.LastError)
		}
	}
	for _, f := range s.Failed[:min(len(s.Failed), mostTables)] {
		describeError(text, fmt.Sprintf("`%s` failed at %s", f.Table, f.At.UTC().Format(time.RFC3339)), f.Failure)
	}
	if more := len(s.Failed) - mostTables; more > 0 {
		fmt.Fprintf(text, "\n%d more tables failed.\n", more)
	}
}

// upsert shows a bootstrap that has waited for somebody in the search attributes. All others are seen in those of their
// queries.
func (b *bootstrap) upsert() {
	if b.attributes == nil || !*b.attributes {
		return
	}
	health := activities.HealthPending
	if b.status.Phase == bootNeedsOperator {
		health = activities.HealthFailing
	}
	err := workflow.UpsertTypedSearchAttributes(b.ctx,
		attrInstance.ValueSet(b.in.Instance), attrKind.ValueSet("bootstrap"), attrComponent.ValueSet(b.in.ID),
		attrPhase.ValueSet(b.status.Phase), attrHealth.ValueSet(health))
	if err != nil {
		workflow.GetLogger(b.ctx).Error("search attributes are not shown", "error", err)
	}
}
