package pipeline

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// changes is a message of a change log that is being filled.
type changes struct {
	encoder  graph.Encoder
	name     string
	position graph.Position // where the source is after the message
	commit   time.Time      // of its last transaction, zero if it has none
	followed []storing      // those of its transactions that are followed
	staged   *reference     // that it holds; nil: none
}

func (c *changes) reset() {
	c.encoder.Begin()
	c.name, c.position, c.commit, c.followed, c.staged = "", "", time.Time{}, c.followed[:0], nil
}

func (c *changes) size() int    { return c.encoder.Size() }
func (c *changes) id() string   { return c.name }
func (c *changes) data() []byte { return c.encoder.Finish(c.position) }

// sink is where a source's transactions go: encoded in the goroutine that reads them from the wire, so that nothing is
// copied or queued as objects, and published by the outlet's goroutine.
type sink struct {
	out      *outlet[*changes]
	staging  *staging
	epoch    stream.Epoch
	progress *Progress
	metrics  *telemetry.Source
	tracer   *tracer
	name     string // of the source
	kind     string
	moved    chan struct{}
	pausing  chan struct{} // closed: take nothing more

	// Of the transaction whose parts come in; used by the goroutine that appends.
	fragments int
	parts     int // changes in them

	// What label uses; the outlet calls it with its lock held.
	messages uint64         // named so far
	labelled graph.Position // the highest in a message so far

	mu        sync.Mutex
	appended  graph.Position // of the last whole transaction that was taken
	within    bool           // a transaction whose parts come in
	idle      graph.Position // the latest that Idle named
	durable   graph.Position
	published graph.Position // in the last acknowledged message
	offset    uint64         // of the last acknowledged message
	sent      time.Time      // when that was
	commit    time.Time
	system    string
	schema    []byte         // durable
	learned   []byte         // what it becomes when all up to learnedAt is durable; nil: nothing
	learnedAt graph.Position // of the last whole transaction that was taken then
	noRoom    error          // why the change log takes nothing for now

	// See wants.go.
	wants        source.Wanted
	wantsChanged chan struct{}
	withhold     func(ctx context.Context, wanted source.Wanted) (bool, error)
	serving      *source.Wanted // what is served when all up to servingAt is durable; nil: nothing new
	servingAt    graph.Position
}

func newSink(w *stream.Writer, epoch stream.Epoch, resume sourcePosition, schema []byte, p *Progress, m *telemetry.Source) *sink {
	s := &sink{
		epoch: epoch, progress: p, metrics: m, moved: make(chan struct{}, 1), pausing: make(chan struct{}), wantsChanged: make(chan struct{}, 1),
		labelled: resume.Position, appended: resume.Position, durable: resume.Position, published: resume.Position,
		offset: resume.Offset, system: resume.System, schema: schema,
	}
	s.out = newOutlet(
		func() *changes { return &changes{} },
		func(ctx context.Context, id string, data []byte) (uint64, error) {
			return withRoom(ctx, func() (uint64, error) { return w.Append(ctx, id, data) }, s.refused)
		},
		s.acked,
	)
	return s
}

// Append implements source.Sink.
func (s *sink) Append(ctx context.Context, tx *graph.Transaction) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	before := s.standing()
	if tx.Position.Compare(before) <= 0 {
		return nil // the source repeats itself after a reconnect
	}
	parts := split(tx.Changes, maxMessage)
	if len(parts) > 1 {
		s.fragments, s.parts = 0, 0
		return s.appendFragments(ctx, tx, parts, true)
	}
	// A change of the schema may stop a query, which then has all that was in the messages before.
	if err := s.out.add(ctx, len(tx.Schema) > 0, func(c *changes) {
		c.encoder.Add(tx)
		s.label(c, tx.Position, tx.CommitTime)
		s.follow(c, tx, len(tx.Changes))
	}); err != nil {
		return err
	}
	s.metrics.Changes.Add(float64(len(tx.Changes)))
	s.stand(tx.Position)
	return nil
}

