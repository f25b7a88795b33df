// Package postgres reads the changes of tables from a Postgres server, and the tables as they stand at one position.
//
// # What it needs
//
// Postgres 14 or newer with wal_level = logical, a free replication slot and WAL sender, and a direct connection (no
// transaction pooler). The role needs REPLICATION, SELECT on the tables, and BYPASSRLS where row security would hide
// rows from it. The source creates a publication, for which the role must own the tables and may CREATE in the
// database; where it must not, somebody else creates the publication and the spec names it. Such a publication may have
// column lists and row filters: a snapshot has the same columns and rows then.
//
// Each table, and each partition of one, needs a replica identity that covers the key: the primary key, or the columns
// that the spec names, which must be unique and not null. A table without a key can be watched with wholeRow.
//
// # What it gives
//
// Transactions whole and in commit order, at least once; a position is confirmed to the server only when the sink says
// that it is durable, so a crash repeats changes but loses none, and resuming after a position does not repeat it. A
// row is a node "<label>:<key>"; the parts of a key of several columns are joined by commas, with a backslash before
// commas and backslashes in them. A foreign key that the spec names is a relationship "<type>:<key>" from the row
// that has it. A snapshot holds exactly the transactions whose position is at or below its own.
//
// Positions are LSNs: for a transaction the end of its commit record, between transactions how far the server has
// read its WAL, so that an idle source does not make the server keep WAL.
//
// # How it connects
//
// As programs with libpq do. What the spec leaves open comes from the service that it, or PGSERVICE, names, from PG*
// variables of the worker and from its password file; url takes both forms of connection strings. Where several hosts
// are given, they are tried in order until one is the primary, since a logical slot lives there; targetSessionAttrs asks
// for something else. Every connection has TCP keepalive, and limits for statements, locks and idle transactions.
// Differences from libpq: without sslRootCert, verify-full trusts the authorities of the system; a private key must not
// have a passphrase, unless its path and passphrase are in a url that is a secret; of the password file only the line
// for the first host counts; its mode is not looked at; there is no GSSAPI.
//
// # Values
//
//	boolean                              boolean
//	smallint, integer, bigint            integer
//	oid, xid, cid, xid8                  integer; xid8 beyond 2^63-1 a decimal
//	real, double precision               float, NaN and infinities included; real by its shortest decimal
//	numeric                              exact decimal with its scale, NaN and infinities included
//	money                                exact decimal with two places, whatever lc_monetary says the currency has
//	text, varchar, name, citext, enums   string; char(n) without its padding
//	bytea                                string in base64
//	uuid, inet, cidr, macaddr, macaddr8,
//	bit, varbit, pg_lsn, tid, xml        string as the server shows it
//	date, time, timetz, timestamp        date and time kinds, years BC and beyond 9999 included
//	timestamptz                          date and time in UTC
//	interval                             duration
//	infinite ones of these, 24:00:00     string as the server shows it: "infinity", "-infinity", "24:00:00"
//	json, jsonb                          maps, lists and scalars; whole numbers of 64 bits are integers, all other
//	                                     numbers exact decimals; of a key that occurs twice the last one counts; a json
//	                                     null is null
//	arrays                               list, nested when there are more dimensions; lower bounds are dropped
//	composite types                      map by attribute name
//	ranges                               map {lower, upper, lowerInc, upperInc, empty}; a bound that is null is none
//	multiranges                          list of ranges
//	domains                              as their base type
//	point, line, lseg, box, path,
//	polygon, circle, tsvector, jsonpath  string as the server shows it
//	pg_ndistinct and other types of the
//	server's statistics and indexes      string in base64: their binary form
//	everything else, also of extensions  string as the server shows it, now: the name of a regclass follows a rename
//
// What only the server can show (the last line) costs a round trip for each value in the stream. It cannot send arrays,
// composite types and ranges of types without a binary form, such as aclitem[]: such a column is refused, and can be
// kept out with columns.
//
// # Snapshots
//
// A table is read by COPY in ranges of its blocks, several at the same time, without the columns that nobody asked for.
// That needs no right but SELECT, and locks a table only as reading it does, for as long as a range takes; a table that
// was rewritten in between (TRUNCATE, VACUUM FULL, ALTER TABLE) makes the snapshot lost. chunkTime, snapshotParallelism
// and snapshotRowsPerSecond say how hard the server is worked.
//
// # Edges
//
// An update does not bring large values that did not change (TOAST): they are Unchanged. When the key changes as well,
// the element becomes another one, so they are read from the table, as it is by then; so are those of a row that an
// update brought into a row filter. What is read from the table waits until the transaction is visible.
//
// With wholeRow identical rows are one node, so that a query counts them once; it stays until the last of them is gone.
// Whether a deleted row has a copy is asked of the table, which is read once for each transaction that deletes, and once
// more for each thousand rows. Where each row must count, the table needs a key: ALTER TABLE ... ADD id bigint GENERATED
// ALWAYS AS IDENTITY PRIMARY KEY. Adding or dropping a column changes what identifies all rows: rebootstrap then.
//
// TRUNCATE is one change per label, for all tables that it reaches. A partitioned table is one table, published by its
// root. What the server writes no changes for cannot be seen: rows that come or go with an attached, detached or dropped
// partition, and TRUNCATE of one partition; rebootstrap after these. Children of inheritance are tables of their own.
// Generated columns are left out, as in the stream; from Postgres 18 on a publication that somebody else made may have
// them. A changed column shows in the changes from then on, not in rows that did not change since. Changes of unlogged
// and temporary tables, views, foreign tables and sequences are nowhere to be read.
//
// A row that cannot be decoded, such as one of a SQL_ASCII database with bytes that are no UTF-8, goes to the dead letters
// of the source with its table, column, position and cause, and the source goes on without it, or stops if onBadRow says
// so. What the row did is not done: its node stays as it was before.
//
// A large transaction reaches the sink in parts. One that outgrows the server's logical_decoding_work_mem is sent while
// it is in progress; it waits in a file until it commits, without what was rolled back of it.
//
// On every connection the server must be the one that was read before, on the same timeline or on one that left it
// behind our position; otherwise the source stops with WrongSystem or TimelineDiverged. While streaming it looks at its
// slot: what the server keeps for it, how that grows and when the server gives it up stand in the status.
//
// Goroutines: Run reads in the caller's, and has one that confirms and one that watches the slot; ReadChunk has one that
// watches for silence. They have ended when the call returns.
package postgres
