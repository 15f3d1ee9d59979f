package gateway_test

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// TestEveryRefusal provokes each reason there is, in both versions of HTTP and for HEAD, and holds its status, code, body
// and headers.
func TestEveryRefusal(t *testing.T) {
	nobody := closedAddress(t)
	f := newFixture(t, register(client(payAPI, "zero", theWorld().a2, "Zero")), func(f *fixture, s *setup) {
		zero, _ := f.tiers.Find("Zero")
		add := func(name string, change func(*decision.Route)) {
			r := decision.Route{API: pubAPI, Context: "/" + name, Security: open, Upstream: s.routes[3].Upstream}
			r.API.Name = name
			change(&r)
			s.routes = append(s.routes, r)
		}
		add("limited", func(r *decision.Route) {
			r.Limit = f.limits.Bucket(ratelimit.Key{API: "limited:1.0", Level: ratelimit.LevelAPI}, zero)
		})
		add("narrow", func(r *decision.Route) {
			r.Resources = []decision.Resource{{
				Path: "/*", Security: open, Limit: f.limits.Bucket(ratelimit.Key{API: "narrow:1.0", Level: ratelimit.LevelResource, Name: "/*"}, zero),
			}}
		})
		add("uncounted", func(r *decision.Route) {
			unreachable, err := ratelimit.New(ratelimit.Options{Redis: ratelimit.Redis{Addresses: []string{nobody}}, OnFailure: ratelimit.DenyAll})
			if err != nil {
				t.Fatal(err)
			}
			gold, _ := f.tiers.Find("Gold")
			r.Limit = unreachable.Bucket(ratelimit.Key{API: "uncounted:1.0", Level: ratelimit.LevelAPI}, gold)
		})
		add("down", func(r *decision.Route) { r.Upstream = f.upstream(t, "http://"+nobody) })
		add("stuck", func(r *decision.Route) { // its backend takes connections, and says nothing in their handshakes
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			r.Upstream = f.upstream(t, "https://"+l.Addr().String())
			r.Upstream.ConnectTimeout = 20 * time.Millisecond
		})
		add("late", func(r *decision.Route) { r.Upstream.Timeout = 20 * time.Millisecond })
		add("aud", func(r *decision.Route) { r.Security, r.Audiences = byToken, []string{"a"} })
		add("few", func(r *decision.Route) {
			r.Resources = []decision.Resource{{Path: "/x", Methods: []string{"POST"}, Security: open}}
		})
		add("ruled", allows(t, "path.endsWith('/allowed')"))
		add("small", func(r *decision.Route) { r.MaxBody = 3 })
		add("laxer", func(r *decision.Route) {
			r.Resources = []decision.Resource{{Path: "/*", Security: open}, {Path: "/shut", Security: byToken}}
		})
		s.claims = []decision.Claim{{API: certstore.API{Name: "fenced", Version: "1.0"}, Context: "/fenced"}}
		add("busy", func(r *decision.Route) { r.Upstream.MaxCalls = -1 })
		// A verifier that panics, or has no keys, for the tokens that say so, and the real one for others.
		good := s.settings.Tokens
		s.settings.Tokens = routedVerifier{good}
	})
	release := make(chan struct{})
	defer close(release)
	f.backend.handle("/wait", func(http.ResponseWriter, *http.Request) { <-release })

	raw := f.token(t, "alice", nil)
	manyLines := func(r *http.Request) {
		for i := range 300 {
			r.Header.Add("X-Line", strconv.Itoa(i))
		}
	}
	loop := func(r *http.Request) {
		a := get(t, f.client(t, nil, via{}), "https://opt.test/pub/1.0/x")
		r.Header["Via"] = a.echo(t).Header["Via"]
	}

	type refusal struct {
		reason  string
		status  int
		code    string
		who     *party
		target  string
		options []func(*http.Request)
		headers map[string]string // "": has to be there; none: must not
	}
	const none = "\x00"
	basic := `MutualTLS realm="sallyport"`
	all := []refusal{
		{"bad_request", 400, "400", nil, "/pub/1.0/x//y", nil, nil},
		{"ambiguous_path", 400, "400", nil, "/laxer/1.0/shut;x", nil, nil},
		{"misdirected", 421, "421", nil, "/pub/1.0/x", []func(*http.Request){host("open.test")}, nil},
		{"no_such_api", 404, "404", nil, "/nothing", nil, nil},
		{"api_fenced", 503, "503", nil, "/fenced/1.0/x", nil, map[string]string{"Retry-After": "5"}},
		{"no_such_api", 404, "404", nil, "/fenced/x", nil, nil}, // it is not the default version
		{"no_such_resource", 403, "900906", nil, "/few/1.0/x", nil, nil},
		{"missing_credentials", 401, "900902", nil, "/pay/1.0/x", nil, map[string]string{"WWW-Authenticate": basic}},
		{"missing_credentials", 401, "900902", nil, "/both/1.0/x", nil, map[string]string{"WWW-Authenticate": basic + `|Bearer realm="sallyport"`}},
		{"invalid_credentials", 401, "900901", f.a3, "/pay/1.0/x", nil, map[string]string{"WWW-Authenticate": basic}},
		{"invalid_credentials", 401, "900901", nil, "/tok/1.0/x", []func(*http.Request){bearer("x.y.z")}, map[string]string{"WWW-Authenticate": `Bearer realm="sallyport", error="invalid_token"`}},
		{"token_expired", 401, "900903", nil, "/tok/1.0/x", []func(*http.Request){bearer(f.expiredToken(t))}, map[string]string{"WWW-Authenticate": ""}},
		{"scope_missing", 403, "900910", nil, "/both/1.0/scoped", []func(*http.Request){bearer(raw)}, map[string]string{"WWW-Authenticate": `Bearer realm="sallyport", error="insufficient_scope", scope="both:read both:admin"`}},
		{"scope_missing", 403, "900910", f.a1, "/pay/1.0/scoped", nil, map[string]string{"WWW-Authenticate": none}},
		{"scope_missing", 403, "900910", f.a4, "/both/1.0/scoped", []func(*http.Request){bearer(raw)}, map[string]string{"WWW-Authenticate": none}},
		{"audience_mismatch", 403, "900914", nil, "/aud/1.0/x", []func(*http.Request){bearer(raw)}, map[string]string{"WWW-Authenticate": `Bearer realm="sallyport", error="invalid_token"`}},
		{"forbidden", 403, "900908", f.s1, "/pay/1.0/x", nil, nil},
		{"rule", 403, "900908", nil, "/ruled/1.0/x", nil, map[string]string{"WWW-Authenticate": none}},
		{"key_unavailable", 503, "503", nil, "/tok/1.0/x", []func(*http.Request){bearer("unavailable")}, map[string]string{"Retry-After": ""}},
		{"throttled_api", 429, "900800", nil, "/limited/1.0/x", nil, map[string]string{"Retry-After": "60", "Ratelimit-Policy": `"api";q=0;w=60`, "Ratelimit": `"api";r=0;t=60`}},
		{"throttled_resource", 429, "900802", nil, "/narrow/1.0/x", nil, map[string]string{"Retry-After": "60", "Ratelimit": ""}},
		{"throttled_certificate", 429, "900804", f.a2, "/pay/1.0/x", nil, map[string]string{"Retry-After": "60", "Ratelimit": ""}},
		{"limit_unavailable", 503, "503", nil, "/uncounted/1.0/x", nil, map[string]string{"Retry-After": "1"}},
		{"backend_unreachable", 502, "101503", nil, "/down/1.0/x", nil, nil},
		{"backend_unreachable", 502, "101503", nil, "/stuck/1.0/x", nil, nil},
		{"backend_late", 504, "101504", nil, "/late/1.0/wait", nil, nil},
		{"internal", 500, "500", nil, "/tok/1.0/x", []func(*http.Request){bearer("panic")}, nil},
		{"too_many_headers", 431, "431", nil, "/pub/1.0/x", []func(*http.Request){manyLines}, nil},
		{"body_too_large", 413, "413", nil, "/small/1.0/x", []func(*http.Request){withBody("four")}, nil},
		{"backend_busy", 503, "503", nil, "/busy/1.0/x", nil, map[string]string{"Retry-After": ""}},
		{"loop", 508, "508", nil, "/pub/1.0/x", []func(*http.Request){loop}, nil},
	}
	limits := map[string]decision.Limit{ // by reason, or by target
		"/stuck/1.0/x": "connect_timeout", "backend_late": "timeout", "too_many_headers": "header_count",
		"body_too_large": "max_body_size", "backend_busy": "max_calls",
	}
	eachVersion(t, func(t *testing.T, h2 bool) {
		for _, r := range all {
			t.Run(r.reason, func(t *testing.T) {
				c := f.client(t, r.who, via{http2: h2, sni: "opt.test"})
				a, err := do(c, "GET", "https://opt.test"+r.target, nil, r.options...)
				if err != nil {
					t.Fatal(err)
				}
				a.refused(t, r.status, r.code)
				for name, want := range r.headers {
					got := strings.Join(a.header.Values(name), "|")
					if (got == "") != (want == none) || want != "" && want != none && got != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
				for _, name := range []string{"Retry-After", "Ratelimit", "Ratelimit-Policy"} {
					if (a.status == 429 || name == "Retry-After" && a.status == 503) != (a.header.Get(name) != "") {
						t.Errorf("status %d with %s %q", a.status, name, a.header.Get(name))
					}
				}
				if a.header.Get("Cache-Control") != "no-store" {
					t.Errorf("Cache-Control %q", a.header.Get("Cache-Control"))
				}
				s := f.seen(t, a.id())
				if s.Reason != r.reason || s.Status != r.status || s.Out != int64(len(a.body)) || s.Limit != cmp.Or(limits[r.target], limits[r.reason]) {
					t.Errorf("observed %+v", s)
				}
				if h2 && a.header.Get("Connection") != "" {
					t.Errorf("Connection %q", a.header.Get("Connection"))
				}

				head, err := do(c, "HEAD", "https://opt.test"+r.target, nil, r.options...)
				if err != nil {
					t.Fatal(err)
				}
				if head.status != r.status || head.body != "" || r.reason != "internal" && head.header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
					t.Errorf("HEAD: %+v", head)
				}
			})
		}
	})

	// Whatever reasons there are, they are all above, or named here with the test that has them.
	elsewhere := []string{
		"client_gone",         // TestClientGone
		"registrations_stale", // TestStaleRegistrations
		"status_unknown",      // TestStatusThatCannotBeKnown
		"stopped",             // TestAbort
		"caller_busy",         // TestOneCallerLeavesRoom
		"body_too_slow",       // takes its time
		"overloaded",          // needs a memory limit
		"unknown_expectation", // TestUnknownExpectation
		"unknown_coding",      // TestHeadsThatAreRefused
		"unknown_version",     // TestHeadsThatAreRefused
		"backend_unreadable",  // TestRules
		"last_hop",            // TestRules
		"no_trace",            // TestRules
		"acme_validation",     // TestValidation
	}
	for reason := decision.Reason(1); reason.String() != "internal"; reason++ {
		name := reason.String()
		if !slices.Contains(elsewhere, name) && !slices.ContainsFunc(all, func(r refusal) bool { return r.reason == name }) {
			t.Errorf("no call provokes %s", name)
		}
	}
}

