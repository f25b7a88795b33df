package log

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
)

func event() *result.Event {
	row := func(state string) []graph.Value {
		return []graph.Value{graph.Int(4), graph.String(state), graph.Float(1.5), graph.Null}
	}
	return &result.Event{
		Sequence: 17, Source: "shop", Position: "0/1A", CommitTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Columns: []string{"id", "state", "weight", "note"},
		Diffs: []result.Diff{
			{Op: result.Added, After: row("it's")},
			{Op: result.Updated, Before: row("new"), After: row("late")},
			{Op: result.Deleted, Before: row("late")},
		},
	}
}

func deliver(t *testing.T, config string) (string, error) {
	var out bytes.Buffer
	r, err := Factory{Stdout: &out}.New(json.RawMessage(config), reaction.Settings{})
	if err != nil {
		return "", err
	}
	defer func() { require.NoError(t, r.Close(t.Context())) }()
	err = r.(reaction.Deliverer).Deliver(t.Context(), reaction.Delivery{Query: "late-orders", Event: event()})
	return out.String(), err
}

func TestDefaultLines(t *testing.T) {
	got, err := deliver(t, `{}`)
	require.NoError(t, err)
	require.Equal(t, `late-orders 17 added {"id":4,"state":"it's","weight":1.5,"note":null}
late-orders 17 updated {"id":4,"state":"new","weight":1.5,"note":null} -> {"id":4,"state":"late","weight":1.5,"note":null}
late-orders 17 deleted {"id":4,"state":"late","weight":1.5,"note":null}
`, got)
}

func TestTemplates(t *testing.T) {
	got, err := deliver(t, `{
		"template": "{{operation}} {{after.state}} {{after.weight}} {{sequence}} {{timestamp}}{{#if before}} was {{before.state}}{{/if}}",
		"deleted": "{{query_name}} {{position}} {{json before}} {{after.state}}"}`)
	require.NoError(t, err)
	require.Equal(t, `ADD it's 1.5 17 2026-01-02T03:04:05Z
UPDATE late 1.5 17 2026-01-02T03:04:05Z was new
late-orders 0/1A {"id":4,"note":null,"state":"late","weight":1.5} 
`, got)
}

func TestBadConfig(t *testing.T) {
	for config, want := range map[string]*failure.Code{
		`{"template": "{{#if}"}`:     failure.TemplateInvalid,
		`{"added": "{{#each}}"}`:     failure.TemplateInvalid,
		`{"output": "relative.log"}`: failure.ConfigInvalid,
		`{"templates": "x"}`:         failure.ConfigInvalid,
	} {
		_, err := deliver(t, config)
		require.Error(t, err, config)
		require.Equal(t, want, failure.CodeOf(err), config)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	config, err := json.Marshal(map[string]string{"output": path, "template": "{{sequence}}", "updated": "u", "deleted": "d"})
	require.NoError(t, err)
	for range 2 {
		_, err = deliver(t, string(config))
		require.NoError(t, err)
	}
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "17\nu\nd\n17\nu\nd\n", string(content))

	_, err = deliver(t, `{"output": "`+filepath.Join(path, "below")+`"}`)
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
}
