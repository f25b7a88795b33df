package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// often is auto with a checkpoint each second.
var often = component.QuerySpec{
	Name: "late", Sources: []string{"shop"}, Query: late.Query, Parameters: late.Parameters, Checkpoint: component.Checkpoint{Seconds: 1},
}

// elsewhere makes the rig a host with an empty disk, and returns its directory.
func (r *rig) elsewhere() string {
	dir := r.t.TempDir()
	r.index = pebble.New(pebble.Options{Dir: dir, MemTableBytes: 64 << 10}) // so that there are tables
	return dir
}

func (r *rig) checkpoints() checkpointRecord {
	b, err := r.host().bucket(r.t.Context(), checkpointsBucket)
	require.NoError(r.t, err)
	var record checkpointRecord
	_, _, err = read(r.t.Context(), b, "default.late", &record)
	require.NoError(r.t, err)
	return record
}

// anotherCheckpoint waits for one that is newer than those that there are.
func (r *rig) anotherCheckpoint(random *rand.Rand) checkpoint {
	r.t.Helper()
	before := r.checkpoints()
	eventually(r.t, func() bool {
		r.book.scribble(random, 1)
		now := r.checkpoints()
		return len(now.Checkpoints) > 0 && (len(before.Checkpoints) == 0 || now.Checkpoints[0].At.After(before.Checkpoints[0].At))
	}, "there is a checkpoint")
	return r.checkpoints().Checkpoints[0]
}

func (r *rig) objects() *stream.Objects {
	o, err := r.conn.Objects(r.t.Context(), checkpointObjects("default", "late"), "checkpoints of query.default.late")
	require.NoError(r.t, err)
	return o
}

// beginnings counts how often the result log says that all rows so far are void.
func (r *rig) beginnings() (n int) {
	for _, encoded := range r.published() {
		event, _, err := result.DecodeEvent([]byte(encoded))
		require.NoError(r.t, err)
		if isAnew(event) {
			n++
		}
	}
	return n
}

func (r *rig) filesOf(c checkpoint) (files []storedFile) {
	data, err := fetch(r.t.Context(), r.objects(), c.Files)
	require.NoError(r.t, err)
	require.NoError(r.t, json.Unmarshal(data, &files))
	return files
}

// TestAnotherHostRestoresAndReplays takes the host of a query away with its disk, again and again.
func TestAnotherHostRestoresAndReplays(t *testing.T) {
	r, src, query, dir := newFollowing(t, often, 1000)
	random := rand.New(rand.NewPCG(5, 5))
	for round := range 4 {
		r.anotherCheckpoint(random)
		r.book.scribble(random, 200) // beyond the checkpoint
		if round%2 == 0 {
			r.caughtUp("late")
			query.kill()
		} else { // with results that are not published yet
			query.kill()
		}
		r.book.scribble(random, 100)
		require.NoError(t, os.RemoveAll(dir))
		dir = r.elsewhere()
		query = r.startQuery(often)
		r.settled("late")
		require.Contains(t, query.status.Snapshot().Details["restored"], "there is no state on this host")
	}
	require.Zero(t, r.beginnings(), "no snapshot was needed")
	query.drained()
	src.drained()
}

// TestCleanStopLeavesACheckpoint stops a query whose next checkpoint is far away and takes its disk.
func TestCleanStopLeavesACheckpoint(t *testing.T) {
	r, src, query, _ := newFollowing(t, late, 0)
	random := rand.New(rand.NewPCG(1, 5))
	first := r.anotherCheckpoint(random)
	r.book.scribble(random, 100)
	sequence := r.caughtUp("late")
	require.Equal(t, first.At, r.checkpoints().Checkpoints[0].At)
	query.drained()
	last := r.checkpoints().Checkpoints[0]
	require.Equal(t, sequence, last.Sequence)
	r.elsewhere()
	query = r.startQuery(late)
	r.following(query)
	r.settled("late")
	require.Zero(t, r.beginnings())
	query.drained()
	require.Equal(t, last.At, r.checkpoints().Checkpoints[0].At, "nothing has moved since")
	src.drained()

	require.NoError(t, r.host().TeardownQuery(t.Context(), late))
	require.Empty(t, r.checkpoints())
	_, err := r.conn.OpenLog(t.Context(), "OBJ_"+checkpointObjects("default", "late"))
	require.ErrorIs(t, err, stream.ErrMissing)
}

