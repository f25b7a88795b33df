package result

import (
	"strconv"
	"time"

	"github.com/perdure/perdure/streaming/graph"
)

// MarshalJSON returns the event as the API, SSE and webhooks show it: rows are objects whose members are the columns,
// in the order of the query.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// AppendJSON appends what MarshalJSON returns.
func (e *Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"sequence":`...)
	dst = strconv.AppendUint(dst, e.Sequence, 10)
	dst = append(dst, `,"source":`...)
	dst = graph.AppendJSONString(dst, e.Source)
	dst = append(dst, `,"position":`...)
	dst = graph.AppendJSONString(dst, string(e.Position))
	dst = append(dst, `,"commitTime":"`...)
	dst = e.CommitTime.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","snapshot":`...)
	dst = strconv.AppendBool(dst, e.Snapshot)
	if e.More {
		dst = append(dst, `,"more":true`...)
	}
	dst = append(dst, `,"diffs":[`...)
	for i := range e.Diffs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.Diffs[i].appendJSON(dst, e.Columns)
	}
	return append(dst, `]}`...)
}

func (d *Diff) appendJSON(dst []byte, columns []string) []byte {
	dst = append(dst, `{"op":"`...)
	dst = append(dst, d.Op.String()...)
	dst = append(dst, `","key":"`...)
	dst = append(dst, d.Key.String()...)
	dst = append(dst, '"')
	if d.Op != Added {
		dst = append(dst, `,"before":`...)
		dst = appendRow(dst, columns, d.Before)
	}
	if d.Op != Deleted {
		dst = append(dst, `,"after":`...)
		dst = appendRow(dst, columns, d.After)
	}
	return append(dst, '}')
}

// RowJSON returns a row as an object whose members are the columns.
func RowJSON(columns []string, row Row) []byte { return appendRow(nil, columns, row.Values) }

func appendRow(dst []byte, columns []string, values []graph.Value) []byte {
	dst = append(dst, '{')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = graph.AppendJSONString(dst, columns[i])
		dst = append(dst, ':')
		dst = graph.AppendJSON(dst, v)
	}
	return append(dst, '}')
}
