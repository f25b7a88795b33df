package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/graph"
)

// fetch reads the columns of a row that are still unchanged in values; those of a row that is gone become null.
func (st *stream) fetch(ctx context.Context, r *relation, values []graph.Value) error {
	names := r.shape.Names()
	var columns, conditions []string
	var slots []int
	for i, v := range values {
		if v.Kind() == graph.KindUnchanged {
			columns, slots = append(columns, quote(names[i])), append(slots, i)
			values[i] = graph.Null
		}
	}
	arguments := []any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}
	for i, k := range r.key {
		conditions = append(conditions, fmt.Sprintf("%s = $%d", quote(names[k]), i+1))
		arguments = append(arguments, keyText(values[k]))
	}
	return ticking(st.sink, func() error {
		ctx, cancel := st.source.bounded(ctx)
		defer cancel()
		conn, err := st.side.open(ctx)
		if err != nil {
			return err
		}
		rows, err := conn.Query(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(columns, ", "), r.name.sql(), strings.Join(conditions, " AND ")), arguments...)
		if err != nil {
			return wrap(err, "reading a moved row of %s", r.name)
		}
		var raw [][]byte
		if rows.Next() {
			for _, b := range rows.RawValues() {
				if b != nil {
					b = append([]byte{}, b...)
				}
				raw = append(raw, b)
			}
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return wrap(err, "reading a moved row of %s", r.name)
		}
		for i, b := range raw { // only now: decoding may use the same connection
			if b == nil {
				continue
			}
			if values[slots[i]], err = r.decode[slots[i]](&st.assembler.decoder, b); err != nil {
				return r.columnError(slots[i], err)
			}
		}
		return nil
	})
}

// keyText writes a value of a key as SQL input.
func keyText(v graph.Value) string {
	switch v.Kind() {
	case graph.KindDate:
		return time.Unix(v.AsDate()*86400, 0).UTC().Format("2006-01-02")
	case graph.KindLocalDateTime:
		sec, ns := v.AsLocalDateTime()
		return time.Unix(sec, int64(ns)).UTC().Format("2006-01-02 15:04:05.999999")
	case graph.KindDateTime:
		sec, ns, _ := v.AsDateTime()
		return time.Unix(sec, int64(ns)).UTC().Format("2006-01-02 15:04:05.999999+00")
	}
	return string(appendKey(nil, v))
}
