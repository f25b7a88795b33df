// Package operator holds the operators of a plan. Each takes rows with a weight of +1 or -1 and passes on rows with
// such weights: a retraction is the same code as an insertion with the opposite weight. Operators start no goroutines,
// look at no clock and write nowhere but to the batch at hand.
package operator

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Context is what the operators of a query share while a batch is applied.
type Context struct {
	Batch  index.Batch
	Failed int64 // rows that are left out at present

	key, buf []byte
}

// Identified is a row's identity, worked out only when somebody asks.
type Identified interface {
	Key() result.RowKey
	// Origin describes what the row was made of, for people.
	Origin() string
}

// Input is an operator that evaluates expressions on the slots of its rows.
type Input interface {
	Input(env *eval.Env, row Identified, weight int) error
	Output
}

// Rows is an operator that takes finished rows. It keeps values, which must not be changed.
type Rows interface {
	Row(key result.RowKey, values []graph.Value, weight int) error
	Output
}

// Output is the end of an operator's work on a transaction.
type Output interface {
	// Flush passes on what the transaction changed; it is called in the order of the data's flow.
	Flush() error
}

// fail notes that a row is left out because of cause, or, with a weight of -1, that it no longer is.
func (c *Context) fail(operator byte, row Identified, cause error, weight int) error {
	c.Failed += int64(weight)
	c.key = store.FailedKey(c.key[:0], operator, row.Key())
	if weight < 0 {
		return c.Batch.Delete(c.key)
	}
	c.buf = store.AppendBytes(c.buf[:0], row.Origin())
	c.buf = store.AppendBytes(c.buf, cause.Error())
	return c.Batch.Set(c.key, c.buf)
}

// hashKey makes a row key of what identifies the row. It must not be possible to find two identities with the same key,
// as one row would take the other's place.
func hashKey(identity []byte) result.RowKey {
	sum := sha256.Sum256(identity)
	return result.RowKey(sum[:len(result.RowKey{})])
}

// elementsKey is the identity of a match.
func elementsKey(buf []byte, ids []graph.ElementID) (result.RowKey, []byte) {
	for _, id := range ids {
		buf = append(binary.AppendUvarint(buf, uint64(len(id))), id...)
	}
	return hashKey(buf), buf
}

func joinIDs(ids []graph.ElementID) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(id))
	}
	return b.String()
}
