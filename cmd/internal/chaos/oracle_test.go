package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/cmd/internal/followtest"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
)

// currentBound is how long results may take, after the end of all faults, to contain everything. It is longer than a
// heartbeat's timeout and the first wait of a breaker together, so that it is seen which of them it was.
const currentBound = 150 * time.Second

var (
	errBehind = errors.New("the result is behind")
	errEnough = errors.New("the position is all that is asked for")
)

// written returns the position of the source's end.
func (e *environment) written(ctx context.Context) (graph.Position, error) {
	position, err := column[string](ctx, e, "SELECT pg_current_wal_lsn()::text")
	if err != nil {
		return "", err
	}
	return graph.Position(position[0]), nil
}

// current waits until the results of all queries contain everything up to a position, and the hook takes what comes after.
func (e *environment) current(ctx context.Context, bound time.Duration, position graph.Position) error {
	for _, q := range queries {
		var sequence uint64
		err := until(ctx, bound, "result of "+q.name+" at "+string(position), func() (err error) {
			sequence, _, err = e.result(ctx, q, position, false)
			return err
		})
		if err == nil {
			err = until(ctx, bound, "events of "+q.name+" with the hook", func() error { return e.hook.reached(q.name, sequence) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// result returns a query's rows as sorted lines, if they contain everything up to a position.
func (e *environment) result(ctx context.Context, q query, position graph.Position, wantRows bool) (sequence uint64, lines []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var columns []string
	err = e.results.Snapshot(ctx, q.name, func(names []string, s result.State) error {
		columns, sequence = names, s.Sequence
		for _, source := range q.readFrom() {
			if s.Positions[source].Compare(position) < 0 {
				return fmt.Errorf("%w: it is at %s of source %s", errBehind, s.Positions[source], source)
			}
		}
		if !wantRows {
			return errEnough
		}
		return nil
	}, func(row result.Row) error {
		lines = append(lines, followtest.Canonical(result.RowJSON(columns, row)))
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	slices.Sort(lines)
	return sequence, lines, err
}

// check compares everything that has come out of the system with what is in the source, to which nobody writes.
func (e *environment) check(ctx context.Context) error {
	err := until(ctx, 30*time.Second, "end of the clients' transactions", func() error {
		left, err := column[int](ctx, e, "SELECT pid FROM pg_stat_activity WHERE application_name = '"+writerName+"'")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d connections", len(left))
		}
		return err
	})
	if err != nil {
		return err
	}
	position, err := e.written(ctx)
	if err != nil {
		return err
	}
	if err := e.current(ctx, currentBound, position); err != nil {
		return err
	}
	var problems []error
	for _, q := range queries {
		problems = append(problems, e.checkQuery(ctx, q, position))
	}
	problems = append(problems, e.checkSource(ctx, position), e.checkLetters(ctx))
	for _, group := range e.components() {
		for _, c := range group {
			problems = append(problems, until(ctx, 30*time.Second, "it runs", func() error { return e.isRunning(ctx, c.id) }))
		}
	}
	return errors.Join(problems...)
}

func (e *environment) checkQuery(ctx context.Context, q query, position graph.Position) error {
	want, err := column[string](ctx, e, "SELECT row_to_json(r)::text FROM ("+q.sql+") r")
	if err != nil {
		return err
	}
	for i := range want {
		want[i] = followtest.Canonical(json.RawMessage(want[i]))
	}
	slices.Sort(want)
	var sequence uint64
	var rows []string
	err = until(ctx, 30*time.Second, "rows of "+q.name, func() (err error) {
		sequence, rows, err = e.result(ctx, q, position, true)
		return err
	})
	if err != nil {
		return err
	}
	problems := []error{differ(q.name+": SQL and result", want, rows)}

	all, given, err := e.replayed(ctx, q.name, sequence)
	if err != nil {
		return fmt.Errorf("replaying the events of %s: %w", q.name, err)
	}
	for _, fault := range all.Faults {
		problems = append(problems, fmt.Errorf("replayed from the first event on: %s", fault))
	}
	problems = append(problems, differ(q.name+": SQL and all events", want, all.Rows()))

	problems = append(problems, e.checkDeliveries(ctx, q.name, given), e.checkHook(ctx, q.name, given))

	f := e.followers[q.name]
	err = until(ctx, 30*time.Second, "events of "+q.name+" with the client", func() error {
		if at, _, _ := f.State(); at != sequence {
			return fmt.Errorf("it is at sequence %d, the result at %d", at, sequence)
		}
		return nil
	})
	_, followed, faults := f.State()
	problems = append(problems, err, differ(q.name+": SQL and the client's rows", want, followed))
	for _, fault := range faults {
		problems = append(problems, fmt.Errorf("followed: %s", fault))
	}
	return errors.Join(problems...)
}

// differ says how two sorted lists of lines differ.
func differ(what string, want, got []string) error {
	if slices.Equal(want, got) {
		return nil
	}
	only := func(a, b []string) (lines []string) {
		for _, line := range a {
			if _, found := slices.BinarySearch(b, line); !found && len(lines) < 5 {
				lines = append(lines, line)
			}
		}
		return lines
	}
	return fmt.Errorf("%s differ: %d and %d rows; only in the first: %v; only in the second: %v", what, len(want), len(got), only(want, got), only(got, want))
}

// newReplay returns a replay that wants every event of the accounts to show all of a transaction.
func newReplay(query string) *followtest.Replay {
	r := followtest.NewReplay(query)
	if query == balance {
		r.Look = func(e followtest.Event) error {
			for _, d := range e.Diffs {
				if !e.Snapshot && d.After != nil && !bytes.Contains(d.After, []byte(`"total":0}`)) {
					return fmt.Errorf("it shows a part of a transaction: %s", d.After)
				}
			}
			return nil
		}
	}
	return r
}

// replayed adds up all events of a query up to a sequence. Beside, it returns what a reaction must have been given.
func (e *environment) replayed(ctx context.Context, query string, to uint64) (*followtest.Replay, []delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r := newReplay(query)
	var given []delivery
	err := e.results.Follow(ctx, query, 0, func(ev *result.Event) error {
		r.Take(ev.AppendJSON(nil))
		for _, d := range ev.Diffs {
			given = append(given, delivery{query, ev.Sequence, d.Key.String()})
		}
		if ev.Sequence >= to {
			return errEnough
		}
		return nil
	}, nil)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return r, given, err
}

// delivery is what the reaction writes of a difference.
type delivery struct {
	query    string
	sequence uint64
	key      string
}

// checkDeliveries waits until the reaction has written what it was to be given since it was first given anything. It may
// be given things again, but nothing for the first time after something later.
func (e *environment) checkDeliveries(ctx context.Context, query string, given []delivery) error {
	return until(ctx, 30*time.Second, "events of "+query+" with the reaction", func() error {
		file, err := os.Open(e.sinkFile())
		if err != nil {
			return err
		}
		defer file.Close()
		written := make(map[delivery]bool)
		var first, last uint64
		for lines := bufio.NewScanner(file); lines.Scan(); {
			var d delivery
			if _, err := fmt.Sscanf(lines.Text(), "%s %d %s", &d.query, &d.sequence, &d.key); err != nil {
				return fmt.Errorf("the reaction has written %q: %w", lines.Text(), err)
			}
			if d.query != query || written[d] {
				continue
			}
			if first == 0 {
				first = d.sequence
			}
			if d.sequence < last {
				return fmt.Errorf("the reaction was given event %d for the first time after event %d", d.sequence, last)
			}
			last = d.sequence
			written[d] = true
		}
		for _, d := range given {
			if !written[d] && d.sequence >= first {
				return fmt.Errorf("the reaction was not given row %s of event %d; the first and last that it was given are %d and %d", d.key, d.sequence, first, last)
			}
		}
		return nil
	})
}

// checkSource waits until the slot is confirmed up to a position.
func (e *environment) checkSource(ctx context.Context, position graph.Position) error {
	return until(ctx, 30*time.Second, "confirmed position", func() error {
		behind, err := column[string](ctx, e, "SELECT slot_name || ' at ' || confirmed_flush_lsn FROM pg_replication_slots WHERE confirmed_flush_lsn < '"+string(position)+"'")
		if err == nil && len(behind) > 0 {
			err = fmt.Errorf("%s, before %s", strings.Join(behind, ", "), position)
		}
		return err
	})
}
