package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles/trust"
)

// A doorFixture has listeners behind load balancers beside the fixture's own: byCertificate and byAddress speak TLS, and
// behindLB plain HTTP. Load balancers are 127.0.0.1 and 10.0.0.0/8, so that 127.0.0.9 is a stranger.
type doorFixture struct {
	*fixture
	balancer *party // a load balancer's own certificate
	config   clientcert.DoorConfig
}

// Names of the listeners.
const (
	byCert   = "byCertificate"
	byAddr   = "byAddress"
	behindLB = "behindLB"
)

const stranger = "127.0.0.9"

func newDoorFixture(t testing.TB, change ...func(*fixture, *setup)) *doorFixture {
	t.Helper()
	f := &doorFixture{fixture: newFixture(t, change...)}
	now := f.clock.Now()
	f.balancer = issue("load balancer", nil, usage(x509.ExtKeyUsageClientAuth), validity(now.Add(-time.Hour), now.Add(time.Hour)))
	f.config = clientcert.DoorConfig{
		// The header holds the leaf alone, so its issuer has to be an entry.
		Header: "X-WSO2-CLIENT-CERTIFICATE", Rules: trust.Rules{Anchors: trusting(t, f.caA, f.interA)}, BalancerTrust: trusting(t, f.balancer),
		Balancers: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32")},
	}
	f.setDoor(t, f.config)
	return f
}

func trusting(t testing.TB, list ...*party) *trust.Anchors {
	t.Helper()
	var certs []*x509.Certificate
	for _, p := range list {
		certs = append(certs, p.cert)
	}
	anchors, err := trust.New(certs)
	if err != nil {
		t.Fatal(err)
	}
	return anchors
}

// setDoor puts the listeners with that door into force.
func (f *doorFixture) setDoor(t testing.TB, cfg clientcert.DoorConfig) {
	t.Helper()
	f.config = cfg
	door := clientcert.NewDoor(cfg)
	profiles := f.listeners[0].Profiles
	f.listeners = append(slices.Clone(f.listeners[:2]),
		decision.Listener{Name: byCert, Address: "127.0.0.4:0", Profiles: profiles, Door: door, DoorByCertificate: true},
		decision.Listener{Name: byAddr, Address: "127.0.0.5:0", Profiles: profiles, Door: door},
		decision.Listener{Name: behindLB, Address: "127.0.0.6:0", Door: door},
	)
	f.setListeners(t)
}

