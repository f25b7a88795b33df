package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
)

// TestLoopsEndWithTheControlPlane cuts a worker off from Temporal. For 8 s that changes nothing. After longer, a worker that
// is not to outlive the control plane has ended its loops while the server still waits for their heartbeats, so that nothing
// runs when it hands them to others; and they begin again when the worker is back.
func TestLoopsEndWithTheControlPlane(t *testing.T) {
	s := newSystem(t, apart(t), externalWorkers)
	link := newLink(t, s.temporal)
	api := freePorts(t, 1)[0]
	s.env = append(s.env, "TEMPORAL_ADDRESS="+link.address(), "PERDURE_OUTLIVE_CONTROL_PLANE=false", fmt.Sprintf("PERDURE_LISTEN=127.0.0.1:%d", api))
	s.startWorker("worker")
	s.startOrders()
	f := s.follow("open-orders")
	conn, c := s.connect(), s.client()
	components := []string{"source.default.shop", "query.default.open-orders"}
	before := make(map[string]*workflow.PendingActivityInfo)
	for _, id := range components {
		eventually(t, 30*time.Second, "a heartbeat of "+id, func() (err error) {
			before[id], err = s.pendingRun(c, id, time.Time{})
			return err
		})
	}

	link.hold()
	for range 4 {
		pause(2 * time.Second)
		execSQL(t, conn, `UPDATE orders SET total = total + 1`)
		s.requireEqualsSQL(f, 30*time.Second)
	}
	link.release()
	released := time.Now()
	for _, id := range components {
		eventually(t, 30*time.Second, "a heartbeat of "+id+" when Temporal answers again", func() error {
			after, err := s.pendingRun(c, id, released)
			if err == nil {
				require.Equal(t, before[id].GetAttempt(), after.GetAttempt(), id)
				require.Equal(t, before[id].GetActivityId(), after.GetActivityId(), id)
			}
			return err
		})
	}
	require.Len(t, loopsAt(t, api), len(components))

	link.hold()
	held := time.Now()
	eventually(t, time.Minute, "end of the loops", func() error {
		if loops := loopsAt(t, api); len(loops) > 0 {
			return fmt.Errorf("there are %v", loops)
		}
		return nil
	})
	t.Logf("the loops ended after %s", time.Since(held).Round(time.Millisecond))
	for _, id := range components {
		now, err := s.pendingRun(c, id, time.Time{})
		require.NoError(t, err)
		require.Equal(t, enumspb.PENDING_ACTIVITY_STATE_STARTED, now.GetState(), "the server took %s away before its loop ended", id)
		require.Equal(t, before[id].GetAttempt(), now.GetAttempt(), id)
	}
	execSQL(t, conn, `UPDATE orders SET total = total + 1`)
	link.release()
	s.requireEqualsSQL(f, 90*time.Second)
}

// pendingRun returns the run that a component's workflow waits for, once it had a heartbeat after some time.
func (s *system) pendingRun(c client.Client, id string, since time.Time) (*workflow.PendingActivityInfo, error) {
	s.t.Helper()
	described, err := c.DescribeWorkflowExecution(s.context(10*time.Second), id, "")
	if err != nil {
		return nil, err
	}
	for _, pending := range described.GetPendingActivities() {
		if at := pending.GetLastHeartbeatTime(); at != nil && at.AsTime().After(since) {
			return pending, nil
		}
	}
	return nil, errors.New("there is none")
}

// loopsAt returns the components that run in the process that serves its API at a port.
func loopsAt(t *testing.T, port int) (components []string) {
	t.Helper()
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/api/v1/health", port))
	require.NoError(t, err)
	defer answer.Body.Close()
	var health struct{ Loops []struct{ Component string } }
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&health))
	for _, l := range health.Loops {
		components = append(components, l.Component)
	}
	return components
}

// link is a way to a server on which everything can be held up, as if the server were frozen.
type link struct {
	listener net.Listener
	mu       sync.RWMutex // held for writing while everything is held up
	held     bool         // of the test's goroutine
}

// newLink passes on what comes to a port of its own.
func newLink(t *testing.T, to int) *link {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{listener: listener}
	var (
		passing sync.WaitGroup
		mu      sync.Mutex
		open    []net.Conn
	)
	passing.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return // closed
			}
			out, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", to))
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			passing.Go(func() { l.pass(in, out) })
			passing.Go(func() { l.pass(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		if l.held { // the test ended early
			l.release()
		}
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		passing.Wait()
	})
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }
func (l *link) hold()           { l.mu.Lock(); l.held = true }
func (l *link) release()        { l.held = false; l.mu.Unlock() }

func (l *link) pass(from, to net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.RLock()
		_, writeErr := to.Write(buffer[:n])
		l.mu.RUnlock()
		if err != nil || writeErr != nil {
			return
		}
	}
}
