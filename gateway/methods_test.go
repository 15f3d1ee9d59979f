package gateway_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/certstore"
	"sallyport/gateway/decision"
	"sallyport/internal/testpki"
	"sallyport/policy"
	"sallyport/policy/token"
)

// TestCertificateAndToken is the truth table of an API that takes either, with each kind of bad certificate.
// Held: security E 63.
func TestCertificateAndToken(t *testing.T) {
	now := newClock().Now()
	inter := theWorld().interA
	expired := issue("expired", inter, validity(now.Add(-time.Hour), now.Add(-time.Second)))
	wrongUse := issue("eku", inter, usage(x509.ExtKeyUsageServerAuth))
	untrusted := issue("b", theWorld().caB, usage(x509.ExtKeyUsageClientAuth))
	f := newFixture(t, register(
		client(bothAPI, "expired", expired, "Ten"), client(bothAPI, "eku", wrongUse, "Ten"), client(bothAPI, "b", untrusted, "Ten"),
		client(payAPI, "elsewhere", theWorld().a3, "Ten")), func(_ *fixture, s *setup) {
		// a3 is registered on pay alone here.
		s.clients = append(s.clients[:2:2], s.clients[3:]...)
	})
	bad := map[string]*party{"expired": expired, "unregistered": f.a2, "wrong API": f.a3, "wrong EKU": wrongUse, "untrusted": untrusted}
	tokens := map[string]string{"good": f.token(t, "alice", nil), "forged": f.forgedToken(t), "expired": f.expiredToken(t), "none": ""}

	ask := func(t *testing.T, who *party, raw string, h2 bool) answer {
		t.Helper()
		f.clock.Advance(time.Minute / 10) // a1's tier is full again
		var options []func(*http.Request)
		if raw != "" {
			options = append(options, bearer(raw))
		}
		return get(t, f.client(t, who, via{http2: h2}), "https://opt.test/both/1.0/x", options...)
	}
	eachVersion(t, func(t *testing.T, h2 bool) {
		for name, raw := range tokens {
			t.Run("good certificate, token "+name, func(t *testing.T) {
				a := ask(t, f.a1, raw, h2)
				if a.status != 200 {
					t.Fatalf("status %d (%q)", a.status, a.body)
				}
				h := a.echo(t).Header
				if h.Get("X-Sallyport-Client") != "a1" || h.Get("X-Sallyport-Subject") != "" || h.Get("Authorization") != "" {
					t.Errorf("the backend was told %v", h)
				}
				if !strings.Contains(a.header.Get("Ratelimit-Policy"), "q=10;") {
					t.Errorf("the call counted for %q", a.header.Get("Ratelimit-Policy"))
				}
				if s := f.seen(t, a.id()); s.Evidence.Token != policy.Unexamined {
					t.Errorf("the token was looked at: %v", s.Evidence)
				}
			})
		}
		bad["none"] = nil
		for kind, who := range bad {
			t.Run(kind+" certificate, good token", func(t *testing.T) {
				a := ask(t, who, tokens["good"], h2)
				if a.status != 200 {
					t.Fatalf("status %d (%q)", a.status, a.body)
				}
				h := a.echo(t).Header
				if h.Get("X-Sallyport-Subject") != "alice" || h.Get("X-Sallyport-Client") != "" || h.Get("X-Client-Cert-Hash") != "" || h.Get("Authorization") != "" {
					t.Errorf("the backend was told %v", h)
				}
			})
			for name, code := range map[string]string{"forged": "900901", "expired": "900903"} {
				t.Run(kind+" certificate, token "+name, func(t *testing.T) {
					f.denied(t, 401, code, func() answer { return ask(t, who, tokens[name], h2) })
				})
			}
			t.Run(kind+" certificate, no token", func(t *testing.T) {
				code := "900901"
				if who == nil {
					code = "900902"
				}
				f.denied(t, 401, code, func() answer { return ask(t, who, "", h2) })
			})
		}
	})
}

