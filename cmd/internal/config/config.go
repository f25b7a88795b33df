// Package config says how a process of Perdure is run: where it listens, what it connects to, where it keeps its data.
// It does not know sources, queries and reactions, which are the input of workflows.
//
// Each setting has one name per place, all defined on one struct field: a flag, an environment variable and a key of
// the YAML file. A flag wins over the environment, that over the file, and that over the default. Decoding is strict,
// and everything that is wrong is reported at once.
package config

import (
	"time"

	"github.com/perdure/perdure/streaming/component"
)

// Log says what a process writes to its standard error.
type Log struct {
	LogLevel  string `json:"logLevel" flag:"log-level" env:"PERDURE_LOG_LEVEL" default:"warn" enum:"debug,info,warn,error" doc:"least severe level to log: debug, info, warn or error"`
	LogFormat string `json:"logFormat" flag:"log-format" env:"PERDURE_LOG_FORMAT" default:"console" enum:"console,json" doc:"form of log lines: console or json"`
}

// Traces says what a process traces. OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT, say where to.
type Traces struct {
	TraceRatio float64 `json:"traceRatio" flag:"trace-ratio" env:"OTEL_TRACES_SAMPLER_ARG" default:"0.01" minimum:"0" maximum:"1" doc:"ratio of the transactions that traces follow, once OTEL_EXPORTER_OTLP_ENDPOINT says where to"`
}

// Work says how a process runs components.
type Work struct {
	OutliveControlPlane bool `json:"outliveControlPlane" flag:"outlive-control-plane" env:"PERDURE_OUTLIVE_CONTROL_PLANE" default:"true" doc:"let components go on under their fences while Temporal does not answer; otherwise each stops by itself before Temporal would start it elsewhere"`
	MoveQueries         bool `json:"moveQueries" flag:"move-queries" env:"PERDURE_MOVE_QUERIES" default:"true" doc:"when this process stops, let its queries go on at once on another host, which downloads their state; otherwise they wait 30s for this one to come back"`
	MaxLoops            int  `json:"maxLoops" flag:"max-loops" env:"PERDURE_MAX_LOOPS" default:"10000" minimum:"1" doc:"components that may run at once in this process; more wait for a place, without a sign: a guard, and no means to spread load"`
	MaxCopies           int  `json:"maxCopies" flag:"max-copies" env:"PERDURE_MAX_COPIES" default:"16" minimum:"1" doc:"chunks of snapshots that may be copied at once in this process"`
}

// Payloads says what encrypts the payloads in the histories of workflows.
type Payloads struct {
	PayloadKeys component.Secret `json:"payloadKeys" flag:"payload-keys" env:"PERDURE_PAYLOAD_KEYS" doc:"where the keys are that encrypt what histories hold, env:NAME or file:/path: 32 bytes in base64 a line, the first of which encrypts while all decrypt; empty: nothing is encrypted"`
}

// Dev is the configuration of `perdure dev`, where everything runs in one process.
type Dev struct {
	DataDir       string `json:"dataDir" flag:"data-dir" env:"PERDURE_DATA_DIR" default:".perdure/dev" doc:"directory of everything that is kept"`
	Namespace     string `json:"namespace" flag:"namespace" env:"TEMPORAL_NAMESPACE" default:"default" doc:"Temporal namespace"`
	TemporalPort  int    `json:"temporalPort" flag:"temporal-port" env:"PERDURE_TEMPORAL_PORT" default:"7233" minimum:"0" maximum:"65535" doc:"port of the Temporal server; 0 takes a free one"`
	UIPort        int    `json:"uiPort" flag:"ui-port" env:"PERDURE_UI_PORT" default:"8233" minimum:"0" maximum:"65535" doc:"port of the Temporal UI; 0 takes a free one"`
	APIPort       int    `json:"apiPort" flag:"api-port" env:"PERDURE_API_PORT" default:"8080" minimum:"0" maximum:"65535" doc:"port of the API; 0 takes a free one"`
	NATSPort      int    `json:"natsPort" flag:"nats-port" env:"PERDURE_NATS_PORT" default:"0" minimum:"0" maximum:"65535" doc:"port of the JetStream server for other processes; 0 keeps it inside this process"`
	WithPostgres  bool   `json:"withPostgres" flag:"with-postgres" env:"PERDURE_WITH_POSTGRES" doc:"also run a private Postgres server, whose URL is the secret env:PERDURE_POSTGRES_URL"`
	HeartbeatRate int    `json:"heartbeatRate" flag:"heartbeat-rate" env:"PERDURE_HEARTBEAT_RATE" default:"20" minimum:"1" maximum:"10000" doc:"heartbeats a second of all components together; with more components each has fewer, and a lost one is noticed later"`
	NoWorker      bool   `json:"noWorker" flag:"no-worker" env:"PERDURE_NO_WORKER" doc:"leave the work to worker processes (needs --nats-port)"`
	Work
	Payloads
	Timeouts
	Traces
	Log
}

