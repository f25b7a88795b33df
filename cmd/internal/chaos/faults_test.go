package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/Shopify/toxiproxy/v2"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workflows"
)

// The parts of the environment that faults are about.
const (
	firstWorker  = "worker-1"
	secondWorker = "worker-2"
	postgres     = "postgres"
	temporal     = "temporal"
	streams      = "stream"
	hookName     = "hook"
)

var (
	workers = []string{firstWorker, secondWorker}
	servers = []string{temporal, streams}
	// links are named by the server, for the connections of both workers, or by worker and server.
	links = []string{
		postgres, temporal, streams, hookName, firstWorker + ">" + postgres, secondWorker + ">" + postgres, firstWorker + ">" + temporal,
		secondWorker + ">" + temporal, firstWorker + ">" + streams, secondWorker + ">" + streams,
	}
	databaseLinks = []string{postgres, firstWorker + ">" + postgres, secondWorker + ">" + postgres}
)

// kind is one class of faults: one thing that happens to one sort of target. Every cycle of seeds has each kind
// once, and so each sort of target that has a kind of its own.
type kind struct {
	name    string
	place   string // two faults of one place do not happen at once
	targets []string
	// A fault lasts between least and most, one in ten up to tail.
	least, most, tail time.Duration
	instant           bool // it has no length
	mounts            bool // it needs file systems of its own
	clocks            bool // it shifts clocks
	voids             bool // results may be built anew because of it
	// begin makes the fault and returns what ends it, nil when nothing does.
	begin func(ctx context.Context, e *environment, target string) (end func(context.Context) error, err error)
}

