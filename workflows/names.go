package workflows

import (
	"fmt"
	"slices"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
)

// Workflow types, as users name them when they start one.
const (
	TypeSource    = "Source"
	TypeQuery     = "Query"
	TypeReaction  = "Reaction"
	TypeBootstrap = "Bootstrap"
	TypeInstance  = "Instance"

	TypeCheckSource = "CheckSource"
)

// KindInstance is the kind that an instance shows itself with, beside those of components.
const KindInstance = "instance"

// Commands: each is a signal, which cannot answer, and an update, which can.
const (
	CommandPause        = activities.CommandPause
	CommandResume       = activities.CommandResume
	CommandStop         = activities.CommandStop
	CommandRestart      = activities.CommandRestart
	CommandReconfigure  = activities.CommandReconfigure
	CommandRebootstrap  = "rebootstrap"
	CommandResetBreaker = "resetBreaker"
	CommandSetPosition  = "setPosition"
	CommandSkip         = "skip"
	CommandUpgrade      = "upgrade"
	CommandRetry        = "retry"
	CommandDrop         = "drop"
	CommandDelete       = activities.CommandDelete
	CommandApply        = "apply" // of an instance
)

// Commands that only a bootstrap knows, beside pause and resume.
const (
	CommandSetConcurrency = "setConcurrency"
	CommandRetryTable     = "retryTable"
)

var commandNames = []string{
	CommandPause, CommandResume, CommandStop, CommandRestart, CommandReconfigure, CommandRebootstrap,
	CommandResetBreaker, CommandSetPosition, CommandSkip, CommandUpgrade, CommandRetry, CommandDrop,
	CommandDelete,
}

// Commands returns the names of all commands of components.
func Commands() []string { return slices.Clone(commandNames) }

// Queries that every component answers.
const (
	QueryStatus   = activities.QueryStatus
	QuerySpec     = activities.QuerySpec
	QueryCommands = "commands"
	QueryExplain  = "explain"
)

// WorkflowType returns the workflow type of a kind of components.
func WorkflowType(kind component.Kind) string {
	switch kind {
	case component.Source:
		return TypeSource
	case component.Query:
		return TypeQuery
	default:
		return TypeReaction
	}
}

// BootstrapID returns the workflow id of the n-th bootstrap of a query from one source.
func BootstrapID(query component.ID, source string, n int) string {
	return fmt.Sprintf("bootstrap.%s.%s.%s.%d", query.Instance, query.Name, source, n)
}
