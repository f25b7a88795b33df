package postgres

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/perdure/perdure/streaming/failure"
)

// spoolMemory is how much of a transaction in progress is held in memory; the rest is in a file.
const spoolMemory = 4 << 20

// spool holds the messages of a transaction that the server sends while it is in progress, until it is known how it ends.
// Each belongs to the transaction or to one of its subtransactions, which may be rolled back alone.
type spool struct {
	dir     string
	memory  int    // bytes of recent, beyond which it goes into the file
	recent  []byte // behind what is in the file: owner, length, message
	file    *os.File
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
	s.recent = s.recent[:0]
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

// replay visits the messages that were not rolled back, in order. They are valid during the call only.
func (s *spool) replay(visit func(message []byte) error) error {
	if s.file != nil {
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return spoolError(err)
		}
		const buffer = 1 << 20
		if err := s.read(bufio.NewReaderSize(s.file, buffer), visit); err != nil {
			return err
		}
	}
	rest := s.recent
	for len(rest) > 0 {
		owner, n := binary.BigEndian.Uint32(rest), int(binary.BigEndian.Uint32(rest[4:]))
		message := rest[spoolHeader : spoolHeader+n]
		rest = rest[spoolHeader+n:]
		if s.aborted[owner] {
			continue
		}
		if err := visit(message); err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) read(r *bufio.Reader, visit func(message []byte) error) error {
	var header [spoolHeader]byte
	var message []byte
	for {
		if _, err := io.ReadFull(r, header[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return spoolError(err)
		}
		owner, n := binary.BigEndian.Uint32(header[:]), int(binary.BigEndian.Uint32(header[4:]))
		if s.aborted[owner] {
			if _, err := r.Discard(n); err != nil {
				return spoolError(err)
			}
			continue
		}
		if cap(message) < n {
			message = make([]byte, n)
		}
		message = message[:n]
		if _, err := io.ReadFull(r, message); err != nil {
			return spoolError(err)
		}
		if err := visit(message); err != nil {
			return err
		}
	}
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
