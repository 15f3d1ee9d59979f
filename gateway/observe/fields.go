package observe

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/gateway/decision"
	"sallyport/internal/printable"
)

// A field is what a line of the access log may hold of a call. One that does not apply to a call adds nothing.
type field struct {
	name string
	add  func(*line, *decision.Exchange, time.Duration)
}

// always are the names that each line begins with, whatever fields are chosen.
var always = []string{"time", "level", "msg"}

// fields are all of them in the order of a line. docs/accesslog.schema.json tells what each means.
var fields = []field{
	{"id", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("id", x.ID) }},
	{"listener", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("listener", x.Listener.Name) }},
	{"client", func(w *line, x *decision.Exchange, _ time.Duration) {
		if source := x.Source(); source.IsValid() {
			var memory [2 * sha256.Size]byte
			w.word("client", source.WithZone("").AppendTo(memory[:0])) // a zone is a text from outside
		}
	}},
	{"peer", func(w *line, x *decision.Exchange, _ time.Duration) {
		var memory [2 * sha256.Size]byte
		w.word("peer", x.Peer.AppendTo(memory[:0]))
	}},
	{"protocol", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("protocol", protocols[x.Request.Version]) }},
	{"tls_version", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("tls_version", tlsVersions[x.TLS]) }},
	{"tls_cipher", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("tls_cipher", tlsCiphers[x.Cipher]) }},
	{"method", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("method", x.Request.Method) }},
	{"host", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("host", x.Request.Authority()) }},
	{"path", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("path", path(x)) }},
	{"api", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Route != nil {
			w.api(x.Route.API)
		}
	}},
	{"resource", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Resource != nil {
			w.str("resource", x.Resource.Path)
		}
	}},
	{"decision", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("decision", caller(x)) }},
	{"reason", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("reason", reason(x)) }},
	{"limit", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("limit", string(x.Limit)) }},
	{"alias", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Client != nil {
			w.str("alias", x.Client.Alias)
		}
	}},
	{"tier", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Client != nil {
			w.str("tier", x.Client.Tier)
		}
	}},
	{"fingerprint", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Certificate != nil {
			var memory [2 * sha256.Size]byte
			w.word("fingerprint", hex.AppendEncode(memory[:0], x.Certificate.Fingerprint[:]))
		}
	}},
	{"subject", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Claims != nil {
			w.str("subject", x.Claims.Subject)
		}
	}},
	{"key_manager", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Claims != nil {
			w.str("key_manager", x.Claims.KeyManager)
		}
	}},
	{"certificate_problem", func(w *line, x *decision.Exchange, _ time.Duration) {
		if err := x.CertificateProblem(); err != nil {
			w.str("certificate_problem", err.Error())
		}
	}},
	{"token_problem", func(w *line, x *decision.Exchange, _ time.Duration) {
		if err := x.TokenProblem(); err != nil {
			w.str("token_problem", err.Error())
		}
	}},
	{"problem", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Err != nil {
			w.str("problem", problem(x.Err))
		}
	}},
	{"upstream", func(w *line, x *decision.Exchange, _ time.Duration) { w.str("upstream", x.Upstream) }},
	{"retries", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Retries > 0 {
			w.integer("retries", int64(x.Retries))
		}
	}},
	{"status", func(w *line, x *decision.Exchange, _ time.Duration) { w.integer("status", int64(x.Status)) }},
	{"duration_ms", func(w *line, _ *decision.Exchange, took time.Duration) { w.float("duration_ms", milliseconds(took)) }},
	{"gateway_ms", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Ours > 0 {
			w.float("gateway_ms", milliseconds(x.Ours))
		}
	}},
	{"backend_ms", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Backend > 0 {
			w.float("backend_ms", milliseconds(x.Backend))
		}
	}},
	{"bytes_in", func(w *line, x *decision.Exchange, _ time.Duration) { w.integer("bytes_in", x.BytesIn) }},
	{"bytes_out", func(w *line, x *decision.Exchange, _ time.Duration) { w.integer("bytes_out", x.BytesOut) }},
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Words of a connection. What is not among them, as the version of a head that could not be read, is left out.
var (
	protocols   = map[string]string{"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "HTTP/2"}
	tlsVersions = map[uint16]string{tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}
	tlsCiphers  = func() map[uint16]string {
		names := map[uint16]string{} // tls.CipherSuiteName makes its list anew for each call
		for _, suite := range tls.CipherSuites() {
			names[suite.ID] = suite.Name
		}
		return names
	}()
)

// Fields are the names that log.fields may choose from, in the order of a line that has all.
func Fields() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// ParseFields checks a choice of fields.
func ParseFields(names []string) ([]string, error) {
	for _, name := range names {
		switch {
		case slices.Contains(always, name):
			return nil, fmt.Errorf("%s is in every line: leave it out", name)
		case !slices.Contains(Fields(), name):
			return nil, fmt.Errorf("%s is no field of the access log, which are %s", printable.Quote(name), strings.Join(Fields(), ", "))
		}
	}
	return names, nil
}

// chosen returns the fields of these names, in their order; all without any.
func chosen(names []string) []field {
	if len(names) == 0 {
		return fields
	}
	list := make([]field, 0, len(names))
	for _, name := range names {
		if i := slices.IndexFunc(fields, func(f field) bool { return f.name == name }); i >= 0 {
			list = append(list, fields[i])
		}
	}
	return list
}
