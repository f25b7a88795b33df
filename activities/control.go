package activities

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
)

// Control has the short activities that steer loops.
type Control struct {
	store         *Store
	loops         *Loops
	heartbeatRate int // of the process, per second
	// heartbeatTimeout is how long the server waits for a heartbeat also when there are few loops.
	heartbeatTimeout time.Duration
}

const (
	// beatsInTimeout is how many heartbeats of a run come before the server would give it up for lack of one.
	beatsInTimeout = 3
	// longestHeartbeat bounds how late a host that is gone for good is noticed.
	longestHeartbeat = 5 * time.Minute
)

// heartbeat returns how long the server should wait for a heartbeat of another run, if runs are spread over processes
// evenly. Each heartbeat is some writes of the server's: a thousand idle pipelines that beat six times a minute would keep
// a small one busy with nothing else.
func (c *Control) heartbeat() time.Duration {
	needed := time.Duration(beatsInTimeout*(c.loops.count()+1)) * time.Second / time.Duration(c.heartbeatRate)
	return max(c.heartbeatTimeout, min(needed, longestHeartbeat))
}

// PlaceComponent gives a component's next run its generation, above any that the component ever had, also before its
// workflow was deleted and started anew. A component whose state is on a disk stays on its host while that is alive;
// otherwise hosts are chosen by hash, so that many components spread evenly without anybody counting.
func (c *Control) PlaceComponent(ctx context.Context, in PlaceInput) (Placement, error) {
	for {
		last, revision, err := c.store.lastPlacement(ctx, in.Component)
		if err != nil {
			return Placement{}, translate(err)
		}
		next := placement{Generation: max(last.Generation, in.Generation) + 1}
		queue := QueueRun
		if in.NeedsHost {
			hosts, err := c.store.hosts(ctx)
			if err != nil {
				return Placement{}, translate(err)
			}
			if next.Host = choose(in.Component, hosts, last.Host, in.Avoid); next.Host == "" {
				return Placement{}, translate(failure.NoHost.Errorf("no worker is alive that could run %s", in.Component))
			}
			queue = HostQueue(next.Host)
		}
		switch err := c.store.replace(ctx, placementBucket, in.Component, next, revision); {
		case err == nil:
			p := Placement{Generation: next.Generation, Host: next.Host, Queue: queue}
			if heartbeat := c.heartbeat(); heartbeat > UsualHeartbeat {
				p.HeartbeatSeconds = int(heartbeat / time.Second)
			}
			return p, nil
		case !errors.Is(err, stream.ErrConflict):
			return Placement{}, translate(err)
		}
	}
}

// choose picks one of the hosts: the last one, unless it is gone or to be avoided; else the one with the highest hash,
// which changes for few components when hosts come and go. A host to be avoided is better than none.
func choose(component string, hosts []string, last, avoid string) string {
	if last != avoid && slices.Contains(hosts, last) {
		return last
	}
	var (
		best  string
		score uint64
	)
	for _, host := range hosts {
		h := fnv.New64a()
		_, _ = h.Write([]byte(component + "@" + host))
		if s := h.Sum64(); host != avoid && (best == "" || s > score) {
			best, score = host, s
		}
	}
	if best == "" && slices.Contains(hosts, avoid) {
		return avoid
	}
	return best
}

// DropDeadLetters removes dead letters of a reaction or of a source.
func (c *Control) DropDeadLetters(ctx context.Context, in LettersInput) (LettersResult, error) {
	id, err := component.ParseID(in.Component)
	if err != nil {
		return LettersResult{}, translate(failure.ConfigInvalid.Errorf("reading the input: %w", err))
	}
	var result LettersResult
	err = beating(ctx, func(ctx context.Context) error {
		ids, none, err := leftOf(ctx, c.store, id, in.IDs)
		if err != nil {
			return err
		}
		if !none {
			result.Dropped, err = pipeline.NewDeadLetters(c.store.conn).Drop(ctx, id, ids)
		}
		return result.settle(ctx, c.store, in.Component, err)
	})
	return result, translate(err)
}

// leftOf returns which of the dead letters that a command names are left to be done, and whether none is. An attempt whose
// answer was lost may have removed some; in the first one a letter that is missing is a mistake.
func leftOf(ctx context.Context, s *Store, id component.ID, ids []string) (left []string, none bool, err error) {
	if len(ids) == 0 || activity.GetInfo(ctx).Attempt == 1 {
		return ids, false, nil
	}
	left, err = pipeline.NewDeadLetters(s.conn).Existing(ctx, id, ids)
	return left, len(left) == 0, err
}

// settle counts the dead letters that are left. What ended the command before it was done belongs to the result, because
// the part that was done does.
func (r *LettersResult) settle(ctx context.Context, s *Store, name string, err error) error {
	if err != nil {
		report := failure.Describe(err)
		report.Message = shorten(report.Message)
		r.Failure = &report
	}
	id, err := component.ParseID(name)
	if err != nil {
		return failure.ConfigInvalid.Errorf("reading the input: %w", err)
	}
	left, err := pipeline.NewDeadLetters(s.conn).Count(ctx, id)
	r.Left = deadLetters(left)
	return err
}

// RequestDrain asks the loop of a component to finish what it has and end. The loop of a later generation ignores it.
func (c *Control) RequestDrain(ctx context.Context, in GenerationInput) error {
	return translate(c.store.write(ctx, controlBucket, in.Component, control{in.Generation, wantedDrain}))
}

// FenceBump shuts out every attempt of a generation, so that one that does not end writes nothing more.
func (c *Control) FenceBump(ctx context.Context, in GenerationInput) error {
	return translate(c.store.conn.BumpFence(ctx, in.Component, stream.Epoch{Generation: in.Generation + 1}))
}
