// Package indextest is the contract of package index as executable checks. Each back end's tests call Run.
package indextest

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
)

// Run checks a back end; open returns an empty one.
func Run(t *testing.T, open func(t *testing.T) index.Backend) {
	tests := map[string]func(t *testing.T, b index.Backend){
		"batch": batch, "records": records, "scan": scan, "snapshot": snapshot, "lock": lock, "remove": remove, "reopen": reopen, "random": random,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func openStore(t require.TestingT, b index.Backend) index.Store {
	s, err := b.Open("a/store")
	require.NoError(t, err)
	return s
}

func set(t require.TestingT, s index.Store, pairs ...string) {
	b := s.NewBatch()
	for i := 0; i < len(pairs); i += 2 {
		require.NoError(t, b.Set([]byte(pairs[i]), []byte(pairs[i+1])))
	}
	require.NoError(t, b.Commit())
	b.Discard()
}

// Content returns all keys and values of a reader as text.
func Content(t require.TestingT, r index.Reader, from, to []byte) string {
	var out []string
	require.NoError(t, r.Scan(from, to, func(key, value []byte) (bool, error) {
		out = append(out, string(key)+"="+string(value))
		return true, nil
	}))
	return strings.Join(out, " ")
}

func batch(t *testing.T, backend index.Backend) {
	s := openStore(t, backend)
	defer func() { require.NoError(t, s.Close()) }()
	set(t, s, "a", "1", "b", "2", "c", "3")
	b := s.NewBatch()
	key, value := []byte("b"), []byte("x")
	require.NoError(t, b.Set(key, value))
	key[0], value[0] = '?', '?' // keys and values are copied
	require.NoError(t, b.Delete([]byte("a")))
	require.NoError(t, b.Delete([]byte("missing")))
	require.NoError(t, b.Set([]byte("d"), nil))
	require.Equal(t, "b=x c=3 d=", Content(t, b, nil, nil), "a batch reads its own writes")
	require.Equal(t, "a=1 b=2 c=3", Content(t, s, nil, nil), "the store does not see them")
	got, found, err := b.Get([]byte("d"))
	require.NoError(t, err)
	require.True(t, found)
	require.Empty(t, got)
	_, found, err = b.Get([]byte("a"))
	require.NoError(t, err)
	require.False(t, found)
	b.Discard()
	b.Discard()
	require.Equal(t, "a=1 b=2 c=3", Content(t, s, nil, nil), "nothing of a discarded batch happens")
	b = s.NewBatch()
	require.NoError(t, b.Delete([]byte("a")))
	require.NoError(t, b.Delete([]byte("b")))
	require.NoError(t, b.Set([]byte("a"), []byte("again")))
	require.Equal(t, "a=again c=3", Content(t, b, nil, nil))
	require.NoError(t, b.Commit())
	require.Error(t, b.Commit())
	b.Discard()
	require.Equal(t, "a=again c=3", Content(t, s, nil, nil))
	require.NoError(t, s.Sync())
}

// Text is a record that notes when the store forgets it.
type Text struct {
	Value     string
	forgotten bool
}

// AppendTo appends the text.
func (r *Text) AppendTo(dst []byte) []byte { return append(dst, r.Value...) }

// Size returns a size that no budget of a test is below for long.
func (r *Text) Size() int { return 100 + len(r.Value) }

// Forgotten notes that it was called.
func (r *Text) Forgotten() { r.forgotten = true }

func decodeText(value []byte) (index.Record, error) { return &Text{Value: string(value)}, nil }

// record returns the text of a key as a record, and whether there is one.
func record(t require.TestingT, b index.Batch, key string) (text *Text, found bool) {
	r, err := b.Record([]byte(key), decodeText)
	require.NoError(t, err)
	if r == nil {
		return nil, false
	}
	text = r.(*Text)
	text.forgotten = false // perhaps by a batch that was discarded
	again, err := b.Record([]byte(key), decodeText)
	require.NoError(t, err)
	require.Same(t, r, again, "a record that is not forgotten is what readers get")
	require.False(t, text.forgotten)
	return text, true
}

func records(t *testing.T, backend index.Backend) {
	s := openStore(t, backend)
	set(t, s, "a", "bytes")
	first, second := &Text{Value: "first"}, &Text{Value: "second"}

	b := s.NewBatch()
	require.NoError(t, b.Put([]byte("b"), first))
	text, _ := record(t, b, "b")
	require.Same(t, first, text)
	text, _ = record(t, b, "a")
	require.Equal(t, "bytes", text.Value)
	require.Equal(t, "a=bytes b=first", Content(t, b, nil, nil), "a record is bytes for others")
	require.NoError(t, b.Commit())
	b.Discard()
	require.Equal(t, "a=bytes b=first", Content(t, s, nil, nil))

	b = s.NewBatch()
	text, _ = record(t, b, "b")
	require.NoError(t, b.Put([]byte("b"), second))
	require.True(t, text.forgotten, "a reader gets another one")
	require.NoError(t, b.Set([]byte("a"), []byte("other")))
	text, _ = record(t, b, "a")
	require.Equal(t, "other", text.Value)
	b.Discard()
	require.True(t, second.forgotten)
	b = s.NewBatch()
	text, _ = record(t, b, "a")
	require.Equal(t, "bytes", text.Value, "what was read of a discarded batch does not stay")
	text, _ = record(t, b, "b")
	require.Equal(t, "first", text.Value)
	require.NoError(t, b.Delete([]byte("b")))
	_, found := record(t, b, "b")
	require.False(t, found)
	require.NoError(t, b.Commit())
	b.Discard()
	require.True(t, first.forgotten)

	b = s.NewBatch()
	require.NoError(t, b.Put([]byte("c"), &Text{Value: "kept"}))
	require.NoError(t, b.Commit())
	b.Discard()
	snap, err := s.NewSnapshot()
	require.NoError(t, err)
	b = s.NewBatch()
	require.NoError(t, b.Put([]byte("c"), &Text{Value: "changed"}))
	require.NoError(t, b.Commit())
	b.Discard()
	require.Equal(t, "a=bytes c=kept", Content(t, snap, nil, nil))
	require.NoError(t, snap.Close())
	require.NoError(t, s.Close())
	s = openStore(t, backend)
	require.Equal(t, "a=bytes c=changed", Content(t, s, nil, nil))
	require.NoError(t, s.Close())
}

func scan(t *testing.T, backend index.Backend) {
	s := openStore(t, backend)
	defer func() { require.NoError(t, s.Close()) }()
	set(t, s, "a", "1", "a\x00", "2", "a\xff", "3", "b", "4", "\xff\xff", "5")
	require.Equal(t, "a\x00=2 a\xff=3", Content(t, s, []byte("a\x00"), []byte("b")), "from is in, to is out")
	require.Equal(t, "b=4 \xff\xff=5", Content(t, s, []byte("b"), nil))
	require.Empty(t, Content(t, s, []byte("c"), []byte("b")))
	n := 0
	require.NoError(t, s.Scan(nil, nil, func(_, _ []byte) (bool, error) { n++; return n < 2, nil }))
	require.Equal(t, 2, n)
	stop := fmt.Errorf("stop")
	require.ErrorIs(t, s.Scan(nil, nil, func(_, _ []byte) (bool, error) { return true, stop }), stop)
	require.NoError(t, s.Scan(nil, nil, func(key, _ []byte) (bool, error) {
		_, found, err := s.Get(append([]byte(nil), key...))
		require.True(t, found, "a visit may read")
		return true, err
	}))
}

func snapshot(t *testing.T, backend index.Backend) {
	s := openStore(t, backend)
	defer func() { require.NoError(t, s.Close()) }()
	set(t, s, "a", "1")
	snap, err := s.NewSnapshot()
	require.NoError(t, err)
	done := make(chan string)
	go func() { // joined below: snapshots belong to any goroutine
		var out string
		for range 100 {
			out = Content(t, snap, nil, nil)
		}
		done <- out
	}()
	for i := range 100 {
		set(t, s, "a", fmt.Sprint(i), fmt.Sprint("k", i), "x")
	}
	require.Equal(t, "a=1", <-done)
	_, found, err := snap.Get([]byte("k1"))
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, snap.Close())
}

func lock(t *testing.T, backend index.Backend) {
	s := openStore(t, backend)
	_, err := backend.Open("a/store")
	require.Equal(t, failure.IndexLocked, failure.CodeOf(err))
	other, err := backend.Open("b")
	require.NoError(t, err)
	require.NoError(t, other.Close())
	require.NoError(t, s.Close())
	require.NoError(t, openStore(t, backend).Close())
}

func remove(t *testing.T, backend index.Backend) {
	require.Empty(t, names(t, backend))
	require.NoError(t, backend.Remove("never"))
	s := openStore(t, backend)
	set(t, s, "a", "1")
	other, err := backend.Open("a/nother/store")
	require.NoError(t, err)
	require.Equal(t, []string{"a/nother/store", "a/store"}, names(t, backend))
	require.NoError(t, other.Close())
	require.NoError(t, backend.Remove("a/nother/store"))
	require.NoError(t, s.Close())
	require.Equal(t, []string{"a/store"}, names(t, backend))
	require.NoError(t, backend.Remove("a/store"))
	require.Empty(t, names(t, backend))
	s = openStore(t, backend)
	require.Empty(t, Content(t, s, nil, nil))
	require.NoError(t, s.Close())
}

func names(t *testing.T, backend index.Backend) []string {
	names, err := backend.Names()
	require.NoError(t, err)
	return names
}

func reopen(t *testing.T, backend index.Backend) {
	s := openStore(t, backend)
	for i := range 200 {
		set(t, s, fmt.Sprintf("%03d", i), strings.Repeat("v", i))
	}
	want := Content(t, s, nil, nil)
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	s = openStore(t, backend)
	require.Equal(t, want, Content(t, s, nil, nil))
	require.NoError(t, s.Close())
}

// random holds batches of random writes, and snapshots that were taken between them, against maps.
func random(t *testing.T, backend index.Backend) {
	s := openStore(t, backend)
	defer func() { require.NoError(t, s.Close()) }()
	model := make(map[string]string)
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.StringMatching(`[km\x00\xff]?[ab]{0,3}`)
		snapshots := make(map[index.Snapshot]map[string]string)
		defer func() {
			for snap := range snapshots {
				require.NoError(t, snap.Close())
			}
		}()
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			if rapid.Bool().Draw(t, "snapshot") {
				snap, err := s.NewSnapshot()
				require.NoError(t, err)
				snapshots[snap] = model
			}
			b, after := s.NewBatch(), maps.Clone(model)
			defer b.Discard() // should a check fail
			for range rapid.IntRange(0, 6).Draw(t, "writes") {
				randomWrite(t, b, after, keys)
				requireContent(t, b, after)
				requireContent(t, s, model)
			}
			if rapid.Bool().Draw(t, "commit") {
				require.NoError(t, b.Commit())
				model = after
			}
			b.Discard()
			requireContent(t, s, model)
			for snap, then := range snapshots {
				requireContent(t, snap, then)
			}
		}
	})
}