// through is a client of that listener; from is its own address.
func (f *doorFixture) through(t testing.TB, listener string, who *party, http2 bool, from string) *http.Client {
	t.Helper()
	address := f.gateway.Addresses()[listener].String()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{
		TLSClientConfig: f.clientTLS(who, via{}), ForceAttemptHTTP2: http2, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// dialThrough is a raw connection to that listener from the load balancer's address, with its certificate under TLS.
func (f *doorFixture) dialThrough(t testing.TB, listener string) *raw {
	t.Helper()
	var config *tls.Config
	if listener != behindLB {
		config = f.clientTLS(f.balancer, via{sni: "opt.test"})
	}
	return dialRaw(t, f.gateway.Addresses()[listener].String(), config)
}

// scheme is the beginning of URLs of that listener.
func scheme(listener string) string {
	if listener == behindLB {
		return "http://opt.test"
	}
	return "https://opt.test"
}

func certificateHeader(p *party) func(*http.Request) {
	return header("X-WSO2-CLIENT-CERTIFICATE", escapedPEM(p))
}

// TestWhoIsBelieved: the header counts from a load balancer's socket address alone, or with the load balancer's own
// certificate besides; from anyone else the handshake counts. Held: security D 48, 49, 50, 52.
func TestWhoIsBelieved(t *testing.T) {
	f := newDoorFixture(t)
	now := f.clock.Now()
	names := func(c *x509.Certificate) {
		c.RawSubject, c.SerialNumber = f.balancer.cert.RawSubject, f.balancer.cert.SerialNumber
	}
	forged := issue("load balancer", nil, usage(x509.ExtKeyUsageClientAuth), names)
	expired := issueFor(f.balancer.key, "load balancer", nil, usage(x509.ExtKeyUsageClientAuth), validity(now.Add(-2*time.Hour), now.Add(-time.Hour)))
	claims := []func(*http.Request){
		header("X-Forwarded-For", "127.0.0.1"), header("Forwarded", `for=127.0.0.1;by="127.0.0.1"`), header("X-Real-IP", "127.0.0.1"),
		header("True-Client-IP", "127.0.0.1"), header("X-Client-IP", "10.0.0.1"), header("Via", "1.1 127.0.0.1"),
	}
	const lb = "127.0.0.1"
	for _, c := range []struct {
		name     string
		listener string
		from     string
		own      *party // in the handshake
		header   *party // nil: none
		code     string // of the refusal on an API for certificates
		alias    string // of the identity, if it is admitted
	}{
		{"its certificate and address", byCert, lb, f.balancer, f.a4, "", "a4"},
		{"and no header", byCert, lb, f.balancer, nil, "900902", ""},
		{"and a header with an unregistered certificate", byCert, lb, f.balancer, f.a2, "900901", ""},
		{"and its own certificate in the header", byCert, lb, f.balancer, f.balancer, "900901", ""},
		{"no certificate", byCert, lb, nil, f.a4, "900902", ""},
		{"a client's certificate", byCert, lb, f.a3, f.a4, "900901", ""},
		{"a good client's certificate", byCert, lb, f.a4, f.a1, "", "a4"},
		{"a certificate with its names", byCert, lb, forged, f.a4, "900901", ""},
		{"its key in a certificate that has expired", byCert, lb, expired, f.a4, "900901", ""},
		{"its certificate from another address", byCert, stranger, f.balancer, f.a4, "900902", ""},
		{"a client from another address", byCert, stranger, f.a4, f.a1, "", "a4"},

		{"its address, over TLS", byAddr, lb, nil, f.a4, "", "a4"},
		{"and a client's certificate", byAddr, lb, f.a1, f.a4, "", "a4"},
		{"and a client's certificate without a header", byAddr, lb, f.a4, nil, "900902", ""},
		{"another address, over TLS", byAddr, stranger, nil, f.a4, "900902", ""},
		{"a client from another address, over TLS", byAddr, stranger, f.a4, f.a1, "", "a4"},
		{"its certificate from another address, over TLS", byAddr, stranger, f.balancer, f.a4, "900902", ""},

		{"its address", behindLB, lb, nil, f.a4, "", "a4"},
		{"and no header", behindLB, lb, nil, nil, "900902", ""},
		{"another address", behindLB, stranger, nil, f.a4, "900902", ""},

		{"the door is off", "tls", lb, f.balancer, f.a4, "900901", ""},
		{"the door is off, no certificate", "tls", lb, nil, f.a4, "900902", ""},
	} {
		t.Run(c.listener+": "+c.name, func(t *testing.T) {
			for _, h2 := range []bool{false, c.listener != behindLB} {
				client := f.through(t, c.listener, c.own, h2, c.from)
				options := slices.Clone(claims)
				if c.header != nil {
					options = append(options, certificateHeader(c.header))
				}
				call := func() answer { return get(t, client, scheme(c.listener)+"/pay/1.0/x", options...) }
				if c.code != "" {
					f.denied(t, 401, c.code, call)
				} else if got := f.allowed(t, call); got.Header.Get("X-Sallyport-Client") != c.alias {
					t.Errorf("the backend was told of %q", got.Header.Get("X-Sallyport-Client"))
				}
				// On an open API it is nobody, and the header goes no further.
				noIdentity(t, f.allowed(t, func() answer { return get(t, client, scheme(c.listener)+"/pub/1.0/x", options...) }))
			}
		})
	}
}

// TestBalancersAreKnownByTheirSocket: a list of IPv4 networks holds for peers that a socket for both families shows as
// IPv6. Held: security D 51.
func TestBalancersAreKnownByTheirSocket(t *testing.T) {
	probe, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	probe.Close()
	f := newDoorFixture(t)
	f.config.Balancers = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/29")} // 127.0.0.9 is outside
	f.setDoor(t, f.config)
	door := f.listeners[4].Door
	f.listeners = append(f.listeners, decision.Listener{Name: "both", Address: "[::]:0", Door: door})
	f.setListeners(t)
	_, port, err := net.SplitHostPort(f.gateway.Addresses()["both"].String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		believed bool
	}{{"127.0.0.1", "127.0.0.1", true}, {"127.0.0.7", "127.0.0.1", true}, {stranger, "127.0.0.1", false}, {"::1", "::1", false}} {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.from)}}
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", net.JoinHostPort(c.to, port))
		}}
		defer transport.CloseIdleConnections()
		a := get(t, &http.Client{Transport: transport}, "http://opt.test/pay/1.0/x", certificateHeader(f.a4))
		if (a.status == 200) != c.believed {
			t.Errorf("from %s: status %d", c.from, a.status)
		}
	}
}

