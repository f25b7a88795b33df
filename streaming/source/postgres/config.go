package postgres

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/component"
)

const maxIdentifier = 63 // Postgres cuts off what is longer

// Config is what a spec says about a Postgres source.
type Config struct {
	Host     string           `json:"host,omitempty" doc:"Host name or address of the server, or the directory of its socket; PGHOST, else localhost, when left out."`
	Port     int              `json:"port,omitempty" doc:"Port of the server; PGPORT, else 5432, when left out." minimum:"0" maximum:"65535"`
	Hosts    []string         `json:"hosts,omitempty" doc:"Several servers instead of host and port, each as host or host:port, tried in this order until one is as targetSessionAttrs asks."`
	Database string           `json:"database,omitempty" doc:"Name of the database. Required unless url, service or PGDATABASE names it."`
	User     string           `json:"user,omitempty" doc:"Role to connect as; it needs REPLICATION and SELECT on the tables. Required unless url, service or PGUSER names it."`
	Password component.Secret `json:"password,omitzero" doc:"Reference to the role's password; PGPASSWORD, else the password file, when left out."`
	URL      URL              `json:"url,omitzero" doc:"Connection string instead of host, port, hosts, database, user and service, as a URL or as keywords (host=... dbname=...): without a password, or a reference to a secret."`
	Service  string           `json:"service,omitempty" doc:"Section of the service file that says what is left out here; PGSERVICE when left out."`

	ServiceFile string `json:"serviceFile,omitempty" doc:"Absolute path of the service file; PGSERVICEFILE, else ~/.pg_service.conf, when left out."`
	PassFile    string `json:"passFile,omitempty" doc:"Absolute path of the password file; PGPASSFILE, else ~/.pgpass, when left out. With several hosts its line for the first one counts."`

	SSLMode            string `json:"sslMode,omitempty" doc:"Whether and how TLS is used, as in libpq; PGSSLMODE, else prefer, when left out, but verify-full where sslRootCert is given." enum:"disable,allow,prefer,require,verify-ca,verify-full"`
	SSLRootCert        File   `json:"sslRootCert,omitzero" doc:"Certificates of the authorities that the server's certificate is checked against: absolute path of a PEM file, or a reference to a secret; those of the system when left out."`
	SSLCert            File   `json:"sslCert,omitzero" doc:"Certificate that the client shows: absolute path of a PEM file, or a reference to a secret."`
	SSLKey             File   `json:"sslKey,omitzero" doc:"Private key of sslCert, without a passphrase: absolute path of a PEM file, or a reference to a secret."`
	ChannelBinding     string `json:"channelBinding,omitempty" doc:"Whether the password exchange must be bound to the TLS connection; PGCHANNELBINDING, else prefer, when left out." enum:"disable,prefer,require"`
	TargetSessionAttrs string `json:"targetSessionAttrs,omitempty" doc:"Which server will do, as in libpq; PGTARGETSESSIONATTRS, else primary, when left out, because a logical slot lives on the primary." enum:"any,read-write,read-only,primary,standby,prefer-standby"`

	Tables        []Table        `json:"tables" doc:"The tables to watch." required:"true"`
	Relationships []Relationship `json:"relationships,omitempty" doc:"Foreign keys that become relationships. A table whose rows are relationships has a type instead."`

	Slot        string `json:"slot,omitempty" doc:"Name of the replication slot; derived from instance and name when left out."`
	AdoptSlot   bool   `json:"adoptSlot,omitempty" doc:"Whether a slot of that name is used that exists already, though the source did not make it; deleting the source leaves it as it is. Otherwise the source refuses it, since somebody else may read from it."`
	Publication string `json:"publication,omitempty" doc:"Name of the publication; derived from instance and name when left out. One that exists already is used as it is."`
	Publish     string `json:"publish,omitempty" doc:"Which columns and rows the publication has, if the source made it and the server is Postgres 15 or newer: all has all of them, or those that columns names; needed has of these what queries read, and what identifies rows and relationships, and is altered as queries come and go. Where all queries of a label ask for certain values of columns of the key, it has these rows only. A column that it names cannot be dropped." enum:"all,needed" default:"all"`

	ConnectTimeout   time.Duration `json:"connectTimeout,omitempty" doc:"Longest time that opening a connection to one host may take." default:"10s"`
	StatementTimeout time.Duration `json:"statementTimeout,omitempty" doc:"Longest time that a statement may take or a copy may go without progress." default:"1m"`
	LockTimeout      time.Duration `json:"lockTimeout,omitempty" doc:"Longest time that a statement may wait for a lock." default:"30s"`
	IdleTimeout      time.Duration `json:"idleTimeout,omitempty" doc:"Longest time that a transaction may be open without a sign of us, before the server ends it." default:"5m"`
	ReceiveTimeout   time.Duration `json:"receiveTimeout,omitempty" doc:"Longest silence of the server, which is asked for a sign of life every second, before the connection is opened anew." default:"1m"`
	StatusInterval   time.Duration `json:"statusInterval,omitempty" doc:"How often the server is told how far we are at least." default:"10s"`
	SlotTimeout      time.Duration `json:"slotTimeout,omitempty" doc:"Longest wait, when a snapshot is taken, for the end of the transactions that run then." default:"10m"`

	OnSlotLoss string `json:"onSlotLoss,omitempty" doc:"What happens when the replication slot is lost, and changes with it, or when the server was promoted before it had all of them: diff creates a new slot, has the queries read the tables again and publish what differs, rebuild has them publish all rows anew, stop stops the source." enum:"diff,rebuild,stop" default:"diff"`
	OnBadRow   string `json:"onBadRow,omitempty" doc:"What happens to a row that cannot be decoded: deadLetter keeps it among the dead letters of the source and goes on without it, stop stops the source." enum:"deadLetter,stop" default:"deadLetter"`

	SnapshotParallelism   int           `json:"snapshotParallelism,omitempty" doc:"How many chunks of a snapshot are read at the same time, each over a connection of its own, unless the bootstrap is told otherwise." default:"4" minimum:"1" maximum:"64"`
	SnapshotRowsPerSecond int           `json:"snapshotRowsPerSecond,omitempty" doc:"How many rows per second of a snapshot are read at most, all chunks together; as many as can be when left out." minimum:"0"`
	ChunkTime             time.Duration `json:"chunkTime,omitempty" doc:"About how long reading a chunk of a snapshot should take, which is what is lost when a worker dies. Chunks are as large as the rate allows at which those before them were read." default:"10s"`
	ChunkRows             int           `json:"chunkRows,omitempty" doc:"About how many rows the smallest chunks have: the first ones, whose rate is not known yet, and the last ones." default:"50000" minimum:"1"`
}

