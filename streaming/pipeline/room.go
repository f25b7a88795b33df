package pipeline

import (
	"context"
	"time"

	"github.com/perdure/perdure/streaming/failure"
)

// roomEvery is how often a log is asked again that the stream server had no room for.
const roomEvery = time.Second

// withRoom appends to a log as retried does, and waits for room on the stream server for as long as that takes: it is made
// by those who read the log, or by an operator, and a new attempt would find none either. While there is none, refused is
// told why about every second, and nil in the end.
func withRoom(ctx context.Context, append func() (uint64, error), refused func(why error)) (uint64, error) {
	for waited := false; ; waited = true {
		var why error
		sequence, err := retried(ctx, func() (uint64, error) {
			sequence, err := append()
			if failure.CodeOf(err) == failure.StreamFull {
				why, err = err, nil
			}
			return sequence, err
		})
		if why == nil {
			if waited {
				refused(nil)
			}
			return sequence, err
		}
		refused(why)
		select {
		case <-time.After(roomEvery):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// refused notes why the change log takes nothing for now; nil: it does. The source is well then: it is held up.
func (s *sink) refused(why error) {
	s.mu.Lock()
	s.noRoom = why
	s.mu.Unlock()
	s.progress.Tick()
	s.progress.Set(func(st *Status) { st.Backpressure = s.heldUp() })
}

// heldUp says what the source waits for, "" when it does not.
func (s *sink) heldUp() string {
	s.mu.Lock()
	why := s.noRoom
	s.mu.Unlock()
	switch {
	case why != nil:
		return "room for the change log: " + why.Error()
	case s.out.isFull() || s.staging.out.isFull():
		return "the change log takes changes more slowly than the source sends them"
	}
	return ""
}
