package devserver

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	clusterName = "active"
	retention   = 7 * 24 * time.Hour
)

// store is the database file and the identity of the cluster whose state it holds.
type store struct {
	sql       *config.SQL
	clusterID string
}

// openStore makes sure that the file exists with its whole schema and that the namespace is in it.
func openStore(file, namespace string) (store, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return store{}, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return store{}, err
	}
	id, err := clusterID(file + ".cluster-id")
	if err != nil {
		return store{}, fmt.Errorf("reading the cluster's id: %w", err)
	}
	if err := createSchema(file); err != nil {
		return store{}, fmt.Errorf("creating its schema: %w", err)
	}
	db := sqlConfig(file)
	// Write-ahead logging lets readers go on while one connection writes; full synchronisation keeps what was
	// acknowledged through a power cut.
	for pragma, value := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"} {
		db.ConnectAttributes[pragma] = value
	}
	ns, err := sqliteschema.NewNamespaceConfig(clusterName, namespace, false, nil)
	if err != nil {
		return store{}, err
	}
	ns.Detail.Config.Retention = durationpb.New(retention)
	if err := sqliteschema.CreateNamespaces(db, ns); err != nil {
		return store{}, fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	return store{db, id}, nil
}

// createSchema builds a missing database under another name and moves it into place once it is whole, because there is
// no way to finish a half-made one.
func createSchema(file string) error {
	if there, err := exists(file); there || err != nil {
		return err
	}
	building := file + ".new"
	if err := os.RemoveAll(building); err != nil {
		return err
	}
	if err := sqliteschema.SetupSchema(sqlConfig(building)); err != nil {
		return err
	}
	return os.Rename(building, file)
}

// clusterID returns the id kept in file, which is written at the first start: a server that starts under another id than
// before complains.
func clusterID(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		id, err := uuid.Parse(strings.TrimSpace(string(text)))
		return id.String(), err
	}
	if !os.IsNotExist(err) {
		return "", err
	}
	id := uuid.NewString()
	return id, os.WriteFile(file, []byte(id+"\n"), 0o600)
}

func sqlConfig(file string) *config.SQL {
	return &config.SQL{
		PluginName:        sqlite.PluginName,
		DatabaseName:      (&url.URL{Path: file}).EscapedPath(),
		ConnectAttributes: map[string]string{"mode": "rwc"},
	}
}

// serverConfig describes the four services of a server on this machine: the frontend at its address, the others on free
// ports that nobody else needs to know.
func serverConfig(s store, frontend string) (*config.Config, map[primitives.ServiceName]static.Hosts, error) {
	var reserved []net.Listener // held until all are known, so that they differ
	defer func() {
		for _, l := range reserved {
			_ = l.Close()
		}
	}()
	reserve := func(addr string) (port int, err error) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return 0, fmt.Errorf("reserving a port for Temporal: %w", err)
		}
		reserved = append(reserved, l)
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	host, _, err := splitAddress(frontend)
	if err != nil {
		return nil, nil, err
	}
	services := make(map[string]config.Service)
	for _, name := range []primitives.ServiceName{primitives.FrontendService, primitives.HistoryService, primitives.MatchingService, primitives.WorkerService} {
		rpc, addr := config.RPC{BindOnIP: host}, net.JoinHostPort(host, "0")
		if name == primitives.FrontendService {
			if rpc.HTTPPort, err = reserve(addr); err != nil {
				return nil, nil, err
			}
			addr = frontend
		}
		if rpc.GRPCPort, err = reserve(addr); err != nil {
			return nil, nil, err
		}
		services[string(name)] = config.Service{RPC: rpc}
	}
	disabled := config.Archival{
		History:    config.HistoryArchival{State: "disabled"},
		Visibility: config.VisibilityArchival{State: "disabled"},
	}
	return &config.Config{
		Global: config.Global{Membership: config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: host}},
		Persistence: config.Persistence{
			DefaultStore:     sqlite.PluginName,
			VisibilityStore:  sqlite.PluginName,
			NumHistoryShards: 1, // one history service on one file
			DataStores:       map[string]config.DataStore{sqlite.PluginName: {SQL: s.sql}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
				Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend, ClusterID: s.clusterID,
			}},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services:            services,
		Archival:            disabled,
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
		PublicClient: config.PublicClient{HostPort: frontend},
	}, hostsOf(services), nil
}

// dynamicConfig tunes the server for one machine. Numbers must be of type int.
func dynamicConfig() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// Search attributes that a worker registers are usable at once instead of after a minute.
		dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): one(true),
		// The limits protect shared databases; this file is ours alone.
		dynamicconfig.FrontendPersistenceMaxQPS.Key(): one(100_000),
		dynamicconfig.HistoryPersistenceMaxQPS.Key():  one(100_000),
		// Partitions spread a task queue over hosts; with one host they only delay tasks and multiply pollers.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  one(1),
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): one(1),
	}
}

func one(value any) []dynamicconfig.ConstrainedValue {
	return []dynamicconfig.ConstrainedValue{{Value: value}}
}