// Timeouts bounds what a process waits for. deploy/docs/timeouts.md says what follows each.
type Timeouts struct {
	StopTimeout      time.Duration `json:"stopTimeout" flag:"stop-timeout" env:"PERDURE_STOP_TIMEOUT" default:"1m30s" doc:"how long a stop may take before the process aborts; twice hand-over-timeout and 30s at least"`
	HandOverTimeout  time.Duration `json:"handOverTimeout" flag:"hand-over-timeout" env:"PERDURE_HAND_OVER_TIMEOUT" default:"25s" doc:"how long what runs may take to hand over when the process stops; 10s at least"`
	HeartbeatTimeout time.Duration `json:"heartbeatTimeout" flag:"heartbeat-timeout" env:"PERDURE_HEARTBEAT_TIMEOUT" default:"30s" doc:"how long Temporal waits for a heartbeat before it starts a component elsewhere; 30s at least"`
	AckTimeout       time.Duration `json:"ackTimeout" flag:"ack-timeout" env:"PERDURE_ACK_TIMEOUT" default:"2s" doc:"how long JetStream may take to acknowledge a message before it is published again"`
	AppendTimeout    time.Duration `json:"appendTimeout" flag:"append-timeout" env:"PERDURE_APPEND_TIMEOUT" default:"30s" doc:"how long an append to a stream may take, with all tries"`
	RequestTimeout   time.Duration `json:"requestTimeout" flag:"request-timeout" env:"PERDURE_REQUEST_TIMEOUT" default:"10s" doc:"how long JetStream may take to answer any other request"`
}

func (t *Timeouts) check(p *component.Problems) {
	for _, f := range []struct {
		name         string
		value, least time.Duration
	}{
		{"stopTimeout", t.StopTimeout, 2*t.HandOverTimeout + 30*time.Second},
		{"handOverTimeout", t.HandOverTimeout, 10 * time.Second},
		{"heartbeatTimeout", t.HeartbeatTimeout, 30 * time.Second},
		{"ackTimeout", t.AckTimeout, 100 * time.Millisecond},
		{"appendTimeout", t.AppendTimeout, t.AckTimeout},
		{"requestTimeout", t.RequestTimeout, time.Second},
	} {
		if f.value < f.least {
			p.Addf(f.name, "must be at least %s, is %s", f.least, f.value)
		}
	}
}

// Validate implements component.Validator.
func (d *Dev) Validate(p *component.Problems) {
	d.check(p)
	if d.NoWorker && d.NATSPort == 0 {
		p.Addf("natsPort", "must be set with noWorker: worker processes have to reach the JetStream server")
	}
	differ(p, port{"temporalPort", d.TemporalPort}, port{"uiPort", d.UIPort}, port{"apiPort", d.APIPort}, port{"natsPort", d.NATSPort})
}

type port struct {
	name   string
	number int
}

// differ refuses a port that is given twice.
func differ(p *component.Problems, ports ...port) {
	taken := make(map[int]string)
	for _, port := range ports {
		if other, twice := taken[port.number]; twice && port.number != 0 {
			p.Addf(port.name, "is %d, as %s is", port.number, other)
		}
		taken[port.number] = port.name
	}
}