var kinds = []kind{
	{name: "kill", place: "process", targets: workers, most: 2 * time.Second, tail: 12 * time.Second, begin: kill},
	{name: "kill", place: "process", targets: []string{temporal}, most: 2 * time.Second, tail: 12 * time.Second, begin: kill},
	{name: "kill", place: "process", targets: []string{streams}, most: 2 * time.Second, tail: 12 * time.Second, begin: kill},
	// The whole of Postgres: the postmaster is killed, and its children end without it.
	{name: "kill", place: "server", targets: []string{postgres}, most: 2 * time.Second, tail: 12 * time.Second, begin: killPostmaster},
	{name: "freeze", place: "process", targets: workers, least: 200 * time.Millisecond, most: 3 * time.Second, tail: 16 * time.Second, begin: freeze},
	{name: "freeze", place: "process", targets: servers, least: 200 * time.Millisecond, most: 3 * time.Second, tail: 16 * time.Second, begin: freeze},
	{name: "freeze", place: "server", targets: []string{"walsender"}, least: 200 * time.Millisecond, most: 3 * time.Second, tail: 16 * time.Second, begin: freezeWalsenders},
	{name: "freeze", place: "server", targets: []string{postgres}, least: 200 * time.Millisecond, most: 3 * time.Second, tail: 16 * time.Second, begin: freezePostgres},
	// Beyond the heartbeat's timeout, so that the other worker takes over what the frozen one still believes to have.
	{name: "outlast", place: "process", targets: workers, least: 32 * time.Second, most: 38 * time.Second, begin: freeze},
	// As an operator does it: what runs is drained, handed over or shut down.
	{name: "restart", place: "process", targets: workers, most: 2 * time.Second, tail: 12 * time.Second, begin: restart},
	{name: "restart", place: "process", targets: servers, most: 2 * time.Second, tail: 12 * time.Second, begin: restart},
	{name: "restart", place: "server", targets: []string{postgres}, most: 2 * time.Second, tail: 12 * time.Second, begin: restartPostgres},
	{name: "lose disk", place: "process", targets: workers, most: 2 * time.Second, tail: 12 * time.Second, begin: loseDisk},
	{name: "crash", place: "server", targets: []string{postgres}, instant: true, begin: crash},
	{name: "terminate", place: "server", targets: []string{"walsenders", "backends", "writers"}, instant: true, begin: terminate},
	{name: "drop slot", place: "server", targets: []string{postgres}, instant: true, voids: true, begin: dropSlot},
	// No faults, but times at which one hurts: one state of a query takes the place of another.
	{name: "read again", place: "control", targets: queryNames(), instant: true, voids: true, begin: readAgain},
	{name: "reconfigure", place: "control", targets: queryNames(), instant: true, voids: true, begin: reconfigure},
	{name: "cut", place: "network", targets: links, most: 3 * time.Second, tail: 15 * time.Second, begin: cut},
	{name: "reset", place: "network", targets: links, most: time.Second, tail: 5 * time.Second, begin: toxic("reset_peer", "", "downstream")},
	// Connections end, and their other side learns of it late.
	{name: "slow close", place: "network", targets: databaseLinks, least: time.Second, most: 4 * time.Second, tail: 12 * time.Second, begin: closeSlowly},
	{name: "delay", place: "network", targets: links, least: time.Second, most: 4 * time.Second, tail: 12 * time.Second, begin: toxic("latency", `"latency":300,"jitter":250`, "upstream", "downstream")},
	{name: "black hole", place: "network", targets: links, least: 500 * time.Millisecond, most: 6 * time.Second, tail: 20 * time.Second, begin: toxic("timeout", `"timeout":0`, "upstream", "downstream")},
	{name: "half-open", place: "network", targets: links, least: 500 * time.Millisecond, most: 6 * time.Second, tail: 20 * time.Second, begin: toxic("timeout", `"timeout":0`, "upstream")},
	{name: "narrow", place: "network", targets: links, least: time.Second, most: 4 * time.Second, tail: 10 * time.Second, begin: toxic("bandwidth", `"rate":20`, "upstream", "downstream")},
	{name: "fill disk", place: "disk", targets: []string{firstWorker, secondWorker, streams}, least: time.Second, most: 5 * time.Second, tail: 15 * time.Second, mounts: true, begin: fillDisk},
	{name: "clock ahead", place: "clock", targets: workers, least: time.Second, most: 8 * time.Second, tail: 40 * time.Second, clocks: true, begin: shiftClock(10 * time.Minute)},
	{name: "clock behind", place: "clock", targets: workers, least: time.Second, most: 8 * time.Second, tail: 40 * time.Second, clocks: true, begin: shiftClock(-10 * time.Minute)},
	{name: answersError, place: "target", targets: []string{hookName}, least: 500 * time.Millisecond, most: 4 * time.Second, tail: 15 * time.Second, begin: answering(answersError)},
	{name: answersLate, place: "target", targets: []string{hookName}, least: time.Second, most: 4 * time.Second, tail: 15 * time.Second, begin: answering(answersLate)},
	{name: answersNever, place: "target", targets: []string{hookName}, least: time.Second, most: 6 * time.Second, tail: 20 * time.Second, begin: answering(answersNever)},
	{name: "kill", place: "target", targets: []string{hookName}, least: 500 * time.Millisecond, most: 4 * time.Second, tail: 15 * time.Second, begin: kill},
	{name: "freeze", place: "target", targets: []string{hookName}, least: 500 * time.Millisecond, most: 4 * time.Second, tail: 15 * time.Second, begin: freeze},
}

func kill(_ context.Context, e *environment, target string) (func(context.Context) error, error) {
	s := e.services[target]
	s.kill()
	return func(context.Context) error { s.up(); return nil }, nil
}

// loseDisk kills a worker and takes away all that it has stored. Each query has a checkpoint by then: one that is lost
// before it has any begins anew.
func loseDisk(ctx context.Context, e *environment, target string) (func(context.Context) error, error) {
	for _, q := range queries {
		if err := until(ctx, time.Minute, "a checkpoint of "+q.name, func() error { return e.hasCheckpoint(ctx, q.name) }); err != nil {
			return nil, err
		}
	}
	s := e.services[target]
	s.kill()
	dir := filepath.Join(e.dir, target) // where a file system may be mounted
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	return func(context.Context) error { s.up(); return nil }, err
}

