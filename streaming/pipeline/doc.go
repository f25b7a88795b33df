// Package pipeline runs one stage at a time, a source, a query or a reaction, from its log to its log, and the steps of a
// bootstrap. It is told what to run and never decides whether to: that is the control plane's part, of which nothing
// here knows.
//
// # What a stage is
//
//	RunSource    source.Run ──► sink ──► change log CHG_<instance>_<source>
//	                              └──► transactions in progress: STAGED_<instance>_<source>, to which the change log refers
//	RunQuery     change logs ──► feeds ──► query.Apply ──► outlet ──► result log RES_<instance>_<query>
//	                                           └──► shown to Results.Follow at once
//	RunReaction  result logs ──► lanes ──► Deliver ──► what is refused: dead letters LETTERS_<instance>_<reaction>;
//	             or the reaction's own server, which reads through Results
//
// Each begins with a claim to its component (stream.Fence). A claim is checked before anything is taken over, and a
// stream.Writer shuts out whoever wrote before, so a late attempt stops at its next write at the latest.
//
// # Invariants
//
//  1. A source's position is durable only when the message that holds it is acknowledged by the log, synced.
//  2. A source resumes at the position of its log's last message. Nothing else is asked, so nothing can disagree.
//  3. A query's index may lose its end in a crash of the machine, never what lies before: what was lost is done again
//     from the change log with the same results, of which those that are in the result log are not published twice.
//     Where several sources make the order of changes a matter of chance, the index is synced before results leave.
//  4. The change log keeps everything after the synced offset of every query, and after the oldest checkpoint of its state
//     that is kept, or the newest while the stream server is short of space, as far as its bounds allow; and its last
//     message always.
//  5. An event is delivered to a reaction, or is a dead letter, before it is recorded as delivered, and so is every event
//     before it, whatever lanes have done of later ones; records are moved by the newest attempt only.
//  6. The sequences of a query's events never begin anew. A state that is built anew begins with a Snapshot event
//     without differences, which voids all rows known so far, followed by Snapshot events with the new rows. Its
//     sequence is far beyond any that a view or Follow has told of; all others ascend by one.
//  7. A bootstrap's rows count when their chunk was completed, by the attempt that completed it. A change at or below
//     the position of the snapshot from which its label was copied is part of the copy and not applied again. Where that
//     snapshot was lost half-way, later ones have the rest, and the first one's position counts: see bootstrap_keep.go.
//     Which chunks there are is decided when they are handed out, in one record per table, so that each place of a table
//     is in one of them. A table that cannot be read is marked in the same record, and is not complete.
//  8. Views and Follow may tell of events that are not in the result log yet. An event that is lost after that is made
//     again, from the outbox or from the change log, with the same sequence and content: see queryRun.show. What a
//     reaction is given, what the outbox forgets, and all that is told of a query of several sources, is in the log.
//  9. A source leaves out of its change log only what nobody has put down to read, and a query reads nothing of the log
//     before that has all that it reads: see wants.go. What the log says of a property, or of rows, that came or went in
//     spite of that has the query read the source again.
//  10. A checkpoint of a query's state is on record only when all its parts are on the stream server. Only the newest
//     attempt adds to the record, and none removes a part that a checkpoint on record has.
//  11. A store of a query's state is on record before there is anything in it. The newest attempt claims the record before
//     it goes by it, and no older one writes it after that.
//  12. What is staged of a transaction counts when it is committed and a message of the change log refers to it, which is
//     appended when all of it is acknowledged. A reference is on record before it is there, so that what it needs stays as
//     long as a query needs it: see stage.go. The log of what is staged drops nothing to make room: when it is nearly full,
//     the source is told to stage no more.
//
// # Checkpoints
//
// A query's state is on the disk of the host that runs it. Its files are copied to the stream server now and then, and
// when the query stops in good order: tables that were sent before are not sent again. A host that has no state, one that
// is older than the newest checkpoint, or one that is damaged, takes that checkpoint, or the one before when it cannot
// be read, and applies the changes since. With one source this makes the very events again that followed the
// checkpoint, and those that are in the result log are not published again. With several sources the order in which
// their changes were taken is lost with the disk: these changes are applied without events, and what differs then from
// what the result log says is published as one transaction (see rejoin). Where that log does not go back to the checkpoint,
// the state counts as one that was built anew (invariant 6).
// Without a checkpoint, or where the change log does not reach back to it any more, the query needs a snapshot of its
// sources.
//
// # One state after another
//
// A query that is to read its sources again, that asks another question or that reads other sources, goes on with the state
// it has, and with the sources of that. What it needs it says through Attempt.Need, as soon as all its sources have change
// logs; when the bootstraps are sealed, a second state is loaded from them beside the first, with the changes since. Then
// the first one stops, the second one catches up with it, and what differs between their results is published as one
// transaction, under the next sequence. For as long as that takes, which is as long as it takes to fill and compare two
// results, the query answers nobody. With other columns there is no difference to tell: the second state begins anew
// (invariant 6) when it takes the place of the first. Afterwards nothing is left of sources that are not read any more.
//
// Sources keep their order, which is part of the ids of elements and so of the keys of rows: a new one comes after those that
// stay. Where the first one goes, rows of the next are told of as ones that go and ones that come, under other keys.
//
// A process may end between any two steps. The record of a state that takes the place of another one has the record of that,
// until it is whole: the next attempt goes on from there, or back if something else is wanted by then, or if the first one is
// on a disk that is lost, and has to be restored.
//
// A query that cannot apply a change, because what came before is lost or because of the change itself, keeps its result
// as it is until the second state is there, if one is on its way or can be asked for. That state need not have all: where
// changes of some labels only are missed, it takes the rest from the first one. With several sources, one whose change log does not
// go back far enough holds up its own changes alone: those of the others are applied until the second state is there. So it
// is where a source is deleted that only the first state reads.
//
// # Room
//
// When the disk of an embedded stream server gets short of space, change logs and bootstrap logs yield what is left to all
// other logs, buckets and objects (stream.LogOptions). A source then waits, for as long as it takes, says so in its status,
// and confirms nothing; meanwhile queries read on, publish, store checkpoints earlier than usual and let the change logs be
// trimmed, which makes room. A bootstrap that finds none for two minutes fails and is tried again. What nobody is done with is not
// trimmed: a snapshot or a transaction that does not fit on the disk, or the changes for a query that stands still, need
// room that an operator makes.
//
// # Draining and cancelling
//
// Closing Attempt.Drain ends a stage in good order: it takes nothing more, finishes what it has, makes it durable and
// returns nil. The end of its context ends it at once, with everything that is not durable undone by the next attempt.
//
// # Deliveries
//
// What a reaction is given at a time is an event, which is all that one source transaction did to the rows of a query or, of
// a very large one, a part of it; or, with delivery.unit row, one row of an event. Events come one after the other. Rows go
// to as many lanes as the spec says, by a hash of their key, so that those of one row come one after the other, and those of
// one event in any order; what voids all rows comes alone. After a crash all events come again that are not recorded, of
// which rows may have been delivered: with the same idempotency key.
//
// What fails for reasons that may go away is tried again, with growing pauses, for ever; what follows it waits. Only where
// the spec sets a bound is it given up: then the run ends and the component waits for resume, or it becomes a dead letter.
// All lanes of a reaction share a breaker: after five tries in a row that failed, one lane tries, and all others wait for it.
// A failure that is the matter of one query, such as results that are no longer kept, leaves the other queries alone; once
// no query is left, the run ends with it.
//
// Dead letters are kept until they are retried or dropped, whatever their age. When no more fit, deliveries wait. A retried
// one comes after later events of its row: a target that minds compares sequences.
//
// # Goroutines
//
// Every goroutine belongs to a group that its function waits for before it returns; a panic in one ends the group with a
// failure.Panic that carries the stack.
//
//	goroutine          started by         stops when                    on error
//	source reader      the source's Run   drained or context ends       ends the stage
//	outlet             RunSource (two),   context ends                  ends the stage; additions fail
//	                   RunQuery, copying
//	source keeper      RunSource          context ends                  tried again for a minute, then ends the stage
//	drain watcher      RunSource,         drain closed, context ends    has none
//	                   deliveries
//	feed               RunQuery, one      drain or context ends         ends the stage
//	                   per source
//	apply              RunQuery, one      drained or context ends       ends the stage; the index undoes the batch
//	succession         RunQuery, one      the second state is loaded,   the second state is loaded in its place
//	                                      drained or context ends
//	query keeper       RunQuery           context ends                  tried again for a minute, then ends the stage
//	checkpointer       RunQuery           context ends                  tried again later; ends the stage when the state
//	                                                                    is damaged or a newer attempt took over
//	view listener      RunQuery           context ends                  ends the stage
//	view               view listener,     all rows sent, or the asker   told to the asker
//	                   at most maxViews   stops answering
//	log reader         Results.Follow     Follow returns                ends Follow
//	delivery           RunReaction, one   drain or context ends         its query waits, or is left out; others go on
//	                   per query
//	lane               delivery           drained or context ends       retry, then dead letter or end of the stage
//	letter count       RunReaction        context ends                  tried again, or ends the stage
//	mark               delivery           context ends                  ends the stage
//	ticker             RunQuery           sealing is over               has none
//	lease renewal      CopyChunks         chunk read                    ends the chunk
//
// # Memory
//
// What waits anywhere is bounded in bytes: 8 MiB encoded in an outlet, of which a source has two, 8 messages of about 512 KiB
// between feed and query, or of 1 MiB where they are parts of a large transaction, 20 MiB that a reader of a log asked for
// ahead, 16 deliveries per lane, one part of a view, 256 messages of up to 16 KiB that are shown to one who follows. The
// exception is a transaction larger than that: the query holds, beside up to 8 MiB of it, what it changes, since it must
// become visible at once.
package pipeline
