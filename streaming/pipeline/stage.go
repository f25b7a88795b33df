package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/stream"
)

// A transaction that a source has before it is known whether it commits is staged: published as it comes, into a log beside
// the change log. When it commits, its first part in the change log is a reference that says where its changes are; when it
// does not, nobody refers to them.
//
// The log of what is staged is trimmed before the oldest message that belongs to a transaction in progress, or to a
// reference that somebody has yet to read. A reference is put on record before it is in the change log, so that the next
// attempt keeps what it is about, too.

const (
	// maxStaged is the size at which a message of what is staged is closed.
	maxStaged = 1 << 20
	// mostReferences is how many of them are on record one by one.
	mostReferences = 200
)

// stagedChanges is a message of staged changes that is being filled.
type stagedChanges struct {
	encoder graph.Encoder
	of      *staged
	number  uint64 // among those of its transaction
}

func (c *stagedChanges) reset() {
	c.encoder.Begin()
	c.encoder.Open(&graph.Transaction{})
}

func (c *stagedChanges) size() int    { return c.encoder.Size() }
func (c *stagedChanges) data() []byte { return c.encoder.Finish("") }

// id begins with the transaction's key: who looks for another one's need not decode the message.
func (c *stagedChanges) id() string { return c.of.key + ":" + strconv.FormatUint(c.number, 10) }

// staged is a transaction in progress of which something was staged.
type staged struct {
	key             string
	transaction     uint64 // the source's number
	changes         int
	messages, bytes uint64
	from, to        uint64 // sequences of those that are acknowledged; 0: none is
}

// reference is what a message of the change log needs of what is staged.
type reference struct {
	From   uint64 `json:"from"`             // the first sequence that it may need
	Offset uint64 `json:"offset,omitempty"` // of the message in the change log, 0: not known
}

// stagedRecord is the value of bucket positions at <instance>.<source>.staged.
type stagedRecord struct {
	Owner      stream.Epoch `json:"owner"` // the attempt that wrote it
	References []reference  `json:"references"`
}

// stagedSuffix ends the key of a stagedRecord.
const stagedSuffix = ".staged"

// staging is an attempt's access to the log of what is staged. Its outlet publishes; all other methods but trim belong to the
// goroutine that reads the source.
type staging struct {
	conn      *stream.Conn
	options   stream.LogOptions
	fence     *stream.Fence
	positions *stream.Bucket
	key       string
	out       *outlet[*stagedChanges]

	filling *stagedChanges // the message that is being filled; nil: none is
	begun   uint64         // transactions so far
	writer  *stream.Writer // used by the outlet; nil until something is staged

	mu         sync.Mutex
	log        *stream.Log        // nil as long as there is none
	acked      uint64             // sequence of the last message that is acknowledged
	bytes      uint64             // in the log, or on their way to it
	refused    error              // why nothing is staged any more
	inProgress map[uint64]*staged // by the source's number
	references []*reference       // in the order of the change log
	recorded   []reference

	trimmedTo uint64 // used by trim
}

// newStaging takes over what earlier attempts staged. A reference of which they did not come to know where it is, is before
// the end of the change log, if it is there at all.
func (h *Host) newStaging(ctx context.Context, spec component.SourceSpec, fence *stream.Fence, positions *stream.Bucket, end uint64) (*staging, error) {
	id := spec.ID()
	s := &staging{
		conn: h.conn, fence: fence, positions: positions, key: id.Instance + "." + id.Name + stagedSuffix, inProgress: make(map[uint64]*staged),
		options: logOptions(stagedLog(id.Instance, id.Name), spec.Policy, "transactions in progress of "+id.String()),
	}
	s.out = newOutlet(func() *stagedChanges { return &stagedChanges{} }, s.publish, s.published)
	var record stagedRecord
	if _, _, err := read(ctx, positions, s.key, &record); err != nil {
		return nil, err
	}
	s.recorded = record.References
	for _, r := range record.References {
		if r.Offset == 0 {
			r.Offset = end
		}
		s.references = append(s.references, &r)
	}
	switch _, err := h.conn.OpenLog(ctx, s.options.Name); {
	case errors.Is(err, stream.ErrMissing):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("opening the log of what is staged: %w", err)
	}
	return s, s.open(ctx)
}

