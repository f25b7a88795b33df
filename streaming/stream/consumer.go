package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/streaming/failure"
)

// ConsumerOptions describe a durable consumer.
type ConsumerOptions struct {
	// Name consists of letters, digits, underscores and dashes.
	Name string
	// From is the sequence of the first message; it counts only when the consumer is created. 0 means the first there is.
	From uint64
	// AckWait is how long a delivery may take before it is repeated, unless Working is called; 0 means 30 s.
	AckWait time.Duration
	// MaxPending is how many deliveries may be without acknowledgement at a time; 0 means 256.
	MaxPending int
}

// Consumer reads a log whose server remembers which messages were acknowledged, and delivers the others again: later,
// between newer ones, so that only first deliveries are in order. Who needs order uses a Reader and remembers where it
// is. A Consumer does not notice when messages were trimmed that it had not delivered yet: what they hold must tell.
type Consumer struct {
	log      *Log
	name     string
	messages jetstream.MessagesContext
}

// Delivery is one attempt at processing a message.
type Delivery struct {
	Message
	Attempts uint64 // 1 when it is delivered for the first time
	msg      jetstream.Msg
	log      *Log
}

// EnsureConsumer opens a durable consumer, creating it when missing and adjusting it to o except for From.
func (l *Log) EnsureConsumer(ctx context.Context, o ConsumerOptions) (*Consumer, error) {
	if !namePattern.MatchString(o.Name) {
		return nil, failure.ConfigInvalid.Errorf("opening consumer %q: the name must consist of letters, digits, underscores and dashes", o.Name)
	}
	config := jetstream.ConsumerConfig{
		Durable:       o.Name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       o.AckWait,
		MaxDeliver:    -1,
		MaxAckPending: o.MaxPending,
		FilterSubject: l.subject, // no fence markers
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	if config.AckWait == 0 {
		config.AckWait = 30 * time.Second
	}
	if config.MaxAckPending == 0 {
		config.MaxAckPending = 256
	}
	if o.From > 1 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, o.From
	}
	bounded, cancel := l.conn.bound(ctx)
	defer cancel()
	existing, err := l.stream.Consumer(bounded, o.Name)
	switch {
	case err == nil: // where it starts cannot be changed
		was := existing.CachedInfo().Config
		config.DeliverPolicy, config.OptStartSeq = was.DeliverPolicy, was.OptStartSeq
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, classify(ctx, err, "opening consumer %s of log %s", o.Name, l.name)
	}
	consumer, err := l.stream.CreateOrUpdateConsumer(bounded, config)
	if err != nil {
		return nil, classify(ctx, err, "opening consumer %s of log %s", o.Name, l.name)
	}
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(config.MaxAckPending),
		jetstream.PullExpiry(readExpires),
		jetstream.PullHeartbeat(readHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(false),
	)
	if err != nil {
		return nil, classify(ctx, err, "opening consumer %s of log %s", o.Name, l.name)
	}
	return &Consumer{log: l, name: o.Name, messages: messages}, nil
}

// DeleteConsumer removes a durable consumer. It is no error when there is none.
func (l *Log) DeleteConsumer(ctx context.Context, name string) error {
	bounded, cancel := l.conn.bound(ctx)
	defer cancel()
	if err := l.stream.DeleteConsumer(bounded, name); err != nil && !missing(err) {
		return classify(ctx, err, "deleting consumer %s of log %s", name, l.name)
	}
	return nil
}

// Next returns the next delivery, waiting for it as long as ctx lasts, across lost connections. ErrMissing says that the
// consumer was deleted.
func (c *Consumer) Next(ctx context.Context) (*Delivery, error) {
	m, err := c.messages.Next(jetstream.NextContext(ctx))
	if err != nil {
		return nil, classify(ctx, err, "reading log %s as consumer %s", c.log.name, c.name)
	}
	meta, err := m.Metadata()
	if err != nil {
		return nil, failure.BadRecord.Errorf("reading log %s as consumer %s: %w", c.log.name, c.name, err)
	}
	return &Delivery{
		Message: Message{
			Sequence: meta.Sequence.Stream, ID: first(m.Headers(), headerID), Data: m.Data(), Time: meta.Timestamp,
		},
		Attempts: meta.NumDelivered, msg: m, log: c.log,
	}, nil
}

// Close ends the reading; the server keeps the consumer. Messages that were read ahead are delivered again after AckWait.
func (c *Consumer) Close() { c.messages.Stop() }

// Ack says that the message is done with, and returns when the server knows.
func (d *Delivery) Ack(ctx context.Context) error {
	bounded, cancel := d.log.conn.bound(ctx)
	defer cancel()
	if err := d.msg.DoubleAck(bounded); err != nil {
		return classify(ctx, err, "acknowledging message %d of log %s", d.Sequence, d.log.name)
	}
	return nil
}

// Nak asks for the message again after a delay.
func (d *Delivery) Nak(delay time.Duration) error {
	if err := d.msg.NakWithDelay(delay); err != nil {
		return fmt.Errorf("returning message %d of log %s: %w", d.Sequence, d.log.name, err)
	}
	return nil
}

// Working says that the message is still being processed: AckWait begins anew.
func (d *Delivery) Working() error {
	if err := d.msg.InProgress(); err != nil {
		return fmt.Errorf("keeping message %d of log %s: %w", d.Sequence, d.log.name, err)
	}
	return nil
}
