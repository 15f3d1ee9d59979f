package gateway_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles/trust"
)

// TestAuthorizationStaysHere: a token that is meant for the gateway is not forwarded, unless the API is configured to; any
// other Authorization is, from the same line, too.
func TestAuthorizationStaysHere(t *testing.T) {
	f := newFixture(t)
	raw := f.token(t, "alice", nil)
	ask := func(t *testing.T, who *party, target, value string) string {
		t.Helper()
		a := get(t, f.client(t, who, via{}), target, header("Authorization", value))
		if a.status != 200 {
			t.Fatalf("status %d (%q)", a.status, a.body)
		}
		return a.echo(t).Header.Get("Authorization")
	}
	for _, c := range []struct {
		name   string
		who    *party
		target string
		value  string
		want   string
	}{
		{"token API", nil, "https://open.test/tok/1.0/x", "Bearer " + raw, ""},
		{"token API, odd case", nil, "https://open.test/tok/1.0/x", "bEARER " + raw, ""},
		{"either, the certificate won", f.a4, "https://opt.test/both/1.0/x", "Bearer " + raw, ""},
		{"either, not even a token", f.a4, "https://opt.test/both/1.0/x", "Bearer !", ""},
		{"either, basic", f.a4, "https://opt.test/both/1.0/x", "Basic Zm9vOmJhcg==", "Basic Zm9vOmJhcg=="},
		{"token API, basic before", nil, "https://open.test/tok/1.0/x", "Basic Zm9vOmJhcg==, Bearer " + raw, "Basic Zm9vOmJhcg=="},
		{"token API, basic behind", nil, "https://open.test/tok/1.0/x", "Bearer " + raw + ",Basic Zm9vOmJhcg==", "Basic Zm9vOmJhcg=="},
		{"token API, digest around", nil, "https://open.test/tok/1.0/x", `Digest username="a, Bearer b", Bearer ` + raw + `, Digest realm="c,d"`, `Digest username="a, Bearer b", Digest realm="c,d"`},
		{"either, the certificate won, basic beside", f.a4, "https://opt.test/both/1.0/x", "Basic Zm9vOmJhcg==, Bearer !", "Basic Zm9vOmJhcg=="},
		{"certificate API", f.a4, "https://opt.test/pay/1.0/x", "Bearer " + raw + ", Basic Zg==", "Bearer " + raw + ", Basic Zg=="},
		{"open API", nil, "https://open.test/pub/1.0/x", "Basic Zm9vOmJhcg==", "Basic Zm9vOmJhcg=="},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ask(t, c.who, c.target, c.value); got != c.want {
				t.Errorf("the backend got %.80q, want %.80q", got, c.want)
			}
		})
	}
	f.routes[2].ForwardAuthorization = true
	f.setRoutes(t)
	for _, value := range []string{"Bearer " + raw, "Basic Zm9vOmJhcg==, Bearer " + raw} {
		if got := ask(t, nil, "https://open.test/tok/1.0/x", value); got != value {
			t.Errorf("with forwardAuthorization the backend got %.80q", got)
		}
	}
}