// TestUnknownExpectation: an Expect that nobody can meet is refused, over HTTP/1.1 too.
func TestUnknownExpectation(t *testing.T) {
	f := newFixture(t)
	f.denied(t, 417, "417", func() answer {
		return f.dialHTTP2(t, nil, "open.test").get(t, "/pub/1.0/x", "open.test", "expect", "miracles")
	})
	before := f.backend.calls.Load()
	if a := f.dial(t, nil, "open.test").get(t, "/pub/1.0/x", "open.test", "Expect: miracles"); a.status != 417 || f.backend.calls.Load() != before {
		t.Errorf("HTTP/1.1: status %d", a.status)
	}
}

// TestHeadsThatAreRefused: what is no request is told so like any other refusal, is observed, and ends the connection.
func TestHeadsThatAreRefused(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		head   string
		status int
		reason string
	}{
		{"GET /pub/1.0/x HTTP/1.1\nHost: open.test\nHost: open.test\n\n", 400, "bad_request"},
		{"GET /pub/1.0/x HTTP/1.1\nHost: open.test\nContent-Length: +1\n\n", 400, "bad_request"},
		{"GET /pub/1.0/x HTTP/1.1\nHost: open.test\nX: " + strings.Repeat("x", 64<<10) + "\n\n", 431, "too_many_headers"},
		{"GET /pub/1.0/x HTTP/1.1\nHost: open.test\nExpect: miracles\n\n", 417, "unknown_expectation"},
		{"GET /pub/1.0/x HTTP/1.1\nHost: open.test\nTransfer-Encoding: gzip\n\n", 501, "unknown_coding"},
		{"GET /pub/1.0/x HTTP/3.0\nHost: open.test\n\n", 505, "unknown_version"},
	} {
		before := f.backend.calls.Load()
		conn := f.dial(t, nil, "open.test")
		conn.send(t, c.head)
		a := conn.receive(t, "GET")
		a.refused(t, c.status, strconv.Itoa(c.status))
		if s := f.seen(t, a.id()); s.Reason != c.reason || s.Status != c.status {
			t.Errorf("%.60q: observed %+v", c.head, s)
		}
		if a.header.Get("Connection") != "close" || !conn.ended() || f.backend.calls.Load() != before {
			t.Errorf("%.60q: the connection goes on, or the backend was called", c.head)
		}
	}
}

