package failure

import "slices"

var catalogue []*Code

func define(id string, class Class, meaning, fix string) *Code {
	c := &Code{ID: id, Class: class, Meaning: meaning, Fix: fix}
	catalogue = append(catalogue, c)
	return c
}

// Codes returns the whole catalogue in order of definition.
func Codes() []*Code { return slices.Clone(catalogue) }

// General codes.
var (
	Unclassified  = define("Unclassified", Transient, "An error nobody classified; treated as transient.", "Read the cause chain; if it persists, report it.")
	Cancelled     = define("Cancelled", Transient, "The operation was cancelled.", "Nothing: it runs again when wanted.")
	Timeout       = define("Timeout", Transient, "An operation took longer than its bound.", "Check that the other side is reachable and not overloaded; raise the bound in the spec if the work is really that long.")
	Stalled       = define("Stalled", Transient, "A stage made no progress though work was pending.", "Nothing: the stage is restarted. If it recurs, look at the stage named in the status.")
	ConfigInvalid = define("ConfigInvalid", Configuration, "The component's spec is not valid.", "Correct the fields named in the message and send the spec again with the signal reconfigure.")
	QueryInvalid  = define("QueryInvalid", Configuration, "The query does not compile.", "Correct the query at the position shown and send it again with the signal reconfigure.")
	SecretMissing = define("SecretMissing", Configuration, "A secret that the spec refers to cannot be read.", "Set the environment variable or create the file that the reference names, then signal resume.")
	PortInUse     = define("PortInUse", Configuration, "A listener's port is taken.", "Free the port or choose another one in the spec.")
	FencedOff     = define("Fenced", Fenced, "A newer attempt owns this component.", "Nothing: the newer attempt goes on.")
	Panic         = define("Panic", Internal, "Code of Perdure panicked.", "Report the stack in the details; signal resume to try again.")
	StateCorrupt  = define("StateCorrupt", Invalidated, "Stored state cannot be read.", "A query restores its state from a checkpoint, or reads its sources again, by itself. Where this stays, check the disk of the worker, then signal rebootstrap to build the state anew.")
)

// Codes of the change and result streams.
var (
	StreamUnavailable = define("StreamUnavailable", Transient, "The stream server does not answer.", "Check NATS_URL and that the JetStream server is up.")
	StreamFull        = define("StreamFull", Transient, "The stream server has no room for another message.", "Where change logs have filled the disk, let the queries that are behind run: room is made by what they read. Else free disk space or raise the stream's byte limit.")
	StreamTrimmed     = define("StreamTrimmed", Invalidated, "The stream no longer holds the next message to read.", "The query is built anew from a snapshot; raise the stream's bounds if this recurs.")
)

