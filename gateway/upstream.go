package gateway

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/gateway/http1"
)

// Bounds of the connections to backends.
const (
	dialTimeout          = 2 * time.Second
	backendTLSTimeout    = 5 * time.Second
	backendIdleTimeout   = 55 * time.Second
	maxIdlePerBackend    = 512
	maxBackendHeadBytes  = 256 << 10
	expectContinueWindow = time.Second
)

// transports are the pools of backend connections. Routes that want the same share one, and it lives on from one table
// to the next as long as a route wants it. HTTP/1.1 has the engine's, but for upgrades.
type transports struct {
	mu     sync.Mutex
	pool   map[transportKey]*http.Transport
	engine map[upstreamKey]*http1.Upstream
}

// An upstreamKey tells one backend of the engine from another.
type upstreamKey struct {
	url string
	tls [sha256.Size]byte
}

type transportKey struct {
	timeout  time.Duration
	protocol Protocol
	tls      [sha256.Size]byte
}

// attach gives each route of the table its pool, before anybody reads the table.
func (t *transports) attach(table *Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pool == nil {
		t.pool, t.engine = map[transportKey]*http.Transport{}, map[upstreamKey]*http1.Upstream{}
	}
	for _, r := range table.routes {
		if r.transport != nil || r.upgrades != nil {
			continue // the table is in force already
		}
		key := transportKey{r.Upstream.Timeout, r.Upstream.Protocol, r.Upstream.TLSDigest}
		one := t.pool[key]
		if one == nil {
			one = newTransport(r.Upstream)
			t.pool[key] = one
		}
		if r.Upstream.Protocol != HTTP1 {
			r.transport = one
			continue
		}
		r.upgrades = one
		r.engine, r.engineSandbox = t.upstreams(r.Upstream, r.Upstream.URLs), t.upstreams(r.Upstream, r.Upstream.SandboxURLs)
	}
}

// upstreams are the engine's backends at these URLs.
func (t *transports) upstreams(u Upstream, urls []*url.URL) []*http1.Upstream {
	var list []*http1.Upstream
	for _, at := range urls {
		key := upstreamKey{at.String(), u.TLSDigest}
		one := t.engine[key]
		if one == nil {
			one = newUpstream(u, at)
			t.engine[key] = one
		}
		list = append(list, one)
	}
	return list
}

func newUpstream(u Upstream, at *url.URL) *http1.Upstream {
	one := &http1.Upstream{Name: at.Scheme + "://" + at.Host, Authority: at.Host, Path: strings.TrimSuffix(at.EscapedPath(), "/")}
	port := at.Port()
	if at.Scheme == "https" {
		one.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: u.Roots, Certificates: u.Certificates, ServerName: at.Hostname()}
		port = cmp.Or(port, "443")
	}
	one.Address = net.JoinHostPort(at.Hostname(), cmp.Or(port, "80"))
	return one
}

// retain gives up the pools that the table does not use. Calls under way on them finish.
func (t *transports) retain(table *Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	used := map[*http.Transport]bool{}
	for _, r := range table.routes {
		used[r.transport], used[r.upgrades] = true, true
	}
	for key, one := range t.pool {
		if !used[one] {
			delete(t.pool, key)
			one.CloseIdleConnections()
		}
	}
	engine := map[*http1.Upstream]bool{}
	for _, r := range table.routes {
		for _, u := range slices.Concat(r.engine, r.engineSandbox) {
			engine[u] = true
		}
	}
	for key, u := range t.engine {
		if !engine[u] {
			delete(t.engine, key)
			u.Close()
		}
	}
}

func (t *transports) close() { t.retain(&Table{}) }

// newTransport speaks one protocol to backends, over TLS that is verified where their URL is https. It passes compressed
// bodies through. An upgrade takes a connection of its own and gives none back: after an answer that two readers may read
// differently, the next call must not meet a tunnel (CVE-2026-71324).
func newTransport(u Upstream) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(u.Protocol == HTTP1)
	protocols.SetHTTP2(u.Protocol == HTTP2)
	protocols.SetUnencryptedHTTP2(u.Protocol == H2C)
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: u.Roots, Certificates: u.Certificates},
		TLSHandshakeTimeout:    backendTLSTimeout,
		Protocols:              protocols,
		DisableKeepAlives:      u.Protocol == HTTP1,
		DisableCompression:     true,
		MaxIdleConns:           0, // no bound in all; each backend has one
		MaxIdleConnsPerHost:    maxIdlePerBackend,
		IdleConnTimeout:        backendIdleTimeout,
		ResponseHeaderTimeout:  u.Timeout,
		ExpectContinueTimeout:  expectContinueWindow,
		MaxResponseHeaderBytes: maxBackendHeadBytes,
		ReadBufferSize:         copyBufferSize,
	}
}
