// Package streaming is the data plane of Perdure: a source writes changes to a stream, a query turns them into results,
// a reaction delivers them.
//
//	source ──► change log ──► query ──► result log ──► reaction
//	(plugin)   (JetStream)    (index)   (JetStream)    (plugin)
//
// Three packages do work (source, query, reaction), three carry data between them (graph, stream, result). The workers
// never import each other; they meet only in the data packages, and only package pipeline sees them all. Nothing here
// knows of Temporal, which runs the stages from outside. The import law is the table in testdata/layers.txt, held by
// layers_test.go.
//
// To read the code, go through graph/change.go, source/source.go, stream, query, result/result.go, reaction/reaction.go
// and pipeline/doc.go, in this order. To add a source or a reaction, copy source/postgres or reaction/log and add a line
// to package catalog.
package streaming