// hasCheckpoint returns an error unless there is a checkpoint of the state that a query has now.
func (e *environment) hasCheckpoint(ctx context.Context, query string) error {
	var state struct{ Store string }
	var kept struct{ Checkpoints []struct{ Store string } }
	for bucket, into := range map[string]any{"queries": &state, "checkpoints": &kept} {
		b, err := e.conn.Bucket(ctx, stream.BucketOptions{Name: bucket})
		if err != nil {
			return err
		}
		entry, err := b.Get(ctx, component.DefaultInstance+"."+query)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(entry.Value, into); err != nil {
			return err
		}
	}
	for _, c := range kept.Checkpoints {
		if c.Store == state.Store {
			return nil
		}
	}
	return errors.New("there is none")
}

// restart has a process end in order, and starts it again.
func restart(_ context.Context, e *environment, target string) (func(context.Context) error, error) {
	s := e.services[target]
	return func(context.Context) error { s.up(); return nil }, s.stop()
}

func freeze(_ context.Context, e *environment, target string) (func(context.Context) error, error) {
	s := e.services[target]
	s.signal(syscall.SIGSTOP)
	return func(context.Context) error { s.signal(syscall.SIGCONT); return nil }, nil
}

func freezeWalsenders(ctx context.Context, e *environment, _ string) (func(context.Context) error, error) {
	var pids []int
	err := until(ctx, 20*time.Second, "finding the walsenders", func() (err error) { // the server may be restarting
		pids, err = column[int](ctx, e, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'")
		return err
	})
	sendAll(syscall.SIGSTOP, pids)
	return func(context.Context) error { sendAll(syscall.SIGCONT, pids); return nil }, err
}

// freezePostgres freezes the postmaster, which then starts no other processes, and those that it has started.
func freezePostgres(_ context.Context, e *environment, _ string) (func(context.Context) error, error) {
	pids := []int{e.postgres.PID()}
	sendAll(syscall.SIGSTOP, pids)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pids[0]))
	for _, field := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	sendAll(syscall.SIGSTOP, pids)
	return func(context.Context) error { sendAll(syscall.SIGCONT, pids); return nil }, err
}

func sendAll(sig syscall.Signal, pids []int) {
	for _, pid := range pids {
		if pid > 0 {
			_ = syscall.Kill(pid, sig) // it may have ended
		}
	}
}

// killPostmaster leaves its children behind, which hold the server's memory for as long as they need to see that.
func killPostmaster(_ context.Context, e *environment, _ string) (func(context.Context) error, error) {
	sendAll(syscall.SIGKILL, []int{e.postgres.PID()})
	return func(ctx context.Context) error {
		return until(ctx, 20*time.Second, "starting Postgres", func() error { return e.postgres.Restart(ctx, false) })
	}, nil
}

func restartPostgres(ctx context.Context, e *environment, _ string) (func(context.Context) error, error) {
	return func(ctx context.Context) error { return e.postgres.Restart(ctx, false) }, e.postgres.Stop(ctx)
}

func crash(ctx context.Context, e *environment, _ string) (func(context.Context) error, error) {
	return nil, e.postgres.Restart(ctx, true)
}

