package graph

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/cockroachdb/apd/v3"
)

// MarshalJSON returns the value as JSON: numbers are exact, temporal values are ISO 8601 strings, and numbers that JSON
// has no form for are the strings "NaN", "Infinity" and "-Infinity".
func (v Value) MarshalJSON() ([]byte, error) { return AppendJSON(nil, v), nil }

// AppendJSON appends what MarshalJSON returns.
func AppendJSON(dst []byte, v Value) []byte {
	switch v.kind {
	case KindNull, KindUnchanged:
		return append(dst, "null"...)
	case KindBool:
		return strconv.AppendBool(dst, v.AsBool())
	case KindInt:
		return strconv.AppendInt(dst, v.AsInt(), 10)
	case KindFloat:
		return appendJSONFloat(dst, v.AsFloat())
	case KindDecimal:
		return appendJSONDecimal(dst, v.AsDecimal())
	case KindString:
		return AppendJSONString(dst, v.AsString())
	case KindList:
		dst = append(dst, '[')
		for i, item := range v.AsList() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendJSON(dst, item)
		}
		return append(dst, ']')
	case KindMap:
		m := v.AsMap()
		dst = append(dst, '{')
		for i, k := range m.Keys {
			dst = appendMember(dst, i, k, m.Values[i])
		}
		return append(dst, '}')
	case KindNode, KindRelationship:
		return appendJSONElement(dst, v.AsElement())
	case KindPath:
		p := v.AsPath()
		dst = append(dst, `{"nodes":`...)
		dst = appendJSONElements(dst, p.Nodes)
		dst = append(dst, `,"relationships":`...)
		dst = appendJSONElements(dst, p.Relationships)
		return append(dst, '}')
	default:
		dst = append(dst, '"')
		dst = AppendTemporal(dst, v)
		return append(dst, '"')
	}
}

func appendMember(dst []byte, i int, key string, v Value) []byte {
	if i > 0 {
		dst = append(dst, ',')
	}
	dst = AppendJSONString(dst, key)
	dst = append(dst, ':')
	return AppendJSON(dst, v)
}

// appendJSONFloat writes whole floats with ".0", so that a reader of the text can tell 1.0 from 1.
func appendJSONFloat(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	return AppendFloat(dst, f)
}

// AppendFloat appends the shortest decimal text that reads back as f, with a point or an exponent in it.
func AppendFloat(dst []byte, f float64) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

func appendJSONDecimal(dst []byte, d *apd.Decimal) []byte {
	switch d.Form {
	case apd.NaN, apd.NaNSignaling:
		return append(dst, `"NaN"`...)
	case apd.Infinite:
		if d.Negative {
			return append(dst, `"-Infinity"`...)
		}
		return append(dst, `"Infinity"`...)
	}
	return d.Append(dst, 'G')
}

// AppendJSONString appends s as a JSON string; invalid UTF-8 becomes U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			b, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string always marshals
			}
			return append(dst, b...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

func appendJSONElements(dst []byte, elements []*Element) []byte {
	dst = append(dst, '[')
	for i, e := range elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSONElement(dst, e)
	}
	return append(dst, ']')
}

func appendJSONElement(dst []byte, e *Element) []byte {
	dst = append(dst, `{"id":`...)
	dst = AppendJSONString(dst, string(e.ID))
	if e.IsRelationship() {
		dst = append(dst, `,"type":`...)
		label := ""
		if len(e.Labels) > 0 {
			label = e.Labels[0]
		}
		dst = AppendJSONString(dst, label)
		dst = append(dst, `,"start":`...)
		dst = AppendJSONString(dst, string(e.Start))
		dst = append(dst, `,"end":`...)
		dst = AppendJSONString(dst, string(e.End))
	} else {
		dst = append(dst, `,"labels":[`...)
		for i, l := range e.Labels {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendJSONString(dst, l)
		}
		dst = append(dst, ']')
	}
	dst = append(dst, `,"properties":{`...)
	n := 0
	for i, v := range e.Values {
		if v.IsNull() {
			continue
		}
		dst = appendMember(dst, n, e.Shape.names[i], v)
		n++
	}
	return append(dst, '}', '}')
}