// open takes over the log, which it creates when there is none.
func (s *staging) open(ctx context.Context) error {
	log, err := s.conn.EnsureLog(ctx, s.options)
	if err != nil {
		return fmt.Errorf("opening the log of what is staged: %w", err)
	}
	writer, err := log.NewWriter(ctx, s.fence)
	if err != nil {
		return fmt.Errorf("opening the log of what is staged for writing: %w", err)
	}
	state, err := log.State(ctx)
	if err != nil {
		return fmt.Errorf("reading the state of the log of what is staged: %w", err)
	}
	s.writer = writer
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.acked = log, writer.Last()
	s.bytes += state.Bytes
	return nil
}

// close makes further messages fail, when the outlet has ended.
func (s *staging) close() {
	if s.writer != nil {
		s.writer.Close()
	}
}

// publish returns 0 for what is not kept, because the stream server has no room for it, or for the log. It reserves as much
// as the log may grow to, which one that was set up for the change logs may not have. Then a source does without: nobody may
// wait for room here, since what is in the log goes only when the transaction has ended.
func (s *staging) publish(ctx context.Context, id string, data []byte) (uint64, error) {
	return retried(ctx, func() (uint64, error) {
		if s.refusal() != nil {
			return 0, nil
		}
		if s.writer == nil {
			if err := s.open(ctx); err != nil {
				return 0, s.unlessFull(err)
			}
		}
		sequence, err := s.writer.Append(ctx, id, data)
		return sequence, s.unlessFull(err)
	})
}

// unlessFull notes that the stream server has no room; other errors it returns.
func (s *staging) unlessFull(err error) error {
	if failure.CodeOf(err) != failure.StreamFull {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = err
	return nil
}

func (s *staging) refusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

func (s *staging) published(c *stagedChanges, sequence uint64) {
	if sequence == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.of.from == 0 {
		c.of.from = sequence
	}
	s.acked, c.of.to = sequence, sequence
}

// hasRoom reports whether something may be staged, so that the log never drops what somebody needs: a transaction in progress
// for long holds on to all that is staged after it, and so does a query that is behind.
func (s *staging) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused == nil && !s.full()
}

func (s *staging) stage(ctx context.Context, transaction uint64, changes []graph.Change) error {
	if s.filling != nil && s.filling.of.transaction != transaction {
		if err := s.put(ctx); err != nil {
			return err
		}
	}
	if s.filling == nil {
		s.filling = s.out.blank()
		s.filling.of = s.of(transaction)
	}
	for i := range changes {
		s.filling.encoder.Append(&changes[i])
	}
	s.filling.of.changes += len(changes)
	if s.filling.size() < maxStaged {
		return nil
	}
	return s.put(ctx)
}

// of returns the transaction with a number of the source's. Its key has not been that of any other.
func (s *staging) of(transaction uint64) *staged {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.inProgress[transaction]
	if of == nil {
		s.begun++
		of = &staged{key: fmt.Sprintf("%s.%d", s.fence.Epoch(), s.begun), transaction: transaction}
		s.inProgress[transaction] = of
	}
	return of
}

// put has the message that is being filled published.
func (s *staging) put(ctx context.Context) error {
	c := s.filling
	if c == nil {
		return nil
	}
	s.filling = nil
	c.of.messages++
	c.number = c.of.messages
	c.of.bytes += uint64(c.size())
	s.mu.Lock()
	s.bytes += uint64(c.size())
	s.mu.Unlock()
	return s.out.put(ctx, c)
}

func (s *staging) drop(transaction uint64) {
	if s.filling != nil && s.filling.of.transaction == transaction {
		s.filling = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inProgress, transaction)
}

// refer ends a transaction in progress, all of whose changes are durable then, as is that there will be a reference to them.
func (s *staging) refer(ctx context.Context, transaction uint64) (*staged, *reference, error) {
	if err := s.put(ctx); err != nil {
		return nil, nil, err
	}
	if err := s.out.flush(ctx); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	of := s.inProgress[transaction]
	s.mu.Unlock()
	if of == nil {
		return nil, nil, failure.Panic.Errorf("nothing was staged of transaction %d", transaction)
	}
	if err := s.refusal(); err != nil {
		return nil, nil, failure.StagedLost.Errorf("staging a transaction: %w", err)
	}
	state, err := retried(ctx, func() (stream.LogState, error) { return s.log.State(ctx) })
	if err != nil && !errors.Is(err, stream.ErrMissing) {
		return nil, nil, fmt.Errorf("reading the state of the log of what is staged: %w", err)
	}
	if err != nil || state.First > of.from || state.Last < of.to {
		return nil, nil, failure.StagedLost.Errorf("the log of what is staged goes from message %d to %d, and the transaction from %d to %d",
			state.First, state.Last, of.from, of.to)
	}
	r := &reference{From: of.from}
	s.mu.Lock()
	delete(s.inProgress, transaction)
	s.references = append(condensed(s.references), r)
	s.mu.Unlock()
	if _, err := retried(ctx, func() (struct{}, error) { return struct{}{}, s.record(ctx) }); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.references = s.references[:len(s.references)-1] // it will not be there
		return nil, nil, err
	}
	return of, r, nil
}

