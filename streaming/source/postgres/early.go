package postgres

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/perdure/perdure/streaming/source"
)

// A large transaction is staged while it is in progress, as far as it is plain: what its rows are then depends on nothing
// that only its end tells, and nothing has to be asked. Not plain are rows of a subtransaction, which may be rolled back
// alone, rows that lack something, rows that cannot be decoded, those of tables whose deleted rows have to be looked for,
// TRUNCATE, messages, and whatever tells of DDL. They wait in the spool with all that comes after them.

// early decodes plain messages of transactions in progress. Nothing that is known changes with them.
type early struct {
	sink      source.Sink
	main      *assembler  // knows what tables look like
	held      func() bool // nothing is to be staged now
	assembler assembler   // for one message at a time
}

// errNotPlain is what early finds of a row for which something would have to be asked.
var errNotPlain = errors.New("not plain")

// newEarly returns what decodes as main does, except that it asks nobody.
func newEarly(sink source.Sink, main *assembler, held func() bool) *early {
	e := &early{sink: sink, main: main, held: held, assembler: assembler{
		decoder:    decoder{types: main.types, rawText: main.rawText, borrows: true},
		catalog:    main.catalog,
		resolve:    func(context.Context, []uint32) error { return errNotPlain },
		fetch:      func(context.Context, []lack) ([][][]byte, error) { return nil, errNotPlain },
		remaining:  func(context.Context, *relation, [][][]byte) (map[int]bool, error) { return nil, errNotPlain },
		attributes: func(context.Context, uint32) ([]attribute, uint32, error) { return nil, 0, errNotPlain },
		described:  func() {}, // the watcher sees nothing of it yet
	}}
	e.assembler.serverText = func(uint32, []byte) (string, error) { return "", errNotPlain }
	e.assembler.reload = func(uint32) error { return errNotPlain }
	return e
}

// take stages what a message says. It reports false, and has done nothing, if that is not plain.
func (e *early) take(ctx context.Context, t *unfinished, kind byte, src []byte) (plain bool, err error) {
	if e.held() || !e.sink.Stages() {
		return false, nil
	}
	a := &e.assembler
	a.relations, a.known, a.news, a.schema = t.relations, e.main.known, false, nil
	defer a.reuse()
	switch kind {
	case 'Y', 'O':
		return true, nil
	case 'R':
		err := a.relation(ctx, src)
		return err == nil && !a.news, nil
	case 'I', 'U', 'D':
	default:
		return false, nil
	}
	if len(src) < 5 {
		return false, nil
	}
	if r := a.relations[binary.BigEndian.Uint32(src)]; r != nil && (r.deferrable || r.table.wholeRow) {
		return false, nil
	}
	err = a.row(ctx, kind, src)
	if lacking := len(a.lacks) > 0; err != nil || lacking {
		a.lacks = nil
		return false, nil
	}
	if len(a.changes) == 0 {
		return true, nil
	}
	t.staged = true
	return true, e.sink.Stage(ctx, uint64(t.xid), a.changes)
}