// TestTwoCertificateHeaders: nobody can say which of two is the client's. Held: security D 53.
func TestTwoCertificateHeaders(t *testing.T) {
	f := newDoorFixture(t)
	good, bad := escapedPEM(f.a4), escapedPEM(f.a2)
	const name = "X-WSO2-CLIENT-CERTIFICATE"
	for _, c := range []struct {
		name   string
		values []string // name, value, name, value
		status int
		code   string
	}{
		{"good, bad", []string{name, good, name, bad}, 400, "400"},
		{"bad, good", []string{name, bad, name, good}, 400, "400"},
		{"good, good", []string{name, good, name, good}, 400, "400"},
		{"good, empty", []string{name, good, name, ""}, 400, "400"},
		{"another header of the kind", []string{name, good, "Client-Cert", good}, 400, "400"},
		{"Envoy's", []string{name, good, "X-Forwarded-Client-Cert", "By=a"}, 400, "400"},
		{"ALB's", []string{name, good, "X-Amzn-Mtls-Clientcert", bad}, 400, "400"},
		{"NGINX's", []string{name, good, "X-SSL-Client-Cert", bad}, 400, "400"},
		{"good, bad in a line", []string{name, good + ", " + bad}, 401, "900901"},
		{"bad, good in a line", []string{name, bad + "," + good}, 401, "900901"},
		{"good, good in a line", []string{name, good + ", " + good}, 401, "900901"},
		{"another one alone", []string{"Client-Cert", good}, 401, "900902"},
		{"Envoy's alone", []string{"X-Forwarded-Client-Cert", `Cert="` + good + `"`}, 401, "900902"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, at := range []struct {
				listener string
				h2       bool
			}{{byCert, false}, {byCert, true}, {byAddr, true}, {behindLB, false}} {
				client := f.through(t, at.listener, f.balancer, at.h2, "127.0.0.1")
				f.denied(t, c.status, c.code, func() answer {
					return get(t, client, scheme(at.listener)+"/pay/1.0/x", func(r *http.Request) {
						for i := 0; i < len(c.values); i += 2 {
							r.Header.Add(c.values[i], c.values[i+1])
						}
					})
				})
			}
		})
	}
}

