package postgres

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/perdure/perdure/streaming/source"
)

// Which rows our own publication has follows from what queries read, as its columns do; see choose.go. A row filter has one
// form only, so that what it lets in can be read off what the server shows of it:
//
//	((tenant = ANY ('{7,8}'::integer[])) AND ((region)::text = ANY ('{north}'::text[])))

// others stands in place of the columns of a filter that is not of this form, or that lets in less than was known without
// our doing, with its text. Nobody knows what rows it has.
const others = ""

// mostValues is how many values of a column a filter has at most: the server compares each row with them one by one.
const mostValues = 100

// filterTypes are the types of columns whose values are equal in SQL if they are in queries, as filters name them.
var filterTypes = map[uint32]string{
	pgtype.Int2OID: "smallint", pgtype.Int4OID: "integer", pgtype.Int8OID: "bigint",
	pgtype.TextOID: "text", pgtype.VarcharOID: "text", pgtype.UUIDOID: "uuid", pgtype.BoolOID: "boolean",
}

// rows returns the rows that the publication must have of each table for what is wanted. A row that is the end of a
// relationship must come with it: it does where the foreign key has its values from columns that a filter compares with no
// others, as that of a tenant's row to another one of the same tenant.
func (c *catalog) rows(wanted source.Wanted) []source.Only {
	rows := make([]source.Only, len(c.tables))
	for i, t := range c.tables {
		rows[i] = t.restricted(c, wanted)
	}
	for changed := true; changed; { // a table whose filter loses a column takes it from those that it leads to
		changed = false
		for _, l := range c.leads(wanted) {
			for name, values := range rows[l.to] {
				from := l.columns[slices.Index(c.tables[l.to].key, name)]
				if given, is := rows[l.from][from]; !is || !containsAll(values, given) {
					delete(rows[l.to], name)
					changed = true
				}
			}
		}
	}
	for i := range rows {
		if len(rows[i]) == 0 {
			rows[i] = nil
		}
	}
	return rows
}

// lead is a foreign key of relationships that are wanted, from one table to another, by their numbers.
type lead struct {
	from, to int
	columns  []string // in the order of the key of to
}

func (c *catalog) leads(wanted source.Wanted) (leads []lead) {
	for i, t := range c.tables {
		for _, e := range slices.Concat(t.edges, t.ends) {
			kind := e.kind
			if t.relates {
				kind = t.label
			}
			if wanted.Any(kind) {
				to := slices.IndexFunc(c.tables, func(other *table) bool { return other.label == e.target })
				leads = append(leads, lead{i, to, e.columns})
			}
		}
	}
	return leads
}

// restricted returns which rows of a table are wanted, as far as a filter can say it. The server decides by the replica
// identity whether a filter lets in a row that is gone, and it is the key that tells rows apart.
func (t *table) restricted(c *catalog, wanted source.Wanted) source.Only {
	if c.version < oldestWithLists || t.wholeRow || slices.ContainsFunc(t.parts(), func(part *table) bool { return part.identity == 'f' }) {
		return nil
	}
	rows := maps.Clone(wanted.Only(t.label))
	maps.DeleteFunc(rows, func(name string, values []string) bool { return !t.filters(name, values) })
	return rows
}

var (
	plainName = regexp.MustCompile(`^\w+$`)
	plainText = regexp.MustCompile(`^[\w .@:/+-]+$`)
	plainUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// filters reports whether a filter can compare a column with some values. Names and values need no escapes.
func (t *table) filters(name string, values []string) bool {
	at := slices.IndexFunc(t.all, func(col column) bool { return col.name == name })
	return at >= 0 && plainName.MatchString(name) && slices.Contains(t.key, name) && slices.Contains(t.bytewise, name) &&
		!slices.ContainsFunc(t.parts(), func(part *table) bool { return !part.identifies(name) }) &&
		len(values) > 0 && len(values) <= mostValues &&
		!slices.ContainsFunc(values, func(value string) bool { return !plain(t.all[at].oid, value) })
}

// plain reports whether a value is written as the server shows those of a type.
func plain(oid uint32, value string) bool {
	integer := func(bits int) bool {
		n, err := strconv.ParseInt(value, 10, bits)
		return err == nil && strconv.FormatInt(n, 10) == value
	}
	switch oid {
	case pgtype.Int2OID:
		return integer(16)
	case pgtype.Int4OID:
		return integer(32)
	case pgtype.Int8OID:
		return integer(64)
	case pgtype.TextOID, pgtype.VarcharOID:
		return plainText.MatchString(value)
	case pgtype.UUIDOID:
		return plainUUID.MatchString(value)
	case pgtype.BoolOID:
		return value == "true" || value == "false"
	}
	return false
}

// condition returns the filter that lets in some rows, as the server shows it but for double quotes; empty: all.
func (t *table) condition(rows source.Only) string {
	var all []string
	for _, col := range t.all { // an order that does not depend on the key
		values, is := rows[col.name]
		if !is {
			continue
		}
		list := slices.Clone(values)
		for i, value := range list {
			if col.oid == pgtype.BoolOID {
				value = value[:1]
			}
			list[i] = `"` + value + `"`
		}
		all = append(all, fmt.Sprintf("(%s = ANY ('{%s}'::%s[]))", compared(col), strings.Join(list, ","), filterTypes[col.oid]))
	}
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return "(" + strings.Join(all, " AND ") + ")"
}

func compared(col column) string {
	if col.oid == pgtype.VarcharOID {
		return "(" + quote(col.name) + ")::text"
	}
	return quote(col.name)
}

// rowsOf reads off a filter what it lets in.
func (t *table) rowsOf(filter string) source.Only {
	if filter == "" {
		return nil
	}
	unquoted := strings.NewReplacer(`"`, "")
	shown := unquoted.Replace(filter)
	rows := make(source.Only)
	for _, col := range t.all {
		_, rest, is := strings.Cut(shown, "("+unquoted.Replace(compared(col))+" = ANY ('{")
		list, _, ends := strings.Cut(rest, "}'")
		if !is || !ends || filterTypes[col.oid] == "" {
			continue
		}
		values := strings.Split(list, ",")
		for i, value := range values {
			if col.oid == pgtype.BoolOID {
				values[i] = strconv.FormatBool(value == "t")
			}
		}
		rows[col.name] = values
	}
	if unquoted.Replace(t.condition(rows)) != shown {
		return source.Only{others: {filter}}
	}
	return rows
}

// leaveOutRows takes out of the rows that the stream has those that were left out before: that they come is for supply to
// tell. Where there are fewer than were known, and the publication is ours, somebody else altered it; what we do ourselves
// is known already, or told of by a message that comes before.
func (t *table) leaveOutRows(known *layout, p *publication) {
	switch _, lost := known.Rows[others]; {
	case known.Missing != "":
	case lost || t.rows.Covers(known.Rows):
		t.rows = known.Rows
	case t.rows[others] == nil:
		t.rows = source.Only{others: {p.table(t.name).filter}}
	}
}
