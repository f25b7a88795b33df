package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
)

// encodedBy makes the worker decode what it gets; what the test sends, it encodes itself.
func (h *harness) encodedBy(codec converter.PayloadCodec) converter.DataConverter {
	data := converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), codec)
	h.intercepted(Interceptor(data))
	return data
}

// TestSignalsAreDecoded also where they come as plain JSON; what cannot be decoded is refused like any other mistake.
func TestSignalsAreDecoded(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	data := h.encodedBy(converter.NewZlibCodec(converter.ZlibCodecOptions{AlwaysEncode: true}))
	h.healthy()
	h.loops(sources.SourceRun, 10*time.Minute, drained, nil)
	encoded, err := data.ToPayload(map[string]string{"reason": "encoded"})
	require.NoError(t, err)
	require.NotContains(t, string(encoded.Data), "reason")
	broken := &commonpb.Payload{Metadata: encoded.Metadata, Data: []byte("?")}
	h.at(time.Minute, func() {
		h.signal(CommandPause, converter.NewRawValue(encoded))
		h.signal(CommandResume, converter.NewRawValue(broken))
		h.signal(CommandStop, map[string]string{"reason": "plain"})
	})
	h.at(20*time.Minute, func() {
		commands := h.status().Commands
		require.Len(t, commands, 3)
		require.Equal(t, []string{Applied, "encoded"}, []string{commands[0].Outcome, commands[0].Reason})
		require.Equal(t, Rejected, commands[1].Outcome)
		require.NotEmpty(t, commands[1].Error)
		require.Equal(t, []string{Applied, "plain"}, []string{commands[2].Outcome, commands[2].Reason})
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestEncryptedPayloadsWaitForTheirKey: the workflow task fails, which panics do; nothing is taken for a mistake of a person.
func TestEncryptedPayloadsWaitForTheirKey(t *testing.T) {
	encrypted := converter.NewRawValue(&commonpb.Payload{Data: []byte("?"), Metadata: map[string][]byte{
		converter.MetadataEncoding: []byte(EncodingEncrypted), MetadataKey: []byte("k7"),
	}})
	t.Run("input", func(t *testing.T) {
		h := newHarness(t, "source.default.orders")
		h.ExecuteWorkflow(TypeSource, encrypted)
		require.ErrorContains(t, h.GetWorkflowError(), "a payload is encrypted with key k7")
	})
	t.Run("signal", func(t *testing.T) {
		h := newHarness(t, "source.default.orders")
		h.healthy()
		h.loops(sources.SourceRun, 10*time.Minute, drained, nil)
		h.at(time.Minute, func() { h.signal(CommandStop, encrypted) })
		h.ExecuteWorkflow(TypeSource, input(sourceSpec))
		require.ErrorContains(t, h.GetWorkflowError(), "a payload is encrypted with key k7")
	})
}
