package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres/cluster"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// TestCheck runs testdata/check against a server whose configuration files count:
//
//	sql               runs statements, one a line, as a superuser; a line "restart" restarts the server
//	check names=...   checks the source of the config; shows what is not OK, or all checks that are named
//	fix names=...     runs the SQL that these checks show, restarts the server where they say so, and shows them again
func TestCheck(t *testing.T) {
	plainEnvironment(t)
	c := clustertest.Own(t, map[string]string{"fsync": "off", "wal_level": "", "max_replication_slots": "", "max_wal_senders": ""})
	var config string
	datadriven.RunTest(t, filepath.Join("testdata", "check"), func(t *testing.T, d *datadriven.TestData) string {
		var names []string
		for _, a := range d.CmdArgs {
			if a.Key == "names" {
				names = a.Vals
			}
		}
		switch d.Cmd {
		case "sql":
			runAll(t, c, strings.Split(d.Input, "\n"))
			return ""
		case "check":
			if d.Input != "" {
				config = d.Input
			}
			return show(check(t, c, config), names)
		case "fix":
			for _, found := range check(t, c, config) {
				if !found.OK && matches(found, names) {
					require.NotEmpty(t, found.SQL, found.Name)
					runAll(t, c, found.SQL)
					if strings.Contains(found.Fix, "restart the server") {
						runAll(t, c, []string{"restart"})
					}
				}
			}
			return show(check(t, c, config), names)
		}
		t.Fatalf("unknown command %s", d.Cmd)
		return ""
	})
}

func runAll(t *testing.T, c *cluster.Cluster, statements []string) {
	for _, statement := range statements {
		if statement == "restart" {
			require.NoError(t, c.Restart(t.Context(), false))
		} else {
			clustertest.Exec(t, c.URL(), statement)
		}
	}
}

func check(t *testing.T, c *cluster.Cluster, config string) []source.Check {
	config = fmt.Sprintf(`{"host": "127.0.0.1", "port": %d, "database": "postgres", "sslMode": "disable", %s}`, c.Port(), config)
	made, err := Factory{}.New(json.RawMessage(config), source.Settings{Instance: "default", Name: "shop", Generation: 1})
	require.NoError(t, err)
	checks, err := made.(source.Checker).Check(t.Context())
	require.NoError(t, err)
	for _, c := range checks {
		require.Equal(t, c.OK, c.Severity == "", "%+v", c)
		require.NotEmpty(t, c.Found, "%+v", c)
	}
	return checks
}

func matches(c source.Check, names []string) bool {
	for _, name := range names {
		if name == c.Name || name == c.Name+":"+c.Object {
			return true
		}
	}
	return false
}

// volatile is what differs from run to run.
var volatile = regexp.MustCompile(`127\.0\.0\.1:\d+|[+-]\d\.\d s|process \d+|\d+ [kM]B of WAL|\d+\.\d+$`)

func show(checks []source.Check, names []string) string {
	var b strings.Builder
	for _, c := range checks {
		if len(names) > 0 && !matches(c, names) || len(names) == 0 && c.OK {
			continue
		}
		state := "ok"
		if !c.OK {
			state = strings.TrimSpace(string(c.Severity) + " " + c.Code)
		}
		fmt.Fprintf(&b, "%s: %s\n", strings.TrimSpace(c.Name+" "+c.Object), state)
		for _, line := range append([]string{"found: " + volatile.ReplaceAllString(strings.TrimSuffix(c.Found, ": wal_removed"), "#"), "wanted: " + c.Wanted, "fix: " + c.Fix, "for: " + c.Component}, c.SQL...) {
			if !strings.HasSuffix(line, ": ") {
				fmt.Fprintf(&b, "  %s\n", line)
			}
		}
	}
	return b.String()
}

func TestCheckOfFailover(t *testing.T) {
	plainEnvironment(t)
	c := clustertest.Own(t, map[string]string{"fsync": "off"})
	clustertest.Exec(t, c.URL(), "CREATE TABLE t (id int PRIMARY KEY)")
	s := sourceAt(t, c.URL(), "")
	require.NoError(t, s.Provision(t.Context()))
	standby, err := s.connectReplication(t.Context()) // as good as one to a server that only counts WAL senders
	require.NoError(t, err)
	defer hangUp(t.Context(), standby)
	checks, err := s.Check(t.Context())
	require.NoError(t, err)
	if clustertest.Text(t, c.URL(), "SHOW server_version_num") < "170000" {
		require.Contains(t, show(checks, nil), "failover: warning\n  found: a standby is connected")
		return
	}
	require.Contains(t, show(checks, nil), "failover: warning\n  found: synchronized_standby_slots is empty")
	clustertest.Exec(t, c.URL(), "SELECT pg_create_physical_replication_slot('physical')")
	clustertest.Exec(t, c.URL(), "ALTER SYSTEM SET synchronized_standby_slots = 'physical'")
	clustertest.Exec(t, c.URL(), "SELECT pg_reload_conf()")
	checks, err = s.Check(t.Context())
	require.NoError(t, err)
	require.Contains(t, show(checks, []string{"failover"}), "failover: ok")
}

func TestCheckEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := sourceAt(t, clustertest.Database(t), "").Check(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestCheckOfClocks(t *testing.T) {
	for _, at := range []struct {
		ahead, uncertain time.Duration
		ok               bool
	}{{0, 0, true}, {-5 * time.Second, 0, true}, {6 * time.Second, 0, false}, {-6 * time.Second, 2 * time.Second, true}, {-time.Hour, time.Second, false}} {
		d := &doctor{}
		d.compareClocks(at.ahead, at.uncertain)
		require.Equal(t, at.ok, d.checks[0].OK, "%+v", at)
	}
}
