package graph

import "strconv"

// String returns the value as openCypher writes it: a literal where there is one, an element as a pattern.
func (v Value) String() string { return string(AppendText(nil, v)) }

// AppendText appends what String returns.
func AppendText(dst []byte, v Value) []byte {
	switch v.kind {
	case KindNull:
		return append(dst, "null"...)
	case KindUnchanged:
		return append(dst, "unchanged"...)
	case KindBool:
		return strconv.AppendBool(dst, v.AsBool())
	case KindInt:
		return strconv.AppendInt(dst, v.AsInt(), 10)
	case KindFloat:
		switch f := v.AsFloat(); {
		case f != f:
			return append(dst, "NaN"...)
		case f > 1.7976931348623157e308:
			return append(dst, "Infinity"...)
		case f < -1.7976931348623157e308:
			return append(dst, "-Infinity"...)
		default:
			return AppendFloat(dst, f)
		}
	case KindDecimal:
		return v.AsDecimal().Append(dst, 'G')
	case KindString:
		return AppendQuoted(dst, v.AsString())
	case KindList:
		dst = append(dst, '[')
		for i, item := range v.AsList() {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = AppendText(dst, item)
		}
		return append(dst, ']')
	case KindMap:
		m := v.AsMap()
		return appendProperties(dst, m.Keys, m.Values)
	case KindNode, KindRelationship:
		return appendElementText(dst, v.AsElement())
	case KindPath:
		p := v.AsPath()
		dst = append(dst, '<')
		for i, n := range p.Nodes {
			dst = appendElementText(dst, n)
			if i == len(p.Relationships) {
				break
			}
			r := p.Relationships[i]
			if r.Start == n.ID {
				dst = append(appendElementText(append(dst, '-'), r), "->"...)
			} else {
				dst = append(appendElementText(append(dst, "<-"...), r), '-')
			}
		}
		return append(dst, '>')
	default:
		return AppendTemporal(dst, v)
	}
}

// AppendQuoted appends s as a string literal in single quotes.
func AppendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '\'')
	for _, r := range s {
		switch r {
		case '\'', '\\':
			dst = append(dst, '\\', byte(r))
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			if r < ' ' || r == 0x7f {
				dst = append(dst, `\u00`...)
				dst = append(dst, "0123456789abcdef"[r>>4], "0123456789abcdef"[r&15])
				continue
			}
			dst = append(dst, string(r)...)
		}
	}
	return append(dst, '\'')
}

func appendElementText(dst []byte, e *Element) []byte {
	left, right := byte('('), byte(')')
	if e.IsRelationship() {
		left, right = '[', ']'
	}
	dst = append(dst, left)
	for _, l := range e.Labels {
		dst = append(append(dst, ':'), l...)
	}
	var keys []string
	var values []Value
	for i, v := range e.Values {
		if !v.IsNull() {
			keys, values = append(keys, e.Shape.names[i]), append(values, v)
		}
	}
	if len(keys) > 0 {
		if len(e.Labels) > 0 {
			dst = append(dst, ' ')
		}
		dst = appendProperties(dst, keys, values)
	}
	return append(dst, right)
}

func appendProperties(dst []byte, keys []string, values []Value) []byte {
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(append(dst, k...), ": "...)
		dst = AppendText(dst, values[i])
	}
	return append(dst, '}')
}
