package testredis

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"sallyport/internal/testserver"
)

// A Toxiproxy stands between clients and a server, and does to their connections, those that are open, too, what a bad
// network does. At first it does nothing.
type Toxiproxy struct {
	Address string

	t     testing.TB
	proxy *toxiproxy.Proxy
}

// Proxy starts a proxy to an address.
func Proxy(t testing.TB, address string) *Toxiproxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Toxiproxy{t: t}
	var err error
	for range 5 { // another program may take a port between its choice and its use
		p.Address = net.JoinHostPort("127.0.0.1", testserver.FreePort(t))
		p.proxy = toxiproxy.NewProxy(server, "redis", p.Address, address)
		if err = p.proxy.Start(); err == nil {
			t.Cleanup(p.proxy.Stop)
			return p
		}
	}
	t.Fatalf("start a proxy: %v", err)
	return nil
}

// Slow delays all replies.
func (p *Toxiproxy) Slow(latency time.Duration) {
	p.t.Helper()
	p.toxic("latency", map[string]any{"latency": latency.Milliseconds()})
}

// Reset closes each connection instead of passing its next reply on: one that is made from now on by RST.
func (p *Toxiproxy) Reset() {
	p.t.Helper()
	p.toxic("reset_peer", nil)
}

// LimitData closes each connection after so many bytes of replies, which may be in the middle of one.
func (p *Toxiproxy) LimitData(bytes int) {
	p.t.Helper()
	p.toxic("limit_data", map[string]any{"bytes": bytes})
}

// Clear takes back Slow, Reset and LimitData.
func (p *Toxiproxy) Clear() {
	p.proxy.Toxics.ResetToxics(context.Background())
}

// Divert closes all connections and leads new ones to another address.
func (p *Toxiproxy) Divert(address string) {
	p.Cut()
	p.proxy.Upstream = address
	p.Mend()
}

// Cut closes all connections and refuses new ones.
func (p *Toxiproxy) Cut() {
	p.proxy.Stop()
}

// Mend takes Cut back.
func (p *Toxiproxy) Mend() {
	p.t.Helper()
	if err := p.proxy.Start(); err != nil {
		p.t.Errorf("start the proxy again: %v", err)
	}
}

func (p *Toxiproxy) toxic(kind string, attributes map[string]any) {
	p.t.Helper()
	description, err := json.Marshal(map[string]any{"type": kind, "attributes": attributes})
	if err == nil {
		_, err = p.proxy.Toxics.AddToxicJson(strings.NewReader(string(description)))
	}
	if err != nil {
		p.t.Errorf("toxic %s: %v", kind, err)
	}
}