// TestOtherSpellingsAreNotRead: what is not the header, to the letter, is nobody's certificate, even from a load
// balancer. Held: security D 54, 56.
func TestOtherSpellingsAreNotRead(t *testing.T) {
	f := newDoorFixture(t)
	good := escapedPEM(f.a4)
	for name, line := range map[string]string{
		"underscores":   "X_WSO2_CLIENT_CERTIFICATE: ",
		"mixed":         "X-WSO2_CLIENT-CERTIFICATE: ",
		"space before":  "X-WSO2-CLIENT-CERTIFICATE : ",
		"tab before":    "X-WSO2-CLIENT-CERTIFICATE\t: ",
		"leading tab":   "\tX-WSO2-CLIENT-CERTIFICATE: ",
		"leading space": " X-WSO2-CLIENT-CERTIFICATE: ",
		"NUL":           "X-Wso2-Client-Certificate\x00: ",
		"Unicode dash":  "X-WSO2‐CLIENT‐CERTIFICATE: ",
		"bare CR":       "X-A: b\rX-WSO2-CLIENT-CERTIFICATE: ",
		"folded":        "X-WSO2-CLIENT-CERTIFICATE:\n ",
		"folded behind": "X-A: b\n\tX-WSO2-CLIENT-CERTIFICATE: ",
	} {
		t.Run(name, func(t *testing.T) {
			for _, listener := range []string{byCert, behindLB} {
				before := f.backend.calls.Load()
				a := f.dialThrough(t, listener).get(t, "/pay/1.0/x", "opt.test", line+good)
				folded := name == "folded" && a.status == 200 // obs-fold before the value is white space before the value
				if a.status != 400 && a.status != 401 && !folded {
					t.Errorf("%s: status %d", listener, a.status)
				}
				if got := f.backend.calls.Load() - before; got != 0 && !folded {
					t.Errorf("%s: the backend was called", listener)
				}
				a = f.dialThrough(t, listener).get(t, "/pub/1.0/x", "opt.test", line+good)
				if a.status == 200 {
					noIdentity(t, f.backend.last(t))
				} else if a.status != 400 {
					t.Errorf("%s: on an open API: status %d", listener, a.status)
				}
			}
		})
	}
	t.Run("trailers", func(t *testing.T) {
		for _, listener := range []string{byCert, behindLB} {
			c := f.dialThrough(t, listener)
			c.send(t, "POST /pay/1.0/x HTTP/1.1\nHost: opt.test\nTransfer-Encoding: chunked\nTrailer: X-WSO2-CLIENT-CERTIFICATE\n\n"+
				"3\nabc\n0\nX-WSO2-CLIENT-CERTIFICATE: "+good+"\n\n")
			f.denied(t, 401, "900902", func() answer { return c.receive(t, "POST") })
		}
		h := framedOver(t, f.gateway.Addresses()[byCert].String(), f.clientTLS(f.balancer, via{sni: "opt.test"}))
		id := h.open(t, false, ":method", "POST", ":scheme", "https", ":authority", "opt.test", ":path", "/pay/1.0/x", "trailer", "x-wso2-client-certificate")
		if err := h.framer.WriteData(id, false, []byte("abc")); err != nil {
			t.Fatal(err)
		}
		h.headers(t, id, true, "x-wso2-client-certificate", good)
		f.denied(t, 401, "900902", func() answer { return h.receive(t, id) })
	})
}

// TestConnectionNamesNoCertificateAway: the header is read before what is hop-by-hop is taken away. Held: security D 55.
func TestConnectionNamesNoCertificateAway(t *testing.T) {
	f := newDoorFixture(t)
	for _, listener := range []string{byCert, behindLB} {
		a := f.dialThrough(t, listener).get(t, "/pay/1.0/x", "opt.test",
			"Connection: x-wso2-client-certificate, x-sallyport-client, x-client-cert-hash", "X-WSO2-CLIENT-CERTIFICATE: "+escapedPEM(f.a4))
		if a.status != 200 {
			t.Fatalf("%s: status %d (%q)", listener, a.status, a.body)
		}
		got := f.backend.last(t)
		if got.Header.Get("X-Sallyport-Client") != "a4" || got.Header.Get("X-Client-Cert-Hash") != f.a4.hash() {
			t.Errorf("%s: the backend was told %v", listener, got.Header)
		}
	}
}

// TestManagedHeadersAreOursBehindABalancer: a load balancer speaks for its clients in the one header only. Held: security D 57.
func TestManagedHeadersAreOursBehindABalancer(t *testing.T) {
	f := newDoorFixture(t, func(_ *fixture, s *setup) { s.settings.ForwardCertificate = true })
	// Headers that carry a certificate are refused beside the one that does; the others must not come through.
	var lines []func(*http.Request)
	for _, name := range []string{
		"Client-Cert-Chain", "Client-Certificate", "X-Amzn-Mtls-Clientcert-Subject", "X-SSL-Anything", "SSL-Client-S-DN", "X-Client-Cert-Hash",
		"X-Client-Cert-Foo", "X-Sallyport-Client", "X-Sallyport-Subject", "X-JWT-Assertion", "X_Sallyport_Client", "X.Sallyport.Client",
		"X-Request-Id", "X-Original-URL", "X-Real-IP", "Forwarded", "X-Forwarded-Port",
	} {
		lines = append(lines, func(r *http.Request) { r.Header[name] = []string{marker} })
	}
	for _, listener := range []string{byCert, byAddr, behindLB} {
		client := f.through(t, listener, f.balancer, listener == byCert, "127.0.0.1")
		got := f.allowed(t, func() answer {
			return get(t, client, scheme(listener)+"/pay/1.0/x", append(slices.Clone(lines), certificateHeader(f.a4))...)
		})
		if strings.Contains(f.backend.last(t).Raw, marker) {
			t.Errorf("%s: the backend got what was forged: %q", listener, f.backend.last(t).Raw)
		}
		for name, want := range map[string]string{
			"X-Sallyport-Client": "a4", "X-Client-Cert-Hash": f.a4.hash(), "X-Wso2-Client-Certificate": escapedPEM(f.a4), "X-Sallyport-Subject": "",
		} {
			if values := got.Header.Values(name); strings.Join(values, "|") != want {
				t.Errorf("%s: %s is %q", listener, name, values)
			}
		}
	}
}

