package stream_test

import (
	"context"
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/stream"
)

func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 2 first
	// 3 second
}

func example(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "perdure-example")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, err := stream.Serve(stream.ServerOptions{Dir: dir, Log: zap.NewNop()})
	if err != nil {
		return err
	}
	defer func() { _ = server.Close(ctx) }()
	conn, err := stream.Connect(ctx, stream.Options{Server: server, Log: zap.NewNop()})
	if err != nil {
		return err
	}
	defer conn.Close()

	log, err := conn.EnsureLog(ctx, stream.LogOptions{Name: "CHG_default_orders"})
	if err != nil {
		return err
	}
	fence, err := conn.Acquire(ctx, "source.default.orders", stream.Epoch{Generation: 1}, "this process")
	if err != nil {
		return err
	}
	writer, err := log.NewWriter(ctx, fence) // takes sequence 1 for its marker
	if err != nil {
		return err
	}
	for _, text := range []string{"first", "second"} {
		if _, err := writer.Append(ctx, "orders:"+text, []byte(text)); err != nil {
			return err
		}
	}

	reader, err := log.Read(ctx, 1)
	if err != nil {
		return err
	}
	defer reader.Close()
	for range 2 {
		m, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		fmt.Println(m.Sequence, string(m.Data))
	}
	return nil
}
