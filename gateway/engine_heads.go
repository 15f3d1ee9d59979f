package gateway

import (
	"encoding/hex"
	"encoding/pem"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sallyport/gateway/http1"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
)

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
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
	}
	return false
}

// AppendRequest implements http1.Handler. What is set here stands behind what the client's Connection field has taken
// away, so that it cannot be named away.
func (e engine) AppendRequest(b []byte, w *http1.Call) []byte {
	c := w.State.(*wireCall)
	r, up, table := &w.Request, w.Upstream, c.Snapshot.Routes
	// The path that was judged is the path that is sent.
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, up.Path...)
	b = append(b, c.ResourcePath...)
	if c.HasQuery {
		b = append(b, '?')
		b = append(b, c.Query...)
	}
	b = append(b, " HTTP/1.1\r\n"...)
	host := up.Authority
	if c.Route.Upstream.PreserveHost {
		host = c.Authority()
	}
	b = appendField(b, "Host", host)

	withoutBearer := c.Route.Security.Token != policy.Off && !c.Route.ForwardAuthorization &&
		(c.Claims != nil || carriesBearer(c)) // with claims it is known that it does
	for i := range r.Fields {
		name, value := r.Fields[i].Name, r.Fields[i].Value
		switch {
		case len(name) == 4 && strings.EqualFold(name, "Host"), forThisHop(name), isManaged(name, table.certificateHeader), r.Named(name):
		case withoutBearer && len(name) == len("Authorization") && strings.EqualFold(name, "Authorization"):
		default:
			b = appendField(b, name, value)
		}
	}
	for _, v := range r.Values("Te") {
		if hasToken(v, "trailers") {
			b = appendField(b, "Te", "trailers")
			break
		}
	}

	b = c.appendOrigin(b)
	b = appendField(b, "X-Request-Id", c.ID)
	b = append(b, "Via: 1."...)
	b = strconv.AppendInt(b, int64(r.Minor), 10)
	b = append(b, ' ')
	b = append(b, e.socket.gateway.via...)
	b = append(b, "\r\n"...)
	if c.Client != nil {
		b = appendField(b, "X-Sallyport-Client", headerText(c.Client.Alias))
		b = append(b, "X-Client-Cert-Hash: "...)
		b = hex.AppendEncode(b, c.Client.Fingerprint[:])
		b = append(b, "\r\n"...)
		if table.settings.ForwardCertificate {
			b = appendField(b, table.settings.CertificateHeader, c.certificateText())
		}
	}
	if c.Claims != nil {
		b = appendField(b, "X-Sallyport-Subject", headerText(c.Claims.Subject))
	}
	return b
}

// certificateText is the caller's certificate as it is told to backends. Every space and plus is escaped, so that those
// who take a plus for a space read the same as those who do not.
func (x *Exchange) certificateText() string {
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x.Certificate.Leaf.Raw})
	return strings.ReplaceAll(url.QueryEscape(string(block)), "+", "%20")
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

// appendOrigin tells the backend where the call comes from. What the client says of that counts only from a load balancer.
func (c *wireCall) appendOrigin(b []byte) []byte {
	r := &c.call.Request
	host, proto, trace := c.Authority(), "http", ""
	if c.Listener.Profiles != nil {
		proto = "https"
	}
	b = append(b, "X-Forwarded-For: "...)
	if c.Balancer {
		if before := strings.Join(r.Values("X-Forwarded-For"), ", "); strings.Trim(before, ", \t") != "" {
			b = append(append(b, before...), ", "...)
		}
		if v, n := r.First("X-Forwarded-Host"); n == 1 {
			host = v
		}
		if v, n := r.First("X-Forwarded-Proto"); n == 1 && (v == "http" || v == "https") {
			proto = v
		}
		if v, n := r.First("Traceparent"); n == 1 && traceparent(v) {
			trace = v
		}
	}
	b = c.Peer.Addr().AppendTo(b)
	b = append(b, "\r\n"...)
	b = appendField(b, "X-Forwarded-Host", host)
	b = appendField(b, "X-Forwarded-Proto", proto)
	if trace != "" {
		for _, v := range r.Values("Tracestate") {
			b = appendField(b, "Tracestate", v)
		}
		return appendField(b, "Traceparent", trace)
	}
	b = append(b, "Traceparent: 00-"...)
	b = append(b, c.ID...)
	b = append(b, '-')
	var span [8]byte
	for i, v := 0, rand.Uint64()|1; i < 8; i++ {
		span[i] = byte(v >> (8 * i))
	}
	b = hex.AppendEncode(b, span[:])
	return append(b, "-00\r\n"...)
}

// AppendResponse implements http1.Handler.
func (e engine) AppendResponse(b []byte, w *http1.Call) ([]byte, error) {
	c, res := w.State.(*wireCall), &w.Response
	b = appendStatus(b, res.Status, res.Reason)
	final := res.Status >= 200
	dated := false
	for i := range res.Fields {
		name, value := res.Fields[i].Name, res.Fields[i].Value
		switch {
		case forThisHop(name), res.Named(name):
			continue
		case final && len(name) == len("X-Request-Id") && strings.EqualFold(name, "X-Request-Id"):
			continue
		case c.Allowance.Window != 0 && len(name) >= len("RateLimit") && (strings.EqualFold(name, "RateLimit") || strings.EqualFold(name, "RateLimit-Policy")):
			continue
		case len(name) == len("Date") && strings.EqualFold(name, "Date"):
			dated = true
		}
		b = appendField(b, name, value)
	}
	if !final {
		return b, nil
	}
	if !dated {
		b = e.appendDate(b)
	}
	b = appendField(b, "X-Request-Id", c.ID)
	if c.Allowance.Window != 0 {
		b = append(b, "RateLimit-Policy: "...)
		b = ratelimit.AppendPolicy(b, c.Allowance)
		b = append(b, "\r\nRateLimit: "...)
		b = ratelimit.AppendLimit(b, c.Allowance)
		b = append(b, "\r\n"...)
	}
	return b, nil
}

func appendStatus(b []byte, status int, reason string) []byte {
	if text := http.StatusText(status); text != "" {
		reason = text
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason...)
	return append(b, "\r\n"...)
}

// appendDate is for answers that have none yet (RFC 9110 section 6.6.1).
func (e engine) appendDate(b []byte) []byte {
	g := e.socket.gateway
	now := g.now()
	line := g.date.Load()
	if line == nil || line.second != now.Unix() {
		line = &dateLine{now.Unix(), "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
		g.date.Store(line)
	}
	return append(b, line.text...)
}

// A dateLine is the Date header line of one second.
type dateLine struct {
	second int64
	text   string
}

// AppendRefusal implements http1.Handler.
func (e engine) AppendRefusal(b []byte, w *http1.Call) []byte {
	c := w.State.(*wireCall)
	r, _ := c.Err.(*Refusal)
	if r == nil {
		r = refuse(Internal, c.Err)
	}
	w.Status = r.Status()
	b = appendStatus(b, w.Status, "")
	h := http.Header{}
	r.setHeader(h, &c.Exchange)
	for name, values := range h {
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	b = e.appendDate(b)
	if w.Last {
		b = appendField(b, "Connection", "close")
	}
	b = append(b, "\r\n"...)
	if w.Request.Method != http.MethodHead {
		body := r.body()
		b = append(b, body...)
		w.BytesOut = int64(len(body))
	}
	return b
}
