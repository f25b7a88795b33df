package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/cmd/internal/followtest"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/source/postgres/cluster"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workflows"
)

// startBound is how long the environment may take until everything in it runs, and each end of a part.
const startBound = 2 * time.Minute

// environment is the system under test and what looks at it. Workers reach the servers through proxies; the clients that
// write, the oracle, and whoever asks for status do not.
type environment struct {
	dir  string
	keep bool // dir, when it is closed
	// seeds is how many were run.
	seeds int
	named map[string]bool // what components said to be wrong during the last one
	// voided is whether there was a fault yet because of which results may be built anew, also some time later.
	voided bool

	stop      context.CancelFunc
	postgres  *cluster.Cluster
	log       *os.File // of Postgres
	services  map[string]*service
	links     map[string]*toxiproxy.Proxy // by worker>server
	mounts    map[string]mount            // by service; empty where mounting is not allowed
	apis      []string
	temporal  client.Client
	conn      *stream.Conn
	results   *pipeline.Results
	hook      *witness
	followers map[string]*followtest.Follower
	following sync.WaitGroup
	variants  map[string]bool // by query: whether it asks in the other way
	close     func()
}

func (e *environment) has(k *kind) bool {
	return (!k.mounts || len(e.mounts) > 0) && (!k.clocks || shiftsClocks())
}

// impossible returns the names of kinds that has does not have.
func (e *environment) impossible(kinds []kind) (names []string) {
	for i := range kinds {
		if !e.has(&kinds[i]) {
			names = append(names, kinds[i].name)
		}
	}
	return names
}

// newEnvironment starts everything and returns when all components run.
func newEnvironment(ctx context.Context) (_ *environment, err error) {
	dir, err := os.MkdirTemp("", "perdure-chaos-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // Postgres has an account of its own
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	e := &environment{
		dir: dir, stop: stop, services: make(map[string]*service), links: make(map[string]*toxiproxy.Proxy),
		mounts: make(map[string]mount), followers: make(map[string]*followtest.Follower),
		variants: make(map[string]bool),
	}
	e.close = sync.OnceFunc(e.end)
	defer func() {
		if err != nil {
			err = fmt.Errorf("starting the environment, whose logs are in %s: %w", dir, err)
			e.keep = true
			e.close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	if e.log, err = os.Create(filepath.Join(dir, "postgres.log")); err != nil {
		return nil, err
	}
	e.postgres, err = cluster.Start(ctx, cluster.Options{
		Dir: filepath.Join(dir, "postgres"), Log: e.log,
		Settings: map[string]string{"fsync": "off", "logical_decoding_work_mem": "64kB", "log_line_prefix": "%m [%p] %a "},
	})
	if err != nil {
		return nil, err
	}
	for _, name := range append([]string{streams}, workers...) {
		m, err := newMount(filepath.Join(dir, name))
		if err != nil {
			break // not allowed here: there are no faults of disks then
		}
		e.mounts[name] = m
	}
	if err := e.startServers(running); err != nil {
		return nil, err
	}
	if err := e.connect(ctx); err != nil {
		return nil, err
	}
	if err := e.startWorkers(running); err != nil {
		return nil, err
	}
	if err := e.startComponents(ctx); err != nil {
		return nil, err
	}
	for _, q := range queries {
		f := followtest.New(newReplay(q.name), e.apis...)
		f.Silence = 4 * time.Second // so that it is soon with another worker
		e.followers[q.name] = f
		e.following.Go(func() { f.Run(running) })
	}
	return e, nil
}

func (e *environment) startServers(running context.Context) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	for i, role := range []string{roleTemporal, roleStream, roleHook} {
		address := fmt.Sprintf("127.0.0.1:%d", ports[i])
		e.services[role], err = startService(running, role, e.dir, []string{
			roleVariable + "=" + role, dirVariable + "=" + filepath.Join(e.dir, role), addressVariable + "=" + address,
		}, executable)
		if err != nil {
			return err
		}
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics have loggers of their own
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	for _, worker := range workers {
		for to, port := range map[string]int{postgres: e.postgres.Port(), temporal: ports[0], streams: ports[1]} {
			name := worker + ">" + to
			p := toxiproxy.NewProxy(server, name, "127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", port))
			if err := p.Start(); err != nil {
				return err
			}
			e.links[name] = p
		}
	}
	e.hook = newWitness(filepath.Join(e.dir, roleHook), fmt.Sprintf("127.0.0.1:%d", ports[2]))
	p := toxiproxy.NewProxy(server, hookName, "127.0.0.1:0", e.hook.address)
	if err := p.Start(); err != nil {
		return err
	}
	e.links[hookName] = p // one for all: its address is in the reaction's spec
	return nil
}

// freePorts returns ports that were free a moment ago, all different.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

// direct returns the address of a server, without a proxy.
func (e *environment) direct(server string) string { return e.links[firstWorker+">"+server].Upstream }

func (e *environment) connect(ctx context.Context) (err error) {
	err = until(ctx, startBound, "connecting to Temporal", func() (err error) {
		e.temporal, err = client.DialContext(ctx, client.Options{
			HostPort: e.direct(temporal), Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
		})
		return err
	})
	if err != nil {
		return err
	}
	return until(ctx, startBound, "connecting to JetStream", func() (err error) {
		e.conn, err = stream.Connect(ctx, stream.Options{URL: "nats://" + e.direct(streams), Name: "chaos", Log: zap.NewNop()})
		if err == nil {
			e.results = pipeline.NewResults(e.conn, "")
		}
		return err
	})
}

// databaseVariable is where workers find the source's connection string, each that of its own proxy.
const databaseVariable = "PERDURE_CHAOS_DATABASE"

func (e *environment) startWorkers(running context.Context) error {
	binary, err := built("worker")
	if err != nil {
		return err
	}
	ports, err := freePorts(len(workers))
	if err != nil {
		return err
	}
	for i, name := range workers {
		database, err := url.Parse(e.postgres.URL())
		if err != nil {
			return err
		}
		database.Host = e.links[name+">"+postgres].Listen
		api := fmt.Sprintf("127.0.0.1:%d", ports[i])
		e.apis = append(e.apis, "http://"+api)
		e.services[name], err = startService(running, name, e.dir, []string{
			"TEMPORAL_ADDRESS=" + e.links[name+">"+temporal].Listen, "NATS_URL=nats://" + e.links[name+">"+streams].Listen,
			databaseVariable + "=" + database.String(), "PERDURE_LOG_LEVEL=info",
		}, binary, "--data-dir", filepath.Join(e.dir, name), "--listen", api)
		if err != nil {
			return err
		}
	}
	return nil
}

// built returns the path of a program that make has built.
func built(name string) (string, error) {
	dir := os.Getenv("PERDURE_BIN_DIR")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "bin")
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("run make build tctl: %w", err)
	}
	return path, nil
}

