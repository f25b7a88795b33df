//go:build unix

package process

import (
	"os"
	"syscall"
)

// lockFile takes an exclusive lock, which ends with the process however that ends.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
