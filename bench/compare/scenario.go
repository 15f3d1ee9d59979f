package compare

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"

	"sallyport/bench/backend"
	"sallyport/bench/load"
	"sallyport/bench/peer"
	"sallyport/bench/pki"
)

// tokens is how many tokens, or certificates in a header, the calls use in turn.
const tokens = 64

// A Scenario is one kind of work, the same for all gateways.
type Scenario struct {
	Name   string
	Title  string
	Detail string
	// calls sets what differs from the default: /bench/1k over kept mTLS connections.
	calls func(*calls)
	// own adds what only Sallyport is asked to do. Its peers, and Sallyport in a second row, are measured without it.
	own func(*calls)
	// Redis says that Sallyport counts its limits in Redis. Its peers, and Sallyport in a second row, count in their
	// process.
	Redis bool
	// Revoked says that Sallyport looks each client's certificate up in a CRL. Its peers, and Sallyport in a second row,
	// don't.
	Revoked bool
}

// calls describes the calls of one scenario to one gateway.
type calls struct {
	load.Config
	path   string
	plain  bool // to the listener behind a load balancer
	issuer int
	token  bool
	header bool
}

// Scenarios lists all scenarios in the order of the report.
var Scenarios = []Scenario{
	{
		Name:   "keepalive",
		Title:  "64 connections, closed loop",
		Detail: "kept mTLS connections, 1 KiB answers, as fast as they come",
		calls:  func(c *calls) { c.Connections = 64 },
	},
	{
		Name:   "paced",
		Title:  "64 connections, 5,000 calls/s",
		Detail: "kept mTLS connections, 1 KiB answers, constant rate, latency from the intended start",
		calls:  func(c *calls) { c.Connections, c.Rate = 64, 5000 },
	},
	{
		Name:  "redis-limit",
		Title: "limits in Redis",
		Detail: "64 kept mTLS connections, 1 KiB answers, as fast as they come; " +
			"the limit of each certificate is counted in Redis, by the others in their process",
		calls: func(c *calls) { c.Connections = 64 },
		Redis: true,
	},
	{
		Name:  "revocation",
		Title: "certificates looked up in a CRL",
		Detail: "64 kept mTLS connections, 1 KiB answers, as fast as they come; " +
			"each call goes by the CA's CRL, those of the others don't",
		calls:   func(c *calls) { c.Connections = 64 },
		Revoked: true,
	},
	{
		Name:    "revocation-handshake",
		Title:   "full handshakes, looked up in a CRL",
		Detail:  "a new mTLS connection for each call, 16 at once; each handshake goes by the CA's CRL, those of the others don't",
		calls:   func(c *calls) { c.Connections, c.Workload = 16, load.NewConn },
		Revoked: true,
	},
	{
		Name:   "many",
		Title:  "2,000 connections, closed loop",
		Detail: "kept mTLS connections, 1 KiB answers, as fast as they come",
		calls:  func(c *calls) { c.Connections = 2000 },
	},
	{
		Name:   "handshake",
		Title:  "full handshakes",
		Detail: "a new mTLS connection (TLS 1.3, X25519, P-256) for each call, 16 at once",
		calls:  func(c *calls) { c.Connections, c.Workload = 16, load.NewConn },
	},
	{
		Name:   "resumed",
		Title:  "resumed handshakes",
		Detail: "a connection that resumes its TLS session for each call, 16 at once",
		calls:  func(c *calls) { c.Connections, c.Workload = 16, load.Resumed },
	},
	{
		Name:  "header",
		Title: "behind a load balancer",
		Detail: "64 kept plain connections, the client certificate in a header, seen before; " +
			"the others pass the header on unread",
		calls: func(c *calls) { c.Connections, c.plain, c.header = 64, true, true },
	},
	{
		Name:  "jwt-rs256",
		Title: "JWT, RS256",
		Detail: "64 kept mTLS connections, 64 tokens that were seen before; " +
			"the others: the same call by certificate alone",
		calls: func(c *calls) { c.Connections = 64 },
		own:   func(c *calls) { c.token, c.issuer, c.path = true, 0, "/token/1k" },
	},
	{
		Name:  "jwt-es256",
		Title: "JWT, ES256",
		Detail: "64 kept mTLS connections, 64 tokens that were seen before; " +
			"the others: the same call by certificate alone",
		calls: func(c *calls) { c.Connections = 64 },
		own:   func(c *calls) { c.token, c.issuer, c.path = true, 1, "/token/1k" },
	},
	{
		Name:   "large",
		Title:  "1 MiB answers",
		Detail: "8 kept mTLS connections, as fast as they come",
		calls:  func(c *calls) { c.Connections, c.path = 8, "/bench/1m" },
	},
	{
		Name:   "http2",
		Title:  "HTTP/2",
		Detail: "16 mTLS connections of 8 streams, 1 KiB answers, as fast as they come; HTTP/1.1 to the backend",
		calls:  func(c *calls) { c.Connections, c.Streams, c.HTTP2 = 16, 8, true },
	},
}

// Choose returns the named scenarios in the order of the report, or all if no name is given.
func Choose(names []string) ([]Scenario, error) {
	if len(names) == 0 {
		return Scenarios, nil
	}
	var all []string
	for _, s := range Scenarios {
		all = append(all, s.Name)
	}
	for _, n := range names {
		if !slices.Contains(all, n) {
			return nil, fmt.Errorf("no scenario %q: there are %s", n, strings.Join(all, ", "))
		}
	}
	unwanted := func(s Scenario) bool { return !slices.Contains(names, s.Name) }
	return slices.DeleteFunc(slices.Clone(Scenarios), unwanted), nil
}

// load returns the load for one gateway.
func (s Scenario) load(g peer.Site, own bool) (load.Config, error) {
	c := calls{path: "/bench/1k"}
	s.calls(&c)
	if own && s.own != nil {
		s.own(&c)
	}
	if err := c.credentials(g.PKI); err != nil {
		return load.Config{}, err
	}
	_, answer, _ := strings.Cut(c.path[1:], "/")
	c.Want = load.Want{Status: 200, Body: backend.Body(backend.Sizes[answer])}
	scheme, address := "https", g.HTTPS
	if c.plain {
		scheme, address = "http", g.HTTP
	}
	_, port, err := net.SplitHostPort(address)
	c.URL, c.Address = scheme+"://localhost:"+port+c.path, address
	return c.Config, err
}

func (c *calls) credentials(set *pki.Set) error {
	if !c.plain {
		c.Identities = set.Identities
		c.TLS = &tls.Config{RootCAs: set.Roots, CurvePreferences: []tls.CurveID{tls.X25519}}
	}
	if c.header {
		identities := set.Identities[:min(tokens, len(set.Identities))]
		c.Headers = load.CertificateHeaders("X-WSO2-CLIENT-CERTIFICATE", identities)
	}
	if c.token {
		list, err := set.Issuers[c.issuer].Tokens(tokens)
		if err != nil {
			return err
		}
		for _, t := range list {
			c.Headers = append(c.Headers, load.Header{Name: "Authorization", Value: "Bearer " + t})
		}
	}
	return nil
}