// Servers says where the servers are that run elsewhere.
type Servers struct {
	TemporalAddress   string        `json:"temporalAddress" flag:"temporal-address" env:"TEMPORAL_ADDRESS" default:"127.0.0.1:7233" doc:"host:port of the Temporal frontend"`
	TemporalNamespace string        `json:"temporalNamespace" flag:"temporal-namespace" env:"TEMPORAL_NAMESPACE" default:"default" doc:"Temporal namespace"`
	NATSURL           string        `json:"natsUrl" flag:"nats-url" env:"NATS_URL" default:"nats://127.0.0.1:4222" doc:"URL of the NATS server with JetStream"`
	ConnectTimeout    time.Duration `json:"connectTimeout" flag:"connect-timeout" env:"PERDURE_CONNECT_TIMEOUT" default:"15s" doc:"how long to wait for Temporal and NATS at the start"`
}

// Worker is the configuration of the worker binary, which connects to servers that run elsewhere.
type Worker struct {
	Servers
	DataDir       string `json:"dataDir" flag:"data-dir" env:"PERDURE_DATA_DIR" default:".perdure/worker" doc:"directory of query state and of this worker's identity"`
	Listen        string `json:"listen" flag:"listen" env:"PERDURE_LISTEN" doc:"host:port of the API; empty for none"`
	HeartbeatRate int    `json:"heartbeatRate" flag:"heartbeat-rate" env:"PERDURE_HEARTBEAT_RATE" default:"100" minimum:"1" maximum:"10000" doc:"heartbeats a second of all components of this worker together; with more components each has fewer, and a lost one is noticed later"`
	PayloadOrigin string `json:"payloadOrigin" flag:"payload-origin" env:"PERDURE_PAYLOAD_ORIGIN" doc:"origin of the Temporal UI whose pages may have payloads decrypted, such as http://temporal.example.com:8080"`
	Work
	Payloads
	Timeouts
	Traces
	Log
}

// Validate implements component.Validator.
func (w *Worker) Validate(p *component.Problems) { w.check(p) }

// Specs is the configuration of `perdure spec`.
type Specs struct {
	NATSURL        string        `json:"natsUrl" flag:"nats-url" env:"NATS_URL" default:"nats://127.0.0.1:4222" doc:"URL of the NATS server with JetStream"`
	ConnectTimeout time.Duration `json:"connectTimeout" flag:"connect-timeout" env:"PERDURE_CONNECT_TIMEOUT" default:"15s" doc:"how long to wait for servers to answer first"`
}

// Apply is the configuration of `perdure apply`.
type Apply struct {
	TemporalAddress   string `json:"temporalAddress" flag:"temporal-address" env:"TEMPORAL_ADDRESS" default:"127.0.0.1:7233" doc:"host:port of the Temporal frontend"`
	TemporalNamespace string `json:"temporalNamespace" flag:"temporal-namespace" env:"TEMPORAL_NAMESPACE" default:"default" doc:"Temporal namespace"`
	Specs
	Payloads
}

// Demo is the configuration of `perdure demo`.
type Demo struct {
	DataDir      string `json:"dataDir" flag:"data-dir" env:"PERDURE_DATA_DIR" default:".perdure/demo" doc:"directory of everything that is kept; a second run goes on with it"`
	Seconds      int    `json:"seconds" flag:"seconds" env:"DEMO_SECONDS" default:"20" minimum:"0" doc:"how long to run; 0 until Ctrl-C"`
	Rate         int    `json:"rate" flag:"rate" env:"DEMO_RATE" default:"25" minimum:"1" maximum:"5000" doc:"transactions per second to write"`
	TemporalPort int    `json:"temporalPort" flag:"temporal-port" env:"PERDURE_TEMPORAL_PORT" default:"7233" minimum:"0" maximum:"65535" doc:"port of the Temporal server; 0 takes a free one"`
	UIPort       int    `json:"uiPort" flag:"ui-port" env:"PERDURE_UI_PORT" default:"8233" minimum:"0" maximum:"65535" doc:"port of the Temporal UI; 0 takes a free one"`
	APIPort      int    `json:"apiPort" flag:"api-port" env:"PERDURE_API_PORT" default:"8080" minimum:"0" maximum:"65535" doc:"port of the API; 0 takes a free one"`
	Log
}

// Validate implements component.Validator.
func (d *Demo) Validate(p *component.Problems) {
	differ(p, port{"temporalPort", d.TemporalPort}, port{"uiPort", d.UIPort}, port{"apiPort", d.APIPort})
}
