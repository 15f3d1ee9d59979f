package token_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sallyport/policy/token"
)

// The tests of this file are named for the numbers of the list of attacks that docs/security.md answers.

// A fixture is a verifier with a key of each kind, and its clock.
type fixture struct {
	*token.Verifier
	*clock
	log *logBook
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{clock: newClock(), log: &logBook{}}
	keys := jwks(t,
		jwkOf(t, rsaKey(), map[string]any{"kid": "rsa", "alg": "RS256"}),
		jwkOf(t, rsaKey2(), kid("anyrsa")),
		jwkOf(t, p256Key(), kid("p256")),
		jwkOf(t, p384Key(), kid("p384")),
		jwkOf(t, edKey(), kid("ed")),
	)
	f.Verifier = newVerifier(t, token.Options{
		KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", keys))}, Now: f.clock.Now, Log: f.log.logger(),
	})
	return f
}

// denies checks that raw is ErrInvalid, not ErrExpired, and that nothing tells what it said.
func (f *fixture) denies(t *testing.T, what, raw string) {
	t.Helper()
	claims, err := f.Verify(t.Context(), raw)
	if claims != nil || !errors.Is(err, token.ErrInvalid) || errors.Is(err, token.ErrExpired) || errors.Is(err, token.ErrUnavailable) {
		t.Errorf("%s: Verify = %v, %v", what, claims, err)
		return
	}
	if _, ok := f.Cached(raw); ok {
		t.Errorf("%s: cached", what)
	}
	for _, part := range strings.Split(raw, ".") {
		if len(part) > 8 && (strings.Contains(err.Error(), part) || strings.Contains(f.log.String(), part)) {
			t.Errorf("%s: the token is told in %q or the log", what, err)
		}
	}
}

