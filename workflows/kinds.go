package workflows

import (
	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
)

// The activities by reference: nothing is called on these.
var (
	sources    *activities.Sources
	queries    *activities.Queries
	reactions  *activities.Reactions
	bootstraps *activities.Bootstraps
	control    *activities.Control
	instances  *activities.Instances
)

// kind is in what the workflows of sources, queries and reactions differ.
type kind struct {
	component component.Kind
	validate  any
	provision any // nil: there is nothing to provision
	run       any
	teardown  any
}

func sourceKind() kind {
	return kind{component.Source, sources.ValidateSource, sources.ProvisionSource, sources.SourceRun, sources.TeardownSource}
}

func queryKind() kind {
	return kind{component.Query, queries.ValidateQuery, nil, queries.QueryRun, queries.TeardownQuery}
}

func reactionKind() kind {
	return kind{component.Reaction, reactions.ValidateReaction, nil, reactions.ReactionRun, reactions.TeardownReaction}
}
