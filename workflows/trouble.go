package workflows

import (
	"slices"
	"time"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// signalTrouble is the signal by which a bootstrap tells its query that tables cannot be copied, and that they are tried again.
const signalTrouble = "bootstrapTrouble"

// trouble is the payload of signalTrouble, and what the query's status says of it.
type trouble struct {
	ID     string    `json:"bootstrapId"`
	Source string    `json:"source"`
	Waits  bool      `json:"waits"` // for somebody; otherwise other tables are still being copied
	Tables []string  `json:"tables,omitempty"`
	More   int       `json:"moreTables,omitempty"` // beyond those
	At     time.Time `json:"at"`
	// Failure is that of the first table; nil: all is well again.
	Failure *failure.Report `json:"failure,omitempty"`
}

// troubled takes what a bootstrap tells of tables that cannot be copied.
func (e *entity) troubled(s signal) {
	var t trouble
	if err := s.decode(&t); err != nil {
		e.malformed(s, err)
		return
	}
	if e.task != taskBootstrap && e.beside == nil || !slices.Contains(e.childIDs, t.ID) {
		return // it has ended
	}
	phase, health := e.state.Phase, e.health()
	e.forgetTrouble(t.ID)
	if t.Failure != nil {
		report := trimmed(*t.Failure)
		t.Failure, t.Tables = &report, t.Tables[:min(len(t.Tables), mostTables)]
		e.state.Snapshots.Trouble = append(e.state.Snapshots.Trouble, t)
		e.state.Breaker.LastError = &LastError{Report: report, At: t.At}
	}
	if e.task == taskBootstrap && e.ending == notEnding && !e.held {
		e.enter(e.phaseOfBootstrap())
	}
	if e.state.Phase == phase && e.health() != health {
		e.upsert()
	}
}

// phaseOfBootstrap is how a query shows that cannot go on before its bootstraps are done.
func (e *entity) phaseOfBootstrap() Phase {
	if slices.ContainsFunc(e.state.Snapshots.Trouble, func(t trouble) bool { return t.Waits }) {
		return PhaseNeedsOperator
	}
	return PhaseBootstrapping
}

func (e *entity) forgetTrouble(id string) {
	known := &e.state.Snapshots
	known.Trouble = slices.DeleteFunc(slices.Clone(known.Trouble), func(t trouble) bool { return t.ID == id })
}

// retryTables has the bootstraps try again to copy what they could not. It reports whether there was any such thing.
func (e *entity) retryTables() bool {
	any := false
	for i, child := range e.children {
		if slices.ContainsFunc(e.state.Snapshots.Trouble, func(t trouble) bool { return t.ID == e.childIDs[i] }) {
			e.tell(child, CommandRetryTable)
			any = true
		}
	}
	return any
}

// degrades reports whether trouble is worth telling beside a phase that sounds well.
func (s *snapshots) degrades(p Phase, health string) bool {
	return len(s.Trouble) > 0 && (health == activities.HealthHealthy || p == PhaseBootstrapping)
}
