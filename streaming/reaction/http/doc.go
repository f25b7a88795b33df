// Package http is the reaction that posts results to a URL, as a webhook.
//
// Each delivery is one POST, of an event or, with delivery.unit row in the spec, of one row of it. The body is the event as
// result.Event is written in JSON, with two members more:
//
//	{"reaction":"notify","query":"late","sequence":17,"source":"shop","position":"0/16B3748","commitTime":"...",
//	 "snapshot":false,"diffs":[{"op":"updated","key":"...","before":{...},"after":{...}}]}
//
// Headers beside those of the config:
//
//	Idempotency-Key    the same in every try of a delivery, also after a crash; no other delivery has it,
//	                   not even one of a query of the same name that was deleted before
//	Perdure-Query      name of the query
//	Perdure-Sequence   number of the event
//	Traceparent        W3C's Trace Context, when a trace follows the transaction
//
// What the answer means:
//
//	2xx                        delivered
//	408, 425, 429, 5xx         tried again, as when there is no answer; Retry-After, in seconds or as a date, is heeded
//	401, 403, 407              the credentials are wrong: the reaction waits in NeedsOperator, as with a token that
//	                           cannot be sent since it has control characters
//	3xx                        the URL is not the right one: the same; redirects are not followed
//	any other 4xx              refused for good: the delivery goes to the dead letters
//
// Receivers get everything at least once. One that must not act twice remembers the idempotency keys that it has acted on.
package http
