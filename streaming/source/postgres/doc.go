// Package postgres reads the changes of tables from a Postgres server, and the tables as they stand at one position.
//
// # What it needs
//
// Postgres 14 or newer with wal_level = logical, a free replication slot and WAL sender, and a direct connection (no
// transaction pooler). The role needs REPLICATION, and SELECT on the tables. The source creates a publication, for
// which the role must own the tables and may CREATE in the database; where it must not, somebody else creates the
// publication and the spec names it. Each table needs a primary key, or a replica identity that covers the columns
// that the spec names as key.
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
// Integers, floats, booleans and text are what they are; numeric is an exact decimal with its scale, NaN and infinity
// included; dates and times have their kinds, timestamptz in UTC; interval is a duration; json and jsonb are maps and
// lists, in which whole numbers of 64 bits are integers and all other numbers exact decimals; arrays are lists, nested
// when they have more dimensions. uuid, inet, cidr, macaddr, bit strings, enums and citext are strings, bytea is one
// in base64, char(n) one without its padding. A domain is its base type. Everything else is the text that the server
// shows. Infinite dates, timestamps and intervals, and the time 24:00:00, are strings as Postgres spells them.
//
// # Edges
//
// An update does not bring large values that did not change (TOAST): they are Unchanged. When the key changes as well,
// the element becomes another one, so they are read from the table, as it is by then. TRUNCATE is one change per label.
// Generated columns are left out, as in the stream. A changed column shows in the changes from then on, not in rows
// that did not change since.
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