// Codes of sources and of the databases behind them.
var (
	Unreachable            = define("Unreachable", Transient, "The other side cannot be reached.", "Check host, port, network and that the server is up.")
	ConnectionLost         = define("ConnectionLost", Transient, "An established connection broke.", "Nothing: it is opened again.")
	ServerBusy             = define("ServerBusy", Transient, "The server refuses work for now: starting, stopping or out of connections or slots in use.", "Nothing: it is tried again. If it persists, look at the server's load.")
	AuthFailed             = define("AuthFailed", Authorisation, "The server does not accept the credentials.", "Correct user or password, then signal resume.")
	ServerUntrusted        = define("ServerUntrusted", Authorisation, "The server's certificate is not trusted, has expired, or is for another host name.", "Give the authority's certificate under sslRootCert and the host name that the certificate is for, then signal resume.")
	ServerRole             = define("ServerRole", Transient, "The server is a standby, or read-only, where a primary is needed, or the other way round.", "Nothing during a failover: it is tried again. Otherwise correct host, hosts or targetSessionAttrs in the spec.")
	PermissionDenied       = define("PermissionDenied", Authorisation, "The role lacks a privilege.", "Run the GRANT or ALTER ROLE statement shown, then signal resume.")
	DatabaseMissing        = define("DatabaseMissing", Configuration, "The database does not exist.", "Correct the database's name or create it, then signal resume.")
	TableMissing           = define("TableMissing", Configuration, "A table that the spec names does not exist.", "Correct the table's name or create the table, then signal resume.")
	ColumnMissing          = define("ColumnMissing", Configuration, "A column that the spec names does not exist.", "Correct the column's name, then signal resume.")
	KeyMissing             = define("KeyMissing", Configuration, "A table has no primary key and the spec names none.", "Add a primary key to the table or name unique columns under key in the spec, then signal resume.")
	KeyNullable            = define("KeyNullable", Configuration, "A column that the spec names as key may be null.", "Run the ALTER TABLE ... SET NOT NULL statement shown or name other columns under key in the spec, then signal resume.")
	TypeUnsupported        = define("TypeUnsupported", Configuration, "The server has no way to send values of a column's type.", "Name the other columns of the table under columns in the spec, then send it again with the signal reconfigure.")
	ReplicaIdentityMissing = define("ReplicaIdentityMissing", Configuration, "A table's replica identity does not identify its rows.", "Run the ALTER TABLE ... REPLICA IDENTITY statement shown, then signal resume.")
	WalLevelNotLogical     = define("WalLevelNotLogical", Configuration, "The server does not write the WAL that logical replication needs.", "Run ALTER SYSTEM SET wal_level = 'logical', restart the server, then signal resume.")
	SlotCapacity           = define("SlotCapacity", Configuration, "The server has no free replication slot or WAL sender.", "Raise max_replication_slots and max_wal_senders or drop unused slots, then signal resume.")
	SlotTaken              = define("SlotTaken", Configuration, "The replication slot exists and belongs to something else.", "Choose another slot name in the spec or drop the slot shown, then signal resume.")
	PublicationConflict    = define("PublicationConflict", Configuration, "The publication exists with another content than the spec asks for.", "Choose another publication name in the spec or alter the publication as shown, then signal resume.")
	SlotMissing            = define("SlotMissing", Invalidated, "The replication slot is gone; changes since the last position may be lost.", "With onSlotLoss: diff or rebuild in its config the source makes up for it by itself: the queries read the tables again. Where it is stop, signal reconfigure with one of these.")
	SlotInvalidated        = define("SlotInvalidated", Invalidated, "The server removed WAL that the replication slot needs.", "Raise max_slot_wal_keep_size. With onSlotLoss: diff or rebuild in its config the source makes up for it by itself: the queries read the tables again. Where it is stop, signal reconfigure with one of these.")
	WrongSystem            = define("WrongSystem", Invalidated, "The server is another one than before: its system identifier differs.", "Correct the host. If the change is meant, delete the source and its queries, and start them again.")
	TimelineDiverged       = define("TimelineDiverged", Invalidated, "The server was promoted before it had all that we have read from its predecessor.", "With onSlotLoss: diff or rebuild in its config the source makes up for it by itself: the queries read the tables again. Where it is stop, signal reconfigure with one of these.")
	SchemaMismatch         = define("SchemaMismatch", Configuration, "A table's columns do not fit what the query or the snapshot read.", "Adapt the query or the table, then signal resume.")
	Unsupported            = define("Unsupported", Configuration, "The server or the spec asks for something Perdure does not do.", "See the message for what is supported.")
	SnapshotLost           = define("SnapshotLost", Transient, "The exported snapshot is gone: its holder's connection ended.", "Nothing: a new snapshot is taken, and what is copied already is kept, unless a table was rewritten or altered meanwhile.")
	SpillFailed            = define("SpillFailed", Transient, "A large transaction cannot be kept in a file until it ends.", "Make the worker's data directory writable; streaming goes on by itself.")
	StagedLost             = define("StagedLost", Transient, "What was published of a large transaction while it was in progress is no longer kept.", "Nothing: the transaction is read again. Raise retainSeconds in the source's policy if transactions take longer than that.")
	BadRecord              = define("BadRecord", Data, "A record cannot be decoded.", "Look at the record in the dead letters.")
)

