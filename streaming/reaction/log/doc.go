// Package log is the reaction that writes a line for every difference. It is the one to copy for a reaction that is
// pushed to.
//
// Without templates a line reads
//
//	late-orders 17 updated {"id":4,"state":"new"} -> {"id":4,"state":"late"}
//
// Templates are Handlebars. They see query_name, operation (ADD, UPDATE, DELETE), before, after, sequence, position,
// source, timestamp (of the commit, RFC 3339), key and snapshot; {{json x}} writes a value as JSON. Nothing is escaped
// as HTML. Lines of one query come in order. After a crash the last lines may come again, with the same sequence. A file
// is appended to; a line is complete when it is there, but not synced to disk.
package log
