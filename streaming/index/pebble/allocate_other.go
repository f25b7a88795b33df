//go:build !linux

package pebble

import "os"

// allocate takes room for a file.
func allocate(f *os.File, bytes int64) error { return fill(f, bytes) }