// TestHeaderValues: each format is read under the one name, pinned or by itself, and garbage is a certificate that is not
// good: it neither breaks a call that a token settles, nor a line of the log. Held: security D 58.
func TestHeaderValues(t *testing.T) {
	f := newDoorFixture(t)
	good := func(p *party) map[string]string {
		text := string(certPEM(p))
		alb := strings.NewReplacer(" ", "%20", "\n", "%0A").Replace(text)
		return map[string]string{
			"escaped": escapedPEM(p), "escaped, plus as it is": alb, "spaces": strings.ReplaceAll(text, "\n", " "),
			"base64 of PEM": base64.StdEncoding.EncodeToString([]byte(text)), "base64url of PEM": base64.RawURLEncoding.EncodeToString([]byte(text)),
			"base64": base64.StdEncoding.EncodeToString(p.cert.Raw), "base64url": base64.URLEncoding.EncodeToString(p.cert.Raw),
			"RFC 9440": ":" + base64.StdEncoding.EncodeToString(p.cert.Raw) + ":",
			"XFCC":     `By=x;Hash=` + p.hash() + `;Cert="` + escapedPEM(p) + `";Subject="CN=a"`,
		}
	}
	reads := map[clientcert.Format][]string{
		clientcert.Auto:    {"escaped", "escaped, plus as it is", "spaces", "base64 of PEM", "base64url of PEM", "base64", "base64url", "RFC 9440"},
		clientcert.RFC9440: {"RFC 9440"},
		clientcert.XFCC:    {"XFCC"},
		clientcert.ALB:     {"escaped", "escaped, plus as it is"},
	}
	garbage := map[string]string{
		"two blocks": url.QueryEscape(string(certPEM(f.a4, f.a1))), "a key": url.PathEscape(string(keyPEM(f.a4))), "bad escape": escapedPEM(f.a4) + "%zz",
		"escaped twice": url.QueryEscape(escapedPEM(f.a4)), "a header behind": escapedPEM(f.a4) + "%0d%0aX: y", "random": "random text", "empty": "",
		"long": strings.Repeat("A", 60<<10), "odd": "\xff\xfe\u2028\u0085", "a quote": `","level":"FATAL`, "DER of nothing": base64.StdEncoding.EncodeToString([]byte{0x30, 0x00}),
		"nested": base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x30\x80", 10_000))),
	}
	for name, format := range map[string]clientcert.Format{
		"X-WSO2-CLIENT-CERTIFICATE": clientcert.Auto, "Client-Cert": clientcert.RFC9440,
		"X-Forwarded-Client-Cert": clientcert.XFCC, "X-Amzn-Mtls-Clientcert": clientcert.ALB,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := f.config
			cfg.Header, cfg.Format = name, format
			f.setDoor(t, cfg)
			for _, listener := range []string{byCert, behindLB} {
				client := f.through(t, listener, f.balancer, listener == byCert, "127.0.0.1")
				for way, value := range good(f.a4) {
					a := get(t, client, scheme(listener)+"/box/1.0/x", header(name, value))
					if want := slices.Contains(reads[format], way); (a.status == 200) != want {
						t.Errorf("%s, %s: status %d", listener, way, a.status)
					} else if !want {
						a.refused(t, 401, "900901")
					}
				}
				// A chain in a header of its own, or in the same one, is no identity.
				for way, value := range good(f.a2) {
					f.denied(t, 401, "900901", func() answer {
						return get(t, client, scheme(listener)+"/pay/1.0/x", header(name, value), header("Client-Cert-Chain", good(f.a4)["RFC 9440"]))
					})
					_ = way
				}
				for _, value := range garbage {
					f.denied(t, 401, "900901", func() answer { return get(t, client, scheme(listener)+"/pay/1.0/x", header(name, value)) })
					got := f.allowed(t, func() answer {
						return get(t, client, scheme(listener)+"/both/1.0/x", header(name, value), bearer(f.token(t, "alice", nil)))
					})
					if got.Header.Get("X-Sallyport-Subject") != "alice" || got.Header.Get("X-Sallyport-Client") != "" {
						t.Errorf("%s: the backend was told %v", listener, got.Header)
					}
				}
			}
		})
	}
	for line := range strings.Lines(f.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is broken: %q", line)
		}
	}
}

