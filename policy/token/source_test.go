package token_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/policy/token"
)

// badAnswers are answers of a JWKS URL without a usable key.
func badAnswers(t *testing.T) map[string]http.HandlerFunc {
	body := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
	}
	good := jwks(t, jwkOf(t, edKey2(), kid("bad")))
	elsewhere := newIssuer(t, good)
	return map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(good)
		},
		"404": http.NotFound,
		"206": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(good)
		},
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a byte at a time": func(w http.ResponseWriter, r *http.Request) {
			for i := 0; r.Context().Err() == nil; i++ {
				_, _ = w.Write([]byte(" "))
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		},
		"a body cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)+10))
			_, _ = w.Write(good)
		},
		"more than 1 MiB":    body(append(bytes.Repeat([]byte(" "), 1<<20), good...)),
		"nothing":            body(nil),
		"HTML":               body([]byte("<html><body>Welcome</body></html>")),
		"no keys":            body([]byte(`{"keys":[]}`)),
		"keys null":          body([]byte(`{"keys":null}`)),
		"no member keys":     body([]byte(`{}`)),
		"keys no list":       body([]byte(`{"keys":{}}`)),
		"a list":             body([]byte(`[]`)),
		"keys that are none": body([]byte(`{"keys":[null,1,"x",[],{}]}`)),
		"keys twice":         body(append(append([]byte(`{"keys":[],`), good[1:len(good)-1]...), '}')),
		"half a set":         body(good[:len(good)/2]),
		"a set and more":     body(append(append([]byte{}, good...), good...)),
		"a bare key":         body(bytes.TrimSuffix(bytes.TrimPrefix(good, []byte(`{"keys":[`)), []byte(`]}`))),
		"more than 1000": body(func() []byte {
			return []byte(`{"keys":[` + strings.Repeat(`{"kty":"oct","k":"AA"},`, 1000) + string(good[9:]))
		}()),
		"another host":   http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP,
		"another scheme": http.RedirectHandler("https://"+strings.TrimPrefix(elsewhere.URL, "http://"), http.StatusFound).ServeHTTP,
		"a redirect to itself": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		},
		"gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(good)
			_ = z.Close()
		},
		"two keys with one kid": body(jwks(t, jwkOf(t, p256Key(), kid("bad")), jwkOf(t, p256Key2(), kid("bad")))),
		"RSA of 1024 bits":      body(jwks(t, jwkOf(t, shortRSA(), kid("bad")))),
		"use enc":               body(jwks(t, jwkOf(t, edKey2(), map[string]any{"kid": "bad", "use": "enc"}))),
		"use of another kind":   body(jwks(t, jwkOf(t, edKey2(), map[string]any{"kid": "bad", "use": "SIG"}))),
		"key_ops encrypt":       body(jwks(t, jwkOf(t, edKey2(), map[string]any{"kid": "bad", "key_ops": []string{"encrypt"}}))),
		"alg of another kind":   body(jwks(t, jwkOf(t, edKey2(), map[string]any{"kid": "bad", "alg": "ES256"}))),
		"alg unknown":           body(jwks(t, jwkOf(t, edKey2(), map[string]any{"kid": "bad", "alg": "XX999"}))),
		"alg none":              body(jwks(t, jwkOf(t, edKey2(), map[string]any{"kid": "bad", "alg": "none"}))),
		"a private key":         body(jwks(t, jwkOf(t, edKey2(), map[string]any{"d": true, "kid": "bad"}))),
		"a shared secret":       body(jwks(t, jwkOf(t, []byte("secret"), kid("bad")))),
		"a point off its curve": body([]byte(`{"keys":[{"kty":"EC","kid":"bad","crv":"P-256","x":"AQ","y":"AQ"}]}`)),
		"kid a number":          body(jwks(t, jwkOf(t, edKey2(), map[string]any{"kid": 7}))),
		"an exponent of 1":      body(jwks(t, jwkOf(t, rsaKey(), map[string]any{"kid": "bad", "e": "AQ"}))),
	}
}

