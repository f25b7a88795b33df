// Package cluster runs a private Postgres server as a child process: for tests, for the demonstration and for trying
// things out on one machine. The server writes the WAL that logical replication needs, listens on loopback only and
// trusts everybody who can connect there; it is not meant to hold data that matters.
//
// The server dies with its parent, also when that is killed, and a directory that such a server left behind is used
// again without help. Goroutines: one per running server, which waits for the process and ends with it.
package cluster