func (f *fixture) payload(t testing.TB) string {
	t.Helper()
	b, err := json.Marshal(goodClaims(f.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestE65UnsignedTokens(t *testing.T) {
	f := newFixture(t)
	for _, alg := range []string{`"none"`, `"None"`, `"nOnE"`, `"NONE"`, `""`, `null`, `0`, `["RS256"]`, `"rs256"`} {
		for _, id := range []string{`"rsa"`, `"ed"`} {
			head := `{"alg":` + alg + `,"kid":` + id + `}`
			text := b64(head) + "." + b64(f.payload(t))
			f.denies(t, head+" without signature", text+".")
			f.denies(t, head+" in two segments", text)
			f.denies(t, head+" with a signature", text+"."+b64("signature"))
		}
	}
	missing := b64(`{"kid":"rsa"}`) + "." + b64(f.payload(t))
	f.denies(t, "alg missing", missing+"."+b64("signature"))
	good := sign(t, jwt.SigningMethodRS256, rsaKey(), kid("rsa"), goodClaims(f.Now()))
	f.denies(t, "empty signature", good[:strings.LastIndexByte(good, '.')+1])
	f.denies(t, "two segments", good[:strings.LastIndexByte(good, '.')])
}

func TestE66SymmetricSignaturesByThePublicKey(t *testing.T) {
	f := newFixture(t)
	rsaPublic, ecPublic := rsaKey().Public(), p256Key().Public()
	rsaDER, _ := x509.MarshalPKIXPublicKey(rsaPublic)
	ecDER, _ := x509.MarshalPKIXPublicKey(ecPublic)
	rsaJWK, _ := json.Marshal(jwkOf(t, rsaKey(), kid("rsa")))
	ecJWK, _ := json.Marshal(jwkOf(t, p256Key(), kid("p256")))
	for name, secret := range map[string][]byte{
		"RSA PEM": publicPEM(t, rsaPublic), "RSA DER": rsaDER, "RSA PKCS1": x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey),
		"RSA JWK": rsaJWK, "RSA modulus": rsaKey().N.Bytes(),
		"RSA modulus text": []byte(base64.RawURLEncoding.EncodeToString(rsaKey().N.Bytes())),
		"EC PEM":           publicPEM(t, ecPublic), "EC DER": ecDER, "EC JWK": ecJWK, "nothing": {},
	} {
		for _, method := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
			for _, id := range []string{"rsa", "anyrsa", "p256"} {
				f.denies(t, name+" "+method.Alg(), sign(t, method, secret, kid(id), goodClaims(f.Now())))
			}
			f.denies(t, name+" no kid "+method.Alg(), sign(t, method, secret, nil, goodClaims(f.Now())))
		}
	}
}

func TestE66SecretsInJWKSAreNotKeys(t *testing.T) {
	secret := []byte("a secret of thirty-two bytes ok!")
	now := newClock()
	keys := jwks(t, jwkOf(t, secret, map[string]any{"kid": "oct", "alg": "HS256"}), jwkOf(t, edKey(), kid("ed")))
	log := &logBook{}
	v := newVerifier(t, token.Options{
		KeyManagers: []token.KeyManager{manager(file(t, "jwks.json", keys))}, Now: now.Now, Log: log.logger(),
	})
	f := &fixture{v, now, log}
	f.denies(t, "oct", sign(t, jwt.SigningMethodHS256, secret, kid("oct"), goodClaims(now.Now())))
	if s := log.String(); !strings.Contains(s, "oct") || strings.Contains(s, b64(string(secret))) {
		t.Errorf("log: %s", s)
	}
}

func TestE67AlgorithmsOfOtherKeys(t *testing.T) {
	f := newFixture(t)
	good := goodClaims(f.Now())
	f.denies(t, "PS256 by an RS256 key", sign(t, jwt.SigningMethodPS256, rsaKey(), kid("rsa"), good))
	f.denies(t, "RS512 by an RS256 key", sign(t, jwt.SigningMethodRS512, rsaKey(), kid("rsa"), good))
	for name, length := range map[string]int{"no salt": 0, "a salt of 20": 20, "a salt of 31": 31, "a salt of 33": 33, "the longest salt": rsa.PSSSaltLengthAuto} {
		other := &jwt.SigningMethodRSAPSS{SigningMethodRSA: jwt.SigningMethodPS256.SigningMethodRSA, Options: &rsa.PSSOptions{SaltLength: length}}
		f.denies(t, "PS256 with "+name, sign(t, other, rsaKey2(), kid("anyrsa"), good))
	}
	f.denies(t, "Ed25519 said of a P-256 key", sign(t, signedAs{jwt.SigningMethodEdDSA, "Ed25519"}, edKey(), kid("p256"), good))
	f.denies(t, "Ed448 said of an Ed25519 key", sign(t, signedAs{jwt.SigningMethodEdDSA, "Ed448"}, edKey(), kid("ed"), good))
	es256by384 := &jwt.SigningMethodECDSA{Name: "ES256", Hash: jwt.SigningMethodES256.Hash, KeySize: 48, CurveBits: 384}
	f.denies(t, "ES256 by a P-384 key", sign(t, es256by384, p384Key(), kid("p384"), good))
	f.denies(t, "EdDSA said of a P-256 key", sign(t, jwt.SigningMethodEdDSA, edKey(), kid("p256"), good))
	f.denies(t, "ES256 said of an Ed25519 key", sign(t, jwt.SigningMethodES256, p256Key(), kid("ed"), good))

	text := b64(`{"alg":"ES256","kid":"p256"}`) + "." + b64(f.payload(t))
	for name, signature := range map[string][]byte{
		"r=s=0": make([]byte, 64), "r=s=n": append(p256Key().Params().N.Bytes(), p256Key().Params().N.Bytes()...), "short": make([]byte, 63),
	} {
		f.denies(t, name, text+"."+b64(string(signature)))
	}
	digest := sha256.Sum256([]byte(text))
	der, err := p256Key().Sign(rand.Reader, digest[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	f.denies(t, "DER", text+"."+b64(string(der)))
	// The same signature in the form of RFC 7518 is good: the test is not refused for something else.
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		t.Fatal(err)
	}
	fixed := append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)
	if _, err := f.Verify(t.Context(), text+"."+b64(string(fixed))); err != nil {
		t.Error(err)
	}

	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.New(token.Options{KeyManagers: []token.KeyManager{
		manager(file(t, "x.json", jwks(t, jwkOf(t, x25519.PublicKey(), kid("x"))))),
	}}); err == nil {
		t.Error("an X25519 key verifies")
	}
}

func TestE68KeysInTheHeader(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			c.Close()
		}
	}()
	address := "http://" + listener.Addr().String() + "/jwks"
	f := newFixture(t)
	der, _ := x509.MarshalPKIXPublicKey(edKey2().Public())
	for name, header := range map[string]map[string]any{
		"jwk": {"jwk": jwkOf(t, edKey2(), nil)},
		"jku": {"jku": address},
		"x5u": {"x5u": address},
		"x5c": {"x5c": []string{base64.StdEncoding.EncodeToString(der)}},
	} {
		for _, id := range []any{nil, "ed", "unknown", address} {
			f.denies(t, name, sign(t, jwt.SigningMethodEdDSA, edKey2(), with(header, map[string]any{"kid": id}), goodClaims(f.Now())))
		}
	}
	listener.Close()
	<-done
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections were made to where the token says", n)
	}
}

