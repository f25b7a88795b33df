// Package telemetry defines what is told about running components: the keys of log lines, once, so that one search finds
// what happened to a component whatever stage wrote the line, the metrics, and the traces.
//
// # Traces
//
// A trace follows one transaction from the source's system to the target of a reaction:
//
//	source      from the commit until the change log has it
//	  query     from reading it there until the result log has the event; for each query, and also where the result stays
//	            as it is, which then ends with the query and has no sequence
//	    reaction  from taking the event until the target has it; for each reaction, with an event for each failed try. Where
//	              clients come for results themselves, as those of sse, it is one for each client that gets the event
//
// Spans have instance, source and position (the LSN), and where they apply query, reaction, sequence and offset, as log lines
// do, beside the attributes of OpenTelemetry's conventions for databases and messaging. They have no data of rows; of a
// failure they tell the code and not the message, which may quote a row.
//
// Which transactions are followed is decided by a hash of the source's name and the position, from which all ids derive as well. No message
// carries anything for it, all processes decide alike, and what is done again after a crash gets the ids that it had. Copies
// for bootstraps and the events of a snapshot are not followed.
//
// Spans wait for the collector in a queue of 2,048 and are dropped when it is full; perdure_trace_spans_total counts what
// becomes of them. Those that wait when a process is killed are lost.
package telemetry
