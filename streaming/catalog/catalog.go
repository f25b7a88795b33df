// Package catalog lists the plugins that are compiled in. To add one, write its folder and add its line here.
package catalog

import (
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/reaction/http"
	"github.com/perdure/perdure/streaming/reaction/log"
	"github.com/perdure/perdure/streaming/reaction/sse"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
)

// Sources returns the kinds of sources, each once.
func Sources() []source.Factory {
	return []source.Factory{
		postgres.Factory{},
	}
}

// Reactions returns the kinds of reactions, each once.
func Reactions() []reaction.Factory {
	return []reaction.Factory{
		http.Factory{},
		log.Factory{},
		sse.Factory{},
	}
}