func TestE78BadSources(t *testing.T) {
	good := jwks(t, jwkOf(t, edKey(), kid("ed")))
	for name, bad := range badAnswers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now, log := newClock(), &logBook{}
			s := newIssuer(t, nil)
			s.answer(bad)
			v := newVerifier(t, token.Options{
				KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now, FetchTimeout: 300 * time.Millisecond, Log: log.logger(),
			})
			raw := edToken(t, kid("ed"), goodClaims(now.Now()))
			if _, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrUnavailable) || errors.Is(err, token.ErrInvalid) {
				t.Errorf("at first: %v", err)
			}
			// The short timeout is for bad answers. On a slow machine a good one may need several attempts.
			s.serve(good)
			eventually(t, "good keys", func() bool { return v.Refresh(t.Context()) == nil })
			if _, err := v.Verify(t.Context(), raw); err != nil {
				t.Fatalf("with good keys: %v", err)
			}
			s.answer(bad)
			err := v.Refresh(t.Context())
			if err == nil {
				t.Error("no error")
			}
			t.Log(err)
			if _, err := v.Verify(t.Context(), raw); err != nil {
				t.Errorf("the last good keys are gone: %v", err)
			}
			if _, ok := v.Cached(raw); !ok {
				t.Error("the cached token is gone")
			}
			forged := sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("bad"), goodClaims(now.Now()))
			if _, err := v.Verify(t.Context(), forged); !errors.Is(err, token.ErrUnavailable) {
				t.Errorf("by a key of the bad answer: %v", err)
			}
			if !strings.Contains(log.String(), "level=WARN") {
				t.Error("nothing is logged")
			}
		})
	}
}

func TestE78AnEndlessBodyIsNotRead(t *testing.T) {
	var sent atomic.Int64
	s := newIssuer(t, nil)
	s.answer(func(w http.ResponseWriter, _ *http.Request) {
		block := bytes.Repeat([]byte(" "), 64<<10)
		for range 100 << 20 / len(block) {
			n, err := w.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}})
	if err := v.Refresh(t.Context()); err == nil {
		t.Error("no error")
	}
	s.Close() // waits for the handler
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("%d bytes could be sent", n)
	}
}

func TestE78GoodKeysAmongBad(t *testing.T) {
	now, log := newClock(), &logBook{}
	keys := jwks(t,
		jwkOf(t, shortRSA(), kid("short")), jwkOf(t, []byte("secret"), kid("oct")), map[string]any{"kty": "new"}, nil,
		jwkOf(t, rsaKey(), map[string]any{"kid": "ed", "use": "enc"}), jwkOf(t, edKey(), kid("ed")),
		jwkOf(t, p256Key(), kid("twice")), jwkOf(t, p256Key2(), kid("twice")),
	)
	v := newVerifier(t, token.Options{
		KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", keys))}, Now: now.Now, Log: log.logger(),
	})
	if _, err := v.Verify(t.Context(), edToken(t, kid("ed"), goodClaims(now.Now()))); err != nil {
		t.Error(err)
	}
	f := &fixture{v, now, log}
	f.denies(t, "twice", sign(t, jwt.SigningMethodES256, p256Key(), kid("twice"), goodClaims(now.Now())))
	f.denies(t, "twice, no kid", sign(t, jwt.SigningMethodES256, p256Key(), nil, goodClaims(now.Now())))
	for _, word := range []string{"short", "oct", "twice", "use is not sig"} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("the log doesn't say %q:\n%s", word, log)
		}
	}
}

func TestNoKeyIDAndSeveralKeys(t *testing.T) {
	now := newClock()
	f := &fixture{newVerifier(t, token.Options{Now: now.Now, KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", jwks(t,
		jwkOf(t, edKey(), kid("a")), jwkOf(t, edKey2(), kid("b")), jwkOf(t, p256Key(), nil))))}}), now, &logBook{}}
	f.denies(t, "two fit", edToken(t, nil, goodClaims(now.Now())))
	f.denies(t, "none fits", sign(t, jwt.SigningMethodRS256, rsaKey(), nil, goodClaims(now.Now())))
	if _, err := f.Verify(t.Context(), sign(t, jwt.SigningMethodES256, p256Key(), nil, goodClaims(now.Now()))); err != nil {
		t.Errorf("one fits: %v", err)
	}
	f.denies(t, "a kid for a key without", sign(t, jwt.SigningMethodES256, p256Key(), kid("c"), goodClaims(now.Now())))
}

