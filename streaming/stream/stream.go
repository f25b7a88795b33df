// Package stream is being built.
package stream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

var (
	ErrMissing  = errors.New("missing")
	ErrConflict = errors.New("conflict")
)

type ServerOptions struct {
	Dir      string
	Listen   string
	MaxBytes int64
	Log      *zap.Logger
}
type Server struct{}

func Serve(o ServerOptions) (*Server, error)      { panic("being built") }
func (s *Server) URL() string                     { panic("being built") }
func (s *Server) Close(ctx context.Context) error { panic("being built") }

type Options struct {
	URL    string
	Server *Server
	Name   string
	Log    *zap.Logger
}
type Conn struct{}

func Connect(ctx context.Context, o Options) (*Conn, error) { panic("being built") }
func (c *Conn) Close()                                      { panic("being built") }
func (c *Conn) NATS() *nats.Conn                            { panic("being built") }

type LogOptions struct {
	Name        string
	MaxBytes    int64
	MaxAge      time.Duration
	Description string
}
type Log struct{}

func (c *Conn) EnsureLog(ctx context.Context, o LogOptions) (*Log, error)     { panic("being built") }
func (c *Conn) OpenLog(ctx context.Context, name string) (*Log, error)        { panic("being built") }
func (c *Conn) DeleteLog(ctx context.Context, name string) error              { panic("being built") }
func (c *Conn) LogNames(ctx context.Context, prefix string) ([]string, error) { panic("being built") }

type LogState struct{ First, Last, Messages, Bytes uint64 }

func (l *Log) State(ctx context.Context) (LogState, error)                { panic("being built") }
func (l *Log) Last(ctx context.Context) (*Message, error)                 { panic("being built") }
func (l *Log) Get(ctx context.Context, sequence uint64) (*Message, error) { panic("being built") }
func (l *Log) TrimBefore(ctx context.Context, sequence uint64) error      { panic("being built") }

type Message struct {
	Sequence uint64
	ID       string
	Data     []byte
	Time     time.Time
}
type Epoch struct {
	Generation uint64
	Started    int64
}

func (e Epoch) Compare(o Epoch) int { panic("being built") }
func (e Epoch) String() string      { panic("being built") }

type Fence struct{}

func (c *Conn) Acquire(ctx context.Context, component string, e Epoch, holder string) (*Fence, error) {
	panic("being built")
}
func (f *Fence) Epoch() Epoch                    { panic("being built") }
func (f *Fence) Check(ctx context.Context) error { panic("being built") }
func (c *Conn) BumpFence(ctx context.Context, component string, e Epoch) error {
	panic("being built")
}

type Writer struct{}

func (l *Log) NewWriter(ctx context.Context, f *Fence) (*Writer, error) { panic("being built") }
func (w *Writer) Append(ctx context.Context, id string, data []byte) (uint64, error) {
	panic("being built")
}
func (w *Writer) Close() { panic("being built") }

type SharedWriter struct{}

func (l *Log) NewSharedWriter() *SharedWriter { panic("being built") }
func (w *SharedWriter) Append(ctx context.Context, id string, data []byte) (uint64, error) {
	panic("being built")
}

type Reader struct{}

func (l *Log) Read(ctx context.Context, from uint64) (*Reader, error) { panic("being built") }
func (r *Reader) Next(ctx context.Context) (Message, error)           { panic("being built") }
func (r *Reader) Buffered() int                                       { panic("being built") }
func (r *Reader) Close()                                              { panic("being built") }

type ConsumerOptions struct {
	Name       string
	From       uint64
	AckWait    time.Duration
	MaxPending int
}
type Consumer struct{}
type Delivery struct {
	Message
	Attempts uint64
}

func (l *Log) EnsureConsumer(ctx context.Context, o ConsumerOptions) (*Consumer, error) {
	panic("being built")
}
func (l *Log) DeleteConsumer(ctx context.Context, name string) error { panic("being built") }
func (c *Consumer) Next(ctx context.Context) (*Delivery, error)      { panic("being built") }
func (c *Consumer) Close()                                           { panic("being built") }
func (d *Delivery) Ack(ctx context.Context) error                    { panic("being built") }
func (d *Delivery) Nak(delay time.Duration) error                    { panic("being built") }
func (d *Delivery) Working() error                                   { panic("being built") }

type BucketOptions struct {
	Name string
	TTL  time.Duration
}
type Bucket struct{}
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
}

func (c *Conn) Bucket(ctx context.Context, o BucketOptions) (*Bucket, error)    { panic("being built") }
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error)            { panic("being built") }
func (b *Bucket) Put(ctx context.Context, key string, v []byte) (uint64, error) { panic("being built") }
func (b *Bucket) Create(ctx context.Context, key string, v []byte) (uint64, error) {
	panic("being built")
}
func (b *Bucket) Update(ctx context.Context, key string, v []byte, revision uint64) (uint64, error) {
	panic("being built")
}
func (b *Bucket) Delete(ctx context.Context, key string) error              { panic("being built") }
func (b *Bucket) Keys(ctx context.Context, prefix string) ([]string, error) { panic("being built") }
func (b *Bucket) Watch(ctx context.Context, keyOrPattern string) (<-chan Entry, error) {
	panic("being built")
}
