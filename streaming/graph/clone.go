package graph

// Clone returns v without sharing memory with the message that it came in, for values that are kept for long.
func Clone(v Value) Value {
	switch v.kind {
	case KindNull, KindBool, KindInt, KindFloat, KindDate, KindLocalTime, KindTime, KindLocalDateTime, KindDateTime:
		return v
	}
	c, _, err := DecodeValue(AppendValue(nil, v))
	if err != nil {
		panic(err) // AppendValue writes what DecodeValue reads
	}
	return c
}

// SizeOf returns about how many bytes v takes beside the Value itself.
func SizeOf(v Value) int {
	if v.kind <= KindFloat {
		return 0
	}
	return sizeBehind(v)
}

func sizeBehind(v Value) int {
	const header = 48 // of what lies behind a pointer
	size := 0
	switch v.kind {
	case KindString:
		size = len(v.AsString())
	case KindList:
		size = SizeOfAll(v.AsList())
	case KindMap:
		m := v.AsMap()
		size = header + SizeOfAll(m.Values)
		for _, k := range m.Keys {
			size += 16 + len(k)
		}
	case KindDecimal, KindDuration:
		size = header
	case KindPath:
		size = header + 8*2*len(v.AsPath().Nodes)
	}
	return size
}

// SizeOfAll returns about how many bytes values take, and what lies behind them.
func SizeOfAll(values []Value) int {
	const perValue = 24
	size := perValue * len(values)
	for _, v := range values {
		size += SizeOf(v)
	}
	return size
}