func TestRedirectWithinTheHost(t *testing.T) {
	now := newClock()
	s := newIssuer(t, nil)
	keys := jwks(t, jwkOf(t, edKey(), kid("ed")))
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/jwks", http.StatusMovedPermanently)
			return
		}
		_, _ = w.Write(keys)
	})
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL + "/")}, Now: now.Now})
	if _, err := v.Verify(t.Context(), edToken(t, kid("ed"), goodClaims(now.Now()))); err != nil {
		t.Error(err)
	}
}

func TestE78KeysGrowTooOld(t *testing.T) {
	now := newClock()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("ed"))))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now, MaxAge: time.Hour})
	raw := edToken(t, kid("ed"), with(goodClaims(now.Now()), map[string]any{"exp": now.Now().Add(24 * time.Hour).Unix()}))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	keys := *s.handler.Load()
	s.answer(http.NotFound)
	now.Advance(time.Hour)
	if err := v.Refresh(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Errorf("within the hour: %v", err)
	}
	now.Advance(time.Second)
	if _, ok := v.Cached(raw); ok {
		t.Error("cached after the hour")
	}
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("after the hour: %v", err)
	}
	s.answer(keys)
	now.Advance(time.Minute)
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Errorf("the issuer is back: %v", err)
	}
}

func TestTheIssuerIsAwayAndRotates(t *testing.T) {
	now := newClock()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("old"))))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	claims := with(goodClaims(now.Now()), map[string]any{"exp": now.Now().Add(24 * time.Hour).Unix()})
	old, fresh := edToken(t, kid("old"), claims), sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("new"), claims)
	if _, err := v.Verify(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	s.answer(http.NotFound)
	now.Advance(time.Hour)
	if _, err := v.Verify(t.Context(), fresh); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("by a key not known yet: %v", err)
	}
	if _, err := v.Verify(t.Context(), old); err != nil {
		t.Errorf("by the last good key: %v", err)
	}
	s.serve(jwks(t, jwkOf(t, edKey(), kid("old")), jwkOf(t, edKey2(), kid("new"))))
	now.Advance(30 * time.Second)
	if _, err := v.Verify(t.Context(), fresh); err != nil {
		t.Errorf("after the cool-down: %v", err)
	}
}

func TestTheIssuerStartsLate(t *testing.T) {
	now := newClock()
	s := newIssuer(t, nil)
	s.answer(http.NotFound)
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	for range 100 {
		if _, err := v.Verify(t.Context(), raw); !errors.Is(err, token.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests in a moment", n)
	}
	s.serve(jwks(t, jwkOf(t, edKey(), kid("ed"))))
	now.Advance(time.Second)
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

// A gate holds requests until it is opened.
type gate struct{ entered, open chan struct{} }

func (g *gate) hold(then []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		g.entered <- struct{}{}
		select {
		case <-g.open:
		case <-r.Context().Done():
		}
		_, _ = w.Write(then)
	}
}

func newGate() *gate { return &gate{make(chan struct{}, 100), make(chan struct{})} }

func TestACallerWhoLeavesDoesNotEndTheFetch(t *testing.T) {
	now, g := newClock(), newGate()
	s := newIssuer(t, nil)
	s.answer(g.hold(jwks(t, jwkOf(t, edKey(), kid("ed")))))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	ctx, cancel := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := v.Verify(ctx, raw)
		left <- err
	}()
	<-g.entered
	go func() {
		_, err := v.Verify(context.Background(), raw)
		stayed <- err
	}()
	cancel()
	if err := <-left; !errors.Is(err, token.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	close(g.open)
	if err := <-stayed; err != nil {
		t.Errorf("who stayed: %v", err)
	}
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestKnownKeysDoNotWait(t *testing.T) {
	now, g := newClock(), newGate()
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("ed"))))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.answer(g.hold(nil))
	refreshed := make(chan error, 1)
	go func() { refreshed <- v.Refresh(context.Background()) }()
	<-g.entered
	// The fetch hangs until the gate is opened below.
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Error(err)
	}
	if _, ok := v.Cached(raw); !ok {
		t.Error("not cached")
	}
	(&fixture{v, now, &logBook{}}).denies(t, "no kid, none fits", sign(t, jwt.SigningMethodES256, p256Key(), nil, goodClaims(now.Now())))
	close(g.open)
	if err := <-refreshed; err == nil {
		t.Error("an empty answer is no error")
	}
}

