package query_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query"
)

// TestRestrictions: which elements of a label a text lets in, place by place.
func TestRestrictions(t *testing.T) {
	type place = map[string][]string
	seven := place{"k": {"7"}}
	many := make([]graph.Value, 101)
	for i := range many {
		many[i] = graph.Int(int64(i))
	}
	parameters := map[string]graph.Value{
		"seven": graph.Int(7), "list": graph.List([]graph.Value{graph.Int(8), graph.Int(7)}), "null": graph.Null,
		"half": graph.Float(7.5), "nulls": graph.List([]graph.Value{graph.Int(7), graph.Null}),
		"many": graph.List(many), "long": graph.String(strings.Repeat("x", 257)),
	}
	for text, want := range map[string][]place{
		"MATCH (a:A {k: 7}) RETURN a":                                                 {seven},
		"MATCH (a:A) WHERE a.k = 7 RETURN a":                                          {seven},
		"MATCH (a:A WHERE a.k = 7) RETURN a":                                          {seven},
		"MATCH (a:A) WHERE 7 = a.k AND a.x > 1 RETURN a":                              {seven},
		"MATCH (a) WHERE a:A AND a.k = 7 RETURN a":                                    {seven},
		"MATCH (a:A {k: $seven}) RETURN a":                                            {seven},
		"MATCH (a:A {k: -7}) RETURN a":                                                {{"k": {"-7"}}},
		"MATCH (a:A {k: 'x', j: true}) RETURN a":                                      {{"k": {"x"}, "j": {"true"}}},
		"MATCH (a:A) WHERE a.k IN [8, 7, 8] RETURN a":                                 {{"k": {"7", "8"}}},
		"MATCH (a:A) WHERE a.k IN [$seven, 8] RETURN a":                               {{"k": {"7", "8"}}},
		"MATCH (a:A) WHERE a.k IN $list RETURN a":                                     {{"k": {"7", "8"}}},
		"MATCH (a:A {k: 7}), (b:A {k: 8}) RETURN a, b":                                {seven, {"k": {"8"}}},
		"MATCH (a:A {k: 7}), (b:A) RETURN a, b":                                       {seven, nil},
		"MATCH (a:A|B {k: 7})-[:R]->(b:B) RETURN a, b":                                {seven},
		"MATCH (b:B)-[a:A {k: 7}]->(c:C) RETURN a":                                    {seven},
		"MATCH (a:A {k: 7}) RETURN a.k AS k UNION MATCH (a:A {k: 8}) RETURN a.k AS k": {seven, {"k": {"8"}}},
		"MATCH (a:A {k: 7}) WITH a MATCH (a)-[:R]->(b:B) RETURN b":                    {seven},
		"MATCH (a:A {k: 7}) WHERE EXISTS { (a)-[:R]->(:B) } RETURN a":                 {seven},
		"MATCH (a:A {k: 7}) OPTIONAL MATCH (a)-[:R]->(b:B) RETURN a, b":               {seven},
		"OPTIONAL MATCH (b:B) MATCH (a:A {k: 7}) RETURN a, b":                         {seven},
		"MATCH (b:B) RETURN b":                                                        nil,
		"MATCH (a:A) RETURN a":                                                        {nil},
		"MATCH (a:A) WHERE a.k = 7 OR a.k = 8 RETURN a":                               {nil},
		"MATCH (a:A) WHERE NOT a.k = 7 RETURN a":                                      {nil},
		"MATCH (a:A) WHERE a.k <> 7 RETURN a":                                         {nil},
		"MATCH (a:A) WHERE a.k > 7 RETURN a":                                          {nil},
		"MATCH (a:A) WHERE a.k = 7 = true RETURN a":                                   {nil},
		"MATCH (a:A) WHERE NOT a.k IN [7] RETURN a":                                   {nil},
		"MATCH (a:A) WHERE 7 IN a.k RETURN a":                                         {nil},
		"MATCH (a:A) WHERE a.k IN [] RETURN a":                                        {nil},
		"MATCH (a:A) WHERE a.k IN [7, a.j] RETURN a":                                  {nil},
		"MATCH (a:A) WHERE a.k IN $seven RETURN a":                                    {nil},
		"MATCH (a:A) WHERE a.k IN $nulls RETURN a":                                    {nil},
		"MATCH (a:A {k: 7.5}) RETURN a":                                               {nil},
		"MATCH (a:A {k: $half}) RETURN a":                                             {nil},
		"MATCH (a:A {k: $null}) RETURN a":                                             {nil},
		"MATCH (a:A {k: $list}) RETURN a":                                             {nil},
		"MATCH (a:A {k: 3 + 4}) RETURN a":                                             {nil},
		"MATCH (a:A) WHERE a.k = a.j RETURN a":                                        {nil},
		"MATCH (a:A) WHERE a.k + 1 = 7 RETURN a":                                      {nil},
		"MATCH (a:A) WHERE a.k.j = 7 RETURN a":                                        {nil},
		"MATCH (a:A), (b:B) WHERE a.k = b.k AND b.k = 7 RETURN a":                     {nil},
		"WITH {k: 7} AS m MATCH (a:A) WHERE m.k = 7 RETURN a":                         {nil},
		"WITH 7 AS m MATCH (a:A {k: m}) RETURN a":                                     {nil},
		"MATCH (a:A) WITH a WHERE a.k = 7 RETURN a":                                   {nil},
		"MATCH (a:A) WITH a MATCH (a)-[:R]->(b:B) WHERE a.k = 7 RETURN b":             {nil},
		"MATCH (b:B) OPTIONAL MATCH (b)-[:R]->(a:A {k: 7}) RETURN a, b":               {nil},
		"MATCH (a:A {k: 7}) OPTIONAL MATCH (a)-[:R]->(b:A {k: 7}) RETURN a, b":        {seven, nil},
		"MATCH (b:B) WHERE EXISTS { (b)-[:R]->(:A {k: 7}) } RETURN b":                 {nil},
		"MATCH (b:B) WHERE NOT (b)-[:R]->(:A {k: 7}) RETURN b":                        {nil},
		"MATCH (b:B) RETURN COUNT { (b)-[:R]->(:A {k: 7}) } AS n":                     {nil},
		"MATCH (b:B) RETURN [(b)-[:R]->(a:A {k: 7}) | a.x] AS xs":                     {nil},
		"MATCH (b:B) RETURN COLLECT { MATCH (a:A {k: 7}) WHERE a.x = b.x RETURN a.x UNION MATCH (a:A) RETURN a.x } AS xs": {nil, nil},
		"MATCH (b:B)-[a:A*1..3 {k: 7}]->(c:C) RETURN b":                                                                   {nil},
		"MATCH (a:A) WHERE a.k IN $many RETURN a":                                                                         {nil},
		"MATCH (a:A {k: $long}) RETURN a":                                                                                 {nil},
	} {
		p, err := query.Compile(text, query.Options{Parameters: parameters})
		require.NoError(t, err, text)
		require.Equal(t, want, p.Restrictions("A"), text)
	}

	// What may be any element is not among the places of a label: that everything is read, Needs says.
	for _, text := range []string{
		"MATCH (a:A {k: 7})-[:R*1..3]->(b:B) RETURN a", "MATCH (a:A {k: 7})-->(x) RETURN a", "MATCH (a:A {k: 7})-[r:R]->(b:B) RETURN startNode(r)",
	} {
		p, err := query.Compile(text, query.Options{})
		require.NoError(t, err, text)
		require.Contains(t, p.Needs(), "", text)
	}
}
