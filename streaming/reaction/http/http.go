package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/telemetry"
)

// Factory makes http reactions.
type Factory struct{}

// Config is what a spec may say.
type Config struct {
	URL     string            `json:"url" doc:"Where to post to." required:"true"`
	Token   component.Secret  `json:"token" doc:"Bearer token, as a reference such as {\"$secret\":\"env:HOOK_TOKEN\"}; it is read anew for each post."`
	Headers map[string]string `json:"headers" doc:"Further headers. They are shown wherever the spec is: no secrets."`
}

// reserved are the headers that the reaction sets itself.
var reserved = []string{
	"Authorization", "Content-Type", "Content-Length", "Host", "Idempotency-Key", "Perdure-Query", "Perdure-Sequence", "Traceparent",
}

// Validate implements component.Validator.
func (c *Config) Validate(p *component.Problems) {
	switch u, err := url.Parse(c.URL); {
	case err != nil:
		p.Addf("url", "cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		p.Addf("url", "must begin with http:// or https:// and a host")
	case u.User != nil:
		p.Addf("url", "must hold no user or password: give token")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		switch value := c.Headers[name]; {
		case !httpguts.ValidHeaderFieldName(name):
			p.Addf("headers", "%q is not the name of a header", name)
		case slices.Contains(reserved, http.CanonicalHeaderKey(name)):
			p.Addf("headers."+name, "is set by the reaction")
		case !httpguts.ValidHeaderFieldValue(value):
			p.Addf("headers."+name, "must hold no control characters")
		}
	}
}

// Kind implements reaction.Factory.
func (Factory) Kind() string { return "http" }

// New implements reaction.Factory.
func (Factory) New(config json.RawMessage, s reaction.Settings) (reaction.Reaction, error) {
	var c Config
	if err := component.DecodeConfig(config, &c); err != nil {
		return nil, err
	}
	transport, _ := http.DefaultTransport.(*http.Transport)
	transport = transport.Clone()
	transport.MaxIdleConnsPerHost = 64 // as many as there are lanes at most
	return &poster{config: c, settings: s, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// poster implements reaction.Deliverer.
type poster struct {
	config   Config
	settings reaction.Settings
	client   *http.Client
}

// Deliver implements reaction.Deliverer.
func (p *poster) Deliver(ctx context.Context, d reaction.Delivery) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.config.URL, bytes.NewReader(p.body(d)))
	if err != nil {
		return failure.ConfigInvalid.Errorf("url: %w", err)
	}
	token, err := p.config.Token.Resolve(p.settings.Secret)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if !httpguts.ValidHeaderFieldValue(token) {
		return failure.ConfigInvalid.Errorf("token: what %s refers to holds control characters", p.config.Token).
			WithFix("Store the token alone, as one line, where the reference names it, then signal resume.")
	}
	for name, value := range p.config.Headers {
		request.Header.Set(name, value)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", d.Key)
	request.Header.Set("Perdure-Query", d.Query)
	request.Header.Set("Perdure-Sequence", strconv.FormatUint(d.Event.Sequence, 10))
	if parent := telemetry.TraceParent(ctx); parent != "" {
		request.Header.Set("Traceparent", parent)
	}
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := p.client.Do(request.WithContext(bounded))
	if err != nil {
		return unanswered(err)
	}
	defer func() { _ = response.Body.Close() }()                 // it was only read
	if response.StatusCode >= 200 && response.StatusCode < 300 { // taken, whatever becomes of the rest of the answer
		timer := time.AfterFunc(readFor, cancel)
		defer timer.Stop()
		_, _ = io.CopyN(io.Discard, response.Body, readMost)
		return nil
	}
	return judge(response)
}

func (p *poster) body(d reaction.Delivery) []byte {
	b := graph.AppendJSONString([]byte(`{"reaction":`), p.settings.Name)
	b = graph.AppendJSONString(append(b, `,"query":`...), d.Query)
	b = append(b, ',')
	at := len(b)
	b = d.Event.AppendJSON(b)
	return slices.Delete(b, at, at+1) // its brace
}

// Close implements reaction.Reaction.
func (p *poster) Close(context.Context) error {
	p.client.CloseIdleConnections()
	return nil
}

const (
	// readMost is how much of an answer is read, so that its connection can be used again.
	readMost = 64 << 10
	// readFor is how long the rest of an answer is read that says that the delivery was taken.
	readFor = 100 * time.Millisecond
	// quoted is how much of an answer an error repeats.
	quoted = 200
)

// judge says what an answer means that is none of 2xx.
func judge(response *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, readMost))
	code := response.StatusCode
	said := response.Status
	if text = bytes.TrimSpace(text[:min(len(text), quoted)]); len(text) > 0 {
		said += ": " + strings.ToValidUTF8(string(text), "?")
	}
	switch {
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		if wait := retryAfter(response.Header.Get("Retry-After"), time.Now()); wait > 0 {
			return failure.DeliveryFailed.Errorf("the target answered %s: %w", said, reaction.Wait(wait))
		}
		if err != nil {
			return failure.DeliveryFailed.Errorf("the target answered %s: %w", said, err)
		}
		return failure.DeliveryFailed.Errorf("the target answered %s", said)
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusProxyAuthRequired:
		return failure.AuthFailed.Errorf("the target answered %s", said).WithFix("Correct the token, or what it allows, then signal resume.")
	case code < 400:
		return failure.ConfigInvalid.Errorf("url: the target answered %s, and redirects are not followed", said).
			WithFix("Set url to where the target has moved, %s, with the signal reconfigure.", response.Header.Get("Location"))
	}
	return failure.DeliveryRejected.Errorf("the target answered %s", said)
}

// retryAfter reads a header of that name: seconds or a date. What is neither, or past, is 0.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// unanswered classifies why there was no answer. The URL, which may tell too much, is left out.
func unanswered(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return failure.ServerUntrusted.Errorf("the target's certificate: %w", err).
			WithFix("Let the worker's system trust the authority of the target's certificate, or correct the host in url, then signal resume.")
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("posting: %w", err)
	}
	return failure.DeliveryFailed.Errorf("posting: %w", err)
}