func TestRefreshFollowsAReadUnderWay(t *testing.T) {
	now, g := newClock(), newGate()
	s := newIssuer(t, nil)
	s.answer(g.hold(jwks(t, jwkOf(t, edKey(), kid("old")))))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- v.Refresh(context.Background()) }()
	<-g.entered
	s.serve(jwks(t, jwkOf(t, edKey2(), kid("new"))))
	go func() { second <- v.Refresh(context.Background()) }()
	close(g.open)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("new"), goodClaims(now.Now()))); err != nil {
		t.Error(err)
	}
}

func TestTLSOfTheIssuer(t *testing.T) {
	now := newClock()
	keys := jwks(t, jwkOf(t, edKey(), kid("ed")))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshakes that fail
	s.StartTLS()
	defer s.Close()
	ca := file(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	raw := edToken(t, kid("ed"), goodClaims(now.Now()))

	unknown := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	if _, err := unknown.Verify(t.Context(), raw); !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("by a CA that is not the system's: %v", err)
	}
	km := manager(s.URL)
	km.CAFile = ca
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{km}, Now: now.Now})
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Errorf("by the CA file: %v", err)
	}
	other, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Refresh(t.Context()); err == nil {
		t.Error("no error with a broken CA file")
	}
	if err := os.WriteFile(ca, append([]byte("again\n"), other...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Refresh(t.Context()); err != nil {
		t.Errorf("the CA file is good again: %v", err)
	}
}

func TestPlainHTTPIsLogged(t *testing.T) {
	for url, warn := range map[string]bool{
		"http://127.0.0.1:1/jwks": false, "http://localhost:1/jwks": false, "http://[::1]:1/jwks": false,
		"https://issuer.test/jwks": false, "http://issuer.test/jwks": true, "http://10.0.0.1/jwks": true, "http://localhost.evil.test/": true,
	} {
		log := &logBook{}
		newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(url)}, Log: log.logger()})
		if got := strings.Contains(log.String(), "plain http"); got != warn {
			t.Errorf("%s: %q", url, log)
		}
	}
}

func TestQueryOfTheURLIsNotTold(t *testing.T) {
	s := newIssuer(t, nil)
	s.Close()
	log := &logBook{}
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL + "/?code=hunter2")}, Log: log.logger()})
	err := v.Refresh(t.Context())
	if err == nil || strings.Contains(err.Error()+log.String(), "hunter2") {
		t.Errorf("%v, %s", err, log)
	}
}

func TestHalfWrittenFile(t *testing.T) {
	now, log := newClock(), &logBook{}
	path := filepath.Join(t.TempDir(), "jwks.json")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old, fresh := jwks(t, jwkOf(t, edKey(), kid("old"))), jwks(t, jwkOf(t, edKey2(), kid("new")))
	write(old)
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(path)}, Now: now.Now, Log: log.logger()})
	raw := edToken(t, kid("old"), goodClaims(now.Now()))
	for name, spoil := range map[string]func(){
		"half":  func() { write(fresh[:len(fresh)/2]) },
		"empty": func() { write(nil) },
		"big":   func() { write(bytes.Repeat([]byte(" "), 2<<20)) },
		"gone":  func() { _ = os.Remove(path) },
	} {
		spoil()
		for range 3 {
			if err := v.Refresh(t.Context()); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := strings.Count(log.String(), "could not be read"); n != 4 {
		t.Errorf("4 failures, each three times, make %d lines", n)
	}
	write(fresh)
	if err := v.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	(&fixture{v, now, log}).denies(t, "old", raw)
	if !strings.Contains(log.String(), "read again") {
		t.Error("the recovery is not logged")
	}
}

func TestUnknownKeyIDReadsTheFileAnew(t *testing.T) {
	now := newClock()
	path := file(t, "jwks.json", jwks(t, jwkOf(t, edKey(), kid("old"))))
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(path)}, Now: now.Now})
	if err := os.WriteFile(path, jwks(t, jwkOf(t, edKey2(), kid("new"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("new"), goodClaims(now.Now()))); err != nil {
		t.Error(err)
	}
}
