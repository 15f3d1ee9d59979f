package decision

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"

	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/policy"
	"sallyport/policy/token"
)

// What of a request goes on to the server, whoever carries it and whatever the server speaks. *Exchange is a
// backend.Request.
var _ backend.Request = (*Exchange)(nil)

// Method implements backend.Request.
func (x *Exchange) Method() string { return x.Request.Method }

// AppendHead implements backend.Request.
func (x *Exchange) AppendHead(b []byte, s *backend.Server) []byte {
	b = x.appendStart(b, s)
	bearerStays := x.bearerStays()
	fields := x.Request.Fields
	for i := range fields {
		name, value := fields[i].Name, fields[i].Value
		if !x.goesOn(name) || x.Request.Named(name) || x.counts(name) {
			continue
		}
		if bearerStays && len(name) == len("Authorization") && strings.EqualFold(name, "Authorization") {
			if value = token.WithoutBearer(value); value == "" {
				continue
			}
		}
		b = http1.AppendField(b, name, value)
	}
	return x.appendOwn(b)
}

// Trailer implements backend.Request.
func (x *Exchange) Trailer() []string { return x.Request.Values("Trailer") }

// MayTrail implements backend.Request: no managed header comes in as a trailer.
func (x *Exchange) MayTrail(name string) bool {
	return message.MayTrail(name) && !isManaged(name, x.Snapshot.Routes.certificateHeader)
}

// Upgrade is the protocol that the call asks to switch to, if its server may be asked: a WebSocket (RFC 6455 section
// 4.1). Any other protocol would be a tunnel that nobody looks into.
func (x *Exchange) Upgrade() string {
	if !x.Request.Upgrade {
		return ""
	}
	asked := x.Request.Values("Upgrade")
	if len(asked) != 1 || !strings.EqualFold(asked[0], "websocket") || x.Request.Method != "GET" || x.Request.Length != 0 || !x.Group.HTTP1() {
		return ""
	}
	return "websocket"
}

// appendStart appends the request line and the host.
func (x *Exchange) appendStart(b []byte, s *backend.Server) []byte {
	// The path that was judged is the path that is sent.
	b = append(b, x.Request.Method...)
	b = append(b, ' ')
	b = s.AppendPath(b, x.ResourcePath)
	if x.HasQuery {
		b = append(b, '?')
		b = append(b, x.Query...)
	}
	b = append(b, " HTTP/1.1\r\n"...)
	host := s.Authority
	if x.Route.Upstream.PreserveHost {
		host = x.Request.Authority()
	}
	return http1.AppendField(b, "Host", host)
}

// bearerStays reports whether bearer tokens are meant for the gateway, and stay here. Other credentials beside them are
// the server's.
func (x *Exchange) bearerStays() bool {
	return x.Route.Security.Token != policy.Off && !x.Route.ForwardAuthorization
}

// goesOn reports whether a field of the client's goes on to the server.
func (x *Exchange) goesOn(name string) bool {
	return (len(name) != len("Host") || !strings.EqualFold(name, "Host")) && !message.HopByHop(name) &&
		!isManaged(name, x.Snapshot.Routes.certificateHeader)
}

// appendOwn appends what the gateway says itself. The client's Connection field cannot take it away: it names fields of
// the client's only.
func (x *Exchange) appendOwn(b []byte) []byte {
	for _, v := range x.Request.Values("Te") {
		if hasToken(v, "trailers") {
			b = http1.AppendField(b, "Te", "trailers")
			break
		}
	}
	b = x.appendOrigin(b)
	if x.forwards > 0 {
		b = append(b, "Max-Forwards: "...)
		b = strconv.AppendUint(b, x.forwards-1, 10)
		b = append(b, "\r\n"...)
	}
	b = http1.AppendField(b, "X-Request-Id", x.ID)
	b = append(b, "Via: "...)
	b = append(b, x.Request.Version...)
	b = append(b, ' ')
	b = append(b, x.decider.via...)
	b = append(b, "\r\n"...)
	if x.Client != nil {
		b = http1.AppendField(b, "X-Sallyport-Client", headerText(x.Client.Alias))
		b = append(b, "X-Client-Cert-Hash: "...)
		b = hex.AppendEncode(b, x.Certificate.Fingerprint[:])
		b = append(b, "\r\n"...)
		if settings := &x.Snapshot.Routes.settings; settings.ForwardCertificate {
			b = http1.AppendField(b, settings.CertificateHeader, x.certificateText())
		}
	}
	if x.Claims != nil {
		b = http1.AppendField(b, "X-Sallyport-Subject", headerText(x.Claims.Subject))
	}
	return b
}

