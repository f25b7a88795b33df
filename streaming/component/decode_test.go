package component

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
)

type tableConfig struct {
	Name string   `json:"name" required:"true"`
	Key  []string `json:"key,omitempty"`
}

func (t *tableConfig) Validate(p *Problems) {
	if t.Name == "pg_class" {
		p.Addf("name", "is a system table")
	}
}

type demoConfig struct {
	Host    string            `json:"host" required:"true"`
	Port    int               `json:"port" default:"5432" minimum:"1" maximum:"65535"`
	Timeout time.Duration     `json:"timeout" default:"10s"`
	Mode    string            `json:"mode" default:"auto" enum:"auto,none"`
	Retry   *bool             `json:"retry"`
	Ratio   float64           `json:"ratio" default:"0.5"`
	Pass    Secret            `json:"pass"`
	Tables  []tableConfig     `json:"tables"`
	Tags    map[string]string `json:"tags"`
	Limits  struct {
		Bytes int64 `json:"bytes" default:"1024"`
	} `json:"limits"`
}

func TestDecodeConfigFillsDefaults(t *testing.T) {
	var c demoConfig
	require.NoError(t, DecodeConfig(json.RawMessage(`{"host":"db","pass":{"$secret":"env:PW"},"tables":[{"name":"orders","key":["id"]}],"tags":{"a":"b"},"retry":true}`), &c))
	require.Equal(t, 5432, c.Port)
	require.Equal(t, 10*time.Second, c.Timeout)
	require.Equal(t, "auto", c.Mode)
	require.Equal(t, 0.5, c.Ratio)
	require.Equal(t, "env:PW", c.Pass.Ref())
	require.Equal(t, int64(1024), c.Limits.Bytes)
	require.True(t, *c.Retry)
	require.Equal(t, []string{"id"}, c.Tables[0].Key)
	require.Equal(t, map[string]string{"a": "b"}, c.Tags)
}

