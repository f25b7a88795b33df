package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// typeMap finds the decoder of a type. It is not safe for concurrent use.
type typeMap struct {
	known map[uint32]*typeInfo
	made  map[uint32]decodeFunc
}

// typeInfo is what pg_type says about a type.
type typeInfo struct {
	name       string // as SQL writes it
	kind       byte   // typtype: b(ase), c(omposite), d(omain), e(num), r(ange), m(ultirange)
	array      bool
	text       bool     // its binary form is its text
	binary     bool     // it has a binary form
	equality   string   // schema of the operator that compares two values, quoted; "" where the server's own do
	part       uint32   // what a domain, an array, a range or a multirange is made of
	attributes []column // of a composite type
	order      []int    // of the attributes by name
	keys       []string // names of the attributes, ascending
	names      []string // of labels, and of all attributes together, each behind the OID of what has it
}

func newTypeMap() *typeMap {
	return &typeMap{known: make(map[uint32]*typeInfo), made: make(map[uint32]decodeFunc)}
}

func (m *typeMap) knows(oid uint32) bool { return scalars[oid] != nil || m.known[oid] != nil }

// name returns a type's name, for people.
func (m *typeMap) name(oid uint32) string {
	if t := m.known[oid]; t != nil {
		return t.name
	}
	if t, ok := pgtype.NewMap().TypeForOID(oid); ok {
		return t.Name
	}
	return fmt.Sprintf("type %d", oid)
}

// format returns how values of a type are sent: as text where there is no binary form.
func (m *typeMap) format(oid uint32) int16 {
	if t := m.known[oid]; t != nil && !t.binary {
		return pgx.TextFormatCode
	}
	return pgx.BinaryFormatCode
}

// equals returns the operator that compares two values of a type. Types of extensions bring their own, and no search path
// leads to these.
func (m *typeMap) equals(oid uint32) string {
	t := m.known[oid]
	switch {
	case t != nil && t.kind == 'd':
		return m.equals(t.part)
	case t != nil && t.equality != "":
		return "OPERATOR(" + t.equality + ".=)"
	}
	return "="
}

// base returns what a domain is made of, and any other type itself.
func (m *typeMap) base(oid uint32) uint32 {
	if t := m.known[oid]; t != nil && t.kind == 'd' {
		return m.base(t.part)
	}
	return oid
}

// load asks the catalog about types that have no decoder of their own, and about those that these are made of.
func (m *typeMap) load(ctx context.Context, conn *pgx.Conn, oids []uint32) error {
	oids = slices.DeleteFunc(slices.Clone(oids), func(oid uint32) bool { return scalars[oid] != nil })
	if len(oids) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, `
		WITH RECURSIVE need (oid) AS (
			SELECT unnest($1::oid[])
			UNION
			SELECT part FROM need JOIN pg_type t ON t.oid = need.oid, LATERAL (
				VALUES (t.typbasetype), (CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN t.typelem END)
				UNION ALL SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid
				UNION ALL SELECT rngtypid FROM pg_range WHERE rngmultitypid = t.oid
				UNION ALL SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) v (part)
			WHERE part <> 0)
		SELECT t.oid, format_type(t.oid, NULL), t.typtype::text, t.typsubscript = 'array_subscript_handler'::regproc,
			coalesce(s.prosrc = 'textsend', false), t.typsend <> 0,
			coalesce(nullif(t.typbasetype, 0), rngsubtype, (SELECT rngtypid FROM pg_range WHERE rngmultitypid = t.oid), t.typelem),
			coalesce((SELECT quote_ident(n.nspname) FROM pg_operator JOIN pg_namespace n ON n.oid = oprnamespace
				WHERE oprname = '=' AND oprleft = t.oid AND oprright = t.oid ORDER BY n.nspname LIMIT 1), ''),
			ARRAY(SELECT oid || ' ' || enumlabel FROM pg_enum WHERE enumtypid = t.oid
				UNION ALL SELECT t.oid || ' ' || string_agg(format('%s %I %s %s', attnum, attname, atttypid, atttypmod), ', ' ORDER BY attnum)
				FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped HAVING count(*) > 0),
			ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
			ARRAY(SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
		FROM need JOIN pg_type t ON t.oid = need.oid LEFT JOIN pg_range ON rngtypid = t.oid LEFT JOIN pg_proc s ON s.oid = t.typsend`, oids)
	if err != nil {
		return wrap(err, "reading types")
	}
	for rows.Next() {
		var (
			t     typeInfo
			oid   uint32
			kind  string
			names []string
			types []uint32
		)
		if err := rows.Scan(&oid, &t.name, &kind, &t.array, &t.text, &t.binary, &t.part, &t.equality, &t.names, &names, &types); err != nil {
			rows.Close()
			return wrap(err, "reading types")
		}
		t.kind = kind[0]
		for i, name := range names {
			t.attributes, t.order = append(t.attributes, column{name: name, oid: types[i]}), append(t.order, i)
		}
		slices.SortFunc(t.order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
		for _, i := range t.order {
			t.keys = append(t.keys, names[i])
		}
		m.known[oid] = &t
	}
	clear(m.made)
	return wrap(rows.Err(), "reading types")
}

