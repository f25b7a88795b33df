package postgres

import (
	"os"
	"syscall"
)

// release gives back what is in a part of a file that nobody reads any more, as far as the file system can.
func release(file *os.File, from, to int64) {
	const punchHole, keepSize, block = 0x02, 0x01, 4096
	from, to = from/block*block, to/block*block
	if from < to {
		_ = syscall.Fallocate(int(file.Fd()), punchHole|keepSize, from, to-from) // at the latest it is free when the file is closed
	}
}
