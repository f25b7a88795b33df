package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// memo is a record that the specs of a source share, and that ends with the crash it is told to.
type memo struct {
	made   []byte
	saves  int
	crash  int // the save after which nothing is saved any more
	system string
}

func (m *memo) Load(context.Context) ([]byte, error) { return m.made, nil }

func (m *memo) Save(_ context.Context, made []byte) error {
	if m.saves++; m.crash > 0 && m.saves > m.crash {
		return errors.New("the process has crashed")
	}
	m.made = made
	return nil
}

// with makes a source whose specs, one after the other, have a record in common.
func (d db) with(m *memo, members string) source.Source {
	d.Helper()
	settings := d.settings()
	settings.Made, settings.Read = m, func(context.Context) (string, error) { return m.system, nil }
	s, err := postgres.Factory{}.New(d.config(members), settings)
	require.NoError(d, err)
	return s
}

func (d db) slots() string {
	d.Helper()
	return d.text("SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots WHERE database = current_database()")
}

func (d db) publications() string {
	d.Helper()
	return d.text("SELECT coalesce(string_agg(pubname, ' ' ORDER BY pubname), '') FROM pg_publication")
}

// TestSlotOfSomebodyElse: a slot that was there before is neither used nor dropped, by whatever way the source goes.
func TestSlotOfSomebodyElse(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	theirs := d.text("SELECT 'theirs_' || oid FROM pg_database WHERE datname = current_database()")
	d.exec("SELECT pg_create_logical_replication_slot('%s', 'pgoutput')", theirs)
	m := &memo{}
	s := d.with(m, fmt.Sprintf(`"tables": [{"name": "a"}], "slot": %q`, theirs))
	slotCheck := func(s source.Source) (codes []string) {
		checks, err := s.(source.Checker).Check(t.Context())
		require.NoError(t, err)
		for _, c := range checks {
			if c.Name == "slot" && !c.OK {
				codes = append(codes, c.Code)
			}
		}
		return codes
	}
	err := s.Provision(t.Context())
	require.Equal(t, failure.SlotTaken, failure.CodeOf(err), "%v", err)
	require.Contains(t, failure.Of(err).Fix(), "adoptSlot")
	require.Empty(t, d.publications())
	require.Contains(t, slotCheck(s), failure.SlotTaken.ID)
	require.Empty(t, slotCheck(d.unprovisioned(fmt.Sprintf(`"tables": [{"name": "a"}], "slot": %q`, theirs))), "without a record nobody knows")
	require.NoError(t, s.Teardown(t.Context()))
	require.Equal(t, theirs, d.slots())

	// A source that has one of its own, and is told to use theirs.
	mine := d.with(m, `"tables": [{"name": "a"}]`)
	require.NoError(t, mine.Provision(t.Context()))
	own := mine.Describe()["slot"]
	err = s.Provision(t.Context())
	require.Equal(t, failure.SlotTaken, failure.CodeOf(err), "%v", err)
	require.NoError(t, mine.Teardown(t.Context()))
	require.Equal(t, theirs, d.slots(), "%s is gone", own)

	adopted := d.with(m, fmt.Sprintf(`"tables": [{"name": "a"}], "slot": %q, "adoptSlot": true`, theirs))
	require.NoError(t, adopted.Provision(t.Context()))
	sink := sourcetest.NewSink("")
	stop := running(t, adopted, "", sink)
	d.exec("INSERT INTO a DEFAULT VALUES")
	sequence(t, sink, 1)
	stop()
	require.NoError(t, adopted.Provision(t.Context()))
	// One that somebody has moved is not made anew.
	d.exec("INSERT INTO a DEFAULT VALUES")
	d.exec("SELECT pg_replication_slot_advance('%s', pg_current_wal_lsn())", theirs)
	err = adopted.Run(t.Context(), sink.Durable(), sink)
	require.Equal(t, failure.SlotTaken, failure.CodeOf(err), "%v", err)
	require.NoError(t, adopted.Teardown(t.Context()))
	require.Equal(t, theirs, d.slots())
	require.Empty(t, d.publications())
}