// condensed makes one of two references each, when they are many: what one needs is then kept for as long as the other one.
func condensed(all []*reference) []*reference {
	if len(all) < mostReferences {
		return all
	}
	var kept []*reference
	for i := 0; i < len(all); i++ {
		r := all[i]
		if i+1 < len(all) && r.Offset != 0 && all[i+1].Offset != 0 {
			i++
			r = &reference{From: min(r.From, all[i].From), Offset: all[i].Offset}
		}
		kept = append(kept, r)
	}
	return kept
}

// referred says where in the change log a reference is.
func (s *staging) referred(r *reference, offset uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Offset = offset
}

// record puts the references on record, however many goroutines do so at the same time.
func (s *staging) record(ctx context.Context) error {
	for {
		var before stagedRecord
		revision, _, err := read(ctx, s.positions, s.key, &before)
		if err != nil {
			return err
		}
		if before.Owner.Compare(s.fence.Epoch()) > 0 {
			return failure.FencedOff.Errorf("attempt %s has taken over %s", before.Owner, s.key)
		}
		now := s.needed() // after the revision was read: what is older than another's is not written
		_, err = replace(ctx, s.positions, s.key, stagedRecord{Owner: s.fence.Epoch(), References: now}, revision)
		if errors.Is(err, stream.ErrConflict) {
			continue
		}
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.recorded = now
		}
		return err
	}
}

func (s *staging) needed() []reference {
	s.mu.Lock()
	defer s.mu.Unlock()
	needed := make([]reference, len(s.references))
	for i, r := range s.references {
		needed[i] = *r
	}
	return needed
}

// trim drops what nobody needs any more, now that the change log goes on at a message.
func (s *staging) trim(ctx context.Context, from uint64) error {
	s.mu.Lock()
	s.references = slices.DeleteFunc(s.references, func(r *reference) bool { return r.Offset != 0 && r.Offset < from })
	log, to, recorded := s.log, s.acked+1, s.recorded
	for _, r := range s.references {
		to = min(to, r.From)
	}
	for _, of := range s.inProgress {
		if of.from != 0 { // else it comes behind what is acknowledged
			to = min(to, of.from)
		}
	}
	s.mu.Unlock()
	if log == nil {
		return nil
	}
	if !slices.Equal(recorded, s.needed()) {
		if err := s.record(ctx); err != nil {
			return err
		}
	}
	if to > s.trimmedTo {
		if err := log.TrimBefore(ctx, to); err != nil {
			return fmt.Errorf("trimming the log of what is staged: %w", err)
		}
		s.trimmedTo = to
	}
	state, err := log.State(ctx)
	if err != nil {
		return fmt.Errorf("reading the state of the log of what is staged: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes = state.Bytes + uint64(s.out.queued())
	return nil
}

// warning says for people why nothing is staged any more; "" while something may be.
func (s *staging) warning() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.refused != nil:
		return fmt.Sprintf("transactions in progress are not published until they end: %v", s.refused)
	case s.full():
		return fmt.Sprintf("holds %d of at most %d bytes, of transactions in progress and of others that the slowest query has yet to read; more are not published until they end",
			s.bytes, s.options.MaxBytes)
	}
	return ""
}

func (s *staging) full() bool { return s.bytes >= uint64(s.options.MaxBytes)/5*4 }

// openStaged opens the log of what is staged, to which a change log refers.
func (h *Host) openStaged(ctx context.Context, instance, source string) (*stream.Log, error) {
	log, err := h.conn.OpenLog(ctx, stagedLog(instance, source))
	if errors.Is(err, stream.ErrMissing) {
		return nil, failure.StreamTrimmed.Errorf("what was staged of transactions of %s.%s is gone: %w", instance, source, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the log of what is staged of %s: %w", source, err)
	}
	return log, nil
}
