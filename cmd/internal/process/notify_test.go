package process

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// TestNotify is a service manager that listens, as systemd does, on a socket that the environment names.
func TestNotify(t *testing.T) {
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	socket, err := net.ListenUnixgram("unixgram", address)
	require.NoError(t, err)
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", address.Name)
	t.Setenv("WATCHDOG_USEC", "30000")
	var unready, broken atomic.Bool
	unready.Store(true)
	failing := func(is *atomic.Bool, why string) error {
		if is.Load() {
			return errors.New(why)
		}
		return nil
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Notify(ctx, func(context.Context) error { return failing(&unready, "no database") }, func() error { return failing(&broken, "stuck") }, zap.NewNop())
	}()
	comes := func(want string) {
		t.Helper()
		require.NoError(t, socket.SetReadDeadline(time.Now().Add(10*time.Second)))
		buffer := make([]byte, 1024)
		for {
			n, err := socket.Read(buffer)
			require.NoError(t, err, want)
			if string(buffer[:n]) == want {
				return
			}
		}
	}
	comes("STATUS=no database\nWATCHDOG=1")
	unready.Store(false)
	comes("STATUS=ready\nREADY=1\nWATCHDOG=1")
	comes("STATUS=ready\nWATCHDOG=1")
	broken.Store(true)
	comes("STATUS=ready")
	stop()
	<-done
	comes("STOPPING=1")
}

func TestNobodyToNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	Notify(t.Context(), func(context.Context) error { return nil }, func() error { return nil }, zap.NewNop())
}
