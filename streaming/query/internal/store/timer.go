package store

import (
	"encoding/binary"
	"time"

	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/result"
)

// Timer is when an operator wants to be woken for a row.
type Timer struct {
	At   time.Time // UTC
	Node int
	Row  result.RowKey
}

// SetTimer adds a timer; one that is there already stays.
func SetTimer(b index.Batch, t Timer) error { return b.Set(timerKey(t), nil) }

// DeleteTimer removes a timer; one that is not there is no error.
func DeleteTimer(b index.Batch, t Timer) error { return b.Delete(timerKey(t)) }

// FirstTimer returns the timer that is due first: by time, then by node, then by row. ok is false if there is none up
// to and including until.
func FirstTimer(r index.Reader, until time.Time) (t Timer, ok bool, err error) {
	to := After(timerKey(Timer{At: until})[:1+timeBytes])
	err = r.Scan([]byte{spaceTimer}, to, func(key, _ []byte) (bool, error) {
		if len(key) != 1+timeBytes+2+len(t.Row) {
			return false, corrupt("a timer")
		}
		seconds := int64(binary.BigEndian.Uint64(key[1:]) ^ 1<<63)
		t.At = time.Unix(seconds, int64(binary.BigEndian.Uint32(key[9:]))).UTC()
		t.Node = int(binary.BigEndian.Uint16(key[1+timeBytes:]))
		copy(t.Row[:], key[1+timeBytes+2:])
		ok = true
		return false, nil
	})
	return t, ok, err
}

const timeBytes = 8 + 4

// timerKey makes keys that are in the order of time, also before 1970.
func timerKey(t Timer) []byte {
	key := binary.BigEndian.AppendUint64([]byte{spaceTimer}, uint64(t.At.Unix())^1<<63)
	key = binary.BigEndian.AppendUint32(key, uint32(t.At.Nanosecond()))
	key = binary.BigEndian.AppendUint16(key, uint16(t.Node))
	return append(key, t.Row[:]...)
}
