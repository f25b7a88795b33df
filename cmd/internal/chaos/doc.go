// Package chaos runs the whole system as separate processes, breaks parts of it at random, and holds what comes out
// against SQL: Postgres, a Temporal server, a JetStream server and two workers, with a proxy in each of the workers'
// connections, while clients write, whose own connections are ended, too. Two reactions get the results: one writes them to a
// file, the other posts row by row to an HTTP server, a process with a journal that fails in its own ways: it answers errors,
// late or never, is frozen or killed.
//
// Each seed is a plan of faults, which depends on the seed alone; what the system does while they happen does not. The kinds
// of faults are dealt like cards, so that few seeds have them all. One of the queries has two sources, whose changes it
// takes in an order that nobody could repeat, and workers lose their disks. After the last fault the clients stop, and then,
// within 150 s,
//
//   - the result of each query equals SQL on the source,
//   - its differences, replayed from the first one on and as a client got them who followed all the time, add up to the
//     same rows, each sequence once and in order,
//   - no event ever showed a part of a transaction,
//   - the reaction that writes was given every event, in order,
//   - the HTTP server took every row of every event, each row's in order, and there are no dead letters,
//   - every component runs, and none has waited for an operator or for its breaker,
//   - no result was built anew, unless a slot was dropped or a query told to read again,
//   - no worker has ended by itself, unless it could not reach the servers when it was started,
//   - the slot's confirmed position advances.
//
// Faults of disks need the right to mount, those of clocks the right to change a process on Linux and amd64; they are left
// out without it, and the report says so.
//
// TestTheControlPlaneIsAway keeps the Temporal server away, for PERDURE_AWAY, and wants everything else to go on meanwhile.
//
// All of it is in test files; `make chaos` runs it for as long as one likes, SEED=7 replays a plan, FAULT='drop slot' deals
// one kind of faults only.
package chaos
