//go:build !unix

package stream

import "os"

// lockFile opens the file; without flock, keeping servers apart is up to the operator.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
}
