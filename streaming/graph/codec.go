package graph

// The wire format of batches, elements and values.
//
//	message     = version transactions:u32 changes:u32 values:u32 { transaction } end position
//	transaction = tag position seconds nanoseconds [ fragment ] count { change } [ count { schema } ]
//	            | tag position seconds nanoseconds key from to messages bytes
//	change      = flags [ labels ] [ shape ] id [ start end ] [ count { value } ]
//	labels      = 0 count { string } | reference
//	shape       = 0 count { string } | reference
//	schema      = operation count { label } table property from to state
//	element     = flags id [ start end ] count { label } [ count { name } ] [ count { value } ]
//	value       = kind and three bits, content by kind
//
// Numbers are varints, signed ones zigzag, and as short as can be unless their place was taken before they were known;
// strings are a length and bytes. The three totals in front are little-endian and let a decoder allocate once. A label
// set or shape is written out where a message first uses it, by reference (counted from 1) after that, and not at all
// where it is the one of the change before.
//
// Version 2 is version 1 with changes of the schema. A message without them has version 1, so that readers that know no
// other go on for as long as there are none. So it is with version 3, which is version 2 with parts that are staged.
const (
	codecVersion       = 1
	codecVersionSchema = 2
	codecVersionStaged = 3
)

// headerSize is what version and totals take.
const headerSize = 1 + 3*4

// What starts a transaction of a message.
const (
	tagEnd byte = iota
	tagWhole
	tagFragment
	tagLastFragment
	tagStaged               // fragment 0, which is elsewhere
	tagSchema byte = 1 << 7 // with one of the others: changes of the schema follow
)

// Flags of changes and elements. The operation of a change is in the lowest three bits.
const (
	flagOp           byte = 7
	flagRelationship byte = 1 << 3
	flagShape        byte = 1 << 4
	flagRepeat       byte = 1 << 5 // labels and shape are those of the change before
	flagValues       byte = 1 << 6
)

// Message is a decoded batch of transactions.
type Message struct {
	// Position is how far the source is after this message: at or beyond the last transaction's.
	Position     Position
	Transactions []FragmentedTransaction
}

// FragmentedTransaction is a transaction or one numbered part of a large one; the parts are applied together when the
// last has arrived. A whole transaction is fragment 0 and last.
type FragmentedTransaction struct {
	Transaction
	Fragment int
	Last     bool
	Staged   *Staged // nil: the changes are those of the transaction
}

// Staged says where the first changes of a large transaction are: in messages of another log, since they came before it
// was known that they would count. They stand for fragment 0.
type Staged struct {
	// Key begins the ids of these messages, and of no others.
	Key string
	// From and To are the sequences between which they are, both included.
	From, To uint64
	// Messages is how many there are, and Bytes how long they are together.
	Messages, Bytes uint64
}