// TestOtherSlotAndPublication: what the spec before named goes when the next one is provisioned, and nothing earlier.
func TestOtherSlotAndPublication(t *testing.T) {
	for _, loss := range []string{"diff", "stop"} {
		t.Run(loss, func(t *testing.T) {
			d := newDB(t)
			d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
			m := &memo{}
			spec := func(name string) source.Source {
				return d.with(m, fmt.Sprintf(`"tables": [{"name": "a"}], "slot": "%s_%s", "publication": "p_%[2]s", "onSlotLoss": %q`, d.settings().Name, name, loss))
			}
			retire := func(s source.Source) bool {
				done, err := s.(source.Retirer).Retire(t.Context())
				require.NoError(t, err)
				return done
			}
			one, two := spec("one"), spec("two")
			require.NoError(t, one.Provision(t.Context()))
			require.True(t, retire(one))
			sink := sourcetest.NewSink("")
			stop := running(t, one, "", sink)
			d.exec("INSERT INTO a DEFAULT VALUES")
			sequence(t, sink, 1)
			stop()
			m.system = sink.System()
			err := two.Provision(t.Context())
			if loss == "stop" {
				require.Equal(t, failure.SlotMissing, failure.CodeOf(err), "%v", err)
				require.True(t, retire(two))
				require.Equal(t, one.Describe()["slot"], d.slots(), "there is a way back")
				require.Equal(t, "p_one", d.publications())
				require.NoError(t, one.Teardown(t.Context()))
				d.nothingLeft()
				return
			}
			require.NoError(t, err)
			require.True(t, retire(two))
			d.exec("INSERT INTO a DEFAULT VALUES") // lost, which the source tells of
			stop = running(t, two, sink.Durable(), sink)
			sourcetest.Eventually(t, "what is lost is told of", func() bool { return len(missed(sink)) == 1 })
			d.exec("INSERT INTO a DEFAULT VALUES")
			sourcetest.Eventually(t, "the new slot is read", func() bool { return graph.Position(d.slot(two, "confirmed_flush_lsn")).Compare(missedAt(sink)) > 0 })
			stop()
			require.Equal(t, two.Describe()["slot"], d.slots())
			require.Equal(t, "p_two", d.publications())
			require.NoError(t, two.Teardown(t.Context()))
			d.nothingLeft()
			require.Empty(t, m.made)
		})
	}
}

func missedAt(sink *sourcetest.Sink) (at graph.Position) {
	for _, tx := range sink.Transactions() {
		if len(tx.Schema) > 0 {
			at = tx.Position
		}
	}
	return at
}

// TestOtherDatabase: the slot has the same name in the other database of the server, which knows but one of that name.
func TestOtherDatabase(t *testing.T) {
	first, second := newDB(t), newDB(t)
	m := &memo{}
	for _, d := range []db{first, second} {
		d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	}
	spec := func(d db) source.Source {
		return d.with(m, `"tables": [{"name": "a"}], "slot": "`+first.settings().Name+`_moves", "publication": "moves"`)
	}
	one, two := spec(first), spec(second)
	require.NoError(t, one.Provision(t.Context()))
	require.NoError(t, two.Provision(t.Context()))
	require.Empty(t, first.slots())
	require.NotEmpty(t, second.slots())
	done, err := two.(source.Retirer).Retire(t.Context())
	require.NoError(t, err)
	require.False(t, done, "the publication of the first database")
	done, err = one.(source.Retirer).Retire(t.Context())
	require.NoError(t, err)
	require.True(t, done)
	first.nothingLeft()
	require.Equal(t, "moves", second.publications())
	require.NoError(t, two.Teardown(t.Context()))
	second.nothingLeft()
	require.Empty(t, m.made)
}

