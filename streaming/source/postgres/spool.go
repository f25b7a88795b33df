package postgres

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"syscall"

	"github.com/perdure/perdure/streaming/failure"
)

// spoolMemory is how much of a transaction in progress is held in memory; the rest is in a file. It is written and read in
// pieces of that size, which the processor's cache has room for.
const spoolMemory = 1 << 20

// spool holds the messages of a transaction that the server sends while it is in progress, until it is known how it ends.
// Each belongs to the transaction or to one of its subtransactions, which may be rolled back alone.
type spool struct {
	dir     string
	memory  int    // bytes of recent, beyond which it goes into the file
	recent  []byte // behind what is in the file: owner, length, message
	file    *os.File
	pieces  []int // lengths of what was written at a time
	bytes   int64
	aborted map[uint32]bool // subtransactions
}

const spoolHeader = 4 + 4

// add keeps a message, of which the first byte is its kind.
func (s *spool) add(owner uint32, kind byte, message []byte) error {
	s.recent = binary.BigEndian.AppendUint32(s.recent, owner)
	s.recent = binary.BigEndian.AppendUint32(s.recent, uint32(1+len(message)))
	s.recent = append(append(s.recent, kind), message...)
	s.bytes += int64(len(message))
	if len(s.recent) < s.memory {
		return nil
	}
	if s.file == nil {
		if err := s.open(); err != nil {
			return spoolError(err)
		}
	}
	if _, err := s.file.Write(s.recent); err != nil {
		return spoolError(err)
	}
	s.pieces, s.recent = append(s.pieces, len(s.recent)), s.recent[:0]
	return nil
}

// open makes a file that lives as long as it is open, also when the process is killed.
func (s *spool) open() error {
	if s.dir != "" {
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return err
		}
	}
	file, err := os.CreateTemp(s.dir, "transaction-*")
	if err != nil {
		return err
	}
	s.file = file
	return os.Remove(file.Name())
}

func (s *spool) abort(owner uint32) {
	if s.aborted == nil {
		s.aborted = make(map[uint32]bool)
	}
	s.aborted[owner] = true
}

// replay visits the messages that were not rolled back, in order. They are valid until done, which is called at the end of
// each piece of the file; those that are still in memory, behind them, as long as nothing is added. It is called once: what
// was read is given back, so that the disk need not have room for the transaction twice.
func (s *spool) replay(visit func(message []byte) error, done func() error) error {
	var piece []byte
	at := int64(0)
	for _, n := range s.pieces {
		piece = slices.Grow(piece[:0], n)[:n]
		if _, err := s.file.ReadAt(piece, at); err != nil {
			return spoolError(err)
		}
		release(s.file, at, at+int64(n))
		at += int64(n)
		if err := s.visit(piece, visit); err != nil {
			return err
		}
		if err := done(); err != nil {
			return err
		}
	}
	return s.visit(s.recent, visit)
}

func (s *spool) visit(piece []byte, visit func(message []byte) error) error {
	for len(piece) > 0 {
		owner, end := binary.BigEndian.Uint32(piece), spoolHeader+int(binary.BigEndian.Uint32(piece[4:]))
		message := piece[spoolHeader:end:end]
		piece = piece[end:]
		if s.aborted[owner] {
			continue
		}
		if err := visit(message); err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close() // nobody needs what is in it
	}
}

func spoolError(err error) error {
	code := failure.SpillFailed
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		code = failure.DiskFull
	}
	return code.Errorf("keeping a large transaction in a file: %w", err)
}