// decoder returns the function that decodes a type's binary form.
func (m *typeMap) decoder(oid uint32) decodeFunc {
	if decode, ok := scalars[oid]; ok {
		return decode
	}
	if decode, ok := m.made[oid]; ok {
		return decode
	}
	decode := m.make(oid)
	m.made[oid] = decode
	return decode
}

func (m *typeMap) make(oid uint32) decodeFunc {
	t := m.known[oid]
	switch {
	case t == nil:
	case t.kind == 'd':
		return m.decoder(t.part)
	case t.kind == 'e', t.text:
		return decodeText
	case t.array:
		return decodeArray
	case t.kind == 'c':
		return decodeComposite(oid)
	case t.kind == 'r':
		return decodeRange(t.part)
	case t.kind == 'm':
		return decodeMultirange(m.decoder(t.part))
	}
	return askServer(oid)
}

// shownByServer reports whether only the server understands a type's binary form.
func (m *typeMap) shownByServer(oid uint32) bool {
	t := m.known[oid]
	switch {
	case scalars[oid] != nil:
		return false
	case t != nil && t.kind == 'd':
		return m.shownByServer(t.part)
	}
	return t == nil || !t.array && !t.text && t.kind == 'b'
}

// unsendable returns the name of a type that the server cannot send because it is part of this one and has no binary
// form; standing alone, such a type comes as text.
func (m *typeMap) unsendable(oid uint32) string { return m.unsendablePart(oid, false) }

func (m *typeMap) unsendablePart(oid uint32, inside bool) string {
	t := m.known[oid]
	if t == nil {
		return ""
	}
	if inside && !t.binary {
		return t.name
	}
	parts := t.attributes
	if t.kind != 'b' || t.array {
		parts = append(slices.Clone(parts), column{oid: t.part})
	}
	for _, part := range parts {
		if name := m.unsendablePart(part.oid, inside || t.kind != 'd'); name != "" {
			return name
		}
	}
	return ""
}

// askServer turns a value of a type that only the server understands into the text that the server shows. It costs a
// round trip for each value.
func askServer(oid uint32) decodeFunc {
	return func(d *decoder, src []byte) (graph.Value, error) {
		text, err := d.serverText(oid, src)
		if err != nil {
			return graph.Null, err
		}
		return graph.String(text), nil
	}
}

// side is an ordinary connection that is opened when it is first needed.
type side struct {
	source *Source
	conn   *pgx.Conn
}

func (s *side) open(ctx context.Context) (*pgx.Conn, error) {
	if s.conn != nil && !s.conn.IsClosed() {
		return s.conn, nil
	}
	conn, err := s.source.connect(ctx)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	return conn, nil
}

func (s *side) close(ctx context.Context) {
	if s.conn != nil {
		hangUp(ctx, s.conn)
	}
}

// text asks the server to show a binary value, as its type's output function does.
func (s *side) text(ctx context.Context, oid uint32, src []byte) (string, error) {
	ctx, cancel := s.source.bounded(ctx)
	defer cancel()
	conn, err := s.open(ctx)
	if err != nil {
		return "", err
	}
	result := conn.PgConn().ExecParams(ctx, "SELECT $1", [][]byte{src}, []uint32{oid}, []int16{pgx.BinaryFormatCode}, []int16{pgx.TextFormatCode}).Read()
	var refused *pgconn.PgError
	if errors.As(result.Err, &refused) && slices.Contains([]string{"0A", "22", "42"}, refused.Code[:2]) { // it cannot read what it sent
		return "", failure.BadRecord.Errorf("having the server show a value: %w", result.Err)
	}
	if result.Err != nil {
		return "", wrap(result.Err, "having the server show a value")
	}
	if len(result.Rows) != 1 || len(result.Rows[0]) != 1 {
		return "", errors.New("having the server show a value: no result")
	}
	return string(result.Rows[0][0]), nil
}
