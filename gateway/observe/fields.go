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
	add  func(*line, *decision.Exchange, time.Duration) // the line knows the name
}

// always are the names that each line begins with, whatever fields are chosen.
var always = []string{"time", "level", "msg"}

// fields are all of them in the order of a line. docs/accesslog.schema.json tells what each means.
var fields = []field{
	{"id", func(w *line, x *decision.Exchange, _ time.Duration) { w.str(x.ID) }},
	{"listener", func(w *line, x *decision.Exchange, _ time.Duration) { w.str(x.Listener.Name) }},
	{"client", func(w *line, x *decision.Exchange, _ time.Duration) {
		if source := x.Source(); source.IsValid() {
			var memory [2 * sha256.Size]byte
			w.bytes(source.WithZone("").AppendTo(memory[:0])) // a zone is a text from outside
		}
	}},
	{"peer", func(w *line, x *decision.Exchange, _ time.Duration) {
		var memory [2 * sha256.Size]byte
		w.bytes(x.Peer.AppendTo(memory[:0]))
	}},
	{"protocol", func(w *line, x *decision.Exchange, _ time.Duration) { w.word(protocols[x.Request.Version]) }},
	{"tls_version", func(w *line, x *decision.Exchange, _ time.Duration) { w.word(tlsVersions[x.TLS]) }},
	{"tls_cipher", func(w *line, x *decision.Exchange, _ time.Duration) { w.word(tlsCiphers[x.Cipher]) }},
	{"method", func(w *line, x *decision.Exchange, _ time.Duration) { w.str(x.Request.Method) }},
	{"host", func(w *line, x *decision.Exchange, _ time.Duration) { w.str(x.Request.Authority()) }},
	{"path", func(w *line, x *decision.Exchange, _ time.Duration) { w.str(path(x)) }},
	{"api", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Route != nil {
			w.api(x.Route.API)
		}
	}},
	{"resource", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Resource != nil {
			w.str(x.Resource.Path)
		}
	}},
	{"decision", func(w *line, x *decision.Exchange, _ time.Duration) { w.word(caller(x)) }},
	{"reason", func(w *line, x *decision.Exchange, _ time.Duration) { w.word(reason(x)) }},
	{"limit", func(w *line, x *decision.Exchange, _ time.Duration) { w.word(string(x.Limit)) }},
	{"alias", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Client != nil {
			w.str(x.Client.Alias)
		}
	}},
	{"tier", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Client != nil {
			w.str(x.Client.Tier)
		}
	}},
	{"fingerprint", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Certificate != nil {
			var memory [2 * sha256.Size]byte
			w.bytes(hex.AppendEncode(memory[:0], x.Certificate.Fingerprint[:]))
		}
	}},
	{"subject", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Claims != nil {
			w.str(x.Claims.Subject)
		}
	}},
	{"key_manager", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Claims != nil {
			w.str(x.Claims.KeyManager)
		}
	}},
	{"certificate_problem", func(w *line, x *decision.Exchange, _ time.Duration) {
		if err := x.CertificateProblem(); err != nil {
			w.str(err.Error())
		}
	}},
	{"token_problem", func(w *line, x *decision.Exchange, _ time.Duration) {
		if err := x.TokenProblem(); err != nil {
			w.str(err.Error())
		}
	}},
	{"problem", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Err != nil {
			w.str(problem(x.Err))
		}
	}},
	{"upstream", func(w *line, x *decision.Exchange, _ time.Duration) { w.str(x.Upstream) }},
	{"retries", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Retries > 0 {
			w.integer(int64(x.Retries))
		}
	}},
	{"status", func(w *line, x *decision.Exchange, _ time.Duration) { w.integer(int64(x.Status)) }},
	{"duration_ms", func(w *line, _ *decision.Exchange, took time.Duration) { w.milliseconds(took) }},
	{"gateway_ms", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Ours > 0 {
			w.milliseconds(x.Ours)
		}
	}},
	{"backend_ms", func(w *line, x *decision.Exchange, _ time.Duration) {
		if x.Backend > 0 {
			w.milliseconds(x.Backend)
		}
	}},
	{"bytes_in", func(w *line, x *decision.Exchange, _ time.Duration) { w.integer(x.BytesIn) }},
	{"bytes_out", func(w *line, x *decision.Exchange, _ time.Duration) { w.integer(x.BytesOut) }},
}

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

// A column is a field as it stands in the lines of one log.
type column struct {
	key string // with what stands before and behind it
	add func(*line, *decision.Exchange, time.Duration)
}

// columns returns the fields of these names, in their order, for lines of JSON or of text; all without any name.
func columns(names []string, text bool) []column {
	if len(names) == 0 {
		names = Fields()
	}
	list := make([]column, 0, len(names))
	for _, name := range names {
		if i := slices.IndexFunc(fields, func(f field) bool { return f.name == name }); i >= 0 {
			list = append(list, column{key(name, text), fields[i].add})
		}
	}
	return list
}

func key(name string, text bool) string {
	if text {
		return " " + name + "="
	}
	return `,"` + name + `":`
}