// TestOneWayIn: a token opens no API that asks for a certificate, and a certificate none that asks for a token.
// Held: security E 64.
func TestOneWayIn(t *testing.T) {
	f := newFixture(t)
	good := bearer(f.token(t, "alice", nil))
	eachVersion(t, func(t *testing.T, h2 bool) {
		none, a1 := f.client(t, nil, via{http2: h2}), f.client(t, f.a1, via{http2: h2})
		a := f.denied(t, 401, "900902", func() answer { return get(t, none, "https://opt.test/pay/1.0/x", good) })
		if got := a.header.Values("WWW-Authenticate"); len(got) != 1 || !strings.HasPrefix(got[0], "MutualTLS ") {
			t.Errorf("WWW-Authenticate %q", got)
		}
		a = f.denied(t, 401, "900902", func() answer { return get(t, a1, "https://opt.test/tok/1.0/x") })
		if got := a.header.Values("WWW-Authenticate"); len(got) != 1 || got[0] != `Bearer realm="sallyport"` {
			t.Errorf("WWW-Authenticate %q", got)
		}
		// A bad certificate does no harm where certificates don't count.
		f.allowed(t, func() answer {
			return get(t, f.client(t, f.a2, via{http2: h2}), "https://opt.test/tok/1.0/x", good)
		})
	})
}

// TestMandatory: where a credential is mandatory, the other one does not help, and a token is not looked at without the
// certificate; where both are, the call needs both.
func TestMandatory(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.routes[0].Resources = nil
		s.routes[0].Security = policy.Security{Certificate: policy.Mandatory, Token: policy.Optional}
		s.routes[1].Resources = nil
		s.routes[1].Security = policy.Security{Certificate: policy.Mandatory, Token: policy.Mandatory}
	})
	good := bearer(f.token(t, "alice", nil))
	a := f.denied(t, 401, "900902", func() answer { return get(t, f.client(t, nil, via{}), "https://opt.test/pay/1.0/x", good) })
	if s := f.seen(t, a.id()); s.Evidence.Token != policy.Unexamined {
		t.Errorf("the token was looked at: %v", s.Evidence)
	}
	f.denied(t, 401, "900901", func() answer { return get(t, f.client(t, f.a2, via{}), "https://opt.test/pay/1.0/x", good) })
	f.denied(t, 401, "900902", func() answer { return get(t, f.client(t, f.a4, via{}), "https://opt.test/both/1.0/x") })
	f.denied(t, 401, "900902", func() answer { return get(t, f.client(t, nil, via{}), "https://opt.test/both/1.0/x", good) })
	got := f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://opt.test/both/1.0/x", good) })
	if got.Header.Get("X-Sallyport-Client") != "a4" || got.Header.Get("X-Sallyport-Subject") != "alice" {
		t.Errorf("the backend was told %v", got.Header)
	}
}

// TestTokenFirst: with the other precedence a good token's identity replaces the certificate's, and a bad one leaves it.
func TestTokenFirst(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.routes[1].Resources = nil
		s.routes[1].Security.Precedence = policy.TokenFirst
	})
	c := f.client(t, f.a4, via{})
	got := f.allowed(t, func() answer { return get(t, c, "https://opt.test/both/1.0/x", bearer(f.token(t, "alice", nil))) })
	if got.Header.Get("X-Sallyport-Client") != "" || got.Header.Get("X-Sallyport-Subject") != "alice" {
		t.Errorf("the backend was told %v", got.Header)
	}
	got = f.allowed(t, func() answer { return get(t, c, "https://opt.test/both/1.0/x", bearer(f.forgedToken(t))) })
	if got.Header.Get("X-Sallyport-Client") != "a4" || got.Header.Get("X-Sallyport-Subject") != "" {
		t.Errorf("the backend was told %v", got.Header)
	}
}