// Table says how a table's rows become nodes or, where it has a type, relationships.
type Table struct {
	Name     string   `json:"name" doc:"Name as stored by Postgres, such as public.orders; the schema is public when left out. Parts that contain dots are put in double quotes." required:"true"`
	Label    string   `json:"label,omitempty" doc:"Label of the nodes; the table's name when left out."`
	Type     string   `json:"type,omitempty" doc:"Type of the relationships that the rows are instead of nodes. They lead from the node that one foreign key of the table names to that of another one, and have the other columns as properties."`
	Start    *End     `json:"start,omitempty" doc:"Where the relationships of a table with a type begin; the first of the table's two foreign keys, in the order of its columns, when left out."`
	End      *End     `json:"end,omitempty" doc:"Where the relationships of a table with a type end; the other foreign key when left out."`
	Key      []string `json:"key,omitempty" doc:"Columns that identify a row; the primary key when left out."`
	WholeRow bool     `json:"wholeRow,omitempty" doc:"Whether all columns together identify a row, for a table without a key; its replica identity must be FULL. Identical rows are one node, which stays until the last of them is gone."`
	Columns  []string `json:"columns,omitempty" doc:"Columns that become properties, beside those of key and relationships; all when left out. From Postgres 15 on the others do not leave the server."`
}

