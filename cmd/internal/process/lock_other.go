//go:build !unix

package process

import "os"

// lockFile does nothing where there is no flock: the stores in the directory have locks of their own.
func lockFile(*os.File) error { return nil }