// TestDemandedCertificateHolds: a certificate that is demanded keeps its environment, tier and scopes, whatever token comes
// along and whoever goes first, and so does a token that is demanded. Held: security L 158.
func TestDemandedCertificateHolds(t *testing.T) {
	f := newFixture(t, func(f *fixture, s *setup) {
		s.routes = nil
		for name, security := range map[string]policy.Security{
			"first":  {Certificate: policy.Mandatory, Token: policy.Optional, Precedence: policy.TokenFirst},
			"second": {Certificate: policy.Mandatory, Token: policy.Mandatory},
		} {
			api := certstore.API{Name: name, Version: "1.0"}
			up := f.upstream(t, f.backend.URL)
			up.SandboxURLs = f.upstream(t, f.backend.URL+"/sandbox").URLs
			s.routes = append(s.routes, decision.Route{API: api, Context: "/" + name, Security: security, Upstream: up, Resources: []decision.Resource{
				{Path: "/scoped", Security: security, Scopes: []string{"read"}}, {Path: "/*", Security: security},
			}})
			s.clients = append(s.clients, client(api, "three", f.a1, "Three"), sandbox(client(api, "box", f.s1, "Unlimited")),
				client(api, "reads", f.a3, "Unlimited", "read"), client(api, "writes", f.a4, "Unlimited", "write"))
		}
	})
	reads, none := bearer(f.token(t, "alice", map[string]any{"scope": "read"})), bearer(f.token(t, "alice", nil))
	for _, api := range []string{"first", "second"} {
		url := "https://opt.test/" + api + "/1.0"
		call := func(who *party, path string, token func(*http.Request)) func() answer {
			return func() answer { return get(t, f.client(t, who, via{}), url+path, token) }
		}
		got := f.allowed(t, call(f.s1, "/x", none))
		if got.Target != "/sandbox/x" || got.Header.Get("X-Sallyport-Client") != "box" || got.Header.Get("X-Sallyport-Subject") != "alice" {
			t.Errorf("%s: a sandbox certificate reached %s, told %v", api, got.Target, got.Header)
		}
		f.allowed(t, call(f.a3, "/scoped", reads))
		f.allowed(t, call(f.a1, "/scoped", reads)) // its certificate lists no scope, and so restricts none
		f.denied(t, 403, "900910", call(f.a4, "/scoped", reads))
		f.denied(t, 403, "900910", call(f.a3, "/scoped", none))
		for range 2 { // one call was made before
			f.allowed(t, call(f.a1, "/x", none))
		}
		f.denied(t, 429, "900804", call(f.a1, "/x", none))
	}
}