// End says which foreign key names the nodes at one end of a table's relationships.
type End struct {
	Columns    []string `json:"columns" doc:"The columns of the foreign key." required:"true"`
	References string   `json:"references,omitempty" doc:"The table that they name, one of tables; that of the foreign key that the database knows when left out."`
}

// Relationship says how a foreign key becomes relationships, from the row that has it to the row that it names.
type Relationship struct {
	Type       string   `json:"type" doc:"Type of the relationships." required:"true"`
	Table      string   `json:"table" doc:"The table that has the foreign key, one of tables." required:"true"`
	Columns    []string `json:"columns" doc:"The columns of the foreign key." required:"true"`
	References string   `json:"references,omitempty" doc:"The table that the foreign key names, one of tables; that of the foreign key that the database knows when left out."`
}

var slotPattern = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Validate implements component.Validator.
func (c *Config) Validate(p *component.Problems) {
	c.validateConnection(p)
	if c.Slot != "" && !slotPattern.MatchString(c.Slot) {
		p.Addf("slot", "must be 1 to 63 lower-case letters, digits and underscores, is %q", c.Slot)
	}
	if len(c.Publication) > maxIdentifier {
		p.Addf("publication", "must be at most %d bytes long", maxIdentifier)
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"connectTimeout", c.ConnectTimeout}, {"statementTimeout", c.StatementTimeout},
		{"lockTimeout", c.LockTimeout}, {"receiveTimeout", c.ReceiveTimeout}, {"statusInterval", c.StatusInterval}, {"slotTimeout", c.SlotTimeout},
		{"chunkTime", c.ChunkTime},
	} {
		if f.value < 100*time.Millisecond || f.value > time.Hour {
			p.Addf(f.name, "must be between 100ms and 1h, is %s", f.value)
		}
	}
	c.validateTables(p)
	c.validateRelationships(p)
}

func (c *Config) validateTables(p *component.Problems) {
	tables, labels := make(map[tableName]bool), make(map[string]bool)
	for i, t := range c.Tables {
		at := fmt.Sprintf("tables[%d]", i)
		name, err := parseTableName(t.Name)
		switch {
		case err != nil:
			p.Addf(at+".name", "%s", err)
			continue
		case tables[name]:
			p.Addf(at+".name", "%s is named twice", t.Name)
		case labels[t.label(name)] && t.Type != "":
			p.Addf(at+".type", "%s is used twice", t.Type)
		case labels[t.label(name)]:
			p.Addf(at+".label", "label %s is used twice, so that truncating one table would remove the other's nodes: give one of them another label", t.label(name))
		}
		if t.WholeRow && (len(t.Key) > 0 || len(t.Columns) > 0) {
			p.Addf(at+".wholeRow", "cannot be given beside key or columns")
		}
		tables[name], labels[t.label(name)] = true, true
		validateColumns(at+".key", t.Key, p)
		validateColumns(at+".columns", t.Columns, p)
		if t.Type != "" && t.Label != "" {
			p.Addf(at+".label", "cannot be given beside type: rows are either nodes or relationships")
		}
		c.validateEnd(at+".start", t, t.Start, p)
		c.validateEnd(at+".end", t, t.End, p)
	}
	for i, r := range c.Relationships {
		if labels[r.Type] {
			p.Addf(fmt.Sprintf("relationships[%d].type", i), "%s is used twice", r.Type)
		}
		labels[r.Type] = true
	}
}

func (c *Config) validateEnd(at string, t Table, end *End, p *component.Problems) {
	if end == nil {
		return
	}
	if t.Type == "" {
		p.Addf(at, "needs type")
	}
	c.validateNodes(at+".references", end.References, p)
	validateColumns(at+".columns", end.Columns, p)
}

func (c *Config) validateRelationships(p *component.Problems) {
	for i, r := range c.Relationships {
		at := fmt.Sprintf("relationships[%d]", i)
		c.validateNodes(at+".table", r.Table, p)
		c.validateNodes(at+".references", r.References, p)
		validateColumns(at+".columns", r.Columns, p)
	}
}