func TestE69StrangeKeyIDs(t *testing.T) {
	f := newFixture(t)
	for _, id := range []any{
		"../../../../dev/null", "' OR 1=1--", strings.Repeat("k", 64<<10), strings.Repeat("k", 4000), 7, true, "", "unknown",
		[]string{"ed"},
		map[string]any{"ed": 1},
		"ed\x00", "ED", " ed",
	} {
		f.denies(t, fmt.Sprintf("kid %.20v", id), edToken(t, map[string]any{"kid": id}, goodClaims(f.Now())))
	}
	f.denies(t, "kid null", signText(t, jwt.SigningMethodEdDSA, edKey(), `{"alg":"EdDSA","kid":null}`, f.payload(t)))

	_, err := f.Verify(t.Context(), edToken(t, kid("a\n\x1b[31m\u202e"+strings.Repeat("k", 100)), goodClaims(f.Now())))
	if err == nil || strings.ContainsAny(err.Error(), "\n\x1b\u202e") || strings.Count(err.Error(), "k") > 70 {
		t.Errorf("the kid is not told escaped and cut: %v", err)
	}
}

func TestE69RandomKeyIDsDoNotFloodTheIssuer(t *testing.T) {
	s := newIssuer(t, jwks(t, jwkOf(t, edKey(), kid("ed"))))
	now := newClock()
	v := newVerifier(t, token.Options{KeyManagers: []token.KeyManager{manager(s.URL)}, Now: now.Now})
	flood := func(n int) {
		var group sync.WaitGroup
		for i := range n {
			raw := edToken(t, kid(fmt.Sprintf("%d-%d", now.Now().Unix(), i)), goodClaims(now.Now()))
			group.Go(func() {
				_, err := v.Verify(context.Background(), raw)
				later := token.RetryAfter(err)
				if !errors.Is(err, token.ErrInvalid) && (!errors.Is(err, token.ErrUnavailable) || later <= 0 || later > 30*time.Second) {
					t.Errorf("err = %v, to be tried again after %v", err, later)
				}
			})
		}
		group.Wait()
	}
	flood(10_000)
	if n := s.requests.Load(); n > 2 {
		t.Errorf("%d fetches", n)
	}
	before := s.requests.Load()
	now.Advance(29 * time.Second)
	flood(100)
	if n := s.requests.Load() - before; n != 0 && before == 2 {
		t.Errorf("%d fetches within the cool-down", n)
	}
	before = s.requests.Load()
	now.Advance(31 * time.Second)
	flood(100)
	if n := s.requests.Load() - before; n < 1 || n > 2 {
		t.Errorf("%d fetches after the cool-down", n)
	}
}

func TestE70TwoIssuersWithOneKeyID(t *testing.T) {
	now := newClock()
	x := manager(file(t, "x.json", jwks(t, jwkOf(t, edKey(), kid("k")))))
	y := manager(file(t, "y.json", jwks(t, jwkOf(t, edKey2(), kid("k")))))
	y.Name, y.Issuer = "y", "https://y.test"
	f := &fixture{newVerifier(t, token.Options{KeyManagers: []token.KeyManager{x, y}, Now: now.Now}), now, &logBook{}}
	ofY := with(goodClaims(now.Now()), map[string]any{"iss": y.Issuer})
	claims, err := f.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("k"), ofY))
	if err != nil || claims.KeyManager != "y" || claims.Issuer != y.Issuer {
		t.Fatalf("y's own: %v, %v", claims, err)
	}
	f.denies(t, "of y by x", edToken(t, kid("k"), ofY))
	f.denies(t, "of x by y", sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("k"), goodClaims(now.Now())))
	f.denies(t, "of x by y, no kid", sign(t, jwt.SigningMethodEdDSA, edKey2(), nil, goodClaims(now.Now())))
}

