package chaos

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExcuses: a worker may end by itself only because the servers are away when it starts.
func TestExcuses(t *testing.T) {
	for text, excused := range map[string]bool{
		"INFO\tstarting\nerror: connecting to Temporal at 127.0.0.1:1: context deadline exceeded\n  fix: Check it.\n": true,
		"error: connecting to JetStream at nats://127.0.0.1:1: no servers available\n":                                true,
		"INFO\tworking\nerror: running workers: starting the worker of task queue a: unavailable\n":                   true,
		"INFO\tworking\nerror: running workers: serving a task queue: gone\n":                                         false,
		"INFO\tworking\npanic: connecting to Temporal at\n\ngoroutine 1 [running]:\n":                                 false,
		"INFO\tworking\nfatal error: sync: unlock of unlocked mutex\n":                                                false,
		"INFO\tworking\n": false,
	} {
		require.Equal(t, excused, exit{firstWorker, false, errors.New("exit status 1"), lastWords([]byte(text))}.excused(), text)
	}
}
