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