// Codes of queries, their state and of reactions.
var (
	IndexLocked       = define("IndexLocked", Transient, "The query's index is opened by another process.", "Nothing: it is tried again.")
	DiskFull          = define("DiskFull", Transient, "A disk is full.", "Free space; work goes on by itself.")
	SourceMissing     = define("SourceMissing", Transient, "A source that the query names has no change stream yet.", "Start the source; the query goes on by itself.")
	QueryMissing      = define("QueryMissing", Transient, "A query that is asked for has no result stream yet.", "Start the query; the reaction goes on by itself.")
	StateLost         = define("StateLost", Invalidated, "A query's state is gone, and the query may not read its sources.", "Delete the query and start it again: it begins empty. With bootstrap: auto, which reconfigure can give it, it reads its sources by itself.")
	ChangesLost       = define("ChangesLost", Invalidated, "Changes of a source are lost, and the query may not read the source again.", "Delete the query and start it again; with bootstrap: auto it reads its sources again by itself.")
	RowFailed         = define("RowFailed", Data, "An expression failed for a row.", "See the row's element ids in the query's errors.")
	PatternUnbounded  = define("PatternUnbounded", Configuration, "A variable-length pattern has more ways around one changed element than the query may follow.", "Give the pattern an upper bound or conditions on its relationships, or raise limits.pathSteps in the query's spec.")
	TooManyRows       = define("TooManyRows", Configuration, "One change makes more rows than the query may handle at once.", "Connect the parts of the pattern with each other, or raise limits.rows in the query's spec.")
	PropertyGone      = define("PropertyGone", Configuration, "A column that the query reads was renamed or dropped.", "Correct the query's text and send it again with the signal reconfigure; or signal rebootstrap to go on without the property.")
	TableChanged      = define("TableChanged", Invalidated, "A table that the query reads changed in a way that no changes of its rows tell.", "Signal rebootstrap to read the tables anew.")
	LetterMissing     = define("LetterMissing", Data, "There is no dead letter of that number.", "List the dead letters; it may have been retried or dropped meanwhile.")
	PlaceInvalid      = define("PlaceInvalid", Data, "A command names an event of a query that a reaction cannot skip, or begin behind.", "Name the event that the message gives; the reaction's status says which one it cannot get past.")
	DeliveryFailed    = define("DeliveryFailed", Transient, "A reaction's target did not take a result.", "Check the target; delivery goes on by itself.")
	DeliveryRejected  = define("DeliveryRejected", Data, "A reaction's target refuses a result for good.", "Look at the result in the dead letters.")
	DeliveryExhausted = define("DeliveryExhausted", Configuration, "A reaction's target did not take a result within the bounds of delivery.retry, and the spec says to stop then.", "Check the target, then signal resume; signal skip to go on without that one result; or send a spec with wider bounds, with none, or with onExhausted: deadLetter with the signal reconfigure.")
	QueryNotReady     = define("QueryNotReady", Transient, "A query that is asked for has results but does not run at present: it starts, is being built or is stopped.", "Ask again in a moment; if it persists, look at the status of the query.")
	TemplateInvalid   = define("TemplateInvalid", Configuration, "A reaction's template does not compile.", "Correct the template at the position shown, then signal reconfigure.")
)

// Codes of the control plane.
var (
	NoHost           = define("NoHost", Transient, "No worker is alive that could run the component.", "Start a worker; the component goes on by itself.")
	ComponentMissing = define("ComponentMissing", Transient, "A component of an instance has no workflow that runs.", "Signal resume to the instance, which starts it again, or apply a spec without the component.")
	ComponentRefused = define("ComponentRefused", Transient, "A component did not do what its instance asked for.", "Look at the component's own status; then signal resume to the instance, or delete once more.")
	ComponentSilent  = define("ComponentSilent", Transient, "The workflow of a component does not answer.", "Check that workers run, and that the component's workflow was started on the task queue perdure.")
	HostRestarted    = define("HostRestarted", Transient, "The process that ran the component ended without handing over.", "Nothing: the next attempt is under way. If it recurs, find out what ends the process.")
	WorkerStopping   = define("WorkerStopping", Transient, "The worker that ran the component stops.", "Nothing: another worker goes on.")
)
