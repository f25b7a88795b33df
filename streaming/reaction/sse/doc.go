// Package sse serves results to clients that speak server-sent events, such as a browser's EventSource. It is the
// reaction to copy for one that is pulled from.
//
// A client asks for GET /queries/{id}/events (the API serves the same below /api/v1) and gets
//
//	event: snapshot   all current rows: {"sequence":N,"positions":{source:position},"columns":[...],
//	                  "rows":[{"key":...,"row":{...}}]}, each row with the key that diffs name it by
//	event: diff       one source transaction's differences, as result.Event is written in JSON
//	event: heartbeat  {"sequence":N}, after a while without anything else
//
// each with the sequence as its id, which a browser sends back as Last-Event-ID when it reconnects: then it goes on
// with the event after that and there is no snapshot, unless that event is no longer kept or the query was built anew.
// A snapshot always replaces all rows that the client has. Diffs come in order, without gap and without repetition. What a
// very large transaction did comes in several events, of which all but the last have "more": true.
//
// A client that does not take what it is sent is disconnected after the write timeout; it resumes where it stopped, at
// no cost to others, since results wait in the durable log and not in memory.
package sse
