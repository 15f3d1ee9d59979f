package gateway

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"

	"sallyport/policy"
)

// proxied carries, by httputil.ReverseProxy and http.Transport, what the engine's connections are not for: calls that ask
// to become a WebSocket, and backends of HTTP/2. Nobody else needs a context and a request of each call's own.
func (c *call) proxied() {
	if c.proxy == nil {
		c.proxy = &httputil.ReverseProxy{
			Rewrite:        c.rewrite,
			Transport:      roundTripper(c.roundTrip),
			ModifyResponse: c.modifyResponse,
			ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { c.fail(err) },
			ErrorLog:       log.New(serverLog{c.gateway.log}, "", 0),
			BufferPool:     copyMemory{c},
		}
	}
	c.proxy.ServeHTTP(&c.w, c.r)
}

// rewrite makes the backend's request. Hop-by-hop headers are gone by now, by the words of the client's Connection
// header too; so what is set here cannot be named away.
func (c *call) rewrite(pr *httputil.ProxyRequest) {
	out, route, table := pr.Out, c.Route, c.Snapshot.Routes
	h := out.Header
	stripManaged(h, table.certificateHeader)
	if !c.upgrades() {
		delete(h, "Upgrade")
		delete(h, "Connection")
	}
	if route.Security.Token != policy.Off && !route.ForwardAuthorization && carriesBearer(c.Request) {
		delete(h, "Authorization")
	}

	c.setOrigin(h)
	h["X-Request-Id"] = []string{c.ID}
	h["Via"] = append(h["Via"], viaVersion(c.r)+" "+c.gateway.via)
	if c.Client != nil {
		h["X-Sallyport-Client"] = []string{headerText(c.Client.Alias)}
		h["X-Client-Cert-Hash"] = []string{hex.EncodeToString(c.Client.Fingerprint[:])}
		if table.settings.ForwardCertificate {
			h.Set(table.settings.CertificateHeader, c.certificateText())
		}
	}
	if c.Claims != nil {
		h["X-Sallyport-Subject"] = []string{headerText(c.Claims.Subject)}
	}

	out.Trailer = nil
	// Whoever is admitted may send its body: net/http says 100 Continue when it is first read. A backend that never says
	// so would cost a second of waiting.
	delete(h, "Expect")
	if !route.Upstream.PreserveHost {
		out.Host = ""
	}
	if out.Body != nil {
		c.takeBody()
		out.Body, out.Trailer = c.body, c.body.trailer
	}
	pr.Out = c.bind(out)
}

// bind lets the call be broken off later.
func (c *call) bind(out *http.Request) *http.Request {
	c.watch = newWatch(c.gateway, c.socket, &c.Exchange, c.breakOff)
	if c.watch == nil {
		return out
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(out.Context())
	out = out.WithContext(ctx)
	if out.Body != nil && out.ContentLength < 0 {
		c.watch.follow(endless(out.Header.Get("Content-Type")))
	}
	return out
}

// setOrigin tells the backend where the call comes from.
func (c *call) setOrigin(out http.Header) {
	before, host, proto, trace := c.origin()
	if trace == "" {
		trace = "00-" + c.ID + "-" + newID()[:16] + "-00"
	} else if state := c.Values("Tracestate"); state != nil {
		out["Tracestate"] = state
	}
	out["X-Forwarded-For"] = []string{before + c.Peer.Addr().String()}
	out["X-Forwarded-Host"] = []string{host}
	out["X-Forwarded-Proto"] = []string{proto}
	out["Traceparent"] = []string{trace}
}

// roundTrip asks the upstreams in turn: the next one only if the last could not be reached and nothing was sent.
func (c *call) roundTrip(out *http.Request) (*http.Response, error) {
	route, urls := c.Route, c.upstreams()
	first := int(route.next.Add(1) - 1)
	for i := range urls {
		u := urls[(first+i)%len(urls)]
		// Opaque goes out as it is: the path that was judged is the path that is sent.
		*out.URL = url.URL{Scheme: u.Scheme, Host: u.Host, RawQuery: c.Query, ForceQuery: c.HasQuery}
		c.Upstream, out.URL.Opaque = u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")+c.ResourcePath
		res, err := cmp.Or(route.transport, route.upgrades).RoundTrip(out)
		if err == nil || out.Body != nil || i == len(urls)-1 || !neverReached(err) || out.Context().Err() != nil {
			return res, err
		}
	}
	return nil, errors.New("no upstream")
}

func (c *call) modifyResponse(res *http.Response) error {
	if res.StatusCode < 100 {
		return errAnswer // net/http would panic
	}
	if res.StatusCode == http.StatusNoContent {
		delete(res.Header, "Content-Length") // RFC 9110 section 8.6; an HTTP/2 client would wait for that much
	}
	for name := range res.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return errAnswer // "Content-Length : 3": net/http overlooks it, another reader may not
		}
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		if asked := res.Request.Header.Get("Upgrade"); asked == "" || !strings.EqualFold(asked, res.Header.Get("Upgrade")) {
			return errSwitch // ReverseProxy would refuse it, too, but keep the connection open
		}
	}
	if c.unfinished() {
		// It goes on to the backend, so that the connection cannot be used again. If it could, net/http would take what is
		// left of the body for itself before it sends the answer's head.
		c.w.last = true
	}
	if stream := res.StatusCode == http.StatusSwitchingProtocols || endless(res.Header.Get("Content-Type")); stream || res.ContentLength < 0 {
		c.watch.follow(stream)
	}
	if len(res.Trailer) > 0 && c.r.ProtoMajor == 1 && c.r.ProtoAtLeast(1, 1) && c.r.Method != http.MethodHead {
		delete(res.Header, "Content-Length") // HTTP/1.1 has trailers in chunked bodies alone
	}
	res.Header["X-Request-Id"] = []string{c.ID}
	setRateLimit(res.Header, c.Allowance)
	return nil
}

var errSwitch = errors.New("the backend switched to a protocol that it was not asked for")

var errAnswer = errors.New("the backend's answer has a status or a header name that is none")

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// copyMemory lends the memory that bodies are copied through.
type copyMemory struct{ call *call }

const copyBufferSize = 32 << 10

var copyBuffers sync.Pool // it holds memory only, no state: one for all gateways

// Get implements httputil.BufferPool.
func (copyMemory) Get() []byte {
	if p, ok := copyBuffers.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, copyBufferSize)
}

// Put implements httputil.BufferPool.
func (m copyMemory) Put(p []byte) {
	if !m.call.w.failed { // or net/http may read it still
		copyBuffers.Put(&p)
	}
}
