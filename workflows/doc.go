// Package workflows keeps every component in the state somebody wants it to be in, and remembers why it is in the state
// it is in.
//
// A source, a query and a reaction each are one workflow that lives as long as the component does. It holds a desired
// state, a phase and what it knows; decide, a pure function, turns these into the next action; commands only edit what
// is desired. No error ends such a workflow: errors become state, shown by the query status, by search attributes and
// in the Temporal UI.
//
// A bootstrap, a child of its query's workflow, ends instead: sealed, or failed. Only tables that cannot be read make it wait
// for somebody, because what it copied of others is worth keeping; it tells its query, which shows it.
//
// Nothing here touches a row or waits by polling: the loops run inside long activities, and an idle component costs no
// history at all. A spec that is too large for an input is a reference to one that is stored: activities read it, and a
// workflow knows no more of it than it needs.
package workflows