// TestOneBucketForBothDoors: a certificate has its allowance once, whichever way it comes in. Held: security I 117.
func TestOneBucketForBothDoors(t *testing.T) {
	f := newDoorFixture(t)
	clients := map[string]*http.Client{
		"handshake": f.client(t, f.a1, via{}), "handshake, HTTP/2": f.client(t, f.a1, via{http2: true}),
		byCert: f.through(t, byCert, f.balancer, true, "127.0.0.1"), byAddr: f.through(t, byAddr, nil, false, "127.0.0.1"),
		behindLB: f.through(t, behindLB, nil, false, "127.0.0.1"),
	}
	passed := 0
	for range 5 {
		for name, c := range clients {
			target := scheme(name) + "/pay/1.0/x"
			var options []func(*http.Request)
			if !strings.HasPrefix(name, "handshake") {
				options = append(options, certificateHeader(f.a1))
			}
			switch a := get(t, c, target, options...); a.status {
			case 200:
				passed++
			case 429:
				a.refused(t, 429, "900804")
			default:
				t.Fatalf("%s: status %d", name, a.status)
			}
		}
	}
	if n := f.backend.count("/x"); passed != 10 || n != 10 {
		t.Errorf("%d of 25 calls passed, %d reached the backend, want 10", passed, n)
	}
}

// TestBalancerCertificateEnds: that a load balancer is one is asked on each call, not once a connection; and so is what
// its clients' certificates are worth.
func TestBalancerCertificateEnds(t *testing.T) {
	now := newClock().Now()
	brief := issue("brief", theWorld().interA, usage(x509.ExtKeyUsageClientAuth), validity(now.Add(-time.Hour), now.Add(time.Minute)))
	f := newDoorFixture(t, register(client(payAPI, "brief", brief, "Unlimited")))
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.through(t, byCert, f.balancer, h2, "127.0.0.1")
		call := func(who *party) func() answer {
			return func() answer {
				a := get(t, c, "https://opt.test/pay/1.0/x", certificateHeader(who))
				return a
			}
		}
		start := f.clock.Now()
		f.allowed(t, call(f.a4))
		f.allowed(t, call(brief))
		f.clock.Advance(2 * time.Minute)
		f.denied(t, 401, "900901", call(brief)) // and it is forgotten as a good one
		f.allowed(t, call(f.a4))
		f.clock.Advance(2 * time.Hour)
		if a := f.denied(t, 401, "900902", call(f.a4)); !a.kept() {
			t.Error("it is another connection")
		}
		f.clock.nano.Store(start.UnixNano())
	})

	// A registration that is removed, and a load balancer that is taken from the list, end on a connection that lives.
	c := f.through(t, byCert, f.balancer, true, "127.0.0.1")
	f.allowed(t, func() answer { return get(t, c, "https://opt.test/pay/1.0/x", certificateHeader(brief)) })
	f.remove(t, "brief")
	f.denied(t, 401, "900901", func() answer { return get(t, c, "https://opt.test/pay/1.0/x", certificateHeader(brief)) })
	f.allowed(t, func() answer { return get(t, c, "https://opt.test/pay/1.0/x", certificateHeader(f.a4)) })
	f.config.BalancerTrust = trusting(t, f.a3)
	f.setDoor(t, f.config)
	if a := f.denied(t, 401, "900901", func() answer { return get(t, c, "https://opt.test/pay/1.0/x", certificateHeader(f.a4)) }); !a.kept() {
		t.Error("it is another connection")
	}
}

