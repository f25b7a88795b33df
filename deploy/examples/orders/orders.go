// Package orders holds the files of the order-tracking example, so that a program can run it without the source tree.
package orders

import "embed"

// Files are the example's component specs, its schema and its questions in SQL.
//
//go:embed *.json *.sql
var Files embed.FS
