package pebble

import (
	"errors"
	"os"
	"syscall"
)

// allocate takes room for a file.
func allocate(f *os.File, bytes int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, bytes) //nolint:gosec // it is a descriptor
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return fill(f, bytes)
	}
	return err
}