func withBody(text string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body, r.ContentLength = readCloser{strings.NewReader(text)}, int64(len(text))
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// A routedVerifier has a fault for each token that asks for one.
type routedVerifier struct{ decision.Verifier }

func (v routedVerifier) Verify(ctx context.Context, raw string) (*token.Claims, error) {
	switch raw {
	case "unavailable":
		return nil, fmt.Errorf("asked so: %w", token.ErrUnavailable)
	case "panic":
		panic("asked so")
	}
	return v.Verifier.Verify(ctx, raw)
}

// TestPanicInTheHook: a hook that panics harms neither its own call nor others.
func TestPanicInTheHook(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Observe = func(x *decision.Exchange) {
			if strings.HasSuffix(x.Path, "/panic") {
				panic("fault in the hook")
			}
		}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		c := f.client(t, nil, via{http2: h2})
		for range 3 {
			a := get(t, c, "https://open.test/pub/1.0/panic")
			if a.status != 200 {
				t.Errorf("status %d", a.status)
			}
			a = get(t, c, "https://open.test/pub/1.0/x")
			if a.status != 200 || !a.kept() {
				t.Errorf("status %d, on the same connection: %v", a.status, a.kept())
			}
		}
		get(t, c, "https://open.test/nothing/panic").refused(t, 404, "404")
	})
	if !strings.Contains(f.log.String(), "fault in the hook") {
		t.Error("nobody was told")
	}
}

