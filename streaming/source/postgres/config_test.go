package postgres

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// TestBadConfigs: each block of testdata/config is a config and all that is wrong with it.
func TestBadConfigs(t *testing.T) {
	datadriven.RunTest(t, filepath.Join("testdata", "config"), func(t *testing.T, d *datadriven.TestData) string {
		_, err := Factory{}.New(json.RawMessage(d.Input), source.Settings{Instance: "default", Name: "orders"})
		if err == nil {
			return "ok\n"
		}
		require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
		lines := strings.Split(err.Error(), "; ")
		return strings.Join(lines, "\n") + "\n"
	})
}

func TestTableNames(t *testing.T) {
	for text, want := range map[string]tableName{
		"orders":             {"public", "orders"},
		"sales.Orders":       {"sales", "Orders"},
		`"my.schema"."t""x"`: {"my.schema", `t"x`},
	} {
		got, err := parseTableName(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, `"my.schema"."t""x"`, tableName{"my.schema", `t"x`}.sql())
	for _, text := range []string{"", ".", "a.", "a.b.c", `"a`, `"a"b`, strings.Repeat("x", 64)} {
		_, err := parseTableName(text)
		require.Error(t, err, text)
	}
}

func TestDefaultNames(t *testing.T) {
	require.Equal(t, "perdure_orders_db", defaultName("default", "orders-db"))
	require.Equal(t, "perdure_a_b__c", defaultName("a-b", "c"))
	require.NotEqual(t, defaultName("a--b", "c"), defaultName("a", "b--c"))
	long := strings.Repeat("n", 63)
	require.Len(t, defaultName("default", long), 63)
	require.NotEqual(t, defaultName("default", long), defaultName("x", long))
	require.True(t, slotPattern.MatchString(defaultName("x", long)))
}

func TestApplicationName(t *testing.T) {
	s := &Source{slot: strings.Repeat("s", 63), settings: source.Settings{Generation: 7}}
	require.LessOrEqual(t, len(s.applicationName()), maxIdentifier)
	older := &Source{slot: s.slot, settings: source.Settings{Generation: 6}}
	other := &Source{slot: "x", settings: source.Settings{Generation: 6}}
	require.True(t, s.olderAttempt(older.applicationName()))
	require.False(t, s.olderAttempt(s.applicationName()))
	require.False(t, older.olderAttempt(s.applicationName()))
	require.False(t, s.olderAttempt(other.applicationName()))
	require.False(t, s.olderAttempt("psql"))
}

func TestNoPasswordLeaks(t *testing.T) {
	t.Setenv("DB_URL", "postgres://u:geheim@h:port/d")
	s, err := Factory{}.New(json.RawMessage(`{"url": {"$secret": "env:DB_URL"}, "tables": [{"name": "t"}]}`), source.Settings{Instance: "default", Name: "n"})
	require.NoError(t, err)
	err = s.Provision(t.Context())
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
	report, err := json.Marshal(failure.Describe(err))
	require.NoError(t, err)
	require.NotContains(t, string(report), "geheim")
	text, err := json.Marshal(s.(*Source).config)
	require.NoError(t, err)
	require.NotContains(t, string(text), "geheim")
	_ = os.Unsetenv("DB_URL")
}