func randomWrite(t *rapid.T, b index.Batch, after map[string]string, keys *rapid.Generator[string]) {
	k := keys.Draw(t, "key")
	b.Expect([][]byte{[]byte(k), []byte("never")}, rapid.Bool().Draw(t, "read"))
	text, found := record(t, b, k)
	was, expected := after[k]
	require.Equal(t, expected, found)
	if found {
		require.Equal(t, was, text.Value)
	}
	switch rapid.IntRange(0, 4).Draw(t, "op") {
	case 2:
		after[k] = rapid.String().Draw(t, "record")
		require.NoError(t, b.Put([]byte(k), &Text{Value: after[k]}))
	case 0:
		delete(after, k)
		require.NoError(t, b.Delete([]byte(k)))
	case 1:
		to := keys.Draw(t, "to")
		if to <= k {
			return
		}
		maps.DeleteFunc(after, func(other, _ string) bool {
			inside := other >= k && other < to
			if inside {
				require.NoError(t, b.Delete([]byte(other)))
			}
			return inside
		})
	default:
		after[k] = rapid.String().Draw(t, "value")
		require.NoError(t, b.Set([]byte(k), []byte(after[k])))
	}
}

func requireContent(t require.TestingT, r index.Reader, want map[string]string) {
	got := make(map[string]string)
	require.NoError(t, r.Scan(nil, nil, func(key, value []byte) (bool, error) {
		got[string(key)] = string(value)
		return true, nil
	}))
	require.Equal(t, want, got)
	for k, v := range want {
		value, found, err := r.Get([]byte(k))
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, v, string(value))
	}
}
