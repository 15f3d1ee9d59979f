package gateway

import (
	"encoding/hex"
	"encoding/pem"
	"math/rand/v2"
	"net/url"
	"strings"

	"sallyport/gateway/http1"
	"sallyport/gateway/message"
	"sallyport/policy"
	"sallyport/policy/token"
)

// The head of a request to a backend of HTTP/1.1, the same whatever read the client's: appendStart, the fields that goOn,
// and appendOwn.

// appendStart appends the request line and the host.
func (x *Exchange) appendStart(b []byte, up *http1.Upstream) []byte {
	// The path that was judged is the path that is sent.
	b = append(b, x.Request.Method()...)
	b = append(b, ' ')
	b = append(b, up.Path...)
	b = append(b, x.ResourcePath...)
	if x.HasQuery {
		b = append(b, '?')
		b = append(b, x.Query...)
	}
	b = append(b, " HTTP/1.1\r\n"...)
	host := up.Authority
	if x.Route.Upstream.PreserveHost {
		host = x.Request.Authority()
	}
	return appendField(b, "Host", host)
}

// keepsBearer tells whether the backend may see the Authorization fields. A bearer token that was meant for the gateway
// stays here.
func (x *Exchange) keepsBearer() bool {
	return x.Route.Security.Token == policy.Off || x.Route.ForwardAuthorization ||
		x.Claims == nil && !carriesBearer(x.Request) // with claims it is known that it does
}

// goesOn tells whether a field of the client's goes on to the backend, unless the client's Connection field names it.
func (x *Exchange) goesOn(name string, keepsBearer bool) bool {
	switch {
	case len(name) == len("Host") && strings.EqualFold(name, "Host"), forThisHop(name), isManaged(name, x.Snapshot.Routes.certificateHeader):
		return false
	}
	return keepsBearer || len(name) != len("Authorization") || !strings.EqualFold(name, "Authorization")
}

// appendOwn appends what the gateway says itself. It stands behind what the client's Connection field has taken away, so
// that it cannot be named away. Version is that of the client's HTTP.
func (x *Exchange) appendOwn(b []byte, version, via string) []byte {
	for _, v := range x.Request.Values("Te") {
		if hasToken(v, "trailers") {
			b = appendField(b, "Te", "trailers")
			break
		}
	}
	b = x.appendOrigin(b)
	b = appendField(b, "X-Request-Id", x.ID)
	b = append(b, "Via: "...)
	b = append(b, version...)
	b = append(b, ' ')
	b = append(b, via...)
	b = append(b, "\r\n"...)
	if x.Client != nil {
		b = appendField(b, "X-Sallyport-Client", headerText(x.Client.Alias))
		b = append(b, "X-Client-Cert-Hash: "...)
		b = hex.AppendEncode(b, x.Client.Fingerprint[:])
		b = append(b, "\r\n"...)
		if settings := &x.Snapshot.Routes.settings; settings.ForwardCertificate {
			b = appendField(b, settings.CertificateHeader, x.certificateText())
		}
	}
	if x.Claims != nil {
		b = appendField(b, "X-Sallyport-Subject", headerText(x.Claims.Subject))
	}
	return b
}

// origin is where the call comes from: the addresses before the peer's, each with a comma behind it, host and scheme as the
// client has them, and the trace that the call is part of, if any. What is said of that counts only from a load balancer.
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
	b = x.Peer.Addr().AppendTo(b)
	b = append(b, "\r\n"...)
	b = appendField(b, "X-Forwarded-Host", host)
	b = appendField(b, "X-Forwarded-Proto", proto)
	if trace != "" {
		for _, v := range x.Request.Values("Tracestate") {
			b = appendField(b, "Tracestate", v)
		}
		return appendField(b, "Traceparent", trace)
	}
	b = append(b, "Traceparent: 00-"...)
	b = append(b, x.ID...)
	b = append(b, '-')
	var span [8]byte
	for i, v := 0, rand.Uint64()|1; i < 8; i++ {
		span[i] = byte(v >> (8 * i))
	}
	b = hex.AppendEncode(b, span[:])
	return append(b, "-00\r\n"...)
}

// certificateText is the caller's certificate as it is told to backends. Every space and plus is escaped, so that those
// who take a plus for a space read the same as those who do not.
func (x *Exchange) certificateText() string {
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x.Certificate.Leaf.Raw})
	return strings.ReplaceAll(url.QueryEscape(string(block)), "+", "%20")
}

// traceparent tells whether v is a version 00 traceparent, W3C Trace Context section 3.2.
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

// carriesBearer tells whether the Authorization header has a bearer credential, readable or not: one that was meant for
// the gateway stays here.
func carriesBearer(r message.Request) bool {
	raw, err := token.Bearer(r.Values("Authorization")...)
	return raw != "" || err != nil
}

// hasToken tells whether a list of tokens, perhaps with parameters, has that one.
func hasToken(list, token string) bool {
	for one := range strings.SplitSeq(list, ",") {
		one, _, _ = strings.Cut(one, ";")
		if strings.EqualFold(strings.Trim(one, " \t"), token) {
			return true
		}
	}
	return false
}

// forThisHop tells the fields that belong to one connection, or frame one message (RFC 9110 section 7.6.1).
func forThisHop(name string) bool {
	switch len(name) {
	case 2:
		return strings.EqualFold(name, "Te")
	case 6:
		return strings.EqualFold(name, "Expect")
	case 7:
		return strings.EqualFold(name, "Upgrade") || strings.EqualFold(name, "Trailer")
	case 10:
		return strings.EqualFold(name, "Connection") || strings.EqualFold(name, "Keep-Alive")
	case 14:
		return strings.EqualFold(name, "Content-Length")
	case 16:
		return strings.EqualFold(name, "Proxy-Connection")
	case 17:
		return strings.EqualFold(name, "Transfer-Encoding")
	case 18:
		return strings.EqualFold(name, "Proxy-Authenticate")
	case 19:
		return strings.EqualFold(name, "Proxy-Authorization")
	}
	return false
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}