// TestCheckpointsShareFiles looks at what is stored and sent of two that differ little, and at what is left of a third.
func TestCheckpointsShareFiles(t *testing.T) {
	r := newRig(t)
	r.query = often
	for i := range 3000 { // of which a change touches a few
		name := make([]byte, 200)
		for j := range name {
			name[j] = byte('a' + rand.IntN(26))
		}
		r.book.change([]graph.Change{item(graph.OpInsert, "Item", 100+i, string(name), 11)})
	}
	src := r.readySource()
	r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
	r.bootstrap("first")
	query := r.startQuery(often)
	r.following(query)
	query.drained()
	query = r.startQuery(often) // which brings what there is into tables
	random := rand.New(rand.NewPCG(1, 5))
	r.anotherCheckpoint(random)
	var before map[string]bool
	for range 4 {
		newest := r.anotherCheckpoint(random)
		record := r.checkpoints()
		require.LessOrEqual(t, len(record.Checkpoints), checkpointsKept)
		now, shared := make(map[string]bool), int64(0)
		for _, f := range r.filesOf(newest) {
			for _, p := range f.Parts {
				now[p.Object] = true
				if before[p.Object] {
					shared += int64(p.Size)
				}
			}
		}
		if before != nil {
			require.Greater(t, shared, newest.Bytes/2, "most is sent once")
		}
		before = now
	}
	r.caughtUp("late")
	query.drained()
	needed := make(map[string]bool)
	for _, one := range r.checkpoints().Checkpoints {
		needed[one.Files.Object] = true
		for _, f := range r.filesOf(one) {
			for _, p := range f.Parts {
				needed[p.Object] = true
			}
		}
	}
	names, err := r.objects().Names(t.Context())
	require.NoError(t, err)
	for _, name := range names {
		require.True(t, needed[name], "%s belongs to no checkpoint", name)
	}
	require.Len(t, names, len(needed))
	src.drained()
}

// TestChangeLogKeepsWhatARestoreReplays compares what the source may drop with the checkpoints.
func TestChangeLogKeepsWhatARestoreReplays(t *testing.T) {
	seldom := late
	seldom.Checkpoint.Seconds = 2
	r, src, query, _ := newFollowing(t, seldom, 0)
	random := rand.New(rand.NewPCG(1, 5))
	var told []uint64
	for range 3 {
		r.anotherCheckpoint(random)
		r.book.scribble(random, 50)
		r.caughtUp("late")
		eventually(t, func() bool {
			kept := r.checkpoints().Checkpoints
			return r.subscribed().Offset == kept[len(kept)-1].Offsets["shop"]
		}, "it is told what the oldest checkpoint needs")
		told = append(told, r.subscribed().Offset)
	}
	require.Greater(t, told[2], told[0])
	query.kill()
	src.drained()
}

// TestCheckpointBeyondTheChangeLog restores what the change log does not reach back to any more: a resync must bring it.
func TestCheckpointBeyondTheChangeLog(t *testing.T) {
	r, src, query, _ := newFollowing(t, often, 50)
	random := rand.New(rand.NewPCG(1, 5))
	r.anotherCheckpoint(random)
	query.kill()
	r.book.scribble(random, 100)
	eventually(t, func() bool { return r.book.confirmedAt() == r.book.end() }, "all is in the log")
	r.age(changeLog("default", "shop"))
	r.book.scribble(random, 10)
	r.elsewhere()
	outcome, err := r.host().RunQuery(t.Context(), r.attempt(often.ID()), often)
	require.NoError(t, err)
	require.Equal(t, NeedsResync, outcome)
	r.bootstrap("second")
	query = r.startQuery(often)
	r.following(query)
	r.settled("late")
	query.drained()
	src.drained()
}

