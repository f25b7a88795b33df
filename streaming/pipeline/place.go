package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// skipSuffix ends the key of bucket deliveries that says which event of a query a reaction is not to wait for.
const skipSuffix = ".skip"

// skipRecord is its value. It says nothing of any other event, so that nobody has to remove it.
type skipRecord struct {
	Sequence uint64 `json:"sequence"`
	Log      int64  `json:"log"` // as in a deliveryRecord
}

// Places in a query's results, beside the numbers of events.
const (
	PlaceEarliest = "earliest" // before all that is kept
	PlaceLatest   = "latest"   // behind all that there is now
)

// SkipResult has the next run of a reaction try the event that it cannot get past just once more, and put it into the dead
// letters, with that failure, if it fails. Only that event can be named: others may yet be delivered.
func (h *Host) SkipResult(ctx context.Context, spec component.ReactionSpec, query string, sequence uint64) error {
	log, deliveries, err := h.placesIn(ctx, spec, query)
	if err != nil {
		return err
	}
	key := deliveryKey(spec.ID(), query)
	var at deliveryRecord
	if _, _, err := read(ctx, deliveries, key, &at); err != nil {
		return err
	}
	if at.Log != 0 && at.Log != log.Created().UnixNano() {
		at = deliveryRecord{}
	}
	from, err := firstBehind(ctx, log, at.Sequence)
	if err != nil {
		return err
	}
	next, err := eventBehind(ctx, log, from, at.Sequence)
	switch {
	case err != nil:
		return err
	case next == nil:
		return failure.PlaceInvalid.Errorf("no event of query %s waits: all are delivered", query)
	case next.Sequence != sequence:
		return failure.PlaceInvalid.Errorf("event %d of query %s is not the one that waits, which is %d", sequence, query, next.Sequence)
	}
	_, err = write(ctx, deliveries, key+skipSuffix, skipRecord{sequence, log.Created().UnixNano()})
	return err
}

// SetPlace has a reaction that does not run go on behind an event of a query, which may be "earliest", "latest" or its
// number, and returns that number. The place is owner's then: an attempt before it can no longer move it, and one after it
// has begun already.
func (h *Host) SetPlace(ctx context.Context, spec component.ReactionSpec, query, to string, owner stream.Epoch) (uint64, error) {
	log, deliveries, err := h.placesIn(ctx, spec, query)
	if err != nil {
		return 0, err
	}
	at, err := placeOf(ctx, log, query, to)
	if err != nil {
		return 0, err
	}
	key := deliveryKey(spec.ID(), query)
	at.Owner, at.Log, at.At = owner, log.Created().UnixNano(), time.Now().UTC()
	for {
		var there deliveryRecord
		revision, _, err := read(ctx, deliveries, key, &there)
		if err != nil {
			return 0, err
		}
		if there.Owner.Compare(owner) > 0 {
			return 0, failure.FencedOff.Errorf("attempt %s of the reaction has begun", there.Owner)
		}
		_, err = replace(ctx, deliveries, key, at, revision)
		if errors.Is(err, stream.ErrConflict) {
			continue
		}
		if err == nil {
			err = removeKeys(ctx, deliveries, key+skipSuffix)
		}
		return at.Sequence, err
	}
}

