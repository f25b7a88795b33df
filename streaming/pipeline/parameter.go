package pipeline

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/perdure/perdure/streaming/graph"
)

// parameter turns the JSON of a query parameter into a value. Numbers without fraction and exponent are integers.
func parameter(raw json.RawMessage) (graph.Value, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return graph.Null, err
	}
	return parameterValue(v)
}

func parameterValue(v any) (graph.Value, error) {
	switch v := v.(type) {
	case bool:
		return graph.Bool(v), nil
	case string:
		return graph.String(v), nil
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return graph.Int(i), nil
		}
		f, err := v.Float64()
		return graph.Float(f), err
	case []any:
		items := make([]graph.Value, len(v))
		for i := range v {
			var err error
			if items[i], err = parameterValue(v[i]); err != nil {
				return graph.Null, err
			}
		}
		return graph.List(items), nil
	case map[string]any:
		m := &graph.Map{Keys: slices.Sorted(maps.Keys(v))}
		for _, k := range m.Keys {
			item, err := parameterValue(v[k])
			if err != nil {
				return graph.Null, err
			}
			m.Values = append(m.Values, item)
		}
		return graph.MapOf(m), nil
	}
	return graph.Null, nil
}
