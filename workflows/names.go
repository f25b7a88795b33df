package workflows

import (
	"fmt"
	"slices"

	"github.com/perdure/perdure/streaming/component"
)

// Workflow types, as users name them when they start one.
const (
	TypeSource    = "Source"
	TypeQuery     = "Query"
	TypeReaction  = "Reaction"
	TypeBootstrap = "Bootstrap"

	TypeCheckSource = "CheckSource"
)

// Commands: each is a signal, which cannot answer, and an update, which can.
const (
	CommandPause        = "pause"
	CommandResume       = "resume"
	CommandStop         = "stop"
	CommandRestart      = "restart"
	CommandReconfigure  = "reconfigure"
	CommandRebootstrap  = "rebootstrap"
	CommandResetBreaker = "resetBreaker"
	CommandSetPosition  = "setPosition"
	CommandSkip         = "skip"
	CommandUpgrade      = "upgrade"
	CommandDelete       = "delete"
)

// CommandSetConcurrency is a signal that only a bootstrap knows, beside pause and resume.
const CommandSetConcurrency = "setConcurrency"

var commandNames = []string{
	CommandPause, CommandResume, CommandStop, CommandRestart, CommandReconfigure, CommandRebootstrap,
	CommandResetBreaker, CommandSetPosition, CommandSkip, CommandUpgrade, CommandDelete,
}

// Commands returns the names of all commands of components.
func Commands() []string { return slices.Clone(commandNames) }

// Queries that every component answers.
const (
	QueryStatus   = "status"
	QuerySpec     = "spec"
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