// TestDamagedStateIsRestored damages the files on the host's disk in every way that a disk can.
func TestDamagedStateIsRestored(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"table":    func(t *testing.T, dir string) { flipIn(t, dir, "*.sst") },
		"gone":     func(t *testing.T, dir string) { cutIn(t, dir, "*.sst", -1) },
		"manifest": func(t *testing.T, dir string) { cutIn(t, dir, "MANIFEST*", 2) },
		"log":      func(t *testing.T, dir string) { flipIn(t, dir, "*.log") },
	} {
		for _, checkpoints := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/checkpoints=%t", name, checkpoints), func(t *testing.T) {
				r, src, query, dir := newFollowing(t, often, 1000)
				random := rand.New(rand.NewPCG(5, 5))
				r.anotherCheckpoint(random)
				r.book.scribble(random, 300)
				r.caughtUp("late")
				query.kill()
				damage(t, dir)
				if !checkpoints {
					require.NoError(t, r.host().removeCheckpoints(t.Context(), often.ID()))
				}
				r.book.scribble(random, 100)
				query = r.startQuery(often)
				eventually(t, func() bool {
					if len(query.done) > 0 { // as the control plane does
						require.NoError(t, query.result())
						r.bootstrap("second")
						query = r.startQuery(often)
					}
					return query.status.Snapshot().Phase == "following"
				}, "the query runs")
				r.settled("late")
				if checkpoints {
					require.Zero(t, r.beginnings(), "no snapshot was needed")
				}
				if checkpoints && name != "log" { // without its end, the state is one of before
					require.NotEmpty(t, query.status.Snapshot().Details["restored"])
				}
				query.drained()
				src.drained()
			})
		}
	}
}

// each calls do for the files of the only store below a directory.
func each(t *testing.T, dir, pattern string, do func(file string, data []byte)) {
	files, err := filepath.Glob(filepath.Join(dir, "default", "late", "*", pattern))
	require.NoError(t, err)
	done := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.Remove(file)
		}
		if errors.Is(err, os.ErrNotExist) { // a compaction of a running query was quicker
			continue
		}
		require.NoError(t, err)
		do(file, data)
		done++
	}
	require.NotZero(t, done)
}

func flipIn(t *testing.T, dir, pattern string) {
	each(t, dir, pattern, func(file string, data []byte) {
		for at := 0; at < len(data); at += 500 {
			data[at] ^= 0x10
		}
		require.NoError(t, os.WriteFile(file, data, 0o600))
	})
}

// cutIn leaves one of so many parts of each file, and no file for -1.
func cutIn(t *testing.T, dir, pattern string, parts int) {
	each(t, dir, pattern, func(file string, data []byte) {
		if parts > 0 {
			require.NoError(t, os.WriteFile(file, data[:len(data)/parts], 0o600))
		}
	})
}

// TestDamageOfARunningQuery damages tables that nobody reads while the query runs: the next checkpoint finds it.
func TestDamageOfARunningQuery(t *testing.T) {
	r, src, query, dir := newFollowing(t, often, 2000)
	random := rand.New(rand.NewPCG(5, 5))
	r.anotherCheckpoint(random)
	query.drained() // what is open now is not checked yet by the next attempt
	query = r.startQuery(often)
	r.following(query)
	each(t, dir, "*.sst", func(file string, data []byte) {
		data[len(data)/3] ^= 0x10
		require.NoError(t, os.WriteFile(file, data, 0o600))
	})
	r.book.scribble(random, 10) // no more, or all that is damaged is written anew
	eventually(t, func() bool {
		return len(query.done) > 0 || query.status.Snapshot().Details["restored"] != ""
	}, "it is found")
	require.Empty(t, query.done, "the query ended")
	require.Contains(t, query.status.Snapshot().Details["restored"], "damaged")
	r.settled("late")
	require.Zero(t, r.beginnings())
	query.drained()
	src.drained()
}

// TestDamagedCheckpointFallsBack damages checkpoints on the stream server, the newest first.
func TestDamagedCheckpointFallsBack(t *testing.T) {
	for damaged := 1; damaged <= checkpointsKept; damaged++ {
		for _, name := range []string{"otherwise", "gone"} {
			t.Run(fmt.Sprintf("%d %s", damaged, name), func(t *testing.T) {
				r, src, query, _ := newFollowing(t, often, 500)
				random := rand.New(rand.NewPCG(5, 5))
				for range checkpointsKept {
					r.anotherCheckpoint(random)
				}
				query.kill()
				kept := r.checkpoints().Checkpoints
				require.Len(t, kept, checkpointsKept)
				for _, one := range kept[:damaged] {
					object := one.Files.Object
					if name == "gone" {
						require.NoError(t, r.objects().Delete(t.Context(), object))
					} else {
						require.NoError(t, r.objects().Put(t.Context(), object, []byte("[]")))
					}
				}
				r.book.scribble(random, 100)
				r.elsewhere()
				if damaged == checkpointsKept {
					outcome, err := r.host().RunQuery(t.Context(), r.attempt(often.ID()), often)
					require.NoError(t, err)
					require.Equal(t, NeedsBootstrap, outcome)
					r.bootstrap("second")
				}
				query = r.startQuery(often)
				r.following(query)
				r.settled("late")
				if damaged < checkpointsKept {
					require.Contains(t, query.status.Snapshot().Details["restored"], kept[1].At.Format(time.RFC3339))
					require.Zero(t, r.beginnings())
				}
				query.drained()
				src.drained()
			})
		}
	}
}

