package pipeline

import (
	"encoding/json"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// token is how far loading of a source has come; it is stored with what was loaded.
type token struct {
	Stage    loadStage      `json:"stage"`
	Offset   uint64         `json:"offset"` // last message that is loaded: of the bootstrap log, then of the change log
	Position graph.Position `json:"position,omitempty"`
}

type loadStage int

const (
	loadingCopy loadStage = iota
	loadingChanges
	loaded
)

func (t token) bytes() []byte {
	b, _ := json.Marshal(t) // has nothing that cannot be encoded
	return b
}

func parseToken(b []byte) (token, error) {
	var t token
	if len(b) == 0 {
		return t, nil
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return t, failure.StateCorrupt.Errorf("decoding the loading token %q: %w", b, err)
	}
	return t, nil
}