func TestE71Times(t *testing.T) {
	f := newFixture(t)
	now := f.Now().Unix()
	const invalid, expired, good = "invalid", "expired", "good"
	for _, c := range []struct {
		times string
		want  string
	}{
		{``, invalid},
		{`"exp":"%d"`, invalid},
		{`"exp":null`, invalid},
		{`"exp":4102444800.5`, good},
		{`"exp":4.1e9`, good},
		{`"exp":4.102444800E+9`, good},
		{`"exp":41024448000000e-4`, good},
		{fmt.Sprintf(`"exp":%d.999999999`, now-61), expired},
		{fmt.Sprintf(`"exp":%d.000000001`, now-60), good},
		{fmt.Sprintf(`"exp":%d.0000000001`, now-60), expired}, // below a nanosecond
		{fmt.Sprintf(`"exp":%d.0`, now-60), expired},
		{`"exp":0.5`, expired},
		{`"exp":1e-999`, expired},
		{`"exp":1e-1000`, invalid},
		{`"exp":1e99999999999999999999`, invalid},
		{`"exp":NaN`, invalid},
		{`"exp":Infinity`, invalid},
		{`"exp":4102444800.`, invalid},
		{`"exp":.5e10`, invalid},
		{`"exp":04102444800`, invalid},
		{`"exp":0x7fffffff`, invalid},
		{`"exp":"4102444800"`, invalid},
		{`"exp":true`, invalid},
		{`"exp":-4102444800.5`, invalid},
		{`"exp":-1e9`, invalid},
		{`"exp":253402300799.9`, good},
		{`"exp":2534023008e2`, invalid},
		{`"exp":1e308`, invalid},
		{`"exp":1e400`, invalid},
		{`"exp":99999999999999999999999999`, invalid},
		{`"exp":9223372036854775807`, invalid},
		{`"exp":253402300800`, invalid},
		{`"exp":253402300799`, good},
		{`"exp":-1`, invalid},
		{`"exp":-0`, invalid},
		{`"exp":[4102444800]`, invalid},
		{`"exp":0`, expired},
		{fmt.Sprintf(`"exp":%d`, now+1), good},
		{fmt.Sprintf(`"exp":%d`, now-59), good},
		{fmt.Sprintf(`"exp":%d`, now-60), expired},
		{fmt.Sprintf(`"exp":%d`, now-3600), expired},
		{fmt.Sprintf(`"exp":4102444800,"nbf":%d`, now+60), good},
		{fmt.Sprintf(`"exp":4102444800,"nbf":%d`, now+61), invalid},
		{fmt.Sprintf(`"exp":4102444800,"iat":%d`, now+60), good},
		{fmt.Sprintf(`"exp":4102444800,"nbf":%d.000000001`, now+60), invalid},
		{fmt.Sprintf(`"exp":4102444800,"nbf":%d.999999999`, now+59), good},
		{fmt.Sprintf(`"exp":4102444800,"iat":%d`, now+61), good},
		{fmt.Sprintf(`"exp":4102444800,"iat":%d.5`, now+3600), good},
		{`"exp":4102444800,"iat":"now"`, invalid},
		{`"exp":4102444800,"iat":-1`, invalid},
		{fmt.Sprintf(`"exp":%d,"nbf":%d`, now-3600, now+61), invalid},
		{fmt.Sprintf(`"exp":%d,"iat":%d`, now-3600, now+61), expired},
	} {
		payload := `{"iss":"` + issuerURL + `"`
		if c.times != "" {
			payload += "," + c.times
		}
		raw := signText(t, jwt.SigningMethodEdDSA, edKey(), `{"alg":"EdDSA","kid":"ed"}`, payload+"}")
		_, err := f.Verify(t.Context(), raw)
		got := good
		switch {
		case errors.Is(err, token.ErrExpired) && errors.Is(err, token.ErrInvalid):
			got = expired
		case errors.Is(err, token.ErrInvalid):
			got = invalid
		case err != nil:
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.times, got, err, c.want)
		}
	}
}

