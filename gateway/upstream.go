package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
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
// to the next as long as a route wants it.
type transports struct {
	mu   sync.Mutex
	pool map[transportKey]backendPool
}

// A backendPool is the connections to backends that are reached in the same way.
type backendPool struct {
	calls *http.Transport
	// upgrades takes a connection for each call that asks for another protocol, and gives none back: after an answer that
	// two readers may read differently, the next call must not meet a tunnel (CVE-2026-71324).
	upgrades *http.Transport
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
		t.pool = map[transportKey]backendPool{}
	}
	for _, r := range table.routes {
		if r.transport != nil {
			continue // the table is in force already
		}
		key := transportKey{r.Upstream.Timeout, r.Upstream.Protocol, r.Upstream.TLSDigest}
		pool, ok := t.pool[key]
		if !ok {
			pool = backendPool{newTransport(r.Upstream), newTransport(r.Upstream)}
			pool.upgrades.DisableKeepAlives = true
			t.pool[key] = pool
		}
		r.transport, r.upgrades = pool.calls, pool.upgrades
	}
}

// retain gives up the pools that the table does not use. Calls under way on them finish.
func (t *transports) retain(table *Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	used := map[*http.Transport]bool{}
	for _, r := range table.routes {
		used[r.transport] = true
	}
	for key, pool := range t.pool {
		if !used[pool.calls] {
			delete(t.pool, key)
			pool.calls.CloseIdleConnections()
		}
	}
}

func (t *transports) close() { t.retain(&Table{}) }

// newTransport speaks one protocol to backends, over TLS that is verified where their URL is https. It passes compressed
// bodies through.
func newTransport(u Upstream) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(u.Protocol == HTTP1)
	protocols.SetHTTP2(u.Protocol == HTTP2)
	protocols.SetUnencryptedHTTP2(u.Protocol == H2C)
	return &http.Transport{
		DialContext:            dialBackend(&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: u.Roots, Certificates: u.Certificates},
		TLSHandshakeTimeout:    backendTLSTimeout,
		Protocols:              protocols,
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
