// Package postgres reads the changes of tables from a Postgres server, and the tables as they stand at one position.
//
// # What it needs
//
// Postgres 14 or newer with wal_level = logical, a free replication slot and WAL sender, and a direct connection: a
// pooler that refuses or ignores settings of a connection, or replication, is an error of the configuration. The role needs
// REPLICATION, SELECT on the tables, and BYPASSRLS where row security would hide rows from it. The source creates a publication, for which the role must own the tables and may CREATE in the
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
// commas and backslashes in them. A snapshot holds exactly the transactions whose position is at or below its own.
//
// A foreign key that the spec names is a relationship "<type>:<key>" from the node of the row that has it. A table that
// has a type in the spec is a join table: its rows are relationships "<type>:<key>", and no nodes,
//
//	"tables": [{"name": "student"}, {"name": "course"}, {"name": "enrolment", "type": "ENROLLED_IN"}]
//
// from the node that its first foreign key names to that of the second, in the order of the table's columns; its other
// columns are their properties. Where the database does not know exactly two foreign keys to tables of nodes, or they
// should lead the other way, start and end say which columns are meant, or one of them if that leaves one foreign key:
//
//	"start": {"columns": ["student"]}, "end": {"columns": ["course"], "references": "course"}
//
// Ids are made of the keys that the spec uses, so a foreign key must name these and not other unique columns. A null in
// a foreign key is no relationship. One that is written otherwise than the key, as citext and collations that are not
// deterministic allow, leads to no node. One whose node is missing, which only a constraint prevents, waits for it.
// Nothing leads to a relationship: a table with more foreign keys that matter is one of nodes. The key is all that the
// replica identity must have, also where ends move.
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
// was rewritten in between (TRUNCATE, VACUUM FULL, ALTER TABLE) makes the snapshot lost. When one is lost, the next goes on
// with the ranges that were read, of tables that are where they were and look as they did: what came there since is read
// again, which is quick but for a look at each row, and nothing where a table has no values that are stored apart (since.go).
// chunkTime, snapshotParallelism and snapshotRowsPerSecond say how hard the server is worked. Each query has a snapshot of its
// own, of the tables that it reads, so that one of small tables goes live while those of others are being copied; within a
// query, none of its tables counts before all are there, since what joins a table with half of another one is wrong.
//
// # Columns and rows
//
// With publish: needed a publication that the source made has, from Postgres 15 on, only the columns that queries read, and
// those of keys, replica identities and relationships; the server neither decodes nor sends the others. columns in the spec
// is the bound. When a query comes that reads more, the source alters the publication, and the query takes its snapshot, or
// begins, when all transactions that ran then have ended, which columnsWatch in the status tells; it gives up after a
// quarter of an hour. A column that no query reads leaves at the second look, once in statusInterval. The queries that run
// notice neither. A query that does come to read what was left out, because somebody else altered the publication, reads
// the tables again, and so does one that names a column before ADD COLUMN.
//
// It is not the default, because an application's migrations meet it: a column in a list cannot be dropped, unless with
// CASCADE, which takes the table out of the publication; and after REPLICA IDENTITY FULL, or another primary key, updates
// fail until the source has altered the list, within statusInterval. Tables with REPLICA IDENTITY FULL have no list. A table
// that no query reads keeps its place, with its key. The source needs a lock of each table for a moment that VACUUM and
// DDL, but no reader or writer, hold up.
//
// A table has a row filter then, too, and its snapshots the same, if all queries that read its label ask for certain values of
// the same columns of its key, as those of one tenant do:
//
//	MATCH (o:Order {tenant: 7})    WHERE o.tenant IN [7, 8]    WHERE o.tenant = $tenant AND ...
//
// The filter lets in the values that any of them asks for. It comes, widens and goes as columns do. What counts is =, or IN, with
// literals and parameters, at a place of a pattern of MATCH, for each place where such elements may stand; WHERE with OR, WITH ...
// WHERE, OPTIONAL MATCH and subqueries let all elements in, and so do places without a label. The columns are integers, text
// and varchar with a collation of the server's own, uuid and boolean; the values at most 100, strings of letters and digits of
// ASCII, spaces and _.@:/+- only, those of uuid in lower case. There is no filter:
//
//   - for columns beside the key, since each column of a filter must be in the replica identity, by which the server tells whether
//     a row that is gone was let in;
//   - where rows are the ends of relationships that a query reads, which would wait for a hidden one for ever, unless the foreign
//     key has the values from a column that has a filter itself, with no others: that of (tenant, customer) to customers of
//     the tenant;
//   - with REPLICA IDENTITY FULL or wholeRow.
//
// A column in a filter cannot be dropped or get another type, and a replica identity that comes to lack it makes updates and
// deletes fail until the source has altered the publication, within statusInterval. A query keeps what it has of rows that come
// no more, without a use for it, until it is built anew.
//
// # Edges
//
// An update does not bring large values that did not change (TOAST): they are Unchanged. When the key changes as well,
// the element becomes another one, so they are read from the table, as it is by then; so are those of a row that an
// update brought into a row filter, those of a relationship that may not have been there, since an end of it could be
// null, and the rest of a foreign key of which a part changed. What is read from the table waits until the transaction
// is visible, and goes by the names and types that the columns have by then.
//
// A key that is checked only at the end, as by a DEFERRABLE constraint, may be of two rows for a moment, as in UPDATE t
// SET id = id + 1. Where one of them goes in the transaction in which the other came, the table is asked for the row.
//
// With wholeRow identical rows are one node, so that a query counts them once; it stays until the last of them is gone.
// Whether a deleted row has a copy is asked of the table, which is read once for each transaction that deletes, and once
// more for each thousand rows. Where each row must count, the table needs a key: ALTER TABLE ... ADD id bigint GENERATED
// ALWAYS AS IDENTITY PRIMARY KEY. Adding or dropping a column changes what identifies all rows. The source cannot number
// copies: a table tells how many there are now, not at a place in the stream; a reader of a chunk does not see the copies in
// others; and what was counted would have to last. Who has applied all changes before could, but a change names one element.
//
// TRUNCATE is one change per label, for all tables that it reaches. A partitioned table is one table, published by its
// root. The server writes no changes of rows that come or go with an attached, detached or dropped partition: who reads the
// label then reads the tables again, see DDL. So it is with TRUNCATE of one partition. Children of inheritance are tables of
// their own.
// Generated columns are left out, as in the stream; from Postgres 18 on a publication that somebody else made may have
// them. Changes of unlogged and temporary tables, views, foreign tables and sequences are nowhere to be read.
//
// A row that cannot be decoded, such as one of a SQL_ASCII database with bytes that are no UTF-8, goes to the dead letters
// of the source with its table, column, position and cause, and the source goes on without it, or stops if onBadRow says
// so. What the row did is not done: its node stays as it was before.
//
// Two-phase commit is not used: what a prepared transaction did comes when COMMIT PREPARED ends it, and does not come when
// it is rolled back.
//
// A large transaction reaches the sink in parts. One that outgrows the server's logical_decoding_work_mem is sent while
// it is in progress, and staged as it comes: when it commits, hardly anything is left to do. What cannot be known before its
// end waits in a file, with all that comes after it, without what is rolled back: rows of a subtransaction, which a savepoint
// or an exception block begins, rows of which something has to be read, or that cannot be decoded, TRUNCATE, and what comes
// behind DDL. So does all of it while the log has no room. On Linux the file gives back what was read, so that the disk need
// not have room for the transaction in the file and in the change log.
//
// On every connection the server must be the one that was read before, on the same timeline or on one that left it
// behind our position. While streaming it looks at its slot: what the server keeps for it, how that grows and when the
// server gives it up stand in the status.
//
// A slot that is gone, that the server has given up or that somebody else has moved, and a standby that was promoted
// before it had all that was read, mean that changes are lost. As onSlotLoss says the source then stops, or creates the
// slot anew and tells so in the change log, with a position behind all that came before; the queries read the tables again
// and publish what differs (diff) or all rows (rebuild). With another server it stops with WrongSystem. From Postgres 17
// on the slot is one that standbys may take over.
//
// What the source makes, a slot and a publication, is put on record before it is made (source.Record): a crash leaves nothing
// that nobody knows of, and what is not on record is never dropped. A slot that was there before is refused, unless adoptSlot
// says to use it; then it stays as it is, also when it is lost. Where the record itself is lost, the comment of our own
// publication says which slot was made with it. A spec with another slot, publication or database has those of the spec
// before removed once it is provisioned, and the queries read the tables again; with onSlotLoss: stop such a spec is
// refused, and a server that is not the one that was read is refused always: nothing is made there, and nothing removed here.
//
// # DDL
//
// DDL writes no changes of rows, so the source says in a transaction what it did to elements (graph.SchemaChange). A query
// that reads what was touched stops before that transaction, alone, with table, column and position in its status, until
// the signal rebootstrap, or until its text was corrected and sent again where it names what is gone:
//
//	ADD COLUMN without a default                 stops nobody
//	ADD COLUMN with a default, identity, NOT NULL
//	or a domain's default                        who reads the property
//	DROP COLUMN, also when it is added again     who reads the property
//	RENAME COLUMN                                who reads one of the two properties; ids stay as they are
//	ALTER COLUMN TYPE                            nobody if the values are the same: between integers, to text from
//	                                             varchar, char, name, uuid or an enum, to a looser length or precision,
//	                                             to a numeric of the same scale; else who reads the property, and of a
//	                                             column of the key or of a relationship, who reads the label or type
//	another primary key, or row filter of
//	somebody else's publication                  who reads the label, or a relationship from or to it
//	ATTACH PARTITION with rows, DETACH, DROP of
//	a partition                                  nobody: who reads the label reads the tables again by itself, and
//	                                             publishes what differs
//	TRUNCATE of a partition, USING that makes
//	other values of the same type, attributes
//	of a composite type, labels of an enum that
//	are renamed                                  the same
//	VACUUM FULL, CLUSTER, SET TABLESPACE         nobody; see below
//	ALTER TABLE RENAME, SET SCHEMA               nobody: tables are known by their OIDs, and labels stay
//	DROP TABLE, ALTER PUBLICATION DROP TABLE,
//	a key that is dropped                        who reads the label; the source goes on without the table
//	a table that comes to the publication or
//	to the spec                                  nobody: who reads the label reads the tables again by itself
//	a column that somebody takes out of a
//	publication with publish: needed             nobody: who reads the property reads the tables again by itself
//	rows that somebody takes out of a
//	publication that the source made             nobody: who reads the label reads the tables again by itself
//	DROP of a relationship's column              who reads the type
//
// The source learns of DDL when the server describes the table, with its next row, and by looking at the catalog at the
// start and every statusInterval. What it finds there it writes into the WAL with pg_logical_emit_message, so that it has
// a place in the stream: behind the DDL, by at most about that interval. The role may execute that function unless
// somebody revoked it; then, and on a standby, only the next row tells, and tablesWatch in the status says why. What the
// tables looked like is kept beside the position, so DDL while the source is stopped is told of as well. It may be told of
// twice after a crash. A query that was built from a snapshot behind the DDL knows of it already.
//
// A source goes on when tables or columns that its spec names are renamed or gone, also when it is provisioned again or a
// query reads the tables, since it knows the tables that it read by their OIDs; tablesMissing and tablesRenamed in the status
// name them. A table of which the spec says something new is looked for by its name. A query that needs a table that is gone
// cannot be built. A relationship whose target has another key, and a table that is unlogged, stop the source, and so does a
// deleted row of a table that has lost its replica identity.
//
// What writes a table or a partition anew gives it another file, and it shows in the transactions of its rows what that was:
// VACUUM FULL and its like keep them. Where no row is older than what was last learned of the table, this cannot be told from a
// TRUNCATE, so that the tables are read again without need; the same holds where a table is truncated in a savepoint, or
// another DDL follows a TRUNCATE before the source looks. What USING makes of values does not show beside another column of
// the table whose type changes in the same command.
//
// traps.md lists what goes wrong elsewhere, and the test of each.
//
// Goroutines: Run reads in the caller's, and has one that confirms and one that watches the slot; ReadChunk has one that
// watches for silence. They have ended when the call returns.
package postgres