// AppendPart implements source.Sink.
func (s *sink) AppendPart(ctx context.Context, part *graph.Transaction, number int, last bool) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	if number == 0 {
		s.fragments, s.parts = 0, 0
	}
	if err := s.appendFragments(ctx, part, split(part.Changes, maxFragment), last); err != nil {
		return err
	}
	detail := ""
	if !last {
		detail = fmt.Sprintf("%d parts so far of a transaction that was committed at %s", number+1, part.CommitTime.Format(time.RFC3339))
	}
	s.progress.SetDetail("largeTransaction", detail)
	return nil
}

// Stages implements source.Sink.
func (s *sink) Stages() bool { return s.staging.hasRoom() }

// Stage implements source.Sink.
func (s *sink) Stage(ctx context.Context, transaction uint64, changes []graph.Change) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	return s.staging.stage(ctx, transaction, changes)
}

// Unstage implements source.Sink.
func (s *sink) Unstage(transaction uint64) { s.staging.drop(transaction) }

// AppendStaged implements source.Sink.
func (s *sink) AppendStaged(ctx context.Context, transaction uint64, committed time.Time) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	of, r, err := s.staging.refer(ctx, transaction)
	if err != nil {
		return err
	}
	before := s.begin()
	if err := s.out.add(ctx, true, func(c *changes) {
		c.encoder.AddStaged(&graph.Transaction{CommitTime: committed}, &graph.Staged{Key: of.key, From: of.from, To: of.to, Messages: of.messages, Bytes: of.bytes})
		c.staged = r
		s.label(c, before, committed)
	}); err != nil {
		return err
	}
	s.metrics.Changes.Add(float64(of.changes))
	s.fragments, s.parts = 1, of.changes
	return nil
}

// begin notes that parts of a transaction come in, and returns where the source stands until the last one.
func (s *sink) begin() graph.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.within = true
	return s.appended
}

// appendFragments appends parts of a transaction, each as a message of its own. Until the last one the source stands where
// it stood before the transaction.
func (s *sink) appendFragments(ctx context.Context, tx *graph.Transaction, parts [][]graph.Change, last bool) error {
	before := s.begin()
	for i, part := range parts {
		last := last && i == len(parts)-1
		position := before
		if last {
			position = tx.Position
		}
		if err := s.out.add(ctx, true, func(c *changes) {
			c.encoder.AddFragment(tx, part, s.fragments, last)
			s.label(c, position, tx.CommitTime)
			if last {
				s.follow(c, tx, s.parts+len(part))
			}
		}); err != nil {
			return err
		}
		s.metrics.Changes.Add(float64(len(part)))
		s.fragments++
		s.parts += len(part)
	}
	if last {
		s.stand(tx.Position)
	}
	return nil
}

// follow notes a transaction that is complete with the message, if it is one to be followed.
func (s *sink) follow(c *changes, tx *graph.Transaction, changes int) {
	if s.tracer.follows(s.name, tx.Position) {
		c.followed = append(c.followed, storing{tx.Position, tx.CommitTime, changes})
	}
}

// admit waits for the end of ctx when nothing more is taken.
func (s *sink) admit(ctx context.Context) error {
	select {
	case <-s.pausing:
		<-ctx.Done()
		return ctx.Err()
	default:
		return nil
	}
}

// standing returns where the last whole transaction that was taken ended.
func (s *sink) standing() graph.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appended
}

func (s *sink) stand(position graph.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appended, s.within = position, false
	s.metrics.Transactions.Inc()
}

// label names a message and says where the source is after it. The name holds the attempt, since what a message holds
// depends on timing: only the very same message may ever be taken for a duplicate. Repetition between attempts cannot
// happen, since an attempt begins at the last message of the log, which it has closed to all earlier attempts.
func (s *sink) label(c *changes, position graph.Position, commit time.Time) {
	if position.Compare(s.labelled) < 0 {
		position = s.labelled // positions of a log never go back
	}
	s.labelled = position
	if c.name == "" {
		s.messages++
		c.name = fmt.Sprintf("%s:%s:%d", position, s.epoch, s.messages)
	}
	c.position = position
	if !commit.IsZero() {
		c.commit = commit
	}
}

