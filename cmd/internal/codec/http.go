package codec

import (
	"net"
	"net/http"
	"slices"

	"go.temporal.io/sdk/converter"
)

// maxRequest is more than a page of a history has.
const maxRequest = 64 << 20

// Handler serves POST <any path>/decode and /encode to Temporal's UI and command lines, as they know it: with it they show,
// and send, what only keys can read. It serves this machine alone, whatever address it listens on, and pages of the origins
// given.
func (c *Codec) Handler(origins ...string) http.Handler {
	codec := converter.NewPayloadCodecHTTPHandler(c)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			http.Error(w, "payloads are decrypted for this machine only", http.StatusForbidden)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" {
			w.Header().Add("Vary", "Origin")
			if !slices.Contains(origins, origin) {
				http.Error(w, "payloads are not decrypted for pages of "+origin, http.StatusForbidden)
				return
			}
			w.Header().Set("Access-Control-Allow-Origin", origin)
			w.Header().Set("Access-Control-Allow-Methods", http.MethodPost)
			w.Header().Set("Access-Control-Allow-Headers", "Content-Type, X-Namespace, Authorization, Authorization-Extras")
			w.Header().Set("Access-Control-Allow-Credentials", "true")
		}
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		codec.ServeHTTP(w, r)
	})
}
