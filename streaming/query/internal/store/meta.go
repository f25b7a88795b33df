package store

import (
	"encoding/binary"
	"time"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
)

// metaVersion is the version of the whole layout.
const metaVersion = 2

// Meta is what a query knows of itself. It is written with every batch.
type Meta struct {
	Fingerprint string
	Phase       byte
	Sequence    uint64 // of the last event
	Trimmed     uint64 // sequence up to which the outbox is trimmed
	Rows        int64
	Failed      int64
	Elements    int64
	// Clock is the latest time that the query has processed, and Transactions how many transactions there were, which is
	// where random numbers come from.
	Clock        time.Time
	Transactions uint64
	Sources      []Source
	// SealStage, SealMatch and SealCursor are how far sealing has come. Before it the cursor is how far taking over the
	// elements of another state has.
	SealStage  byte
	SealMatch  byte
	SealCursor []byte
}

// Source is how far a query has read a source. The number of a source is its place in Meta.
type Source struct {
	Name     string
	Position graph.Position
	Offset   uint64
	Token    []byte
}

// ReadMeta returns the query's record, or nil when there is none.
func ReadMeta(r index.Reader) (*Meta, error) {
	record, found, err := r.Get(MetaKey())
	if err != nil || !found {
		return nil, err
	}
	in := Reader{Src: record}
	if in.Uvarint() != metaVersion {
		return nil, corrupt("the version")
	}
	m := &Meta{
		Fingerprint: string(in.Bytes()), Phase: byte(in.Uvarint()), Sequence: in.Uvarint(), Trimmed: in.Uvarint(),
		Rows: in.Varint(), Failed: in.Varint(), Elements: in.Varint(),
		Clock: time.Unix(in.Varint(), in.Varint()).UTC(), Transactions: in.Uvarint(),
		SealStage: byte(in.Uvarint()), SealMatch: byte(in.Uvarint()), SealCursor: append([]byte(nil), in.Bytes()...),
	}
	for n := in.Uvarint(); n > 0 && in.Err == nil; n-- {
		m.Sources = append(m.Sources, Source{
			Name: string(in.Bytes()), Position: graph.Position(in.Bytes()), Offset: in.Uvarint(),
			Token: append([]byte(nil), in.Bytes()...),
		})
	}
	return m, in.Err
}

// Write puts the record into a batch.
func (m *Meta) Write(b index.Batch) error {
	buf := AppendBytes([]byte{metaVersion}, m.Fingerprint)
	for _, n := range [...]uint64{uint64(m.Phase), m.Sequence, m.Trimmed} {
		buf = binary.AppendUvarint(buf, n)
	}
	for _, n := range [...]int64{m.Rows, m.Failed, m.Elements, m.Clock.Unix(), int64(m.Clock.Nanosecond())} {
		buf = binary.AppendVarint(buf, n)
	}
	buf = binary.AppendUvarint(buf, m.Transactions)
	buf = binary.AppendUvarint(append(buf, m.SealStage), uint64(m.SealMatch))
	buf = AppendBytes(buf, m.SealCursor)
	buf = binary.AppendUvarint(buf, uint64(len(m.Sources)))
	for _, s := range m.Sources {
		buf = AppendBytes(AppendBytes(buf, s.Name), s.Position)
		buf = AppendBytes(binary.AppendUvarint(buf, s.Offset), s.Token)
	}
	return b.Set(MetaKey(), buf)
}

// Source returns the record of a source, which is added when it is not known.
func (m *Meta) Source(name string) *Source {
	for i := range m.Sources {
		if m.Sources[i].Name == name {
			return &m.Sources[i]
		}
	}
	m.Sources = append(m.Sources, Source{Name: name})
	return &m.Sources[len(m.Sources)-1]
}