func TestE72IssuersAndTypes(t *testing.T) {
	f := newFixture(t)
	for _, iss := range []any{
		strings.ToUpper(issuerURL), issuerURL + "/", issuerURL + " ", strings.TrimPrefix(issuerURL, "https://"), "", nil, "https://evil.test",
		[]string{issuerURL},
		1, issuerURL + "\x00",
	} {
		f.denies(t, fmt.Sprintf("iss %v", iss), edToken(t, kid("ed"), with(goodClaims(f.Now()), map[string]any{"iss": iss})))
	}
	for _, typ := range []any{"ID", "id+jwt", "logout+jwt", "dpop+jwt", "jwt+at", "", 1, "application/", "application/ID", "at+jwt;a=b"} {
		f.denies(t, fmt.Sprintf("typ %v", typ), edToken(t, map[string]any{"kid": "ed", "typ": typ}, goodClaims(f.Now())))
	}

	strict := manager(file(t, "jwks.json", jwks(t, jwkOf(t, edKey(), kid("ed")))))
	strict.TokenType = "at+jwt"
	s := &fixture{newVerifier(t, token.Options{KeyManagers: []token.KeyManager{strict}, Now: f.Now}), f.clock, f.log}
	for _, typ := range []string{"JWT", "jwt", "application/jwt", "ID"} {
		s.denies(t, "typ "+typ, edToken(t, map[string]any{"kid": "ed", "typ": typ}, goodClaims(f.Now())))
	}
	s.denies(t, "no typ", edToken(t, kid("ed"), goodClaims(f.Now())))
	for _, typ := range []string{"at+jwt", "AT+JWT", "application/at+jwt", "Application/at+JWT"} {
		if _, err := s.Verify(t.Context(), edToken(t, map[string]any{"kid": "ed", "typ": typ}, goodClaims(f.Now()))); err != nil {
			t.Errorf("typ %s: %v", typ, err)
		}
	}
}

func TestE73BoundTokens(t *testing.T) {
	f := newFixture(t)
	for _, cnf := range []string{`{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}`, `{}`, `null`, `""`, `{"jkt":"x"}`} {
		payload := strings.TrimSuffix(f.payload(t), "}") + `,"cnf":` + cnf + "}"
		f.denies(t, "cnf "+cnf, signText(t, jwt.SigningMethodEdDSA, edKey(), `{"alg":"EdDSA","kid":"ed"}`, payload))
	}
}

func TestE74ExpiredAndForged(t *testing.T) {
	f := newFixture(t)
	old := with(goodClaims(f.Now()), map[string]any{"exp": f.Now().Add(-time.Hour).Unix()})
	if _, err := f.Verify(t.Context(), edToken(t, kid("ed"), old)); !errors.Is(err, token.ErrExpired) || !errors.Is(err, token.ErrInvalid) {
		t.Errorf("expired: %v", err)
	}
	f.denies(t, "expired and forged", sign(t, jwt.SigningMethodEdDSA, edKey2(), kid("ed"), old))
	f.denies(t, "expired, kid unknown", edToken(t, kid("other"), old))
	f.denies(t, "expired, of a stranger", edToken(t, kid("ed"), with(old, map[string]any{"iss": "https://evil.test"})))
	f.denies(t, "expired and bound", edToken(t, kid("ed"), with(old, map[string]any{"cnf": map[string]any{}})))
	f.denies(t, "expired ID token", edToken(t, map[string]any{"kid": "ed", "typ": "ID"}, old))
}

func TestE74PanicInVerification(t *testing.T) {
	f := newFixture(t)
	f.PoisonKeys()
	f.denies(t, "poisoned", sign(t, jwt.SigningMethodRS256, rsaKey(), kid("rsa"), goodClaims(f.Now())))
	if !strings.Contains(f.log.String(), "panicked") {
		t.Error("the panic is not logged")
	}
}