// origin is where the call comes from: the addresses before the connection's, each followed by a comma, host and scheme as
// the client has them, and the trace that the call is part of, if any. Only a load balancer is believed about these.
func (x *Exchange) origin() (before, host, proto, trace string) {
	r := x.Request
	host, proto = r.Authority(), "http"
	if x.Listener.Profiles != nil {
		proto = "https"
	}
	if !x.Balancer {
		return before, host, proto, trace
	}
	if v := strings.Join(r.Values("X-Forwarded-For"), ", "); strings.Trim(v, ", \t") != "" {
		before = v + ", "
	}
	if v := r.Values("X-Forwarded-Host"); len(v) == 1 {
		host = v[0]
	}
	if v := r.Values("X-Forwarded-Proto"); len(v) == 1 && (v[0] == "http" || v[0] == "https") {
		proto = v[0]
	}
	if v := r.Values("Traceparent"); len(v) == 1 && traceparent(v[0]) {
		trace = v[0]
	}
	return before, host, proto, trace
}

// appendOrigin tells the backend where the call comes from.
func (x *Exchange) appendOrigin(b []byte) []byte {
	before, host, proto, trace := x.origin()
	b = append(b, "X-Forwarded-For: "...)
	b = append(b, before...)
	b = x.from().AppendTo(b)
	b = append(b, "\r\n"...)
	b = http1.AppendField(b, "X-Forwarded-Host", host)
	b = http1.AppendField(b, "X-Forwarded-Proto", proto)
	if prefix := x.prefix(); prefix != "" {
		b = http1.AppendField(b, "X-Forwarded-Prefix", prefix)
	}
	if trace != "" {
		for _, v := range x.Request.Values("Tracestate") {
			b = http1.AppendField(b, "Tracestate", v)
		}
		return http1.AppendField(b, "Traceparent", trace)
	}
	b = append(b, "Traceparent: 00-"...)
	b = append(b, x.ID...)
	b = append(b, '-')
	var span [8]byte
	binary.LittleEndian.PutUint64(span[:], rand.Uint64()|1)
	b = hex.AppendEncode(b, span[:])
	return append(b, "-00\r\n"...)
}

// prefix is what was cut off the path, as it was received: a server that makes links puts it before its own paths.
func (x *Exchange) prefix() string { return x.Path[:len(x.Path)-len(x.ResourcePath)] }

// certificateText is the caller's certificate as backends get it. Spaces and pluses are escaped, so that readers who
// take a plus for a space see the same as those who do not.
func (x *Exchange) certificateText() string {
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x.Certificate.Leaf.Raw})
	return strings.ReplaceAll(url.QueryEscape(string(block)), "+", "%20")
}

// traceparent reports whether v is a version 00 traceparent, W3C Trace Context section 3.2.
func traceparent(v string) bool {
	if len(v) != 55 || v[:3] != "00-" || v[35] != '-' || v[52] != '-' {
		return false
	}
	for i := 3; i < len(v); i++ {
		if c := v[i]; c != '-' && !('0' <= c && c <= '9') && !('a' <= c && c <= 'f') {
			return false
		}
	}
	return strings.Count(v, "-") == 3 && strings.Trim(v[3:35], "0") != "" && strings.Trim(v[36:52], "0") != ""
}

// hasToken reports whether a list of tokens, perhaps with parameters, has that one.
func hasToken(list, token string) bool {
	for one := range strings.SplitSeq(list, ",") {
		one, _, _ = strings.Cut(one, ";")
		if strings.EqualFold(strings.Trim(one, " \t"), token) {
			return true
		}
	}
	return false
}

// managed are the request headers that only the gateway, or nobody, may set towards a backend, as message.Fold has them.
// A "*" at the end stands for any rest.
var managed = append(clientcert.Headers(),
	"x-sallyport-*", "x-jwt-assertion", "x-remote-user", // who calls
	"x-forwarded-*", "forwarded", "x-real-ip", "x-request-id", "traceparent", "tracestate", // from where, and which call
	"proxy", "proxy-*", "x-original-uri", "x-original-url", "x-rewrite-url", // what other proxies and CGI believe
)

// isManaged reports whether a header is managed, in any spelling, or is the configured certificate header, believed or
// not. That one is given as message.Fold.
func isManaged(name, certificateHeader string) bool {
	var space [64]byte // more than any name of managed has
	if most := max(len(space), len(certificateHeader)+1); len(name) > most {
		name = name[:most] // what is longer can only begin like one of them
	}
	folded := message.AppendFold(space[:0], name)
	if string(folded) == certificateHeader || message.Framing(string(folded)) && !strings.EqualFold(string(folded), name) {
		return true
	}
	if len(folded) == 0 {
		return false
	}
	for _, m := range managedByLetter[folded[0]] {
		prefix, wild := strings.CutSuffix(m, "*")
		if wild && strings.HasPrefix(string(folded), prefix) || string(folded) == m {
			return true
		}
	}
	return false
}

// managedByLetter are the names of managed by their first letter: no header is compared with all of them.
var managedByLetter = func() (list [256][]string) {
	for _, m := range managed {
		list[m[0]] = append(list[m[0]], m)
	}
	return list
}()

// headerText is a name from outside as a header value: as it is if it is plain visible ASCII, else percent-encoded
// (RFC 3986 section 2.1), so that it can neither break the line nor be taken for another name.
func headerText(s string) string {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' || c == ',' || c == '"' {
			return url.PathEscape(s)
		}
	}
	return s
}