// placesIn opens what a reaction's place in a query's results is about.
func (h *Host) placesIn(ctx context.Context, spec component.ReactionSpec, query string) (*stream.Log, *stream.Bucket, error) {
	if !slices.Contains(spec.Queries, query) {
		return nil, nil, failure.PlaceInvalid.Errorf("the reaction does not take the results of query %s", query)
	}
	re, err := h.newReaction(spec, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := closeReaction(ctx, re); err != nil {
		return nil, nil, err
	}
	if _, delivers := re.(reaction.Deliverer); !delivers {
		return nil, nil, failure.Unsupported.Errorf("reaction kind %q delivers nothing: its clients say where they begin", spec.Kind)
	}
	log, err := h.openResultLog(ctx, spec.ID().Instance, query)
	if err != nil {
		return nil, nil, err
	}
	deliveries, err := h.bucket(ctx, deliveriesBucket)
	return log, deliveries, err
}

func deliveryKey(reaction component.ID, query string) string {
	return reaction.Instance + "." + reaction.Name + "." + query
}

// placeOf is the place behind an event.
func placeOf(ctx context.Context, log *stream.Log, query, to string) (deliveryRecord, error) {
	switch to {
	case PlaceEarliest:
		return deliveryRecord{}, nil
	case PlaceLatest:
		last, err := log.Last(ctx)
		if err != nil || last == nil { // behind nothing is before all
			return deliveryRecord{}, err
		}
		end, err := lastEvent(last)
		return deliveryRecord{Message: last.Sequence, Sequence: end}, err
	}
	sequence, err := strconv.ParseUint(to, 10, 63)
	if err != nil || sequence == 0 {
		return deliveryRecord{}, failure.PlaceInvalid.Errorf("%q is neither earliest, latest nor the number of an event", to)
	}
	from, err := firstBehind(ctx, log, sequence)
	if err != nil {
		return deliveryRecord{}, err
	}
	next, err := eventBehind(ctx, log, from, sequence)
	if err != nil {
		return deliveryRecord{}, err
	}
	at := deliveryRecord{Message: from - 1, Sequence: sequence}
	if next != nil {
		if next.Sequence != sequence+1 && !isAnew(next) {
			return at, failure.PlaceInvalid.Errorf("event %d of query %s is no longer kept; the oldest behind it is %d", sequence+1, query, next.Sequence)
		}
		return at, nil
	}
	latest, err := placeOf(ctx, log, query, PlaceLatest)
	if err == nil && latest.Sequence != sequence {
		err = failure.PlaceInvalid.Errorf("query %s has no event %d; the last is %d", query, sequence, latest.Sequence)
	}
	return at, err
}

// firstBehind returns the first message number from which on there are none but events behind a sequence, and maybe some
// before it in the same message. The numbers of events grow with those of messages.
func firstBehind(ctx context.Context, log *stream.Log, sequence uint64) (uint64, error) {
	state, err := log.State(ctx)
	if err != nil {
		return 0, err
	}
	var failed error
	n := sort.Search(int(state.Last+1-state.First), func(i int) bool {
		m, err := log.Next(ctx, state.First+uint64(i))
		if err != nil || m == nil {
			failed = errors.Join(failed, err)
			return true
		}
		last, err := lastEvent(m)
		failed = errors.Join(failed, err)
		return last > sequence
	})
	return state.First + uint64(n), failed
}

// eventBehind returns the first event behind a sequence, nil if there is none. It is in the first message from from on.
func eventBehind(ctx context.Context, log *stream.Log, from, sequence uint64) (*result.Event, error) {
	m, err := log.Next(ctx, from)
	if err != nil || m == nil {
		return nil, err
	}
	events, err := result.DecodeMessage(m.Data)
	if err != nil {
		return nil, fmt.Errorf("decoding message %d of log %s: %w", m.Sequence, log.Name(), err)
	}
	if i := slices.IndexFunc(events, func(e *result.Event) bool { return e.Sequence > sequence }); i >= 0 {
		return events[i], nil
	}
	return nil, nil
}

func lastEvent(m *stream.Message) (sequence uint64, err error) {
	events, err := result.DecodeMessage(m.Data)
	if err != nil {
		return 0, fmt.Errorf("decoding message %d of a result log: %w", m.Sequence, err)
	}
	if len(events) == 0 {
		return 0, failure.StateCorrupt.Errorf("message %d of a result log has no events", m.Sequence)
	}
	return events[len(events)-1].Sequence, nil
}

// skipOf returns which event of a query is not to be waited for, 0 if there is none such.
func skipOf(ctx context.Context, deliveries *stream.Bucket, key string, log int64) (uint64, error) {
	var skip skipRecord
	if _, _, err := read(ctx, deliveries, key+skipSuffix, &skip); err != nil || skip.Log != log {
		return 0, err
	}
	return skip.Sequence, nil
}
