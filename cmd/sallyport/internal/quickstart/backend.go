package quickstart

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// Backend returns the demo backend. It answers every call with JSON of what it received: method, path (raw), query (raw,
// without the question mark), headers (name to list of values, Host among them), body_bytes, and count, the calls that
// all handlers of this Demo have received so far, this one included. Bodies are counted and thrown away as they come.
func (d *Demo) Backend() http.Handler { return &d.backend }

type backend struct{ calls atomic.Uint64 }

// An echo is what the backend says it received.
type echo struct {
	Method    string              `json:"method"`
	Path      string              `json:"path"`
	Query     string              `json:"query"`
	Headers   map[string][]string `json:"headers"`
	BodyBytes int64               `json:"body_bytes"`
	Count     uint64              `json:"count"`
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	count := b.calls.Add(1)
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "the body broke off"})
		return
	}
	headers := map[string][]string(r.Header.Clone())
	if headers == nil {
		headers = map[string][]string{}
	}
	headers["Host"] = []string{r.Host} // net/http keeps it apart
	path, query := rawTarget(r)
	writeJSON(w, http.StatusOK, echo{
		Method: r.Method, Path: path, Query: query, Headers: headers, BodyBytes: size, Count: count,
	})
}

// rawTarget splits the request target as it came over the wire.
func rawTarget(r *http.Request) (path, query string) {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, query, _ = strings.Cut(r.RequestURI, "?")
		return path, query
	}
	return r.URL.EscapedPath(), r.URL.RawQuery // absolute form, or "*"
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.Encode(v) // an error means that the caller is gone
}