func TestDecodeConfigReportsEverythingAtOnce(t *testing.T) {
	for name, test := range map[string]struct{ config, want string }{
		"empty":      {``, "host: is required"},
		"null":       {`null`, "host: is required"},
		"no object":  {`[1]`, "must be an object, is a list; host: is required"},
		"broken":     {`{"host":"x"`, "parsing JSON: unexpected end of JSON input"},
		"unknown":    {`{"hots":"x"}`, "host: is required; hots: unknown field, did you mean host?"},
		"case":       {`{"host":"x","PORT":1}`, "PORT: unknown field, did you mean port?"},
		"far":        {`{"host":"x","zzzzzzzz":1}`, "zzzzzzzz: unknown field; known are host, port, timeout, mode, retry, ratio, pass, tables, tags, limits"},
		"twice":      {`{"host":"x","host":"y"}`, "host: given twice"},
		"types":      {`{"host":1,"port":"x","timeout":5,"retry":"no","tables":{},"tags":3}`, `host: must be a string, is the number 1; port: must be a whole number, is a string; timeout: must be a duration such as "1m30s", is 5; retry: must be true or false, is a string; tables: must be a list, is an object; tags: must be an object, is the number 3`},
		"fraction":   {`{"host":"x","port":1.5}`, "port: must be a whole number, is the number 1.5"},
		"range":      {`{"host":"x","port":65536}`, "port: must be at most 65535"},
		"enum":       {`{"host":"x","mode":"later"}`, `mode: must be one of auto, none, is "later"`},
		"nested":     {`{"host":"x","tables":[{"name":"a"},{"key":["id"]},{"name":"pg_class","kee":1}],"limits":{"byte":1}}`, `tables[1].name: is required; tables[2].kee: unknown field, did you mean key?; tables[2].name: is a system table; limits.byte: unknown field, did you mean bytes?`},
		"literal":    {`{"host":"x","pass":"hunter2"}`, "pass: " + errLiteralSecret.Error()},
		"secret ref": {`{"host":"x","pass":{"$secret":"vault:x"}}`, "pass: " + errLiteralSecret.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			var c demoConfig
			err := DecodeConfig(json.RawMessage(test.config), &c)
			require.EqualError(t, err, test.want)
			require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestDecodeYAML(t *testing.T) {
	var s QuerySpec
	require.NoError(t, DecodeYAML([]byte("name: late\nquery: |\n  MATCH (o:Order)\n  RETURN o.id\nsources: [shop]\nparameters:\n  max: 3\n"), &s))
	require.Equal(t, "MATCH (o:Order)\nRETURN o.id\n", s.Query)
	require.Equal(t, "cypher", s.Kind)
	require.Equal(t, "default", s.Instance)
	require.Equal(t, 60, s.Policy.DrainSeconds)
	require.JSONEq(t, "3", string(s.Parameters["max"]))
	require.Error(t, DecodeYAML([]byte("name: [\n"), &s))
}

func TestResolveSecret(t *testing.T) {
	t.Setenv("PERDURE_TEST_SECRET", "s3cret")
	got, err := SecretOf("env:PERDURE_TEST_SECRET").Resolve(ResolveSecret)
	require.NoError(t, err)
	require.Equal(t, "s3cret", got)

	path := filepath.Join(t.TempDir(), "pw")
	require.NoError(t, os.WriteFile(path, []byte("from file\n"), 0o600))
	got, err = ResolveSecret("file:" + path)
	require.NoError(t, err)
	require.Equal(t, "from file", got)

	for _, ref := range []string{"env:PERDURE_TEST_NOT_SET", "file:" + path + "x", "file:/", "plain"} {
		_, err = ResolveSecret(ref)
		require.Equal(t, failure.SecretMissing, failure.CodeOf(err), ref)
	}
}

func TestSecretRoundTrip(t *testing.T) {
	text, err := json.Marshal(SecretOf("env:X"))
	require.NoError(t, err)
	require.JSONEq(t, `{"$secret":"env:X"}`, string(text))
	var back Secret
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, SecretOf("env:X"), back)
	require.Equal(t, "$secret(env:X)", back.String())
}

func TestValidateSpecs(t *testing.T) {
	require.NoError(t, ValidateSource(SourceSpec{Name: "shop", Kind: "postgres"}))
	require.EqualError(t, ValidateSource(SourceSpec{Name: "Shop", Policy: Policy{DrainSeconds: -1, HeartbeatMillis: 99999}}),
		`kind: is required; policy.drainSeconds: must be at least 1; policy.heartbeatMillis: must be at most 25000; name: `+
			`must be lower-case letters, digits and dashes, begin with a letter and be at most 63 long, is "Shop"`)
	require.NoError(t, ValidateQuery(QuerySpec{Name: "q", Query: "MATCH (n) RETURN n", Sources: []string{"shop"}}))
	require.EqualError(t, ValidateQuery(QuerySpec{Name: "q", Kind: "sql", Query: "x", Sources: []string{"a", "a"}}),
		`kind: must be one of cypher, is "sql"; sources[1]: a is named twice`)
	require.EqualError(t, ValidateReaction(ReactionSpec{Name: "r", Kind: "log"}), "queries: is required")
}

func TestPolicyDefaults(t *testing.T) {
	require.Equal(t, Policy{DrainSeconds: 7, RetainBytes: 4 << 30, RetainSeconds: 604800, HeartbeatMillis: 5000, StallSeconds: 60,
		BreakerSeconds: 60, BreakerMostSeconds: 1800,
	},
		Policy{DrainSeconds: 7}.WithDefaults())
}

// TestProblemsAreBounded: those that are left out are counted.
func TestProblemsAreBounded(t *testing.T) {
	p := &Problems{}
	for i := range 100 {
		p.Addf(fmt.Sprintf("tables[%02d]", i), "%s", strings.Repeat("x", 87)) // 100 bytes each
	}
	text := p.Err().Error()
	require.Equal(t, 27, strings.Count(text, "xxx; "))
	require.True(t, strings.HasSuffix(text, "; and 73 more"), text)
}
