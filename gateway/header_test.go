package gateway_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func escapedPEM(p *party) string {
	return strings.ReplaceAll(url.QueryEscape(string(certPEM(p))), "+", "%20")
}

// TestCertificateHeaderIsNotBelieved: nobody may speak for a client, so the header opens nothing and reaches no backend.
// Held: security D 48.
func TestCertificateHeaderIsNotBelieved(t *testing.T) {
	f := newFixture(t)
	forged := header("X-WSO2-CLIENT-CERTIFICATE", escapedPEM(f.a1))
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, nil, via{http2: h2})
		f.denied(t, 401, "900902", func() answer { return get(t, c, "https://opt.test/pay/1.0/x", forged) })
		for _, target := range []string{"https://open.test/pub/1.0/x", "https://opt.test/pay/1.0/open", "https://opt.test/pub/1.0/x"} {
			got := f.allowed(t, func() answer { return get(t, c, target, forged) })
			noIdentity(t, got)
		}
		got := f.allowed(t, func() answer {
			return get(t, c, "https://opt.test/both/1.0/x", forged, bearer(f.token(t, "alice", nil)))
		})
		if got.Header.Get("X-Sallyport-Client") != "" || strings.Contains(strings.ToLower(got.Raw), "wso2") {
			t.Errorf("the backend was told %v", got.Header)
		}
	})
	plain := f.client(t, nil, via{})
	noIdentity(t, f.allowed(t, func() answer { return get(t, plain, "http://opt.test/pub/1.0/x", forged) }))
	f.denied(t, 404, "404", func() answer { return get(t, plain, "http://opt.test/pay/1.0/x", forged) })
}

// TestHandshakeDecidesNotTheHeader: a caller is the certificate of its handshake, whatever it says in a header.
// Held: security D 49.
func TestHandshakeDecidesNotTheHeader(t *testing.T) {
	f := newFixture(t)
	forged := header("X-WSO2-CLIENT-CERTIFICATE", escapedPEM(f.a1))
	eachVersion(t, func(t *testing.T, h2 bool) {
		for _, host := range []string{"opt.test", "mtls.test"} {
			f.denied(t, 401, "900901", func() answer {
				return get(t, f.client(t, f.a2, via{http2: h2}), "https://"+host+"/pay/1.0/x", forged)
			})
		}
		got := f.allowed(t, func() answer {
			return get(t, f.client(t, f.a3, via{http2: h2}), "https://mtls.test/both/1.0/x", forged)
		})
		if got.Header.Get("X-Client-Cert-Hash") != f.a3.hash() {
			t.Errorf("the caller is %q", got.Header.Get("X-Sallyport-Client"))
		}
	})
}

// identityHeaders are those that only the gateway may set.
var identityHeaders = []string{
	"X-WSO2-CLIENT-CERTIFICATE", "Client-Cert", "Client-Cert-Chain", "Client-Certificate", "X-Forwarded-Client-Cert",
	"X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Subject", "X-Ssl-Client-Cert", "X-SSL-Anything", "SSL-Client-Cert",
	"SSL-Client-S-DN", "X-Client-Cert", "X-Client-Cert-Hash", "X-Client-Cert-Foo", "X-Sallyport-Client", "X-Sallyport-Subject",
	"X-Sallyport-Other", "X-JWT-Assertion",
}

const marker = "forged-by-the-client"

func noIdentity(t *testing.T, got record) {
	t.Helper()
	for name, values := range got.Header {
		plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if slices.ContainsFunc(identityHeaders, func(h string) bool { return strings.ToLower(h) == plain }) {
			t.Errorf("the backend got %s: %q", name, values)
		}
	}
	if strings.Contains(got.Raw, marker) {
		t.Errorf("the backend got what the client forged: %q", got.Raw)
	}
}

