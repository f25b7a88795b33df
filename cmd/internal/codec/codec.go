// Package codec encrypts what Perdure writes into the histories of its workflows, for those who do not run Temporal
// themselves: inputs, signals, results, heartbeats, summaries, and the messages of failures. Names, ids, search attributes and
// the types of failures stay readable: the server needs them.
//
// What is not encrypted is read as it is, so that plain JSON typed into a client works as before. A process without the key
// of a payload fails the workflow task that needs it, which another process then does: were it to go on with an error instead,
// the history could not be replayed where the key is.
package codec

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/workflows"
)

const keySize = 32 // AES-256

// Codec encrypts payloads with the first of its keys and decrypts them with the one that their metadata names. A nil Codec
// encrypts nothing. It is safe for concurrent use.
type Codec struct {
	first string
	keys  map[string]cipher.AEAD // by id
}

// Open reads the keys that a setting refers to; without one, the codec is nil.
func Open(keys component.Secret) (*Codec, error) {
	if keys.IsZero() {
		return nil, nil //nolint:nilnil // encrypts nothing
	}
	secret, err := keys.Resolve(component.ResolveSecret)
	if err != nil {
		return nil, fmt.Errorf("payloadKeys: %w", err)
	}
	return New(secret)
}

// New reads keys from the content of a secret: one a line, 32 random bytes in base64.
func New(secret string) (*Codec, error) {
	c := &Codec{keys: make(map[string]cipher.AEAD)}
	for n, line := range strings.Split(secret, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keySize {
			return nil, failure.ConfigInvalid.Errorf("payloadKeys: line %d of the secret is not %d bytes in base64", n+1, keySize).
				WithFix("Make a key with: openssl rand -base64 32.")
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		id := idOf(key)
		if c.first == "" {
			c.first = id
		}
		c.keys[id] = aead
	}
	if c.first == "" {
		return nil, failure.ConfigInvalid.Errorf("payloadKeys: the secret holds no key").WithFix("Make a key with: openssl rand -base64 32.")
	}
	return c, nil
}

// idOf names a key without telling it: keys are random, so nobody finds one by its hash.
func idOf(key []byte) string {
	sum := sha256.Sum256(append([]byte("perdure payload key "), key...))
	return hex.EncodeToString(sum[:8])
}

// Apply makes a client, and the workers that use it, encrypt, failures included.
func (c *Codec) Apply(o *client.Options) {
	o.DataConverter = c.DataConverter()
	o.FailureConverter = temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{
		DataConverter: o.DataConverter, EncodeCommonAttributes: c != nil,
	})
}

// DataConverter returns what Apply gives the client.
func (c *Codec) DataConverter() converter.DataConverter {
	return dataConverter{c.converter(false), c.converter(true)}
}

func (c *Codec) converter(inWorkflow bool) converter.DataConverter {
	parent := converter.NewCompositeDataConverter(
		converter.NewNilPayloadConverter(), converter.NewByteSlicePayloadConverter(),
		converter.NewProtoJSONPayloadConverter(), converter.NewProtoPayloadConverter(),
		sealed{inWorkflow}, converter.NewJSONPayloadConverter()) // as the SDK's, but for ours
	if c == nil {
		return parent
	}
	return converter.NewCodecDataConverter(parent, c)
}

// dataConverter is another one in the code of workflows.
type dataConverter struct {
	converter.DataConverter
	inWorkflow converter.DataConverter
}

var _ workflow.ContextAware = dataConverter{}

// WithWorkflowContext implements workflow.ContextAware.
func (d dataConverter) WithWorkflowContext(workflow.Context) converter.DataConverter {
	return d.inWorkflow
}

// WithContext implements workflow.ContextAware.
func (d dataConverter) WithContext(context.Context) converter.DataConverter { return d }

// Encode implements converter.PayloadCodec.
func (c *Codec) Encode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	return each(payloads, func(p *commonpb.Payload) (*commonpb.Payload, error) {
		if string(p.GetMetadata()[converter.MetadataEncoding]) == workflows.EncodingEncrypted {
			return p, nil // passed on as it came
		}
		plain, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encrypting a payload: %w", err)
		}
		return &commonpb.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(workflows.EncodingEncrypted), workflows.MetadataKey: []byte(c.first)},
			Data:     c.keys[c.first].Seal(nil, nil, plain, []byte(c.first)),
		}, nil
	})
}

// Decode implements converter.PayloadCodec. What another key encrypted stays as it is: who needs to read it says then that
// it cannot, and who shows a history shows the rest.
func (c *Codec) Decode(payloads []*commonpb.Payload) ([]*commonpb.Payload, error) {
	return each(payloads, func(p *commonpb.Payload) (*commonpb.Payload, error) {
		id := string(p.GetMetadata()[workflows.MetadataKey])
		aead, ok := c.keys[id]
		if !ok || string(p.GetMetadata()[converter.MetadataEncoding]) != workflows.EncodingEncrypted {
			return p, nil
		}
		plain, err := aead.Open(nil, nil, p.GetData(), []byte(id))
		if err != nil {
			return nil, fmt.Errorf("a payload that key %s encrypted was changed since: %w", id, err)
		}
		open := new(commonpb.Payload)
		if err := proto.Unmarshal(plain, open); err != nil {
			return nil, fmt.Errorf("reading what key %s encrypted: %w", id, err)
		}
		return open, nil
	})
}

func each(payloads []*commonpb.Payload, change func(*commonpb.Payload) (*commonpb.Payload, error)) ([]*commonpb.Payload, error) {
	changed := make([]*commonpb.Payload, len(payloads))
	for i, p := range payloads {
		var err error
		if changed[i], err = change(p); err != nil {
			return nil, err
		}
	}
	return changed, nil
}

// sealed is the converter of payloads that stayed encrypted: nothing becomes one, and none can be read.
type sealed struct{ inWorkflow bool }

var _ converter.PayloadConverter = sealed{}

// ToPayload implements converter.PayloadConverter.
func (sealed) ToPayload(any) (*commonpb.Payload, error) { return nil, nil } //nolint:nilnil // the next converter takes it

// FromPayload implements converter.PayloadConverter.
func (s sealed) FromPayload(p *commonpb.Payload, _ any) error {
	err := workflows.MissingKey(p)
	if s.inWorkflow {
		panic(err) // fails the workflow task
	}
	return err
}

// ToString implements converter.PayloadConverter.
func (sealed) ToString(p *commonpb.Payload) string { return workflows.MissingKey(p).Error() }

// Encoding implements converter.PayloadConverter.
func (sealed) Encoding() string { return workflows.EncodingEncrypted }
