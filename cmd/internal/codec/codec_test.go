package codec_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cmd/internal/codec"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/workflows"
)

// key returns the line of a key, always the same for a letter.
func key(letter string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32))) + "\n"
}

func of(t *testing.T, keys string) *codec.Codec {
	t.Helper()
	c, err := codec.New(keys)
	require.NoError(t, err)
	return c
}

type value struct{ Table string }

func TestRoundTrip(t *testing.T) {
	data := of(t, key("a")).DataConverter()
	for _, v := range []any{value{"public.orders"}, []byte("public.orders"), nil, "public.orders"} {
		payload, err := data.ToPayload(v)
		require.NoError(t, err)
		require.Equal(t, workflows.EncodingEncrypted, string(payload.Metadata[converter.MetadataEncoding]))
		raw, err := proto.Marshal(payload)
		require.NoError(t, err)
		require.NotContains(t, string(raw), "orders")
		again, err := data.ToPayload(v)
		require.NoError(t, err)
		require.NotEqual(t, payload.Data, again.Data, "equal values do not look equal")
	}
	payloads, err := data.ToPayloads(value{"public.orders"}, 7)
	require.NoError(t, err)
	var v value
	var n int
	require.NoError(t, data.FromPayloads(payloads, &v, &n))
	require.Equal(t, value{"public.orders"}, v)
	require.Equal(t, 7, n)
	require.Equal(t, `{"Table":"public.orders"}`, data.ToString(payloads.Payloads[0]))

	// Workflows read raw values: what they get is decrypted, and not converted.
	var raw converter.RawValue
	require.NoError(t, data.FromPayload(payloads.Payloads[0], &raw))
	require.JSONEq(t, `{"Table":"public.orders"}`, string(raw.Payload().Data))
}

func TestPlainPayloadsPassThrough(t *testing.T) {
	plain, err := converter.GetDefaultDataConverter().ToPayload(value{"public.orders"})
	require.NoError(t, err)
	for _, data := range []converter.DataConverter{of(t, key("a")).DataConverter(), (*codec.Codec)(nil).DataConverter()} {
		var v value
		require.NoError(t, data.FromPayload(plain, &v))
		require.Equal(t, value{"public.orders"}, v)
	}
	same, err := (*codec.Codec)(nil).DataConverter().ToPayload(value{"public.orders"})
	require.NoError(t, err)
	require.True(t, proto.Equal(plain, same), "without keys nothing changes")
}

// TestKeysRotate: the first key encrypts, and all decrypt.
func TestKeysRotate(t *testing.T) {
	payload, err := of(t, key("a")).DataConverter().ToPayload("x")
	require.NoError(t, err)
	both := of(t, key("b")+"\n"+key("a")).DataConverter()
	var text string
	require.NoError(t, both.FromPayload(payload, &text))
	require.Equal(t, "x", text)
	newer, err := both.ToPayload("y")
	require.NoError(t, err)
	require.NoError(t, of(t, key("b")).DataConverter().FromPayload(newer, &text))
	require.Equal(t, "y", text)
}

func TestMissingKey(t *testing.T) {
	payload, err := of(t, key("a")).DataConverter().ToPayload("x")
	require.NoError(t, err)
	id := string(payload.Metadata[workflows.MetadataKey])
	for _, c := range []*codec.Codec{of(t, key("b")), nil} {
		data := c.DataConverter()
		var text string
		err = data.FromPayload(payload, &text)
		require.Equal(t, failure.SecretMissing, failure.CodeOf(err))
		require.ErrorContains(t, err, "a payload is encrypted with key "+id)
		require.Contains(t, data.ToString(payload), id)

		// In a workflow the task fails, and is done where the key is; an error would be taken for the result.
		within := data.(converter.ContextAware).WithWorkflowContext(nil)
		require.PanicsWithError(t, err.Error(), func() { _ = within.FromPayload(payload, &text) })
	}
}

func TestChangedPayloadsAreRefused(t *testing.T) {
	data := of(t, key("a")+key("b")).DataConverter()
	payload, err := data.ToPayload("x")
	require.NoError(t, err)
	other, err := of(t, key("b")).DataConverter().ToPayload("y")
	require.NoError(t, err)
	for name, change := range map[string]func(*commonpb.Payload){
		"a bit":           func(p *commonpb.Payload) { p.Data[len(p.Data)/2] ^= 1 },
		"cut off":         func(p *commonpb.Payload) { p.Data = p.Data[:5] },
		"nothing left":    func(p *commonpb.Payload) { p.Data = nil },
		"of another key":  func(p *commonpb.Payload) { p.Metadata[workflows.MetadataKey] = other.Metadata[workflows.MetadataKey] },
		"another's bytes": func(p *commonpb.Payload) { p.Data = other.Data },
	} {
		changed := proto.Clone(payload).(*commonpb.Payload)
		change(changed)
		var text string
		require.ErrorContains(t, data.FromPayload(changed, &text), "was changed since", name)
		require.Empty(t, text, name)
	}
}

