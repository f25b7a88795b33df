package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/perdure/perdure/streaming/graph"
)

// typeMap finds the decoder of a type. It is not safe for concurrent use.
type typeMap struct {
	pgx   *pgtype.Map
	known map[uint32]typeInfo // types of this database that pgx does not know
}

// typeInfo is a row of pg_type.
type typeInfo struct {
	kind     byte   // typtype: b, c, d, e, m, p, r
	category byte   // A is an array
	base     uint32 // of a domain
	name     string
}

func newTypeMap() *typeMap {
	return &typeMap{pgx: pgtype.NewMap(), known: make(map[uint32]typeInfo)}
}

func (m *typeMap) knows(oid uint32) bool {
	if _, ok := scalars[oid]; ok {
		return true
	}
	if _, ok := m.pgx.TypeForOID(oid); ok {
		return true
	}
	_, ok := m.known[oid]
	return ok
}

// load asks the catalog about types, and about those that these are made of.
func (m *typeMap) load(ctx context.Context, conn *pgx.Conn, oids []uint32) error {
	var missing []uint32
	for _, oid := range oids {
		if !m.knows(oid) {
			missing = append(missing, oid)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, `
		WITH RECURSIVE need (oid) AS (
			SELECT unnest($1::oid[])
			UNION
			SELECT part FROM need JOIN pg_type t ON t.oid = need.oid,
			LATERAL (VALUES (t.typbasetype), (CASE t.typcategory WHEN 'A' THEN t.typelem END)) v (part)
			WHERE part <> 0)
		SELECT t.oid, t.typtype::text, t.typcategory::text, t.typbasetype, t.typname::text
		FROM pg_type t JOIN need USING (oid)`, missing)
	if err != nil {
		return wrap(err, "reading types")
	}
	var (
		oid, base            uint32
		kind, category, name string
	)
	_, err = pgx.ForEachRow(rows, []any{&oid, &kind, &category, &base, &name}, func() error {
		m.known[oid] = typeInfo{kind[0], category[0], base, name}
		return nil
	})
	return wrap(err, "reading types")
}

// decoder returns the function that decodes a type's binary form.
func (m *typeMap) decoder(oid uint32) decodeFunc {
	if decode, ok := scalars[oid]; ok {
		return decode
	}
	if t, ok := m.pgx.TypeForOID(oid); ok {
		switch t.Codec.(type) {
		case *pgtype.ArrayCodec:
			return decodeArray(m.decoder)
		case *pgtype.XMLCodec:
			return decodeText
		}
		if t.Codec.FormatSupported(pgtype.BinaryFormatCode) {
			return m.throughPgx(t)
		}
		return askServer(oid)
	}
	switch t := m.known[oid]; {
	case t.kind == 'd':
		return m.decoder(t.base)
	case t.kind == 'e', t.name == "citext":
		return decodeText
	case t.category == 'A':
		return decodeArray(m.decoder)
	}
	return askServer(oid)
}

// throughPgx decodes a type as pgx does it for database/sql, mostly into text; what is none of the simple kinds is
// left to the server.
func (m *typeMap) throughPgx(t *pgtype.Type) decodeFunc {
	ask := askServer(t.OID)
	return func(d *decoder, src []byte) (graph.Value, error) {
		v, err := t.Codec.DecodeDatabaseSQLValue(m.pgx, t.OID, pgtype.BinaryFormatCode, src)
		if err != nil {
			return ask(d, src)
		}
		switch v := v.(type) {
		case string:
			return graph.String(v), nil
		case int64:
			return graph.Int(v), nil
		case float64:
			return graph.Float(v), nil
		case bool:
			return graph.Bool(v), nil
		}
		return ask(d, src)
	}
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

// text asks the server to show a binary value.
func (s *side) text(ctx context.Context, oid uint32, src []byte) (string, error) {
	ctx, cancel := s.source.bounded(ctx)
	defer cancel()
	conn, err := s.open(ctx)
	if err != nil {
		return "", err
	}
	result := conn.PgConn().ExecParams(ctx, "SELECT $1::text", [][]byte{src}, []uint32{oid}, []int16{pgtype.BinaryFormatCode}, nil).Read()
	if result.Err != nil {
		return "", wrap(result.Err, "converting a value of type %d", oid)
	}
	if len(result.Rows) != 1 || len(result.Rows[0]) != 1 {
		return "", fmt.Errorf("converting a value of type %d: no result", oid)
	}
	return string(result.Rows[0][0]), nil
}
