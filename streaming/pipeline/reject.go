package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// rejected is a message of the log of what a source could not decode.
type rejected struct {
	Position graph.Position `json:"position"`
	Scope    string         `json:"scope"`
	Failure  failure.Report `json:"failure"`
	Record   []byte         `json:"record"` // base64
	At       time.Time      `json:"at"`
}

// rejecter returns what keeps the records that a source cannot decode. A record that comes again after a crash may be
// kept twice.
func (h *Host) rejecter(spec component.SourceSpec) func(context.Context, source.DeadLetter) error {
	id := spec.ID()
	return func(ctx context.Context, letter source.DeadLetter) error {
		o := logOptions(rejectedLog(id.Instance, id.Name), spec.Policy, "what "+id.String()+" could not decode")
		o.Removable = true
		log, err := h.conn.EnsureLog(ctx, o)
		if err != nil {
			return fmt.Errorf("opening the dead-letter log: %w", err)
		}
		data, err := json.Marshal(rejected{letter.Position, letter.Scope, failure.Describe(letter.Cause), letter.Record, time.Now().UTC()})
		if err != nil {
			return fmt.Errorf("encoding a dead letter: %w", err)
		}
		sum := sha256.Sum256(append([]byte(letter.Scope), letter.Record...))
		_, err = retried(ctx, func() (uint64, error) {
			return log.NewSharedWriter().Append(ctx, string(letter.Position)+":"+hex.EncodeToString(sum[:8]), data)
		})
		if err != nil {
			return fmt.Errorf("writing a dead letter: %w", err)
		}
		h.metrics.Source(id.Instance, id.Name).DeadLetters.Inc()
		h.logFor(id).Warn("a record went to the dead letters", zap.String("scope", letter.Scope),
			zap.String("position", string(letter.Position)), zap.Error(letter.Cause))
		return nil
	}
}