func (s *sink) acked(c *changes, sequence uint64) {
	s.tracer.stored(s.name, s.kind, c.followed, sequence)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset, s.sent, s.published = sequence, time.Now(), c.position
	if c.staged != nil {
		s.staging.referred(c.staged, sequence)
	}
	if c.commit.IsZero() {
		s.metrics.Lag.Set(0)
	} else {
		s.commit = c.commit
		s.metrics.Lag.Set(max(0, s.sent.Sub(c.commit).Seconds()))
	}
	if c.position.Compare(s.durable) > 0 {
		s.durable = c.position
		select {
		case s.moved <- struct{}{}:
		default:
		}
	}
	s.settle()
}

// settle lets what was learned count once all that was taken before is durable.
func (s *sink) settle() {
	if s.learned != nil && s.durable.Compare(s.learnedAt) >= 0 {
		s.schema, s.learned = s.learned, nil
	}
}

// Idle implements source.Sink. The position counts when it is in the log, see beat: what the source's system is told must
// never lie before where the source would resume, so that a system that stands elsewhere has lost changes.
func (s *sink) Idle(position graph.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if position.Compare(s.idle) > 0 {
		s.idle = position
	}
}

// Durable implements source.Sink.
func (s *sink) Durable() graph.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable
}

// DurableChanged implements source.Sink.
func (s *sink) DurableChanged() <-chan struct{} { return s.moved }

// System implements source.Sink.
func (s *sink) System() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.system
}

// Identify implements source.Sink.
func (s *sink) Identify(system string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.system = system
}

// Schema implements source.Sink.
func (s *sink) Schema() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.learned != nil {
		return s.learned
	}
	return s.schema
}

// Learn implements source.Sink.
func (s *sink) Learn(schema []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learned, s.learnedAt = schema, s.appended
	s.settle()
}

func (s *sink) durableSchema() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.schema
}

// Note implements source.Sink.
func (s *sink) Note(key, value string) { s.progress.SetDetail(key, value) }

// Measure implements source.Sink.
func (s *sink) Measure(name string, value float64) { s.metrics.Measure(name, value) }

// Interrupted implements source.Sink.
func (s *sink) Interrupted(why error) {
	s.progress.Set(func(st *Status) {
		var intake IntakeStatus
		was, is := "interrupted", "streaming"
		if why != nil {
			was, is = is, was
			intake.FailingSince = time.Now().UTC()
			if before := st.Intake; before != nil && before.LastError != nil {
				intake = *before
			}
			report := failure.Describe(why)
			intake.Failures, intake.LastError = intake.Failures+1, &report
		}
		if st.Phase == was { // else it drains
			st.Phase = is
		}
		st.Intake = &intake
	})
}

// Tick implements source.Sink. A source that is alive but whose changes go nowhere is not progress.
func (s *sink) Tick() {
	if !s.out.isStuck() && !s.staging.out.isStuck() {
		s.progress.Tick()
	}
}

// pause makes Append wait for the end of its context instead of taking more, and waits until what was taken is durable.
func (s *sink) pause(ctx context.Context) error {
	close(s.pausing)
	return s.out.flush(ctx)
}

// beat publishes an empty message when the source moved on without changes, so that queries know how far it is. Between two
// fragments of a transaction there is none: who reads from there on must see that it begins within one.
func (s *sink) beat(ctx context.Context) error {
	s.mu.Lock()
	position := s.idle
	due := !s.within && s.durable.Compare(s.appended) >= 0 && position.Compare(s.published) > 0 && time.Since(s.sent) >= time.Second
	s.mu.Unlock()
	if !due || !s.out.isIdle() {
		return nil
	}
	return s.out.add(ctx, false, func(c *changes) { s.label(c, position, time.Time{}) })
}

func (s *sink) where() (sourcePosition, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sourcePosition{Position: s.durable, Offset: s.offset, System: s.system, At: time.Now().UTC()}, s.commit
}

// split divides changes into parts of about that many bytes at most, usually one.
func split(all []graph.Change, most int) [][]graph.Change {
	var parts [][]graph.Change
	begin, bytes := 0, 0
	for i := range all {
		w := all[i].Weight()
		if bytes > 0 && bytes+w > most {
			parts = append(parts, all[begin:i])
			begin, bytes = i, 0
		}
		bytes += w
	}
	return append(parts, all[begin:])
}
