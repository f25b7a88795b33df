package querytest

import (
	"errors"

	"github.com/perdure/perdure/streaming/index"
)

// ErrCommit is the failure of a commit that failed because it was told to.
var ErrCommit = errors.New("no room")

// Flaky returns a back end whose commits fail when fail says so. Sessions try again what failed.
func Flaky(backend index.Backend, fail func() bool) index.Backend { return &flaky{backend, fail} }

type flaky struct {
	index.Backend
	fail func() bool
}

func (f *flaky) Open(name string) (index.Store, error) {
	s, err := f.Backend.Open(name)
	if err != nil {
		return nil, err
	}
	return &flakyStore{s, f.fail}, nil
}

type flakyStore struct {
	index.Store
	fail func() bool
}

func (s *flakyStore) NewBatch() index.Batch { return &flakyBatch{s.Store.NewBatch(), s.fail} }

type flakyBatch struct {
	index.Batch
	fail func() bool
}

func (b *flakyBatch) Commit() error {
	if b.fail() {
		return ErrCommit
	}
	return b.Batch.Commit()
}

// again takes a step until it no longer fails because of a commit.
func (s *Session) again(step func() error) {
	s.t.Helper()
	for {
		if err := step(); !errors.Is(err, ErrCommit) {
			if err != nil {
				s.t.Errorf("%v", err)
				s.t.FailNow()
			}
			return
		}
	}
}