func terminate(ctx context.Context, e *environment, target string) (func(context.Context) error, error) {
	which := map[string]string{
		"walsenders": "backend_type = 'walsender'", "backends": "application_name LIKE 'perdure/%'",
		"writers": "application_name = '" + writerName + "'", // in the midst of their transactions, as if they had been killed
	}[target]
	return nil, until(ctx, 20*time.Second, "ending "+target, func() error { // the server may be restarting
		_, err := column[bool](ctx, e, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "+which)
		return err
	})
}

func queryNames() (names []string) {
	for _, q := range queries {
		names = append(names, q.name)
	}
	return names
}

// readAgain has a query read its source again while it goes on.
func readAgain(ctx context.Context, e *environment, target string) (func(context.Context) error, error) {
	return nil, e.signal(ctx, target, workflows.CommandRebootstrap, nil)
}

// reconfigure has a query ask for the same in another way, and at the next time in the first one again.
func reconfigure(ctx context.Context, e *environment, target string) (func(context.Context) error, error) {
	at := slices.IndexFunc(queries, func(q query) bool { return q.name == target })
	e.variants[target] = !e.variants[target]
	return nil, e.signal(ctx, target, workflows.CommandReconfigure, object{"spec": queries[at].spec(e.variants[target])})
}

func (e *environment) signal(ctx context.Context, query, command string, payload any) error {
	id := component.ID{Kind: component.Query, Instance: component.DefaultInstance, Name: query}
	return until(ctx, 20*time.Second, "telling the query", func() error {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return e.temporal.SignalWorkflow(bounded, id.String(), "", command, payload)
	})
}

// dropSlot ends whoever uses the slot again and again, until it can be dropped.
func dropSlot(ctx context.Context, e *environment, _ string) (func(context.Context) error, error) {
	return nil, until(ctx, 20*time.Second, "dropping the slot", func() error {
		if _, err := column[bool](ctx, e, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND NOT temporary"); err != nil {
			return err
		}
		return until(ctx, time.Second, "moment without use of it", func() error {
			_, err := column[int](ctx, e, "SELECT 1 FROM (SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT temporary) d")
			return err
		})
	})
}

// proxies returns those of a link.
func (e *environment) proxies(link string) (proxies []*toxiproxy.Proxy) {
	for name, p := range e.links {
		if name == link || strings.HasSuffix(name, ">"+link) {
			proxies = append(proxies, p)
		}
	}
	return proxies
}

// cut closes all connections and refuses new ones.
func cut(_ context.Context, e *environment, target string) (func(context.Context) error, error) {
	proxies := e.proxies(target)
	for _, p := range proxies {
		p.Stop()
	}
	return func(context.Context) (err error) {
		for _, p := range proxies {
			err = errors.Join(err, p.Start())
		}
		return err
	}, nil
}

func toxic(name, attributes string, directions ...string) func(context.Context, *environment, string) (func(context.Context) error, error) {
	return func(_ context.Context, e *environment, target string) (func(context.Context) error, error) {
		proxies := e.proxies(target)
		for _, p := range proxies {
			for _, d := range directions {
				spec := fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":{%s}}`, d, name, d, attributes)
				if !json.Valid([]byte(spec)) {
					return nil, fmt.Errorf("the toxic is no JSON: %s", spec)
				}
				if _, err := p.Toxics.AddToxicJson(bytes.NewBufferString(spec)); err != nil {
					return nil, fmt.Errorf("adding toxic %s: %w", name, err)
				}
			}
		}
		return func(ctx context.Context) (err error) {
			for _, p := range proxies {
				for _, d := range directions {
					err = errors.Join(err, p.Toxics.RemoveToxic(ctx, d))
				}
			}
			return err
		}, nil
	}
}

// closeSlowly ends Postgres's connections over a link whose proxies keep their other halves open for some time.
func closeSlowly(ctx context.Context, e *environment, target string) (func(context.Context) error, error) {
	end, err := toxic("slow_close", `"delay":3000`, "upstream", "downstream")(ctx, e, target)
	if err == nil {
		_, err = terminate(ctx, e, "backends")
	}
	return end, err
}

// fillDisk leaves no room on the file system of a service's state. A JetStream server that could not write to a stream
// refuses to from then on, and says so when it is asked for its health: whoever watches it starts it again.
func fillDisk(_ context.Context, e *environment, target string) (func(context.Context) error, error) {
	m := e.mounts[target]
	if err := m.fill(); err != nil {
		return nil, err
	}
	return func(context.Context) error {
		if err := m.free(); err != nil {
			return err
		}
		if s := e.services[target]; target == streams {
			s.kill()
			s.up()
		}
		return nil
	}, nil
}