// TestForwardedHeaders: only the gateway tells the backend where a call came from, and the Host is the backend's, or the
// client's with preserveHost.
func TestForwardedHeaders(t *testing.T) {
	f := newFixture(t)
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, nil, via{http2: h2, from: "127.0.0.7"})
		trace := "00-11111111111111111111111111111111-2222222222222222-01"
		a := get(t, c, "https://open.test/pub/1.0/x", header("Traceparent", trace), header("X-Request-Id", "mine"), header("X-Forwarded-For", "1.2.3.4"),
			header("X-Custom", "a"), header("X-Custom", "b"))
		got := a.echo(t)
		for name, want := range map[string]string{
			"X-Forwarded-For": "127.0.0.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "open.test", "X-Request-Id": a.id(), "X-Custom": "a|b",
		} {
			if v := strings.Join(got.Header.Values(name), "|"); v != want {
				t.Errorf("%s: %q, want %q", name, v, want)
			}
		}
		if v := got.Header.Get("Traceparent"); len(v) != 55 || v == trace || v[3:35] != a.id() {
			t.Errorf("traceparent %q", v)
		}
		if got.Host != strings.TrimPrefix(f.backend.URL, "http://") {
			t.Errorf("Host %q", got.Host)
		}
	})
	plain := get(t, f.client(t, nil, via{}), "http://open.test/pub/1.0/x").echo(t)
	if plain.Header.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("X-Forwarded-Proto %q over plain HTTP", plain.Header.Get("X-Forwarded-Proto"))
	}
	f.routes[3].Upstream.PreserveHost = true
	f.setRoutes(t)
	if got := get(t, f.client(t, nil, via{}), "https://open.test/pub/1.0/x", host("OPEN.test:8243")).echo(t); got.Host != "OPEN.test:8243" {
		t.Errorf("Host %q with preserveHost", got.Host)
	}
}

// TestForwardedCertificate: with forwardClientCertificateHeader the backend gets the certificate that let the call in.
func TestForwardedCertificate(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.settings.ForwardCertificate = true })
	if got := f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://opt.test/pay/1.0/x") }); got.Header.Get("X-WSO2-CLIENT-CERTIFICATE") != escapedPEM(f.a4) {
		t.Errorf("the backend got %q", got.Header.Get("X-WSO2-CLIENT-CERTIFICATE"))
	}
	got := f.allowed(t, func() answer {
		return get(t, f.client(t, f.a2, via{}), "https://opt.test/both/1.0/x", bearer(f.token(t, "alice", nil)))
	})
	if v, ok := got.Header["X-Wso2-Client-Certificate"]; ok {
		t.Errorf("the backend got a certificate that let nobody in: %q", v)
	}
}

// TestUpstreamTLS: the certificate of an https backend is verified. Held: security K 143 for what is built.
func TestUpstreamTLS(t *testing.T) {
	w := theWorld()
	now := newClock().Now()
	backends := map[string]struct {
		server *party
		roots  *party
		name   string
		status int
	}{
		"good":            {issue("b", w.serverCA, server("backend.test")), w.serverCA, "127.0.0.1", 200},
		"system root":     {issue("b", theSystemRoot(), server()), nil, "127.0.0.1", 200},
		"wrong CA":        {issue("b", w.caB, server()), w.serverCA, "127.0.0.1", 502},
		"not the system":  {issue("b", w.serverCA, server()), nil, "127.0.0.1", 502},
		"another's roots": {issue("b", theSystemRoot(), server()), w.serverCA, "127.0.0.1", 502},
		"wrong name":      {issue("b", w.serverCA, func(c *x509.Certificate) { c.DNSNames = []string{"other.test"} }), w.serverCA, "127.0.0.1", 502},
		"expired":         {issue("b", w.serverCA, server(), validity(now.AddDate(-20, 0, 0), time.Now().Add(-time.Hour))), w.serverCA, "127.0.0.1", 502},
		"self-signed":     {issue("b", nil, server()), w.serverCA, "127.0.0.1", 502},
	}
	for name, c := range backends {
		t.Run(name, func(t *testing.T) {
			b := unstartedBackend()
			b.TLS = &tls.Config{Certificates: []tls.Certificate{*c.server.tls()}}
			b.StartTLS()
			defer b.Close()
			f := newFixture(t, func(f *fixture, s *setup) {
				up := f.upstream(t, b.URL)
				if c.roots != nil {
					up.Roots = x509.NewCertPool()
					up.Roots.AddCert(c.roots.cert)
					up.TLSDigest = sha256.Sum256(c.roots.cert.Raw)
				}
				s.routes[3].Upstream = up
			})
			a := get(t, f.client(t, nil, via{}), "https://open.test/pub/1.0/x")
			if c.status == 200 {
				if a.status != 200 {
					t.Errorf("status %d (%q)", a.status, a.body)
				}
				return
			}
			a.refused(t, 502, "101503")
			if b.calls.Load() != 0 {
				t.Error("the backend was called")
			}
		})
	}
}

