package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAnotherQuestionTakesThePlaceOfARunningQuery: another question with the same columns, and then the same one read again,
// take the place of the first while the application writes and clients follow. The query runs all the time, and what the
// clients get leads from one result to the other.
func TestAnotherQuestionTakesThePlaceOfARunningQuery(t *testing.T) {
	const id = "query.default.open-orders"
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	execSQL(t, s.connect(), `INSERT INTO orders (customer_id, status, total) SELECT 1 + i % 20, 'open', i FROM generate_series(1, 16000) i`)
	source := sourceInput(s)
	source["spec"].(object)["config"].(object)["snapshotRowsPerSecond"] = 2000 // so that there is time to look
	s.startComponent("Source", "source.default.shop", source)
	s.startComponent("Query", id, queryInput())
	s.awaitPhase(id, "Running", 120*time.Second)
	f := s.follow("open-orders")

	other := strings.NewReplacer("o.status <> 'delivered'", "o.status <> 'open'")
	spec := queryInput()["spec"].(object)
	spec["query"] = other.Replace(cypher)
	payload, err := json.Marshal(object{"spec": spec})
	require.NoError(t, err)
	for seed, command := range [][]string{{"reconfigure", string(payload)}, {"rebootstrap"}} {
		writers := s.openShop(uint64(seed), 2)
		s.signal(id, command[0], command[1:]...)
		beside := func(wanted bool) {
			eventually(t, 90*time.Second, fmt.Sprint("bootstrap beside the query: ", wanted), func() error {
				st, err := s.status(id)
				if err == nil && (st.Phase != "Running" || st.Bootstrap.Beside != wanted) {
					err = fmt.Errorf("it is %s, %+v", st.Phase, st.Bootstrap)
				}
				return err
			})
		}
		beside(true)
		before, _, _ := f.State()
		eventually(t, 30*time.Second, "events while that goes on", func() error {
			if after, _, _ := f.State(); after <= before {
				return fmt.Errorf("none after %d", before)
			}
			return nil
		})
		st, err := s.status(id)
		require.NoError(t, err)
		require.True(t, st.Bootstrap.Beside, "it went on meanwhile")
		beside(false)
		writers.close()
		s.oracle = other.Replace(oracle)
		eventually(t, 60*time.Second, "the other question's rows", func() error {
			_, rows, _ := f.State()
			if want := s.sqlRows(s.context(10*time.Second), s.connect()); strings.Join(want, "") != strings.Join(rows, "") {
				return fmt.Errorf("want %v, got %v", want, rows)
			}
			return nil
		})
		s.requireEqualsSQL(f, 60*time.Second)
	}
	require.Zero(t, f.Anew(), "no client had to begin anew")
}

// TestOtherSourcesTakeThePlaceOfThoseOfARunningQuery: a query is told to read another source, which is yet to come, while the
// application writes and clients follow. It goes on with the first one until what the other one has takes the place, and with
// what it has when the first one is deleted before that.
func TestOtherSourcesTakeThePlaceOfThoseOfARunningQuery(t *testing.T) {
	const id = "query.default.open-orders"
	for _, deleted := range []bool{false, true} {
		t.Run(fmt.Sprint("the first one is deleted before: ", deleted), func(t *testing.T) {
			s := newSystem(t, apart(t))
			s.startOrders()
			f := s.follow("open-orders")
			writers := s.openShop(3, 2)
			spec := queryInput()["spec"].(object)
			spec["sources"] = []string{"depot"}
			payload, err := json.Marshal(object{"spec": spec})
			require.NoError(t, err)
			s.signal(id, "reconfigure", string(payload))
			eventually(t, 60*time.Second, "the query goes on", func() error {
				st, err := s.status(id)
				if err == nil && (st.Phase != "Running" || st.Generation < 2) {
					err = fmt.Errorf("it is %s, generation %d", st.Phase, st.Generation)
				}
				return err
			})
			if deleted {
				s.signal("source.default.shop", "delete")
				s.requireClosed("source.default.shop")
			} else {
				s.requireProgress(f, 30*time.Second, "while it waits for the other source")
			}
			depot := sourceInput(s)
			depot["spec"].(object)["name"] = "depot"
			s.startComponent("Source", "source.default.depot", depot)
			eventually(t, 120*time.Second, "the other source has the place", func() error {
				_, err := s.tctl("workflow", "describe", "-w", "bootstrap.default.open-orders.depot.2")
				if err != nil {
					return err
				}
				st, err := s.status(id)
				if err == nil && st.Bootstrap.Beside {
					err = fmt.Errorf("it is being read")
				}
				return err
			})
			writers.close()
			s.requireEqualsSQL(f, 60*time.Second)
			require.Zero(t, f.Anew(), "no client had to begin anew")
			if !deleted {
				s.signal("source.default.shop", "delete")
				s.requireClosed("source.default.shop")
			}
			execSQL(t, s.connect(), "INSERT INTO orders (customer_id, total) VALUES (1, 5)")
			s.requireEqualsSQL(f, 60*time.Second)
			for _, one := range []string{id, "source.default.depot"} {
				s.signal(one, "delete")
				s.requireClosed(one)
			}
			s.requireNothingLeft()
		})
	}
}