// TestBadTokens holds the tokens of each kind of forgery at the door; package token holds the details.
// Held: security E 65, 66, 67, 68, 70, 71, 72, 73.
func TestBadTokens(t *testing.T) {
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	var asked atomic.Int64
	go func() {
		for {
			c, err := outside.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			c.Close()
		}
	}()

	f := newFixture(t)
	claims := jwt.MapClaims{"iss": issuerURL, "sub": "alice", "exp": f.clock.Now().Add(time.Hour).Unix()}
	p384 := testpki.NewEC(t, elliptic.P384())
	publicDER, err := x509.MarshalPKIXPublicKey(tokenKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	make := func(method jwt.SigningMethod, key crypto.PrivateKey, header map[string]any) string {
		tok := jwt.NewWithClaims(method, claims)
		tok.Header["kid"] = "k1"
		for name, value := range header {
			tok.Header[name] = value
		}
		raw, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	good := f.token(t, "alice", nil)
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	attacker := "http://" + outside.Addr().String() + "/jwks"
	cases := map[string]string{
		"E 65: alg none":             make(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil),
		"E 65: alg nOnE":             b64([]byte(`{"alg":"nOnE","kid":"k1"}`)) + "." + parts[1] + ".",
		"E 65: no alg":               b64([]byte(`{"kid":"k1"}`)) + "." + parts[1] + "." + parts[2],
		"E 65: empty signature":      parts[0] + "." + parts[1] + ".",
		"E 65: two segments":         parts[0] + "." + parts[1],
		"E 66: HS256 by public key":  make(jwt.SigningMethodHS256, publicDER, nil),
		"E 67: ES384":                make(jwt.SigningMethodES384, p384, nil),
		"E 67: r = s = 0":            parts[0] + "." + parts[1] + "." + b64(make0(64)),
		"E 68: jku":                  make(jwt.SigningMethodES256, otherKey(), map[string]any{"jku": attacker, "x5u": attacker}),
		"E 70: another issuer's key": f.forgedToken(t),
		"E 71: no exp":               f.token(t, "alice", map[string]any{"exp": nil}),
		"E 71: exp is text":          f.token(t, "alice", map[string]any{"exp": "4102444800"}),
		"E 71: nbf in the future":    f.token(t, "alice", map[string]any{"nbf": f.clock.Now().Add(time.Hour).Unix()}),
		"E 72: iss in another case":  f.token(t, "alice", map[string]any{"iss": strings.ToUpper(issuerURL)}),
		"E 73: cnf":                  f.token(t, "alice", map[string]any{"cnf": map[string]any{"x5t#S256": f.a1.hash()}}),
		"E 69: kid is a path":        make(jwt.SigningMethodES256, tokenKey(), map[string]any{"kid": "../../../../dev/null"}),
	}
	for name, raw := range cases {
		t.Run(name, func(t *testing.T) {
			for _, who := range []*party{nil, f.a2} {
				f.denied(t, 401, "900901", func() answer {
					return get(t, f.client(t, who, via{}), "https://opt.test/both/1.0/x", bearer(raw))
				})
			}
			f.denied(t, 401, "900901", func() answer { return get(t, f.client(t, f.a1, via{}), "https://opt.test/tok/1.0/x", bearer(raw)) })
		})
	}
	a := f.denied(t, 401, "900903", func() answer {
		return get(t, f.client(t, nil, via{}), "https://opt.test/tok/1.0/x", bearer(f.expiredToken(t)))
	})
	if got := a.header.Get("WWW-Authenticate"); !strings.Contains(got, `error="invalid_token"`) {
		t.Errorf("WWW-Authenticate %q", got)
	}
	f.allowed(t, func() answer { return get(t, f.client(t, nil, via{}), "https://opt.test/tok/1.0/x", bearer(good)) })
	if n := asked.Load(); n != 0 {
		t.Errorf("the gateway followed a token's URL %d times", n)
	}
}

func make0(n int) []byte { return make([]byte, n) }

// TestUnknownKeyIDs: many unknown key ids bring few fetches of the issuer's keys. Held: security E 69.
func TestUnknownKeyIDs(t *testing.T) {
	var fetches atomic.Int64
	issuer := newBackend(t)
	f := newFixture(t)
	keys := f.dir + "/jwks.json"
	issuer.handle("/jwks", func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		http.ServeFile(w, r, keys)
	})
	v, err := token.New(token.Options{
		KeyManagers: []token.KeyManager{{Name: "resident", Type: "default", Issuer: issuerURL, JWKS: issuer.URL + "/jwks"}},
		Now:         f.clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.settings.Tokens = v
	f.setRoutes(t)
	c := f.client(t, nil, via{})
	for i := range 200 {
		tok := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": issuerURL, "sub": "alice", "exp": f.clock.Now().Add(time.Hour).Unix()})
		tok.Header["kid"] = strings.Repeat("k", i+2)
		raw, err := tok.SignedString(otherKey())
		if err != nil {
			t.Fatal(err)
		}
		status, code := 401, "900901"
		if i > 1 { // the issuer may not be asked any more, and might have the key by now
			status, code = 503, "503"
		}
		a := f.denied(t, status, code, func() answer { return get(t, c, "https://opt.test/tok/1.0/x", bearer(raw)) })
		if got := a.header.Get("Retry-After"); status == 503 && got != "30" {
			t.Fatalf("Retry-After %q", got)
		}
	}
	if n := fetches.Load(); n > 2 {
		t.Errorf("%d fetches", n)
	}
	f.allowed(t, func() answer { return get(t, c, "https://opt.test/tok/1.0/x", bearer(f.token(t, "alice", nil))) })
}

// TestAudience: an API that names audiences takes tokens for them only. Held: security E 72.
func TestAudience(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.routes[2].Audiences = []string{"tok", "other"} })
	c := f.client(t, nil, via{})
	for _, audience := range []any{nil, "elsewhere", []string{}, []string{"TOK", "tok "}} {
		f.denied(t, 403, "900914", func() answer {
			return get(t, c, "https://opt.test/tok/1.0/x", bearer(f.token(t, "alice", map[string]any{"aud": audience})))
		})
	}
	for _, audience := range []any{"tok", []string{"elsewhere", "other"}} {
		f.allowed(t, func() answer {
			return get(t, c, "https://opt.test/tok/1.0/x", bearer(f.token(t, "alice", map[string]any{"aud": audience})))
		})
	}
}

// TestKeyManagers: an API that names key managers takes no other's tokens.
func TestKeyManagers(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.routes[2].KeyManagers = []string{"another"} })
	f.denied(t, 401, "900901", func() answer {
		return get(t, f.client(t, nil, via{}), "https://opt.test/tok/1.0/x", bearer(f.token(t, "alice", nil)))
	})
}

