package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// answerTimeout is how long the first part of a view may take.
const answerTimeout = 5 * time.Second

// Results reads the results of one instance's queries, wherever they run: current rows from the process that runs the
// query, events from there and from the result log. It implements reaction.Results and is safe for concurrent use.
type Results struct {
	conn     *stream.Conn
	instance string
}

// NewResults returns the results of an instance.
func NewResults(conn *stream.Conn, instance string) *Results {
	return &Results{conn: conn, instance: component.InstanceOr(instance)}
}

// Snapshot implements reaction.Results. An error of begin or visit ends it and is returned.
func (r *Results) Snapshot(
	ctx context.Context, query string,
	begin func(columns []string, state result.State) error, visit func(result.Row) error,
) error {
	nc := r.conn.NATS()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return failure.StreamUnavailable.Errorf("asking for the results of %s: %w", query, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is closed, which ends it as well
	if err := nc.PublishRequest(viewSubject(r.instance, query), inbox, nil); err != nil {
		return failure.StreamUnavailable.Errorf("asking for the results of %s: %w", query, err)
	}
	wait := answerTimeout
	for {
		m, err := nextPart(ctx, sub, wait)
		if errors.Is(err, errNoAnswer) {
			return r.notRunning(ctx, query, err)
		}
		if err != nil {
			return fmt.Errorf("reading the results of %s: %w", query, err)
		}
		wait = viewTimeout
		switch m.Header.Get(partHeader) {
		case partEnd:
			return nil
		case partError:
			return viewError(query, m.Data)
		case partBegin:
			var b viewBegin
			if err = json.Unmarshal(m.Data, &b); err == nil {
				err = begin(b.Columns, b.State)
			}
		case partRows:
			err = visitRows(m.Data, visit)
		default:
			return r.notRunning(ctx, query, errNoAnswer)
		}
		answer := answerMore
		if err != nil {
			answer = answerStop
		}
		if respondErr := m.Respond([]byte(answer)); err == nil && respondErr != nil {
			err = failure.StreamUnavailable.Errorf("reading the results of %s: %w", query, respondErr)
		}
		if err != nil {
			return err
		}
	}
}

var errNoAnswer = errors.New("nobody answers")

// notRunning says what a query is that nobody answers for. One that has a result log is on its way, or comes back.
func (r *Results) notRunning(ctx context.Context, query string, err error) error {
	_, logErr := r.conn.OpenLog(ctx, resultLog(r.instance, query))
	switch {
	case logErr == nil:
		return failure.QueryNotReady.Errorf("query %s does not run at present: %w", query, err)
	case errors.Is(logErr, stream.ErrMissing):
		return failure.QueryMissing.Errorf("query %s does not exist: %w", query, err)
	}
	return fmt.Errorf("looking for query %s, for which %w: %w", query, err, logErr)
}

func nextPart(ctx context.Context, sub *nats.Subscription, wait time.Duration) (*nats.Msg, error) {
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	m, err := sub.NextMsgWithContext(bounded)
	switch {
	case err == nil:
		return m, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%w in time: %w", errNoAnswer, err)
	}
	return nil, failure.StreamUnavailable.Errorf("waiting for an answer: %w", err)
}

func viewError(query string, data []byte) error {
	var report failure.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return failure.BadRecord.Errorf("decoding an error from whoever runs query %s: %w", query, err)
	}
	return failure.QueryMissing.Errorf("whoever runs query %s cannot read its results: %s", query, report.Message).
		WithDetail("code", report.Code)
}

func visitRows(data []byte, visit func(result.Row) error) error {
	for len(data) > 0 {
		row, rest, err := decodeRow(data)
		if err != nil {
			return err
		}
		if err := visit(row); err != nil {
			return err
		}
		data = rest
	}
	return nil
}
