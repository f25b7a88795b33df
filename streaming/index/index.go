// Package index is where a query keeps its state: one ordered key-value store per query with atomic batches.
//
// Invariants that every back end keeps and the suite in indextest checks:
//
//  1. A batch is applied whole or not at all, also when the process is killed at any instant.
//  2. After a crash the store holds a prefix of the committed batches, in order; after Sync all of them.
//  3. A snapshot shows the store as it was when it was taken, whatever is committed later.
//  4. Reads through a batch see the batch's own writes over the store.
//  5. A value that was stored as a record reads as the same bytes and, in this process and within the store's budget for
//     records, as the same record.
//
// A store is used by one goroutine, which has at most one batch open at a time. Snapshots may be taken, read and closed
// by other goroutines meanwhile, who may have to wait for the end of the batch; therefore the store's own goroutine does
// so only while it has no batch open.
package index

import (
	"errors"
	"io"
)

// ErrDamaged says that a store's files are not what was written: the store must be restored or built anew. It comes with a
// StateCorrupt failure.
var ErrDamaged = errors.New("the index is damaged")

// Reader reads ordered keys.
type Reader interface {
	// Get returns the value of a key and whether it is there. The slice is valid until the next call on the reader.
	Get(key []byte) (value []byte, found bool, err error)
	// Scan calls visit for each key in [from, to) in ascending order until it returns false or an error. A nil to means
	// the end of the store. The slices are valid during the call only. visit may read, but not write.
	Scan(from, to []byte, visit func(key, value []byte) (more bool, err error)) error
}

// Record is a value in the form in which it is worked with. A store may keep it as it is and encode it only when bytes
// are asked for. It must read the same from when it is stored until it is replaced.
type Record interface {
	// AppendTo appends the bytes of the value.
	AppendTo(dst []byte) []byte
	// Size returns about how many bytes of memory the record takes.
	Size() int
	// Forgotten tells that the next reader gets another one: the open batch has replaced or deleted it, or it had to make
	// room. When the batch is discarded, readers may get it again.
	Forgotten()
}

// Batch collects writes and reads its own writes. Keys and values are copied.
type Batch interface {
	Reader
	// Record returns the value of a key as Put stored it or, when the store has its bytes only, as decode makes it, which
	// may keep the bytes and must not change them. Without a value it returns nil. Keys that are read in this way are
	// cached within the store's budget.
	Record(key []byte, decode func(value []byte) (Record, error)) (Record, error)
	// Expect says which records will be put next or, when they are read, asked for, so that a store can look for all of
	// them at once.
	Expect(keys [][]byte, read bool)
	// Put is Set of a record.
	Put(key []byte, r Record) error
	Set(key, value []byte) error
	Delete(key []byte) error
	// Commit applies the batch; the batch must not be used afterwards. It is durable once Sync returned; until then a
	// crash may undo it together with all that were committed after it.
	Commit() error
	// Discard forgets the batch. It may follow Commit and then does nothing.
	Discard()
}

// Snapshot is a fixed view of a store, to be closed.
type Snapshot interface {
	Reader
	io.Closer
}

// Store is one query's state.
type Store interface {
	Reader
	NewBatch() Batch
	NewSnapshot() (Snapshot, error)
	// Sync makes all committed batches durable against a crash of the machine.
	Sync() error
	// Bytes returns the approximate size of the stored data.
	Bytes() uint64
	io.Closer
}

// Backend opens stores by name.
type Backend interface {
	// Open opens or creates the store. A store that another process holds open gives an IndexLocked failure.
	Open(name string) (Store, error)
	// Remove deletes the store. One that is not there is no error.
	Remove(name string) error
	// Names lists the stores that there are, in order, whether they are open or not.
	Names() ([]string, error)
}

// Durable is a back end whose stores are files, which can be copied elsewhere and back.
type Durable interface {
	Backend
	// Restore puts the files that fill makes in a directory, which is empty, in the place of the store, which must be
	// closed. They have about so many bytes; without room for these beside what is there, it gives a DiskFull failure.
	// Until all of it is on disk, and when fill fails, the store is what it was.
	Restore(name string, bytes int64, fill func(dir string) error) error
	// Clean removes what checkpoints and restores that did not come to their end have left of stores that are not open.
	Clean() error
}

// DurableStore is a store of a Durable back end.
type DurableStore interface {
	Store
	// Checkpoint makes a copy of the store as the last commit left it, synced. It is for the store's own goroutine and
	// takes milliseconds, as files that do not change any more are linked; so it takes room only as they are replaced.
	// Until it is removed, there can be no other.
	Checkpoint() (*Checkpoint, error)
}

// Checkpoint is a copy of a store's files. One goroutine uses it, which need not be the store's.
type Checkpoint struct {
	Dir   string
	Files []File
	// Check reads a file that is Fixed and returns a failure that wraps ErrDamaged when it is not as it was written.
	Check func(f File) error
	// Remove removes the copy.
	Remove func() error
}

// File is a file of a checkpoint.
type File struct {
	Name string
	Size int64
	// Fixed files have the same content in all checkpoints that are made while the store is open.
	Fixed bool
}
