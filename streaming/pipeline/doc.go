// Package pipeline runs one stage at a time, a source, a query or a reaction, from its log to its log, and the steps of a
// bootstrap. It is told what to run and never decides whether to: that is the control plane's part, of which nothing
// here knows.
//
// # What a stage is
//
//	RunSource    source.Run ──► sink ──► change log CHG_<instance>_<source>
//	RunQuery     change logs ──► feeds ──► query.Apply ──► outlet ──► result log RES_<instance>_<query>
//	                                           └──► shown to Results.Follow at once
//	RunReaction  result logs ──► lanes ──► Deliver; or the reaction's own server, which reads through Results
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
//  4. The change log keeps everything after the synced offset of every query, and its last message always.
//  5. An event is delivered to a reaction before it is recorded as delivered; records are moved by the newest attempt
//     only.
//  6. The sequences of a query's events never begin anew. A state that is built anew begins with a Snapshot event
//     without differences, which voids all rows known so far, followed by Snapshot events with the new rows. Its
//     sequence is far beyond any that a view or Follow has told of; all others ascend by one.
//  7. A bootstrap's rows count when their chunk was completed, by the attempt that completed it. A change at or below
//     the position of the snapshot from which its label was copied is part of the copy and not applied again.
//     Which chunks there are is decided when they are handed out, in one record per table, so that each place of a table
//     is in one of them.
//  8. Views and Follow may tell of events that are not in the result log yet. An event that is lost after that is made
//     again, from the outbox or from the change log, with the same sequence and content: see queryRun.show. What a
//     reaction is given, and what the outbox forgets, is in the log.
//
// # Draining and cancelling
//
// Closing Attempt.Drain ends a stage in good order: it takes nothing more, finishes what it has, makes it durable and
// returns nil. The end of its context ends it at once, with everything that is not durable undone by the next attempt.
//
// # Goroutines
//
// Every goroutine belongs to a group that its function waits for before it returns; a panic in one ends the group with a
// failure.Panic that carries the stack.
//
//	goroutine          started by         stops when                    on error
//	source reader      the source's Run   drained or context ends       ends the stage
//	outlet             RunSource,         context ends                  ends the stage; additions fail
//	                   RunQuery, copying
//	source keeper      RunSource          context ends                  tried again for a minute, then ends the stage
//	drain watcher      RunSource, lanes   drain closed, context ends    has none
//	feed               RunQuery, one      drain or context ends         ends the stage
//	                   per source
//	apply              RunQuery, one      drained or context ends       ends the stage; the index undoes the batch
//	query keeper       RunQuery           context ends                  tried again for a minute, then ends the stage
//	view listener      RunQuery           context ends                  ends the stage
//	view               view listener,     all rows sent, or the asker   told to the asker
//	                   at most maxViews   stops answering
//	log reader         Results.Follow     Follow returns                ends Follow
//	lane               RunReaction, one   drain or context ends         retry, then dead letter or end of the stage
//	                   per query
//	mark               lane               context ends                  ends the stage
//	ticker             RunQuery           sealing is over               has none
//	lease renewal      CopyChunks         chunk read                    ends the chunk
//
// # Memory
//
// What waits anywhere is bounded in bytes: 8 MiB encoded in an outlet, 8 messages of about 512 KiB between feed and
// query, one part of a view, 256 messages of up to 16 KiB that are shown to one who follows. The exception is a
// transaction larger than a message: the query holds it whole, decoded, while it is put together from its fragments,
// since it must become visible at once.
package pipeline
