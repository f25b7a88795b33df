package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/streaming/failure"
)

func load(t *testing.T, into any, env map[string]string, args ...string) error {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.AddFlags(flags, into)
	require.NoError(t, flags.Parse(args))
	return config.Load(flags, func(key string) (string, bool) {
		text, ok := env[key]
		return text, ok
	}, into)
}

func TestDefaults(t *testing.T) {
	var dev config.Dev
	require.NoError(t, load(t, &dev, nil))
	require.Equal(t, config.Dev{
		DataDir: ".perdure/dev", Namespace: "default", TemporalPort: 7233, UIPort: 8233, APIPort: 8080, HeartbeatRate: 20,
		Work: config.Work{OutliveControlPlane: true, MoveQueries: true, MaxLoops: 10_000, MaxCopies: 16},
		Timeouts: config.Timeouts{
			StopTimeout: 90 * time.Second, HandOverTimeout: 25 * time.Second, HeartbeatTimeout: 30 * time.Second,
			AckTimeout: 2 * time.Second, AppendTimeout: 30 * time.Second, RequestTimeout: 10 * time.Second,
		},
		Traces: config.Traces{TraceRatio: 0.01}, Log: config.Log{LogLevel: "warn", LogFormat: "console"},
	}, dev)
	var worker config.Worker
	require.NoError(t, load(t, &worker, nil))
	require.Equal(t, "127.0.0.1:7233", worker.TemporalAddress)
	require.Equal(t, 15*time.Second, worker.ConnectTimeout)
	require.Equal(t, dev.Work, worker.Work)
	require.Equal(t, dev.Timeouts, worker.Timeouts)
	require.ErrorContains(t, load(t, &worker, nil, "--stop-timeout", "1m"), "stopTimeout: must be at least 1m20s, is 1m0s")
	require.NoError(t, load(t, &worker, nil, "--stop-timeout", "1m", "--hand-over-timeout", "15s"))
	require.Equal(t, time.Minute, worker.StopTimeout)
	require.NoError(t, load(t, &worker, nil, "--outlive-control-plane=false"))
	require.False(t, worker.OutliveControlPlane)
	var demo config.Demo
	require.NoError(t, load(t, &demo, nil))
	require.Equal(t, 20, demo.Seconds)
}

func TestFlagsWinOverEnvironmentOverFileOverDefault(t *testing.T) {
	file := filepath.Join(t.TempDir(), "perdure.yaml")
	require.NoError(t, os.WriteFile(file, []byte("temporalPort: 1\nuiPort: 1\napiPort: 4\nlogFormat: json\n"), 0o600))
	env := map[string]string{"PERDURE_TEMPORAL_PORT": "2", "PERDURE_UI_PORT": "2", "PERDURE_WITH_POSTGRES": "true", "PERDURE_CONFIG": file}
	var dev config.Dev
	require.NoError(t, load(t, &dev, env, "--temporal-port", "3", "--with-postgres=false"))
	require.Equal(t, 3, dev.TemporalPort)
	require.Equal(t, 2, dev.UIPort)
	require.Equal(t, 4, dev.APIPort)
	require.Equal(t, "json", dev.LogFormat)
	require.Equal(t, "warn", dev.LogLevel)
	require.False(t, dev.WithPostgres)
}

// TestSecretsAreReferences in every place; what is none is refused and not shown.
func TestSecretsAreReferences(t *testing.T) {
	file := filepath.Join(t.TempDir(), "perdure.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`payloadKeys: {$secret: "env:KEYS"}`), 0o600))
	for want, err := range map[string]func(*config.Worker) error{
		"":          func(w *config.Worker) error { return load(t, w, nil) },
		"env:KEYS":  func(w *config.Worker) error { return load(t, w, nil, "--config", file) },
		"file:/k":   func(w *config.Worker) error { return load(t, w, map[string]string{"PERDURE_PAYLOAD_KEYS": "file:/k"}) },
		"env:OTHER": func(w *config.Worker) error { return load(t, w, nil, "--payload-keys", "env:OTHER") },
	} {
		var w config.Worker
		require.NoError(t, err(&w))
		require.Equal(t, want, w.PayloadKeys.Ref())
	}
	var w config.Worker
	err := load(t, &w, nil, "--payload-keys", "hunter2")
	require.ErrorContains(t, err, "flags: payloadKeys: must be a reference")
	require.NotContains(t, err.Error(), "hunter2")
}

// TestPortsOfTheDemoDiffer: the UI server would end the process at once, and leave Postgres behind.
func TestPortsOfTheDemoDiffer(t *testing.T) {
	var demo config.Demo
	require.ErrorContains(t, load(t, &demo, nil, "--ui-port", "7233"), "uiPort: is 7233, as temporalPort is")
	require.NoError(t, load(t, &demo, nil, "--ui-port", "0", "--api-port", "0"))
}

func TestTheFlagOfTheFileWinsOverItsVariable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "perdure.yaml")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	var dev config.Dev
	require.NoError(t, load(t, &dev, map[string]string{"PERDURE_CONFIG": "/nowhere"}, "--config", file))
}

// TestBadFiles expects of each testdata/*.bad.yaml what its comments say, line by line.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var dev config.Dev
			err = load(t, &dev, nil, "--config", file)
			require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err), "%v", err)
			for line := range strings.Lines(string(text)) {
				if want, ok := strings.CutPrefix(line, "# want: "); ok {
					require.ErrorContains(t, err, strings.TrimSpace(want))
				}
			}
		})
	}
}

func TestAllOriginsAreCheckedAtOnce(t *testing.T) {
	var dev config.Dev
	err := load(t, &dev, map[string]string{"PERDURE_API_PORT": "many", "OTEL_TRACES_SAMPLER_ARG": "half", "PERDURE_LOG_LEVEL": "loud"}, "--ui-port", "70000", "--config", "/nowhere.yaml")
	require.EqualError(t, err, strings.Join([]string{
		"/nowhere.yaml: reading the configuration: open /nowhere.yaml: no such file or directory",
		"environment: apiPort: must be a whole number, is a string; traceRatio: must be a number, is a string; logLevel: must be one of debug, info, warn, error, is \"loud\"",
		"flags: uiPort: must be at most 65535",
	}, "\n"))
}
