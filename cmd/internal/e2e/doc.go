// Package e2e tests Perdure as its users run it: the real binaries as processes, a real Postgres, the embedded Temporal
// server and JetStream, tctl and HTTP; faults come from outside. It holds tests only.
package e2e