func TestFailuresAreEncrypted(t *testing.T) {
	var o client.Options
	of(t, key("a")).Apply(&o)
	err := temporal.NewApplicationErrorWithOptions("relation public.orders is gone", "TableMissing", temporal.ApplicationErrorOptions{
		Details: []any{failure.Report{Code: "TableMissing", Message: "relation public.orders is gone"}},
	})
	f := o.FailureConverter.ErrorToFailure(err)
	raw, marshalErr := proto.Marshal(f)
	require.NoError(t, marshalErr)
	require.NotContains(t, string(raw), "orders")
	back := o.FailureConverter.FailureToError(f)
	require.ErrorContains(t, back, "relation public.orders is gone")
	var application *temporal.ApplicationError
	require.True(t, errors.As(back, &application))
	var report failure.Report
	require.NoError(t, application.Details(&report))
	require.Equal(t, "relation public.orders is gone", report.Message)
}

func TestKeysThatAreNone(t *testing.T) {
	for _, secret := range []string{"", "\n", "hunter2", key("a") + "c2hvcnQ=\n"} {
		_, err := codec.New(secret)
		require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err), secret)
		require.NotContains(t, err.Error(), "hunter2")
	}
	c, err := codec.Open(component.Secret{})
	require.NoError(t, err)
	require.Nil(t, c)
	_, err = codec.Open(component.SecretOf("file:/nowhere"))
	require.Equal(t, failure.SecretMissing, failure.CodeOf(err))
	file := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(file, []byte(key("a")), 0o600))
	_, err = codec.Open(component.SecretOf("file:" + file))
	require.NoError(t, err)
}

// TestEndpoint speaks to the endpoint as Temporal's clients do.
func TestEndpoint(t *testing.T) {
	const ui = "http://127.0.0.1:8233"
	handler := of(t, key("a")).Handler(ui)
	server := httptest.NewServer(handler)
	defer server.Close()
	remote := converter.NewRemoteDataConverter(converter.GetDefaultDataConverter(), converter.RemoteDataConverterOptions{Endpoint: server.URL + "/codec"})
	data := of(t, key("a")).DataConverter()
	payload, err := data.ToPayload("x")
	require.NoError(t, err)
	var text string
	require.NoError(t, remote.FromPayload(payload, &text))
	require.Equal(t, "x", text)
	payload, err = remote.ToPayload("y")
	require.NoError(t, err)
	require.Equal(t, workflows.EncodingEncrypted, string(payload.Metadata[converter.MetadataEncoding]))
	require.NoError(t, data.FromPayload(payload, &text))
	require.Equal(t, "y", text)

	changed := proto.Clone(payload).(*commonpb.Payload)
	changed.Data[20] ^= 1
	require.Error(t, remote.FromPayload(changed, &text))

	body, err := protojson.Marshal(&commonpb.Payloads{Payloads: []*commonpb.Payload{payload}})
	require.NoError(t, err)
	ask := func(method, origin, from string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/codec/decode", bytes.NewReader(body))
		r.RemoteAddr = from
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	require.Equal(t, http.StatusOK, ask(http.MethodPost, "", "[::1]:1").Code)
	require.Equal(t, http.StatusForbidden, ask(http.MethodPost, "", "10.0.0.1:1").Code)
	require.Equal(t, http.StatusForbidden, ask(http.MethodPost, "http://evil.example.com", "127.0.0.1:1").Code)
	preflight := ask(http.MethodOptions, ui, "127.0.0.1:1")
	require.Equal(t, http.StatusNoContent, preflight.Code)
	require.Equal(t, ui, preflight.Header().Get("Access-Control-Allow-Origin"))
	require.Contains(t, preflight.Header().Get("Access-Control-Allow-Headers"), "X-Namespace")
	require.Equal(t, ui, ask(http.MethodPost, ui, "127.0.0.1:1").Header().Get("Access-Control-Allow-Origin"))
}