func validateColumns(at string, columns []string, p *component.Problems) {
	for i, name := range columns {
		if name == "" {
			p.Addf(fmt.Sprintf("%s[%d]", at, i), "is empty")
		} else if slices.Contains(columns[:i], name) {
			p.Addf(fmt.Sprintf("%s[%d]", at, i), "%s is named twice", name)
		}
	}
}

// validateNodes looks whether a name, if one is given, is that of one of tables, and its rows are nodes.
func (c *Config) validateNodes(at, name string, p *component.Problems) {
	if name == "" {
		return
	}
	wanted, err := parseTableName(name)
	if err != nil {
		p.Addf(at, "%s", err)
		return
	}
	i := slices.IndexFunc(c.Tables, func(t Table) bool {
		have, err := parseTableName(t.Name)
		return err == nil && have == wanted
	})
	switch {
	case i < 0:
		p.Addf(at, "%s is not one of tables", name)
	case c.Tables[i].Type != "":
		p.Addf(at, "the rows of %s are relationships, since it has a type, and relationships connect nodes", name)
	}
}

// label returns the label or type of the elements that the rows are.
func (t Table) label(name tableName) string {
	switch {
	case t.Type != "":
		return t.Type
	case t.Label != "":
		return t.Label
	}
	return name.table
}

// tableName is a table's name as Postgres stores it.
type tableName struct{ schema, table string }

// String returns the name as people write it.
func (n tableName) String() string { return n.schema + "." + n.table }

// sql returns the name as SQL writes it.
func (n tableName) sql() string { return quote(n.schema) + "." + quote(n.table) }

func quote(identifier string) string { return `"` + strings.ReplaceAll(identifier, `"`, `""`) + `"` }

// literal quotes a string for SQL; standard_conforming_strings is on.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func parseTableName(s string) (tableName, error) {
	var parts []string
	for rest := s; ; {
		part, after, err := parseIdentifier(rest)
		if err != nil {
			return tableName{}, fmt.Errorf("%q is not a table name: %w", s, err)
		}
		parts = append(parts, part)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch len(parts) {
	case 1:
		return tableName{"public", parts[0]}, nil
	case 2:
		return tableName{parts[0], parts[1]}, nil
	}
	return tableName{}, fmt.Errorf(`%q is not a table name: it must be of the form schema.table, with parts that contain dots in double quotes`, s)
}

// parseIdentifier takes one part of a dotted name; after begins with the dot, or is empty.
func parseIdentifier(s string) (part, after string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		part, after = s[:end], s[end:]
	} else {
		for i := 1; ; i++ {
			if i >= len(s) {
				return "", "", errors.New("a double quote is missing")
			}
			if s[i] == '"' {
				if i+1 < len(s) && s[i+1] == '"' {
					i++
				} else {
					after = s[i+1:]
					break
				}
			}
			part += string(s[i])
		}
		if after != "" && after[0] != '.' {
			return "", "", errors.New("a dot must follow the closing quote")
		}
	}
	switch {
	case part == "":
		return "", "", errors.New("a part is empty")
	case len(part) > maxIdentifier:
		return "", "", fmt.Errorf("a part is longer than %d bytes", maxIdentifier)
	}
	return part, after, nil
}

// defaultName derives the name of slot and publication. Names of instances and components hold no underscore, so that
// two underscores keep them apart; what could still collide or is too long ends in a hash.
func defaultName(instance, name string) string {
	s := "perdure_" + strings.ReplaceAll(instance+"__"+name, "-", "_")
	if instance == component.DefaultInstance || instance == "" {
		s = "perdure_" + strings.ReplaceAll(name, "-", "_")
	}
	if len(s) <= maxIdentifier && !strings.Contains(instance+name, "--") {
		return s
	}
	sum := sha256.Sum256([]byte(instance + "." + name))
	return fmt.Sprintf("%s_%x", s[:min(len(s), maxIdentifier-17)], sum[:8])
}