// TestScopes: a resource with scopes admits a token that has one, and a certificate whose registration lists one or "*".
func TestScopes(t *testing.T) {
	f := newFixture(t, register(client(payAPI, "a3", theWorld().a3, "Unlimited", "pay:write", "Pay:Read")))
	token := func(scope any) func(*http.Request) {
		return bearer(f.token(t, "alice", map[string]any{"scope": scope}))
	}
	none := f.client(t, nil, via{})
	// By certificate: a1 has the scope on both, none on pay; a3 has others; a4 has "*" on pay, none on both.
	f.allowed(t, func() answer { return get(t, f.client(t, f.a1, via{}), "https://opt.test/both/1.0/scoped") })
	f.denied(t, 403, "900910", func() answer { return get(t, f.client(t, f.a1, via{}), "https://opt.test/pay/1.0/scoped") })
	f.denied(t, 403, "900910", func() answer { return get(t, f.client(t, f.a3, via{}), "https://opt.test/pay/1.0/scoped") })
	f.allowed(t, func() answer { return get(t, f.client(t, f.a4, via{}), "https://opt.test/pay/1.0/scoped") })
	// A good certificate settles the call: the token's scopes do not help it.
	f.denied(t, 403, "900910", func() answer {
		return get(t, f.client(t, f.a4, via{}), "https://opt.test/both/1.0/scoped", token("both:read"))
	})
	f.allowed(t, func() answer { return get(t, none, "https://opt.test/both/1.0/scoped", token("x both:admin")) })
	for _, scope := range []any{nil, "", "both:readx", "*", "BOTH:READ"} {
		f.denied(t, 403, "900910", func() answer { return get(t, none, "https://opt.test/both/1.0/scoped", token(scope)) })
	}
	f.allowed(t, func() answer { return get(t, none, "https://opt.test/both/1.0/unscoped", token(nil)) })
}

// TestBrokenVerifier: a verifier that panics, or answers what it should not, lets nobody in. Held: security E 74.
func TestBrokenVerifier(t *testing.T) {
	f := newFixture(t)
	old := f.settings.Tokens
	c := f.client(t, nil, via{})
	for name, v := range map[string]struct {
		verifier decision.Verifier
		status   int
		code     string
	}{
		"panics in Cached": {stubVerifier{cached: func() (*token.Claims, bool) { panic("fault") }}, 500, "500"},
		"panics in Verify": {stubVerifier{verify: func() (*token.Claims, error) { panic("fault") }}, 500, "500"},
		"no claims":        {stubVerifier{verify: func() (*token.Claims, error) { return nil, nil }}, 401, "900901"},
		"claims and error": {stubVerifier{verify: func() (*token.Claims, error) {
			return &token.Claims{KeyManager: "resident", Subject: "alice"}, errors.New("odd")
		}}, 401, "900901"},
		"unavailable": {stubVerifier{verify: func() (*token.Claims, error) { return nil, token.ErrUnavailable }}, 503, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			f.settings.Tokens = v.verifier
			f.setRoutes(t)
			a := f.denied(t, v.status, v.code, func() answer {
				return get(t, c, "https://opt.test/tok/1.0/x", bearer(f.token(t, "alice", nil)))
			})
			if got := a.header.Get("Retry-After"); (got != "") != (v.status == 503) {
				t.Errorf("Retry-After %q", got)
			}
			f.allowed(t, func() answer { return get(t, c, "https://opt.test/pub/1.0/x") })
		})
	}
	f.settings.Tokens = nil
	f.setRoutes(t)
	f.denied(t, 401, "900901", func() answer { return get(t, c, "https://opt.test/tok/1.0/x", bearer(f.token(t, "alice", nil))) })
	f.settings.Tokens = old
	f.setRoutes(t)
	// Expired, and signed by nobody we know: that it has expired is then no news.
	raw := f.sign(t, otherKey(), "alice", map[string]any{"exp": f.clock.Now().Add(-time.Hour).Unix()})
	f.denied(t, 401, "900901", func() answer { return get(t, c, "https://opt.test/tok/1.0/x", bearer(raw)) })
}

type stubVerifier struct {
	cached func() (*token.Claims, bool)
	verify func() (*token.Claims, error)
}

func (v stubVerifier) Cached(string) (*token.Claims, bool) {
	if v.cached == nil {
		return nil, false
	}
	return v.cached()
}

func (v stubVerifier) Verify(context.Context, string) (*token.Claims, error) { return v.verify() }

func (v stubVerifier) Still(string, *token.Claims) (*token.Claims, error) { return v.verify() }
