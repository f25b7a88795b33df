// Package stream is the durable log between the stages: append, read, trim, fence, and small shared state, on NATS
// JetStream. It knows nothing of what the messages mean.
//
// A [Conn] is a connection to a server, embedded ([Serve]) or elsewhere; both are the same to everybody above. A [Log]
// is an ordered list of messages that ends only at its old end. A [Bucket] is a set of keys with revisions. [Objects] are
// named byte strings that are too large for either.
//
// Invariants, each with a test:
//
//  1. A sequence returned by Append is on disk: the embedded server syncs every write before it acknowledges.
//  2. Sequences of a log ascend by one. Some belong to fence markers, which readers never see.
//  3. A Reader returns every data message from where it starts, in order and once. When one is gone it returns
//     StreamTrimmed; it never skips.
//  4. At most one Writer of a log can append: a new Writer puts a fence marker in the log, which moves the sequence that
//     every older Writer expects, and only the holder of the component's newest epoch gets as far as that.
//  5. An Append whose acknowledgement is lost is repeated under the same id and the same expected sequence: it is in the
//     log once, whether the server remembers the id or not.
//  6. Trimming never removes the newest data message, so that a writer always finds where it stopped.
//  7. An object is read as it was stored, or the error says that it is not.
//  8. While the disk of an embedded server is short of space, logs that yield are not appended to, and everything else is;
//     only when that has used up most of the rest is nothing taken. Both end by themselves.
//  9. No call waits longer than its context or, where that has no end, than a bound documented at the call.
//
// Conn, Log, SharedWriter, Fence, Bucket and Objects are safe for concurrent use; Writer is too, one append at a time. A
// Reader belongs to one goroutine. The package starts goroutines only for a Bucket's Watch, which ends with its
// context, for the look at a Server's disk, which ends with the Server, and while a Server or Conn is being closed.
package stream
