//go:build linux || darwin

package stream

import "golang.org/x/sys/unix"

// spaceOn returns the bytes that are free on the disk of a directory, and those that it has.
func spaceOn(dir string) (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
