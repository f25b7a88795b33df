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