// TestErrorsAreNotEchoed: what libraries say of a certificate or a token does not come back to the client, and neither
// tokens nor passwords get into the log. Held: security K 148 for what is built.
func TestErrorsAreNotEchoed(t *testing.T) {
	f := newDoorFixture(t)
	raw := f.forgedToken(t)
	check := func(call func() answer) {
		t.Helper()
		before := f.backend.calls.Load()
		a := call()
		if calls := f.backend.calls.Load() - before; a.status < 400 || a.status > 401 || calls != 0 {
			t.Errorf("status %d, %d calls", a.status, calls)
		}
		told := fmt.Sprint(a.body, a.header)
		for _, word := range []string{"x509", "asn1", "signature", "jwt", "unknown authority", "registered for", "malformed MIME", "textproto"} {
			if strings.Contains(told, word) {
				t.Errorf("the client is told %q", told)
			}
		}
	}
	for _, who := range []*party{nil, f.a2, issue("x", nil, usage(x509.ExtKeyUsageServerAuth))} {
		for _, how := range []via{{}, {http2: true}, {tls12: true}} {
			check(func() answer { return get(t, f.client(t, who, how), "https://opt.test/both/1.0/x", bearer(raw)) })
		}
		if who != nil {
			for _, listener := range []string{byCert, byAddr, behindLB} {
				c := f.through(t, listener, f.balancer, listener != behindLB, "127.0.0.1")
				check(func() answer {
					return get(t, c, scheme(listener)+"/both/1.0/x", certificateHeader(who), bearer(raw))
				})
			}
		}
	}
	for _, bad := range []string{"MIIC", "%30%82", "-----BEGIN CERTIFICATE-----%0AMIIC%0A-----END CERTIFICATE-----%0A"} {
		c := f.through(t, byCert, f.balancer, true, "127.0.0.1")
		check(func() answer {
			return get(t, c, "https://opt.test/pay/1.0/x", header("X-WSO2-CLIENT-CERTIFICATE", bad))
		})
	}
	for _, line := range []string{"No colon", "Bad name: x", "Content-Length: many", "X: \x00"} {
		check(func() answer { return f.dial(t, nil, "opt.test").get(t, "/pub/1.0/x", "opt.test", line) })
	}
	log := f.log.String()
	for name, secret := range map[string]string{"token": raw, "password": storePassword, "certificate": escapedPEM(f.a2), "PEM": "BEGIN CERTIFICATE"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has a %s", name)
		}
	}
}