// TestNothingIsMadeAtAnotherServer: a source that has read from one server makes nothing at another.
func TestNothingIsMadeAtAnotherServer(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	m := &memo{system: "7000000000000000000/1"}
	s := d.with(m, `"tables": [{"name": "a"}]`)
	err := s.Provision(t.Context())
	require.Equal(t, failure.WrongSystem, failure.CodeOf(err), "%v", err)
	require.Empty(t, m.made)
	d.nothingLeft()
}

// TestCrashesWhileProvisioning ends the attempt at each write to the record: the next one goes on, and a deletion
// instead of it leaves nothing.
func TestCrashesWhileProvisioning(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY); CREATE PUBLICATION theirs FOR TABLE a")
	for publication, writes := range map[string]int{"ours": 3, "theirs": 2} {
		for crash := 1; crash <= writes; crash++ {
			for _, again := range []bool{false, true} {
				m := &memo{crash: crash}
				s := d.with(m, `"tables": [{"name": "a"}], "publication": "`+publication+`"`)
				err := s.Provision(t.Context())
				require.Equal(t, crash == writes, err == nil, "%v", err)
				m.crash = 0
				if again {
					require.NoError(t, s.Provision(t.Context()))
					require.Equal(t, s.Describe()["slot"], d.slots())
				}
				require.NoError(t, s.Teardown(t.Context()))
				require.Empty(t, d.slots())
				require.Equal(t, "theirs", d.publications())
				require.Empty(t, m.made)
			}
		}
	}
}

// TestRecordIsLost: what our publication says of the slot that was made with it tells that both are ours.
func TestRecordIsLost(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	require.NoError(t, d.with(&memo{}, `"tables": [{"name": "a"}]`).Provision(t.Context()))
	m := &memo{}
	s := d.with(m, `"tables": [{"name": "a"}]`)
	require.NoError(t, s.Provision(t.Context()))
	require.NotEmpty(t, m.made)
	require.NoError(t, d.with(&memo{}, `"tables": [{"name": "a"}]`).Teardown(t.Context()))
	d.nothingLeft()
}

// TestPublicationOfALongerName: the name of one component may begin with that of another.
func TestPublicationOfALongerName(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	settings := d.settings()
	settings.Name += "-2"
	longer, err := postgres.Factory{}.New(d.config(`"tables": [{"name": "a"}], "publication": "p"`), settings)
	require.NoError(t, err)
	require.NoError(t, longer.Provision(t.Context()))
	s := d.unprovisioned(`"tables": [{"name": "a"}], "publication": "p"`)
	require.NoError(t, s.Provision(t.Context()))
	require.NoError(t, s.Teardown(t.Context()))
	require.Equal(t, "p", d.publications())
	require.Equal(t, longer.Describe()["slot"], d.slots())
	require.NoError(t, longer.Teardown(t.Context()))
	d.nothingLeft()
}

// TestServerThatDoesNotSayWhoItIs has somebody else than everybody ask for its identifier.
func TestServerThatDoesNotSayWhoItIs(t *testing.T) {
	c := clustertest.Own(t, map[string]string{"fsync": "off"})
	d := db{t, c.URL()}
	d.exec("CREATE ROLE repl LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO repl; CREATE TABLE a (id serial PRIMARY KEY); ALTER TABLE a OWNER TO repl")
	m := &memo{}
	for _, revoked := range []bool{false, true} {
		if revoked {
			d.exec("REVOKE EXECUTE ON FUNCTION pg_control_system FROM public")
		}
		settings := d.ownSettings()
		settings.Made = m
		config := strings.Replace(string(d.config(`"tables": [{"name": "a"}]`)), `"user": "postgres"`, `"user": "repl"`, 1)
		s, err := postgres.Factory{}.New(json.RawMessage(config), settings)
		require.NoError(t, err)
		require.NoError(t, s.Provision(t.Context()))
		before := m.saves
		require.NoError(t, s.Provision(t.Context()))
		require.Equal(t, before, m.saves)
		if revoked {
			require.NoError(t, s.Teardown(t.Context()))
			d.nothingLeft()
		}
	}
}