// TestExplainForwardsNothing: Explain does not call the backend.
func TestExplainForwardsNothing(t *testing.T) {
	f := newFixture(t)
	before := f.backend.calls.Load()
	e := f.gateway.Explain(t.Context(), decision.Question{
		Listener: &f.listeners[0], Local: mustAddr("127.0.0.1"), Host: "mtls.test", Method: "GET", Target: "/pay/1.0/x",
		Chain: []*x509.Certificate{f.a4.cert, f.interA.cert},
	})
	if !e.Allowed || e.By != "certificate" || f.backend.calls.Load() != before {
		t.Errorf("explained as %+v", e)
	}
	e = f.gateway.Explain(t.Context(), decision.Question{
		Listener: &f.listeners[0], Local: mustAddr("127.0.0.1"), Host: "opt.test", Method: "GET", Target: "/both/1.0/x",
		Chain: []*x509.Certificate{f.a2.cert, f.interA.cert}, Authorization: "Bearer " + f.expiredToken(t),
	})
	if e.Allowed || e.Status != 401 || e.Code != "900903" || len(e.Steps) == 0 {
		t.Errorf("explained as %+v", e)
	}
}

// TestDeniedBackend: a backend that the deny list names gets no further call, on kept connections and for tunnels either.
// The client is not told why, the access log is; off the list it is good again. Held: security K 143, 148.
func TestDeniedBackend(t *testing.T) {
	for name, protocol := range map[string]backend.Protocol{"HTTP/1.1": backend.HTTP1, "HTTP/2": backend.HTTP2} {
		t.Run(name, func(t *testing.T) {
			shown := issue("b", theWorld().serverCA, server())
			b := unstartedBackend()
			b.EnableHTTP2 = protocol == backend.HTTP2
			b.TLS = &tls.Config{Certificates: []tls.Certificate{*shown.tls()}}
			b.StartTLS()
			defer b.Close()
			f := newFixture(t, func(f *fixture, s *setup) {
				up := f.upstream(t, b.URL)
				up.Protocol, up.Roots = protocol, x509.NewCertPool()
				up.Roots.AddCert(theWorld().serverCA.cert)
				up.TLSDigest = sha256.Sum256(theWorld().serverCA.cert.Raw)
				s.routes[3].Upstream = up
			})
			call := func(fields ...func(*http.Request)) answer {
				return get(t, f.client(t, nil, via{}), "https://open.test/pub/1.0/x", fields...)
			}
			if a := call(); a.status != 200 {
				t.Fatalf("status %d (%q)", a.status, a.body)
			}
			calls := b.calls.Load()
			f.setDenied(t, trust.Denial{Fingerprint: sha256.Sum256(shown.cert.Raw), Comment: "stolen"})
			upgrade := func(r *http.Request) {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
			}
			answers := []answer{call(), call()}
			if protocol == backend.HTTP1 {
				answers = append(answers, call(upgrade))
			}
			for _, a := range answers {
				a.refused(t, 502, "101503")
				for _, word := range []string{"certificate", "denied", "deny", "stolen", "x509", b.URL} {
					if strings.Contains(a.body, word) {
						t.Errorf("the client is told %q", a.body)
					}
				}
				if x := f.seen(t, a.id()); trust.CauseOf(x.Err) != trust.Denied || !strings.Contains(x.Err.Error(), "stolen") {
					t.Errorf("the access log is told %v", x.Err)
				}
			}
			if n := b.calls.Load() - calls; n != 0 {
				t.Errorf("a denied backend got %d calls", n)
			}
			f.setDenied(t)
			if a := call(); a.status != 200 {
				t.Errorf("off the list: status %d (%q)", a.status, a.body)
			}
		})
	}
}