// TestOriginBehindABalancer: where a call comes from is a load balancer's to say, and nobody else's.
func TestOriginBehindABalancer(t *testing.T) {
	f := newDoorFixture(t)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	said := []func(*http.Request){
		header("X-Forwarded-For", "203.0.113.7"), header("X-Forwarded-For", "198.51.100.8"), header("X-Forwarded-Proto", "https"),
		header("X-Forwarded-Host", "shop.example"), header("Traceparent", trace), header("Tracestate", "a=1"),
	}
	odd := []func(*http.Request){
		header("X-Forwarded-For", ""), header("X-Forwarded-Proto", "gopher"), header("X-Forwarded-Host", "a"), header("X-Forwarded-Host", "b"),
		header("Traceparent", strings.Replace(trace, "0af7", "0AF7", 1)), header("Tracestate", "a=1"),
	}
	type origin struct{ source, proto, host, state string }
	for _, c := range []struct {
		name, listener, from string
		own                  *party
		say                  []func(*http.Request)
		want                 origin
		continued            bool
	}{
		{"believed by certificate", byCert, "127.0.0.1", f.balancer, said, origin{"203.0.113.7, 198.51.100.8, 127.0.0.1", "https", "shop.example", "a=1"}, true},
		{"believed by address", behindLB, "127.0.0.1", nil, said, origin{"203.0.113.7, 198.51.100.8, 127.0.0.1", "https", "shop.example", "a=1"}, true},
		{"says nothing", behindLB, "127.0.0.1", nil, nil, origin{"127.0.0.1", "http", "opt.test", ""}, false},
		{"says nothing, over TLS", byCert, "127.0.0.1", f.balancer, nil, origin{"127.0.0.1", "https", "opt.test", ""}, false},
		{"says odd things", behindLB, "127.0.0.1", nil, odd, origin{"127.0.0.1", "http", "opt.test", ""}, false},
		{"no certificate", byCert, "127.0.0.1", nil, said, origin{"127.0.0.1", "https", "opt.test", ""}, false},
		{"a client's certificate", byCert, "127.0.0.1", f.a4, said, origin{"127.0.0.1", "https", "opt.test", ""}, false},
		{"another address", behindLB, stranger, nil, said, origin{stranger, "http", "opt.test", ""}, false},
		{"its certificate from another address", byCert, stranger, f.balancer, said, origin{stranger, "https", "opt.test", ""}, false},
		{"the door is off", "tls", "127.0.0.1", f.balancer, said, origin{"127.0.0.1", "https", "opt.test", ""}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := f.through(t, c.listener, c.own, false, c.from)
			got := f.allowed(t, func() answer { return get(t, client, scheme(c.listener)+"/pub/1.0/x", c.say...) })
			h := got.Header
			if is := (origin{strings.Join(h.Values("X-Forwarded-For"), "|"), h.Get("X-Forwarded-Proto"), h.Get("X-Forwarded-Host"), h.Get("Tracestate")}); is != c.want {
				t.Errorf("the backend was told %+v, want %+v", is, c.want)
			}
			if parent := h.Values("Traceparent"); len(parent) != 1 || (parent[0] == trace) != c.continued || fmt.Sprint(len(parent[0])) != "55" {
				t.Errorf("traceparent %q", parent)
			}
		})
	}
}

// TestBalancerCertificateEndsUnderRequire: where a certificate is required, a load balancer's own has to be good on each
// call, too, open resources among them.
func TestBalancerCertificateEndsUnderRequire(t *testing.T) {
	f := newDoorFixture(t)
	f.setProfiles(t, f.profiles(t, certPEM(f.caA, f.interA), allProfiles...))
	now := f.clock.Now()
	f.balancer = issue("load balancer", f.caA, usage(x509.ExtKeyUsageClientAuth), validity(now.Add(-time.Hour), now.Add(time.Hour)))
	f.config.BalancerTrust = trusting(t, f.balancer)
	f.setDoor(t, f.config)
	clients := map[bool]*http.Client{}
	for _, h2 := range []bool{false, true} {
		clients[h2] = f.through(t, byCert, f.balancer, h2, "127.0.0.1")
		f.allowed(t, func() answer { return get(t, clients[h2], "https://mtls.test/pay/1.0/open") })
	}
	f.clock.Advance(90 * time.Minute)
	for _, c := range clients {
		f.denied(t, 401, "900901", func() answer { return get(t, c, "https://mtls.test/pay/1.0/open") })
	}
}
