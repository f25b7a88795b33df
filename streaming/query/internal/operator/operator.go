// Package operator holds the operators of a plan, one for each type of its nodes. Each takes rows with a weight of +1 or
// -1 and passes on rows with such weights: a retraction is the same code as an insertion with the opposite weight.
//
// The slots of all rows are in one environment, so that a row is its identity and what the slots hold at the moment. An
// operator reads the slots that operators before it wrote, writes its own, and calls the next. Those that pass rows on
// when a transaction is flushed put the slots back first.
//
// Operators start no goroutines, look at no clock and write nowhere but to the batch at hand.
package operator

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Policy says what becomes of a row for which an expression fails.
type Policy uint8

// The policies.
const (
	Skip Policy = iota // the row is left out
	Null               // a value that fails is null; a condition that fails leaves the row out
	Stop               // the query stops
)

// Context is what the operators of a query share.
type Context struct {
	Env      *eval.Env
	Batch    index.Batch
	Failed   int64 // rows that are left out at present
	Policy   Policy
	MaxSteps int // how many relationships the variable-length patterns may follow because of one change
	MaxRows  int // how many rows matches and lists may make because of one change

	rows     int // made because of the change at hand
	values   graph.Decoder
	key, buf []byte
}

// made counts a row that is made of another one: short queries can ask for more than any machine has, such as all pairs
// of all elements.
func (c *Context) made() error {
	if c.rows++; c.MaxRows > 0 && c.rows > c.MaxRows {
		return failure.TooManyRows.Errorf("applying a change: it makes more than %d rows", c.MaxRows)
	}
	return nil
}

// Identified is a row's identity, worked out only when somebody asks. It is valid until the row has been passed on.
type Identified interface {
	Key() result.RowKey
	// Origin describes what the row was made of, for people; "" if that is not known any longer.
	Origin() string
}

// Rows takes rows, which are in the environment's slots.
type Rows interface {
	Row(row Identified, weight int) error
}

// Operator is one node of the network.
type Operator interface {
	// Flush passes on what the transaction changed and has not been passed on yet.
	Flush() error
	// Save writes to the batch what the operator keeps in memory.
	Save() error
	// Reset forgets everything that is not stored.
	Reset()
	// feed says who takes the operator's rows.
	feed(next Rows)
}

// base is what all operators share, and what those without memory do.
type base struct {
	ctx   *Context
	id    int
	takes []int // slots of the rows that come in
	next  Rows
}

// Flush has nothing to pass on.
func (*base) Flush() error { return nil }

// Save has nothing to write.
func (*base) Save() error { return nil }

// Reset has nothing to forget.
func (*base) Reset() {}

func (b *base) feed(next Rows) { b.next = next }

// Stages of a node at which a row may fail, as part of the keys under which failed rows are kept.
const (
	stageRow   = 0
	stageGroup = 1
)

// fail notes that a row is left out because of cause, or, with a weight of -1, that it no longer is.
func (b *base) fail(stage byte, row Identified, cause error, weight int) error {
	c := b.ctx
	if c.Policy == Stop && weight > 0 {
		return failure.RowFailed.Errorf("evaluating a row of %s: %w", b.origin(row), cause)
	}
	c.Failed += int64(weight)
	c.key = store.FailedKey(c.key[:0], b.id, stage, row.Key())
	if weight < 0 {
		return c.Batch.Delete(c.key)
	}
	c.buf = store.AppendBytes(c.buf[:0], shortened(b.origin(row)))
	c.buf = store.AppendBytes(c.buf, shortened(cause.Error()))
	return c.Batch.Set(c.key, c.buf)
}

// origin describes what the row at hand was made of: if it does not know, by the elements in it.
func (b *base) origin(row Identified) string {
	if text := row.Origin(); text != "" {
		return text
	}
	var ids []string
	add := func(elements ...*graph.Element) {
		for _, e := range elements {
			if id := string(e.ID); !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	for _, slot := range b.takes {
		switch v := b.ctx.Env.Slots[slot]; v.Kind() {
		case graph.KindNode, graph.KindRelationship:
			add(v.AsElement())
		case graph.KindPath:
			add(v.AsPath().Nodes...)
			add(v.AsPath().Relationships...)
		}
	}
	if len(ids) == 0 {
		return row.Key().String()
	}
	return strings.Join(ids, ", ")
}

// shortened cuts what is kept of each failed row: it names values, which may be megabytes long, between words that say
// what is the matter with them.
func shortened(s string) string {
	const first, last = 300, 100 // bytes
	if len(s) <= first+last {
		return s
	}
	return strings.ToValidUTF8(s[:first]+"…"+s[len(s)-last:], "")
}

// value evaluates an expression on the row at hand. A failure of the row is noted, once for all expressions of a node;
// out says that the row is out because of it.
func (b *base) value(f eval.Func, row Identified, weight int, noted *bool) (v graph.Value, out bool, err error) {
	v, cause := f(b.ctx.Env)
	if cause == nil {
		return v, false, nil
	}
	if *noted {
		return graph.Null, false, nil
	}
	*noted = true
	return graph.Null, b.ctx.Policy != Null, b.fail(stageRow, row, cause, weight)
}

// appendSlots appends the values of slots.
func (c *Context) appendSlots(dst []byte, slots []int) []byte {
	for _, s := range slots {
		dst = graph.AppendValue(dst, c.Env.Slots[s])
	}
	return dst
}

// loadSlots puts back what appendSlots wrote and returns what follows it. The values share the record, which must not
// change afterwards.
func (c *Context) loadSlots(slots []int, record []byte) (rest []byte, err error) {
	for _, s := range slots {
		v, rest, err := c.values.Value(record)
		if err != nil {
			return nil, failure.StateCorrupt.Errorf("reading a row of the query's state: %w", err)
		}
		c.Env.Slots[s], record = v, rest
	}
	return record, nil
}

// scopeOf returns the scope of the row at hand.
func (c *Context) scopeOf(slot int) (scope result.RowKey) {
	if slot >= 0 {
		copy(scope[:], c.Env.Slots[slot].AsString())
	}
	return scope
}

// plainRow is the identity of a row that was remembered.
type plainRow struct {
	key    result.RowKey
	origin string
}

// Key returns the identity.
func (r *plainRow) Key() result.RowKey { return r.key }

// Origin returns what is known of the row's origin.
func (r *plainRow) Origin() string { return r.origin }

// hashKey makes a row key of what identifies the row. It must not be possible to find two identities with the same key,
// as one row would take the other's place.
func hashKey(identity []byte) result.RowKey {
	sum := sha256.Sum256(identity)
	return result.RowKey(sum[:len(result.RowKey{})])
}

// Tags keep identities of different origin apart.
const (
	tagItem   = 'i'
	tagNull   = 'n'
	tagBranch = 'b'
)

// derive returns the identity of the number-th row that was made of another one.
func derive(key result.RowKey, tag byte, number uint64) result.RowKey {
	var buf [len(key) + 1 + 8]byte
	copy(buf[:], key[:])
	buf[len(key)] = tag
	binary.BigEndian.PutUint64(buf[len(key)+1:], number)
	return hashKey(buf[:])
}

// without returns the slots that are not among others.
func without(slots, others []int) (list []int) {
	for _, s := range slots {
		if !slices.Contains(others, s) {
			list = append(list, s)
		}
	}
	return list
}