// TestOutdatedAttemptAddsNoCheckpoint has an attempt go on with a checkpoint that it began before a newer one took over.
func TestOutdatedAttemptAddsNoCheckpoint(t *testing.T) {
	r, src, query, _ := newFollowing(t, late, 0)
	random := rand.New(rand.NewPCG(1, 5))
	r.anotherCheckpoint(random)
	query.drained()
	kept := r.checkpoints()

	attempt := func(epoch stream.Epoch) *checkpointer {
		run := &queryRun{host: r.host(), id: late.ID(), spec: late, attempt: Attempt{Epoch: epoch}, store: kept.Checkpoints[0].Store}
		c, err := run.openCheckpoints(t.Context())
		require.NoError(t, err)
		return c
	}
	older := attempt(stream.Epoch{Generation: 100})
	u := upload{objects: older.objects, epoch: stream.Epoch{Generation: 101}, there: make(map[string]piece), began: time.Now()}
	underWay, err := u.part(t.Context(), []byte("of the newer attempt"))
	require.NoError(t, err)
	u.epoch.Generation = 99
	orphan, err := u.part(t.Context(), []byte("of an attempt that was interrupted"))
	require.NoError(t, err)
	require.NoError(t, older.collect(t.Context()))
	newer := attempt(stream.Epoch{Generation: 101})
	names, err := newer.objects.Names(t.Context())
	require.NoError(t, err)
	require.Contains(t, names, underWay.Object, "it may be about to be part of a checkpoint")
	require.NotContains(t, names, orphan.Object)

	err = older.change(t.Context(), func(record *checkpointRecord) { record.Checkpoints = nil })
	require.Equal(t, failure.FencedOff, failure.CodeOf(err))
	require.Equal(t, kept.Checkpoints, r.checkpoints().Checkpoints)
	require.Equal(t, newer.run.attempt.Epoch, r.checkpoints().Owner)
	src.drained()
}

// TestLostStateThatMayNotBeReadAgain: a query without bootstrap that went on from nothing would look right and be wrong.
func TestLostStateThatMayNotBeReadAgain(t *testing.T) {
	r := newRig(t)
	r.stock(100)
	src := r.readySource()
	r.elsewhere()
	query := r.startQuery(late)
	r.following(query)
	r.book.scribble(rand.New(rand.NewPCG(2, 7)), 50)
	r.caughtUp("late")
	query.kill() // before there is a checkpoint
	r.elsewhere()
	for range 2 { // the first finding is not what is lost next
		require.Equal(t, failure.StateLost, failure.CodeOf(r.startQuery(late).result()))
	}
	r.bootstrapAs(auto, BootstrapRef{ID: "first"})
	query = r.startQuery(auto)
	r.settled("late")
	query.drained()
	src.drained()
}

// TestDiskFull fills the disk of a query's index, and makes room again.
func TestDiskFull(t *testing.T) {
	r := newRig(t)
	src := r.readySource()
	dir := r.t.TempDir()
	r.index = pebble.New(pebble.Options{Dir: dir, ReserveBytes: 1 << 62})
	outcome, err := r.host().RunQuery(t.Context(), r.attempt(late.ID()), late)
	require.Equal(t, failure.DiskFull, failure.CodeOf(err), "%s %v", outcome, err)
	r.index = pebble.New(pebble.Options{Dir: dir})
	query := r.startQuery(late)
	r.following(query)
	r.book.scribble(rand.New(rand.NewPCG(1, 5)), 100)
	r.settled("late")
	query.drained()
	src.drained()
}