// TestSpellingsOfTheHeader: no spelling of an identity header comes through, whether an HTTP reader or a backend takes
// it for the real one. Held: security D 54.
func TestSpellingsOfTheHeader(t *testing.T) {
	f := newFixture(t)
	for name, line := range map[string]string{
		"underscores":       "X_WSO2_CLIENT_CERTIFICATE: " + marker,
		"mixed":             "X-WSO2_CLIENT-CERTIFICATE: " + marker,
		"lower case":        "x-wso2-client-certificate: " + marker,
		"space before":      "X-WSO2-CLIENT-CERTIFICATE : " + marker,
		"tab before":        "X-WSO2-CLIENT-CERTIFICATE\t: " + marker,
		"leading tab":       "\tX-WSO2-CLIENT-CERTIFICATE: " + marker,
		"leading space":     " X-WSO2-CLIENT-CERTIFICATE: " + marker,
		"NUL":               "X-Wso2-Client-Certificate\x00: " + marker,
		"Unicode dash":      "X-WSO2‐CLIENT‐CERTIFICATE: " + marker,
		"bare CR":           "X-A: b\rX-WSO2-CLIENT-CERTIFICATE: " + marker,
		"folded":            "X-WSO2-CLIENT-CERTIFICATE:\n " + marker,
		"folded behind":     "X-Client-Cert-Hash: a\n\t" + marker,
		"xfcc underscores":  "X_FORWARDED_CLIENT_CERT: " + marker,
		"client_cert":       "Client_Cert: " + marker,
		"ssl_client":        "SSL_CLIENT_CERT: " + marker,
		"sallyport client":  "x_sallyport_CLIENT: " + marker,
		"dots":              "X.WSO2.CLIENT.CERTIFICATE: " + marker,
		"tildes":            "X~Sallyport~Client: " + marker,
		"verified":          "SSL.CLIENT.VERIFY: " + marker,
		"Traefik":           "X-Forwarded-Tls-Client-Cert: " + marker,
		"Traefik's info":    "X-Forwarded-Tls-Client-Cert-Info: " + marker,
		"Azure":             "X-ARR-ClientCert: " + marker,
		"Cloudflare":        "Cf-Client-Cert-Der-Base64: " + marker,
		"CGI's proxy":       "Proxy: " + marker,
		"remote user":       "X-Remote-User: " + marker,
		"twice":             "X-Wso2-Client-Certificate: " + marker + "\nX_Wso2_Client_Certificate: " + marker,
		"after an empty":    "X-Wso2-Client-Certificate:\nX-Wso2-Client-Certificate: " + marker,
		"empty header name": ": " + marker,
	} {
		t.Run(name, func(t *testing.T) {
			before := f.backend.calls.Load()
			a := f.dial(t, nil, "open.test").get(t, "/pub/1.0/x", "open.test", line)
			switch {
			case a.status == 400 && f.backend.calls.Load() == before:
			case a.status == 200:
				noIdentity(t, f.backend.last(t))
			default:
				t.Errorf("status %d (%q)", a.status, a.body)
			}
			before = f.backend.calls.Load()
			b := f.dial(t, nil, "opt.test").get(t, "/pay/1.0/x", "opt.test", strings.ReplaceAll(line, marker, escapedPEM(f.a1)))
			if calls := f.backend.calls.Load() - before; b.status != 400 && b.status != 401 || calls != 0 {
				t.Errorf("on an mTLS API: status %d, %d calls", b.status, calls)
			}
		})
	}
}

// TestConnectionHeaderNamesNothingAway: what the gateway tells the backend cannot be declared hop-by-hop by the client.
// Held: security D 55.
func TestConnectionHeaderNamesNothingAway(t *testing.T) {
	f := newFixture(t)
	for name, lines := range map[string][]string{
		"ours":           {"Connection: x-sallyport-client, x-client-cert-hash, x-forwarded-for, x-request-id"},
		"configured":     {"connection: x-wso2-client-certificate", "X-WSO2-CLIENT-CERTIFICATE: " + marker},
		"two lines":      {"Connection:", "Connection: X-JWT-Assertion, x-client-cert-hash, X-Sallyport-Client"},
		"keep-alive too": {"Connection: keep-alive, X-Sallyport-Client", "X-Sallyport-Client: " + marker},
		"odd case":       {"CONNECTION: X-SALLYPORT-CLIENT,,X-Client-Cert-Hash ,"},
		"authorization":  {"Connection: authorization, host, content-length, traceparent"},
	} {
		t.Run(name, func(t *testing.T) {
			a := f.dial(t, f.a4, "mtls.test").get(t, "/pay/1.0/x", "mtls.test", lines...)
			if a.status != http.StatusOK {
				t.Fatalf("status %d (%q)", a.status, a.body)
			}
			got := f.backend.last(t)
			for _, line := range []string{"X-Sallyport-Client: a4", "X-Client-Cert-Hash: " + f.a4.hash(), "X-Forwarded-For: 127.0.0.1", "X-Request-Id: " + a.id()} {
				if n := strings.Count(got.Raw, "\r\n"+line+"\r\n"); n != 1 {
					t.Errorf("the backend got %q %d times: %q", line, n, got.Raw)
				}
			}
			if strings.Contains(got.Raw, marker) {
				t.Errorf("the backend got %q", got.Raw)
			}
		})
	}
}