// startComponents brings up the source, the queries and the reactions, one kind after the other.
func (e *environment) startComponents(ctx context.Context) error {
	if err := e.exec(ctx, schema); err != nil {
		return fmt.Errorf("creating the tables: %w", err)
	}
	for _, group := range e.components() {
		for _, c := range group {
			_, err := e.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: c.id.String(), TaskQueue: activities.QueueWorkflows},
				workflows.WorkflowType(c.id.Kind), c.input)
			if err != nil {
				return fmt.Errorf("starting %s: %w", c.id, err)
			}
		}
		for _, c := range group {
			if err := until(ctx, startBound, c.id.String()+" runs", func() error { return e.isRunning(ctx, c.id) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// sinkFile is where the reaction of kind log writes what it is given.
func (e *environment) sinkFile() string { return filepath.Join(e.dir, "reaction.txt") }

func (e *environment) status(ctx context.Context, id component.ID) (s workflows.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	value, err := e.temporal.QueryWorkflow(ctx, id.String(), "", workflows.QueryStatus)
	if err == nil {
		err = value.Get(&s)
	}
	return s, err
}

func (e *environment) isRunning(ctx context.Context, id component.ID) error {
	s, err := e.status(ctx, id)
	if err != nil {
		return err
	}
	if s.Phase != workflows.PhaseRunning {
		text, _ := json.Marshal(s.Breaker.LastError) // for the message only
		return fmt.Errorf("%s is in phase %s; its last error is %s", id, s.Phase, text)
	}
	return nil
}

// exec runs statements on the source, past the proxies.
func (e *environment) exec(ctx context.Context, sql string) error {
	conn, err := e.open(ctx, "chaos")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // what was to be done is done
	_, err = conn.Exec(ctx, sql)
	return err
}

func (e *environment) open(ctx context.Context, name string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(e.postgres.URL())
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = name
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.ConnectConfig(ctx, config)
}

// column returns the first column of what a statement returns.
func column[T any](ctx context.Context, e *environment, sql string) ([]T, error) {
	conn, err := e.open(ctx, "chaos")
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // what was asked is answered
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

// end stops everything. Workers and servers are killed: nothing that they do then is looked at.
func (e *environment) end() {
	e.stop()
	e.following.Wait()
	if e.temporal != nil {
		e.temporal.Close()
	}
	if e.conn != nil {
		e.conn.Close()
	}
	for _, s := range e.services {
		<-s.done
	}
	for _, p := range e.links {
		p.Stop()
	}
	var err error
	if e.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), startBound)
		defer cancel()
		err = errors.Join(err, e.postgres.Stop(ctx))
	}
	for _, m := range e.mounts {
		err = errors.Join(err, m.close(e.keep))
	}
	if e.log != nil {
		err = errors.Join(err, e.log.Close())
	}
	if !e.keep {
		err = errors.Join(err, os.RemoveAll(e.dir))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "ending the environment in %s: %v\n", e.dir, err)
	}
}
