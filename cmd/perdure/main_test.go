package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"perdure": main})
}

// TestScripts runs the command line as people do. Beside the usual commands, scripts know
//
//	freeports NAME...   sets variables to ports that are free
//	await URL           waits until the address answers with 200
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// Settings of whoever runs the tests must not leak into them, but programs have to be found.
			for _, name := range []string{"PERDURE_POSTGRES_BIN", "GOCOVERDIR"} {
				if value, ok := os.LookupEnv(name); ok {
					env.Setenv(name, value)
				}
			}
			env.Setenv("NO_COLOR", "1")
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "postgres" {
				return false, fmt.Errorf("there is no condition %q", name)
			}
			return hasPostgres(), nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"freeports": freePorts, "await": await},
	})
}

func hasPostgres() bool {
	if os.Getenv("PERDURE_POSTGRES_BIN") != "" {
		return true
	}
	if _, err := exec.LookPath("initdb"); err == nil {
		return true
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is well-formed
	return len(found) > 0
}

func freePorts(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer l.Close() // after all are chosen, so that they differ
		ts.Setenv(name, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(60 * time.Second)
	client := http.Client{Timeout: 5 * time.Second}
	for {
		res, err := client.Get(args[0])
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("it answers %s", res.Status)
		}
		if time.Now().After(deadline) {
			ts.Fatalf("waiting for %s: %v", args[0], err)
		}
		time.Sleep(20 * time.Millisecond) // between polls; the deadline decides
	}
}
