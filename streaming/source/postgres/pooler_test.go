package postgres_test

import (
	"encoding/json"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
)

// TestPoolers: what stands between the source and the server, and refuses or ignores settings of connections, as PgBouncer
// does, is a configuration error and not one that goes away.
func TestPoolers(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id int PRIMARY KEY)")
	direct := d.source(`"tables": [{"name": "a"}]`)
	through := func(ignored ...string) source.Source {
		var config map[string]any
		require.NoError(t, json.Unmarshal(d.config(`"tables": [{"name": "a"}]`), &config))
		config["port"] = d.pooler(ignored)
		data, err := json.Marshal(config)
		require.NoError(t, err)
		s, err := postgres.Factory{}.New(data, d.settings())
		require.NoError(t, err)
		return s
	}
	isPooler := func(err error, text string) {
		t.Helper()
		require.Equal(t, failure.Unsupported, failure.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, text)
		require.Contains(t, failure.Of(err).Fix(), "not a pooler")
	}
	isPooler(through().Provision(t.Context()), "unsupported startup parameter")
	isPooler(through("*").Provision(t.Context()), "search_path")
	isPooler(fails(t, through("*"), ""), "search_path")
	isPooler(fails(t, through("replication"), ""), "not one for replication")
	isPooler(through("replication").(source.Snapshotter).HoldSnapshot(t.Context(), nil, func() {}), "not one for replication")
	require.NoError(t, through("nothing").Provision(t.Context()), "what passes all on does no harm")
	require.NoError(t, direct.Provision(t.Context()))
}

// pooler listens at a port and passes connections on to the server without some of their settings, "*" being all that
// PgBouncer does not know by itself. Where none are given, it refuses these.
func (d db) pooler(ignored []string) (port int) {
	u, err := url.Parse(d.url)
	require.NoError(d, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(d, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { pool(client, u.Host, ignored) })
		}
	})
	d.Cleanup(func() {
		require.NoError(d, listener.Close())
		serving.Wait()
	})
	return listener.Addr().(*net.TCPAddr).Port
}

func pool(client net.Conn, server string, ignored []string) {
	defer client.Close()
	backend := pgproto3.NewBackend(client, client)
	message, err := backend.ReceiveStartupMessage()
	startup, ok := message.(*pgproto3.StartupMessage)
	if err != nil || !ok {
		return
	}
	known := []string{"user", "database", "application_name", "client_encoding", "datestyle", "timezone", "replication"}
	for name := range startup.Parameters {
		switch {
		case len(ignored) == 0 && !slices.Contains(known, name):
			backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: " + name})
			_ = backend.Flush()
			return
		case slices.Contains(ignored, name), slices.Contains(ignored, "*") && !slices.Contains(known, name):
			delete(startup.Parameters, name)
		}
	}
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer upstream.Close()
	first, err := startup.Encode(nil)
	if err != nil {
		return
	}
	if _, err := upstream.Write(first); err != nil {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(client, upstream)
		_ = client.Close()
	}()
	_, _ = io.Copy(upstream, client)
	_ = upstream.Close()
	<-back
}
