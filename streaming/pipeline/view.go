package pipeline

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
)

// A result set travels as a series of messages to the inbox of who asked: begin, rows (any number), end; or error at any
// point. Each but the last is a request, answered when its content is used, so that nothing piles up; the answer "stop"
// ends the series.
const (
	partHeader = "Perdure-Part"
	partBegin  = "begin"
	partRows   = "rows"
	partEnd    = "end"
	partError  = "error"

	answerMore = "more"
	answerStop = "stop"

	rowsPart    = 256 << 10        // bytes
	viewTimeout = 30 * time.Second // for the use of one part
	maxViews    = 16               // at a time
)

// viewBegin is the content of a begin part.
type viewBegin struct {
	Columns []string     `json:"columns"`
	State   result.State `json:"state"`
}

var errViewStopped = errors.New("stopped by who asked")

// serveViews answers requests for the result set until the group ends. Requests go to one of those who serve the query;
// one that was taken over does not answer.
func (r *queryRun) serveViews(g *group) error {
	sub, err := r.host.conn.NATS().QueueSubscribeSync(viewSubject(r.id.Instance, r.id.Name), "owner")
	if err != nil {
		return failure.StreamUnavailable.Errorf("subscribing to view requests: %w", err)
	}
	slots := make(chan struct{}, maxViews)
	g.run(func(ctx context.Context) error {
		defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is closed, which ends it as well
		for {
			m, err := sub.NextMsgWithContext(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return failure.StreamUnavailable.Errorf("waiting for view requests: %w", err)
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			g.run(func(ctx context.Context) error {
				defer func() { <-slots }()
				if err := r.serveView(ctx, m.Reply); err != nil {
					r.host.logFor(r.id).Debug("view request ended early", zap.Error(err))
				}
				return nil
			})
		}
	})
	return nil
}

func (r *queryRun) serveView(ctx context.Context, inbox string) error {
	err := failure.Guard(func() error { return r.sendView(ctx, inbox) })
	if err == nil || errors.Is(err, errViewStopped) {
		return nil
	}
	report, encodeErr := json.Marshal(failure.Describe(err))
	return errors.Join(err, encodeErr, r.host.conn.NATS().PublishMsg(part(inbox, partError, report)))
}

func (r *queryRun) sendView(ctx context.Context, inbox string) error {
	if err := r.fence.Check(ctx); err != nil {
		return err
	}
	view, err := r.query.View()
	if err != nil {
		return fmt.Errorf("opening the view: %w", err)
	}
	defer view.Close()
	state := view.State()
	state.Sequence += r.base
	if len(r.spec.Sources) > 1 { // see show
		if err := r.awaitLogged(ctx, state.Sequence); err != nil {
			return err
		}
	}
	begin, err := json.Marshal(viewBegin{view.Columns(), state})
	if err != nil {
		return fmt.Errorf("encoding the view's state: %w", err)
	}
	if err := r.sendPart(ctx, inbox, partBegin, begin); err != nil {
		return err
	}
	var rows []byte
	err = view.Scan(func(row result.Row) error {
		rows = appendRow(rows, row)
		if len(rows) < rowsPart {
			return nil
		}
		err := r.sendPart(ctx, inbox, partRows, rows)
		rows = rows[:0]
		return err
	})
	if err == nil && len(rows) > 0 {
		err = r.sendPart(ctx, inbox, partRows, rows)
	}
	if err != nil {
		return err
	}
	return r.host.conn.NATS().PublishMsg(part(inbox, partEnd, nil))
}

// awaitLogged waits until an event is in the result log.
func (r *queryRun) awaitLogged(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	if err := r.logged.await(ctx, sequence); err != nil {
		return failure.StreamUnavailable.Errorf("waiting for event %d to be in the result log: %w", sequence, err)
	}
	return nil
}

func (r *queryRun) sendPart(ctx context.Context, inbox, kind string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	answer, err := r.host.conn.NATS().RequestMsgWithContext(ctx, part(inbox, kind, data))
	if err != nil {
		return fmt.Errorf("sending a part of the view: %w", err)
	}
	if string(answer.Data) != answerMore {
		return errViewStopped
	}
	return nil
}

func part(inbox, kind string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: inbox, Header: nats.Header{partHeader: {kind}}, Data: data}
}

func appendRow(dst []byte, row result.Row) []byte {
	dst = append(dst, row.Key[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(row.Values)))
	for _, v := range row.Values {
		dst = graph.AppendValue(dst, v)
	}
	return dst
}

func decodeRow(src []byte) (row result.Row, rest []byte, err error) {
	rest = src[min(len(src), copy(row.Key[:], src)):]
	n, size := binary.Uvarint(rest)
	if size <= 0 || n > uint64(len(rest)) {
		return row, nil, failure.BadRecord.Errorf("reading a row of a view: it is cut short")
	}
	rest = rest[size:]
	row.Values = make([]graph.Value, n)
	for i := range row.Values {
		if row.Values[i], rest, err = graph.DecodeValue(rest); err != nil {
			return row, nil, err
		}
	}
	return row, rest, nil
}