// TestTrailersAreNoHeaders: an identity in a trailer is nobody's and does not reach the backend.
// Held: security D 56.
func TestTrailersAreNoHeaders(t *testing.T) {
	f := newFixture(t)
	t.Run("HTTP/1.1", func(t *testing.T) {
		for path, status := range map[string]int{"/pub/1.0/x": 200, "/pay/1.0/x": 401} {
			c := f.dial(t, nil, "opt.test")
			c.send(t, "POST "+path+" HTTP/1.1\nHost: opt.test\nTransfer-Encoding: chunked\nTrailer: X-Sallyport-Client, X-WSO2-CLIENT-CERTIFICATE\n\n"+
				"3\nabc\n0\nX-Sallyport-Client: "+marker+"\nX-WSO2-CLIENT-CERTIFICATE: "+marker+"\n\n")
			before := f.backend.calls.Load()
			if a := c.receive(t, "POST"); a.status != status {
				t.Errorf("%s: status %d (%q)", path, a.status, a.body)
			}
			if calls := f.backend.calls.Load() - before; status != 200 && calls != 0 {
				t.Errorf("%s: the backend was called %d times", path, calls)
			}
		}
		noTrailer(t, f.backend.last(t))
	})
	t.Run("HTTP/2", func(t *testing.T) {
		before := f.backend.calls.Load()
		for path, status := range map[string]int{"/pub/1.0/x": 200, "/pay/1.0/x": 401} {
			h := f.dialHTTP2(t, nil, "opt.test")
			id := h.open(t, false, ":method", "POST", ":scheme", "https", ":authority", "opt.test", ":path", path, "trailer", "x-sallyport-client")
			if err := h.framer.WriteData(id, false, []byte("abc")); err != nil {
				t.Fatal(err)
			}
			h.headers(t, id, true, "x-sallyport-client", marker, "x-wso2-client-certificate", escapedPEM(f.a1))
			if a := h.receive(t, id); a.status != status {
				t.Errorf("%s: status %d (%q)", path, a.status, a.body)
			}
		}
		noTrailer(t, f.backend.last(t))
		if calls := f.backend.calls.Load() - before; calls != 1 {
			t.Errorf("the backend was called %d times, and one call was open to all", calls)
		}
	})
}

func noTrailer(t *testing.T, got record) {
	t.Helper()
	noIdentity(t, got)
	if got.Body != "abc" || strings.Contains(strings.ToLower(got.Raw), "\ntrailer:") {
		t.Errorf("the backend got the body %q of %q", got.Body, got.Raw)
	}
}

// TestManagedHeadersAreOurs: what the client writes of itself never reaches a backend, on any kind of API; what is there
// is the gateway's. Held: security D 57.
func TestManagedHeadersAreOurs(t *testing.T) {
	f := newFixture(t)
	var lines []func(*http.Request)
	for _, name := range identityHeaders {
		lines = append(lines, header(name, marker), func(r *http.Request) {
			r.Header[strings.ReplaceAll(name, "-", "_")] = []string{marker}
		})
	}
	for _, name := range []string{
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "Forwarded", "X-Real-IP", "X-Request-Id", "Traceparent",
		"Tracestate", "X-Original-URI", "X-Original-URL", "X-Rewrite-URL", "Proxy-Authorization", "X_Forwarded_For", "Content_Length", "Transfer_Encoding",
	} {
		lines = append(lines, func(r *http.Request) { r.Header[name] = []string{marker} })
	}
	eachVersion(t, func(t *testing.T, h2 bool) {
		for name, c := range map[string]struct {
			who    *party
			target string
			want   map[string]string
		}{
			"certificate": {f.a4, "https://mtls.test/pay/1.0/x", map[string]string{"X-Sallyport-Client": "a4", "X-Client-Cert-Hash": f.a4.hash()}},
			"either":      {f.a4, "https://opt.test/both/1.0/x", map[string]string{"X-Sallyport-Client": "a4", "X-Client-Cert-Hash": f.a4.hash()}},
			"token":       {nil, "https://open.test/tok/1.0/x", map[string]string{"X-Sallyport-Subject": "alice"}},
			"open":        {nil, "https://open.test/pub/1.0/x", nil},
		} {
			t.Run(name, func(t *testing.T) {
				all := append([]func(*http.Request){bearer(f.token(t, "alice", nil))}, lines...)
				a := get(t, f.client(t, c.who, via{http2: h2}), c.target, all...)
				if a.status != http.StatusOK {
					t.Fatalf("status %d (%q)", a.status, a.body)
				}
				got := f.backend.last(t)
				if strings.Contains(got.Raw, marker) {
					t.Errorf("the backend got what the client forged: %q", got.Raw)
				}
				for _, h := range identityHeaders {
					h = http.CanonicalHeaderKey(h)
					if values := got.Header.Values(h); strings.Join(values, "|") != c.want[h] {
						t.Errorf("%s: %q, want %q", h, values, c.want[h])
					}
				}
				if id := got.Header.Get("X-Request-Id"); id != a.id() || got.Header.Get("Traceparent")[3:35] != id {
					t.Errorf("X-Request-Id %q, traceparent %q", id, got.Header.Get("Traceparent"))
				}
			})
		}
	})
}