func TestE75StrangeForms(t *testing.T) {
	f := newFixture(t)
	for name, header := range map[string]map[string]any{
		"unknown crit": {"crit": []string{"exp"}}, "empty crit": {"crit": []string{}},
		"zip": {"zip": "DEF"}, "b64": {"b64": false, "crit": []string{"b64"}}, "b64 alone": {"b64": true}, "enc": {"enc": "A256GCM"},
	} {
		f.denies(t, name, edToken(t, with(header, kid("ed")), goodClaims(f.Now())))
	}
	f.denies(t, "null crit", signText(t, jwt.SigningMethodEdDSA, edKey(), `{"alg":"EdDSA","kid":"ed","crit":null}`, f.payload(t)))
	five := b64(`{"alg":"RSA-OAEP","enc":"A256GCM","zip":"DEF"}`) + ".a.a.a.a"
	f.denies(t, "five parts", five)
	good := edToken(t, kid("ed"), goodClaims(f.Now()))
	f.denies(t, "four parts", good+".")
	f.denies(t, "four parts, first empty", "."+good)
	f.denies(t, "empty", "")
	f.denies(t, "two dots", "..")
	f.denies(t, "deep header", signText(t, jwt.SigningMethodEdDSA, edKey(), `{"alg":"EdDSA","kid":"ed","x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`}`, f.payload(t)))

	for name, raw := range map[string]string{
		"1 MiB of dots":      strings.Repeat(".", 1<<20),
		"a header of 100 KB": edToken(t, map[string]any{"kid": "ed", "x": strings.Repeat("x", 100<<10)}, goodClaims(f.Now())),
		"a header of 9 KB":   edToken(t, map[string]any{"kid": "ed", "x": strings.Repeat("x", 9<<10)}, goodClaims(f.Now())),
		"a payload of 16 KB": edToken(t, kid("ed"), with(goodClaims(f.Now()), map[string]any{"x": strings.Repeat("x", 16<<10)})),
		"many members":       b64(`{"alg":"EdDSA"}`) + "." + b64(`{"a":`+strings.Repeat(`{"a":`, 2000)) + ".AA",
	} {
		f.denies(t, name, raw)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = f.Verify(t.Context(), raw)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

func TestE76OneSpellingOnly(t *testing.T) {
	f := newFixture(t)
	const head = `{"alg":"EdDSA","kid":"ed"}`
	good := f.payload(t)
	inner := strings.TrimSuffix(strings.TrimPrefix(good, "{"), "}")
	for name, part := range map[string][2]string{
		"exp twice":             {head, `{` + inner + `,"exp":4102444800}`},
		"exp twice, escaped":    {head, `{` + inner + `,"\u0065xp":4102444800}`},
		"sub twice":             {head, `{"sub":"bob",` + inner + `}`},
		"twice in an object":    {head, `{` + inner + `,"x":{"a":1,"b":[{"c":1,"c":2}]}}`},
		"kid twice":             {`{"alg":"EdDSA","kid":"ed","kid":"ed"}`, good},
		"alg twice":             {`{"alg":"none","kid":"ed","alg":"EdDSA"}`, good},
		"trailing object":       {head, good + `{}`},
		"trailing bytes":        {head, good + `x`},
		"trailing NUL":          {head, good + "\x00"},
		"header with a tail":    {head + `{}`, good},
		"invalid UTF-8":         {head, `{` + inner + ",\"x\":\"\xff\"}"},
		"header, invalid UTF-8": {"{\"alg\":\"EdDSA\",\"kid\":\"ed\",\"x\":\"\xc3\"}", good},
		"BOM":                   {head, "\ufeff" + good},
		"a list":                {head, `[` + good + `]`},
		"null":                  {head, `null`},
		"a string":              {head, `"x"`},
		"header null":           {`null`, good},
		"header list":           {`[` + head + `]`, good},
		"no JSON":               {head, `{` + inner},
		"comma at the end":      {head, `{` + inner + `,}`},
	} {
		f.denies(t, name, signText(t, jwt.SigningMethodEdDSA, edKey(), part[0], part[1]))
	}

	raw := signText(t, jwt.SigningMethodEdDSA, edKey(), head, good)
	if _, err := f.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(raw, ".")
	// An Ed25519 signature has 86 digits, of which the last has four spare bits.
	last := parts[2][:len(parts[2])-1]
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		if other := last + string(c); other != parts[2] {
			f.denies(t, "spare bits", parts[0]+"."+parts[1]+"."+other)
		}
	}
	for name, other := range map[string]string{
		"padding":      raw + "==",
		"padded parts": parts[0] + "=." + parts[1] + "=." + parts[2] + "==",
		"line end":     raw + "\n",
		"line end in":  raw[:len(raw)-4] + "\r\n" + raw[len(raw)-4:],
		"space":        " " + raw,
		"space behind": raw + " ",
		"standard":     strings.NewReplacer("-", "+", "_", "/").Replace(raw) + "+",
		"bearer":       "Bearer " + raw,
		"NUL":          raw + "\x00",
	} {
		f.denies(t, name, other)
	}
}
