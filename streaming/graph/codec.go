package graph

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
}

// Encoder writes messages. It is reusable and not safe for concurrent use.
type Encoder struct{ buf []byte }

// Begin starts a message.
func (e *Encoder) Begin() { panic("being built") }

// Add appends a whole transaction.
func (e *Encoder) Add(tx *Transaction) { panic("being built") }

// AddFragment appends one part of a large transaction.
func (e *Encoder) AddFragment(tx *Transaction, changes []Change, number int, last bool) {
	panic("being built")
}

// Size returns how many bytes the message has so far, about.
func (e *Encoder) Size() int { return len(e.buf) }

// Finish ends the message; the bytes are valid until the next Begin.
func (e *Encoder) Finish(position Position) []byte { panic("being built") }

// Decoder reads messages.
type Decoder struct{}

// Decode decodes one message.
func (d *Decoder) Decode(data []byte) (Message, error) { panic("being built") }

// AppendValue appends the encoding of v.
func AppendValue(dst []byte, v Value) []byte { panic("being built") }

// DecodeValue decodes what AppendValue wrote.
func DecodeValue(src []byte) (Value, []byte, error) { panic("being built") }

// AppendElement appends the self-contained encoding of e.
func AppendElement(dst []byte, e *Element) []byte { panic("being built") }

// DecodeElement decodes what AppendElement wrote.
func DecodeElement(src []byte) (*Element, []byte, error) { panic("being built") }
