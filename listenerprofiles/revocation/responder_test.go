package revocation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

// A server answers by what it is told to, and counts.
type server struct {
	*httptest.Server
	calls atomic.Int64
	mu    sync.Mutex
	serve http.HandlerFunc
}

func serving(t testing.TB, serve http.HandlerFunc) *server {
	s := &server{serve: serve}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		s.mu.Lock()
		serve := s.serve
		s.mu.Unlock()
		serve(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *server) serves(serve http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serve = serve
}

func content(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
}

// silent never answers, until its client is gone.
func silent(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// endless sends for ever, as fast as it can.
func endless(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusOK)
	for piece := bytes.Repeat([]byte("x"), 1<<20); ; {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// dripping sends a byte ten times a second.
func dripping(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	for {
		if _, err := w.Write([]byte{0x30}); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// An answer describes a response of a responder. Its zero value is a good one of the issuer's, from a minute ago until in
// an hour.
type ocspAnswer struct {
	status     int
	signer     *testpki.Identity // nil: the issuer
	issuer     *testpki.Identity // whose hashes are in it; nil: the issuer
	serial     *big.Int          // nil: that which is asked for
	this, next time.Time
	noNext     bool
	hash       crypto.Hash
}

func (a ocspAnswer) der(t testing.TB, ca *testpki.Identity, serial *big.Int) []byte {
	t.Helper()
	template := ocsp.Response{
		Status: a.status, SerialNumber: serial, ThisUpdate: a.this, NextUpdate: a.next, IssuerHash: a.hash,
		RevokedAt: time.Now().Add(-time.Hour),
	}
	if a.serial != nil {
		template.SerialNumber = a.serial
	}
	if a.this.IsZero() {
		template.ThisUpdate = time.Now().Add(-time.Minute)
	}
	if a.next.IsZero() && !a.noNext {
		template.NextUpdate = time.Now().Add(time.Hour)
	}
	signer, issuer := ca, ca
	if a.signer != nil {
		signer = a.signer
		template.Certificate = signer.Cert
	}
	if a.issuer != nil {
		issuer = a.issuer
	}
	der, err := ocsp.CreateResponse(issuer.Cert, signer.Cert, template, signer.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// answering is the handler of a responder of a CA.
func answering(t testing.TB, ca *testpki.Identity, a ocspAnswer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		q, err := ocsp.ParseRequest(body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" {
			t.Errorf("%s of %s: %v", r.Method, r.Header.Get("Content-Type"), err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(a.der(t, ca, q.SerialNumber))
	}
}

func TestParseResponse(t *testing.T) {
	ca := newCA(t, "CA")
	other := newCA(t, "Other")
	twin := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	delegate := func(of *testpki.Identity, leaf testpki.Leaf) *testpki.Identity {
		leaf.CommonName = "responder"
		if leaf.Usages == nil {
			leaf.Usages = ocspSigning
		}
		return of.Issue(leaf)
	}
	now := time.Now()
	for _, tt := range []struct {
		name   string
		answer ocspAnswer
		want   Status
		refuse string
	}{
		{"good", ocspAnswer{}, Good, ""},
		{"revoked", ocspAnswer{status: ocsp.Revoked}, Revoked, ""},
		{"unknown", ocspAnswer{status: ocsp.Unknown}, Unknown, ""},
		{"by SHA-256", ocspAnswer{hash: crypto.SHA256}, Good, ""},
		{"by SHA-512", ocspAnswer{hash: crypto.SHA512}, Good, ""},
		{"without nextUpdate", ocspAnswer{noNext: true}, Good, ""},
		{"the issuer's certificate comes along", ocspAnswer{signer: ca}, Good, ""},
		{"a delegate", ocspAnswer{signer: delegate(ca, testpki.Leaf{})}, Good, ""},
		{"a delegate for clients", ocspAnswer{signer: delegate(ca, testpki.Leaf{Usages: testpki.ServerOnly})}, 0, "may not sign for OCSP"},
		{"a delegate for anything", ocspAnswer{signer: delegate(ca, testpki.Leaf{Usages: anyUsage})}, 0, "may not sign for OCSP"},
		{"a delegate without usages", ocspAnswer{signer: delegate(ca, testpki.Leaf{Usages: testpki.NoUsages})}, 0, "may not sign for OCSP"},
		{"a client's certificate", ocspAnswer{signer: leaf}, 0, "may not sign for OCSP"},
		{"a delegate that has ended", ocspAnswer{signer: delegate(ca, testpki.Leaf{NotAfter: now.Add(-time.Hour)})}, 0, "not valid now"},
		{"a delegate that begins", ocspAnswer{signer: delegate(ca, testpki.Leaf{NotBefore: now.Add(time.Hour)})}, 0, "not valid now"},
		{"a delegate with an unknown critical extension", ocspAnswer{signer: delegate(ca, testpki.Leaf{Change: func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}})}, 0, "unknown critical extension"},
		{"a delegate that may not sign", ocspAnswer{signer: delegate(ca, testpki.Leaf{Change: func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyEncipherment
		}})}, 0, "key usage"},
		{"a delegate of another CA", ocspAnswer{signer: delegate(other, testpki.Leaf{})}, 0, "of another issuer"},
		{"a delegate of a CA of the same name", ocspAnswer{signer: delegate(twin, testpki.Leaf{})}, 0, "verification"},
		{"a delegate's delegate", ocspAnswer{signer: delegate(delegate(ca, testpki.Leaf{}), testpki.Leaf{})}, 0, "of another issuer"},
		{"another CA", ocspAnswer{signer: other}, 0, "of another issuer"},
		{"another serial number", ocspAnswer{serial: big.NewInt(9_999)}, 0, "no response matching"},
		{"another issuer's certificate", ocspAnswer{issuer: other}, 0, "about a certificate of another issuer"},
		{"another key of the issuer", ocspAnswer{issuer: twin}, 0, "about a certificate of another issuer"},
		{"of the future", ocspAnswer{this: now.Add(time.Hour), next: now.Add(2 * time.Hour)}, 0, "of the future"},
		{"a clock that is a little ahead", ocspAnswer{this: now.Add(time.Minute)}, Good, ""},
		{"ended", ocspAnswer{this: now.Add(-2 * time.Hour), next: now.Add(-time.Hour)}, 0, "has ended"},
		{"upside down", ocspAnswer{this: now.Add(-time.Hour), next: now.Add(-2 * time.Hour)}, 0, "has ended"},
		{"old, without nextUpdate", ocspAnswer{this: now.Add(-25 * time.Hour), noNext: true}, 0, "older than a day"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := parseResponse(tt.answer.der(t, ca, leaf.Cert.SerialNumber), newIssuer(ca.Cert), leaf.Cert.SerialNumber, now)
			if tt.refuse == "" && (err != nil || res.status != tt.want) {
				t.Errorf("%v, %v, want %v", res.status, err, tt.want)
			}
			if tt.refuse != "" && (err == nil || !strings.Contains(err.Error(), tt.refuse)) {
				t.Errorf("%v, error %v, want %q", res.status, err, tt.refuse)
			}
		})
	}
	for critical, refused := range map[bool]bool{false: false, true: true} {
		der := extended(t, ca, ocspAnswer{}.der(t, ca, leaf.Cert.SerialNumber), critical)
		_, err := parseResponse(der, newIssuer(ca.Cert), leaf.Cert.SerialNumber, now)
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "critical extension that is not known") {
			t.Errorf("an extension, critical %v: %v", critical, err)
		}
	}
	for name, der := range map[string][]byte{
		"empty": nil, "garbage": []byte("<html>"), "long": make([]byte, maxResponse+1), "malformed": ocsp.MalformedRequestErrorResponse,
		"try later": ocsp.TryLaterErrorResponse, "unauthorized": ocsp.UnauthorizedErrorResponse, "internal error": ocsp.InternalErrorErrorResponse,
		"unsigned": bytes.Replace(ocspAnswer{}.der(t, ca, leaf.Cert.SerialNumber), []byte{0x80, 0}, []byte{0x82, 0}, 1),
	} {
		if res, err := parseResponse(der, newIssuer(ca.Cert), leaf.Cert.SerialNumber, now); err == nil {
			t.Errorf("%s: %v", name, res.status)
		}
	}
}

// extended is a response with an extension of all its parts, signed anew.
func extended(t testing.TB, ca *testpki.Identity, der []byte, critical bool) []byte {
	t.Helper()
	res, err := ocsp.ParseResponse(der, ca.Cert)
	if err != nil {
		t.Fatal(err)
	}
	type explicit struct {
		Extensions []pkix.Extension `asn1:"explicit,tag:1"`
	}
	more, err := asn1.Marshal(explicit{[]pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: critical, Value: []byte{5, 0}}}})
	if err != nil {
		t.Fatal(err)
	}
	var data, field asn1.RawValue
	for _, one := range []struct {
		der []byte
		out *asn1.RawValue
	}{{res.TBSResponseData, &data}, {more, &field}} {
		if _, err := asn1.Unmarshal(one.der, one.out); err != nil {
			t.Fatal(err)
		}
	}
	tbs, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(data.Bytes, field.Bytes...)})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(tbs)
	signature, err := ca.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	type answered struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	basic, err := asn1.Marshal(answered{
		asn1.RawValue{FullBytes: tbs},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
		asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)},
	})
	if err != nil {
		t.Fatal(err)
	}
	type body struct {
		Type  asn1.ObjectIdentifier
		Basic []byte
	}
	type response struct {
		Status asn1.Enumerated
		Body   body `asn1:"explicit,tag:0"`
	}
	all, err := asn1.Marshal(response{0, body{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}, basic}})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func FuzzParseResponse(f *testing.F) {
	ca := newCA(testpki.Panic, "CA")
	by, serial := newIssuer(ca.Cert), big.NewInt(77)
	delegate := ca.Issue(testpki.Leaf{Usages: ocspSigning})
	for _, a := range []ocspAnswer{{}, {status: ocsp.Revoked}, {status: ocsp.Unknown}, {signer: delegate}, {hash: crypto.SHA256}, {noNext: true}} {
		f.Add(a.der(f, ca, serial))
	}
	f.Add(ocsp.TryLaterErrorResponse)
	stranger := newIssuer(newCA(testpki.Panic, "CA").Cert)
	now := time.Now()
	f.Fuzz(func(t *testing.T, der []byte) {
		if _, err := parseResponse(der, by, serial, now); err == nil {
			if _, err := ocsp.ParseResponse(der, ca.Cert); err != nil && !strings.Contains(err.Error(), "bad number of responses") {
				t.Fatalf("x/crypto/ocsp refuses it: %v", err)
			}
		}
		if res, err := parseResponse(der, stranger, serial, now); err == nil {
			t.Fatalf("nobody has signed it, and it says %v", res.status)
		}
	})
}

// TestStatuses is the outcome of each combination of what a responder and a CRL say, under fail: hard and soft.
func TestStatuses(t *testing.T) {
	ca := newCA(t, "CA")
	const (
		u, g, r = Unknown, Good, Revoked
	)
	lists := []string{"no list", "good", "revoked", "ended", "ended, and revoked"}
	for _, row := range []struct {
		name  string
		serve http.HandlerFunc // nil: no responder is named
		hard  [5]Status        // by lists
		soft  [5]Status
	}{
		{"no responder", nil, [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"good", answering(t, ca, ocspAnswer{}), [5]Status{g, g, r, g, g}, [5]Status{g, g, r, g, g}},
		{"revoked", answering(t, ca, ocspAnswer{status: ocsp.Revoked}), [5]Status{r, r, r, r, r}, [5]Status{r, r, r, r, r}},
		{"unknown", answering(t, ca, ocspAnswer{status: ocsp.Unknown}), [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"error", status(500), [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"try later", content(ocsp.TryLaterErrorResponse), [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"unauthorized", content(ocsp.UnauthorizedErrorResponse), [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"garbage", content([]byte("<html>")), [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"too much", endless, [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"another host", redirect("http://localhost:1/"), [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"silent", silent, [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"dripping", dripping, [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
		{"another CA", answering(t, newCA(t, "CA"), ocspAnswer{}), [5]Status{u, g, r, u, r}, [5]Status{g, g, r, g, r}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var named []string
			if row.serve != nil {
				named = []string{serving(t, row.serve).URL}
			}
			leaf := naming(ca, nil, named)
			ended := crl{this: time.Now().Add(-time.Hour), next: time.Now().Add(-time.Minute)}
			endedRevoked, revoked := ended, []*testpki.Identity{leaf}
			endedRevoked.revoked = revoked
			files := []string{
				"", file(t, crl{}.pem(t, ca)), file(t, crl{revoked: revoked}.pem(t, ca)), file(t, ended.pem(t, ca)), file(t, endedRevoked.pem(t, ca)),
			}
			reg := run(t, Options{Budget: 300 * time.Millisecond, Retry: time.Hour})
			for i, at := range files {
				for soft, want := range map[bool]Status{false: row.hard[i], true: row.soft[i]} {
					p := Policy{OCSP: true, Soft: soft, Refresh: time.Hour}
					if at != "" {
						p.CRL = []string{at}
					}
					c := reg.checker(p)
					began := time.Now()
					a := asked(c, path(leaf, ca))
					if a.Status != want || a.Pending || (a.Err == nil) != (want == Good) {
						t.Errorf("CRL %s, soft %v: %v, pending %v, %v; want %v", lists[i], soft, a.Status, a.Pending, a.Err, want)
					}
					if took := time.Since(began); took > 10*time.Second {
						t.Errorf("CRL %s: it takes %v", lists[i], took)
					}
				}
			}
		})
	}
}

func TestOCSPIsAskedOnce(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, answering(t, ca, ocspAnswer{}))
	leaf := naming(ca, nil, []string{s.URL})
	r := run(t, Options{})
	c := r.checker(Policy{OCSP: true})
	if a := c.Status(path(leaf, ca), time.Now()); a.Status != Unknown || !a.Pending {
		t.Fatalf("%+v before anybody was asked", a)
	}
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if a := asked(c, path(leaf, ca)); a.Status != Good {
				t.Errorf("%+v", a)
			}
		})
	}
	group.Wait()
	if n := s.calls.Load(); n != 1 {
		t.Errorf("the responder is asked %d times", n)
	}
}

// TestFailuresAreRemembered: who does not answer costs one budget, and is not asked again before its time.
func TestFailuresAreRemembered(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, silent)
	leaf := naming(ca, nil, []string{s.URL})
	r := run(t, Options{Budget: 500 * time.Millisecond, Retry: time.Hour})
	c := r.checker(Policy{OCSP: true, Refresh: time.Hour})
	a := asked(c, path(leaf, ca))
	if a.Status != Unknown || a.Pending || !strings.Contains(a.Err.Error(), s.URL) {
		t.Fatalf("%+v", a)
	}
	testserver.Eventually(t, "state", func() error {
		for _, row := range r.State() {
			if row.Kind == Responder && row.Location == s.URL && row.Problem != "" && !row.Since.IsZero() {
				return nil
			}
		}
		return fmt.Errorf("the responder has no problem: %+v", r.State())
	})
	testserver.Eventually(t, "the retry's time", func() error {
		if a = c.Status(path(leaf, ca), time.Now()); a.Until.Before(time.Now().Add(50 * time.Minute)) {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	for range 100 {
		c.Await(t.Context(), path(leaf, ca))
	}
	if n := s.calls.Load(); n != 1 {
		t.Errorf("it is asked %d times", n)
	}
	if a := c.Status(path(leaf, ca), time.Now().Add(time.Hour)); !a.Pending {
		t.Errorf("%+v when it may be asked again", a)
	}
	if n := r.log.count("OCSP responder gives no answer that counts"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

// TestLateAnswerIsTold: whoever was told that a status is unknown asks again when it is known.
func TestLateAnswerIsTold(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, status(http.StatusInternalServerError))
	leaf := naming(ca, nil, []string{s.URL})
	r := run(t, Options{Retry: 50 * time.Millisecond})
	c := r.checker(Policy{OCSP: true, Soft: true})
	before := c.Generation()
	testserver.Eventually(t, "a definite answer", func() error {
		if a := asked(c, path(leaf, ca)); a.Status != Good || a.Pending {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	s.serves(answering(t, ca, ocspAnswer{status: ocsp.Revoked}))
	testserver.Eventually(t, "another generation", func() error {
		if c.Generation() == before {
			return fmt.Errorf("it is the same")
		}
		return nil
	})
	if a := c.Status(path(leaf, ca), time.Now()); a.Status != Revoked {
		t.Errorf("%+v", a)
	}
}

// TestUnknownAfterGood: a responder that knows a certificate no longer ends what it has said, and no failure does.
func TestUnknownAfterGood(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, answering(t, ca, ocspAnswer{}))
	leaf := naming(ca, nil, []string{s.URL})
	c := run(t, Options{Retry: 50 * time.Millisecond}).checker(Policy{OCSP: true, Refresh: 100 * time.Millisecond})
	if a := asked(c, path(leaf, ca)); a.Status != Good {
		t.Fatalf("%+v", a)
	}
	before := c.Generation()
	s.serves(answering(t, ca, ocspAnswer{status: ocsp.Unknown}))
	testserver.Eventually(t, "unknown", func() error {
		if a := c.Status(path(leaf, ca), time.Now()); a.Status != Unknown {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
	if c.Generation() == before {
		t.Error("the generation stays")
	}
}

// TestOCSPIsRefreshed: what is in use is asked again without a call, so that a revocation is known.
func TestOCSPIsRefreshed(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, answering(t, ca, ocspAnswer{}))
	leaf, other := naming(ca, nil, []string{s.URL}), naming(ca, nil, []string{s.URL})
	var changes atomic.Int64
	r := run(t, Options{Changed: func() { changes.Add(1) }, Retry: 50 * time.Millisecond})
	c := r.checker(Policy{OCSP: true, Refresh: 100 * time.Millisecond})
	for _, one := range []*testpki.Identity{leaf, other} {
		if a := asked(c, path(one, ca)); a.Status != Good {
			t.Fatalf("%+v", a)
		}
	}
	before := c.Generation()
	again := s.calls.Load() + 4
	testserver.Eventually(t, "refreshing", func() error {
		c.Status(path(leaf, ca), time.Now())
		if n := s.calls.Load(); n < again {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	if c.Generation() != before || changes.Load() != 0 {
		t.Error("the generation changes although no answer did")
	}
	s.serves(answering(t, ca, ocspAnswer{status: ocsp.Revoked, this: time.Now()}))
	eventually(t, c, path(leaf, ca), Revoked)
	if c.Generation() == before {
		t.Error("the generation stays although an answer has changed")
	}
	testserver.Eventually(t, "Changed", func() error {
		if changes.Load() == 0 {
			return fmt.Errorf("it is not called")
		}
		return nil
	})
	s.serves(answering(t, ca, ocspAnswer{this: time.Now().Add(-time.Hour)}))
	again = s.calls.Load() + 3
	testserver.Eventually(t, "refreshing", func() error {
		if a := c.Status(path(leaf, ca), time.Now()); a.Status != Revoked {
			return fmt.Errorf("%+v by an answer that is older", a)
		}
		if n := s.calls.Load(); n < again {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	// Who is not asked for any more is forgotten.
	testserver.Eventually(t, "forgetting", func() error {
		if n := r.questions.len(); n != 0 {
			return fmt.Errorf("%d questions are remembered", n)
		}
		return nil
	})
}

func TestFailedRefreshKeepsTheAnswer(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, answering(t, ca, ocspAnswer{next: time.Now().Add(5 * time.Minute)}))
	leaf := naming(ca, nil, []string{s.URL})
	r := run(t, Options{Retry: 20 * time.Millisecond})
	c := r.checker(Policy{OCSP: true, Refresh: 100 * time.Millisecond})
	aged := r.checker(Policy{OCSP: true, Refresh: 100 * time.Millisecond, MaxAge: 4 * time.Minute})
	if a := asked(c, path(leaf, ca)); a.Status != Good {
		t.Fatalf("%+v", a)
	}
	s.serves(status(500))
	again := s.calls.Load() + 3
	testserver.Eventually(t, "failing", func() error {
		if a := c.Status(path(leaf, ca), time.Now()); a.Status != Good {
			return fmt.Errorf("%+v", a)
		}
		if n := s.calls.Load(); n < again {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	for _, tt := range []struct {
		c     *Checker
		after time.Duration
		want  Status
	}{
		{c, 4*time.Minute + 30*time.Second, Good},
		{c, 5*time.Minute + time.Second, Unknown},
		{aged, 3 * time.Minute, Good},
		{aged, 4*time.Minute + 30*time.Second, Unknown},
	} {
		if a := tt.c.Status(path(leaf, ca), time.Now().Add(tt.after)); a.Status != tt.want {
			t.Errorf("after %v: %+v, want %v", tt.after, a, tt.want)
		}
	}
}

// TestSameSerialOfTwoIssuers: a cache by serial numbers alone would answer for one CA what another has said.
func TestSameSerialOfTwoIssuers(t *testing.T) {
	one, two := newCA(t, "One"), newCA(t, "Two")
	goods, bads := serving(t, answering(t, one, ocspAnswer{})), serving(t, answering(t, two, ocspAnswer{status: ocsp.Revoked}))
	issue := func(ca *testpki.Identity, at string) *testpki.Identity {
		return ca.Issue(testpki.Leaf{Change: func(c *x509.Certificate) { c.SerialNumber, c.OCSPServer = big.NewInt(4711), []string{at} }})
	}
	good, bad := issue(one, goods.URL), issue(two, bads.URL)
	c := run(t, Options{}).checker(Policy{OCSP: true})
	for range 2 {
		if a := asked(c, path(good, one)); a.Status != Good {
			t.Errorf("%+v", a)
		}
		if a := asked(c, path(bad, two)); a.Status != Revoked {
			t.Errorf("%+v", a)
		}
	}
}

func TestSecondResponderIsAsked(t *testing.T) {
	ca := newCA(t, "CA")
	dead, good := serving(t, silent), serving(t, answering(t, ca, ocspAnswer{}))
	leaf := naming(ca, nil, []string{"ldap://127.0.0.1/", dead.URL, good.URL})
	c := run(t, Options{Budget: 2 * time.Second}).checker(Policy{OCSP: true})
	if a := asked(c, path(leaf, ca)); a.Status != Good {
		t.Errorf("%+v", a)
	}
}

func TestCacheIsBounded(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, answering(t, ca, ocspAnswer{}))
	r := run(t, Options{})
	c := r.checker(Policy{OCSP: true, CacheSize: 64})
	for i := range 500 {
		leaf := ca.Issue(testpki.Leaf{CommonName: strconv.Itoa(i), Change: func(c *x509.Certificate) { c.OCSPServer = []string{s.URL} }})
		if a := asked(c, path(leaf, ca)); a.Status != Good {
			t.Fatalf("%+v", a)
		}
		if n := r.questions.len(); n > 64 {
			t.Fatalf("%d answers are remembered", n)
		}
	}
}

// TestSilentHostHoldsUpNobodyElse: its own questions wait for each other, those to others do not.
func TestSilentHostHoldsUpNobodyElse(t *testing.T) {
	ca := newCA(t, "CA")
	dead, good := serving(t, silent), serving(t, answering(t, ca, ocspAnswer{}))
	r := run(t, Options{Budget: 3 * time.Second})
	c := r.checker(Policy{OCSP: true})
	var group sync.WaitGroup
	for range 4 * maxPerResponder {
		leaf := naming(ca, nil, []string{dead.URL})
		group.Go(func() {
			began := time.Now()
			if a := asked(c, path(leaf, ca)); a.Status != Unknown || a.Pending {
				t.Errorf("%+v", a)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it takes %v", took)
			}
		})
	}
	testserver.Eventually(t, "load", func() error {
		if n := dead.calls.Load(); n < maxPerResponder {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	if n := dead.calls.Load(); n > maxPerResponder {
		t.Errorf("%d calls at once", n)
	}
	if a := asked(c, path(naming(ca, nil, []string{good.URL}), ca)); a.Status != Good {
		t.Errorf("%+v", a)
	}
	group.Wait()
}

// TestSilentHostsHoldUpNobodyElse: nor do many that are silent, of whom all that is asked at once waits.
func TestSilentHostsHoldUpNobodyElse(t *testing.T) {
	ca := newCA(t, "CA")
	good := serving(t, answering(t, ca, ocspAnswer{}))
	r := run(t, Options{Budget: 10 * time.Second})
	c := r.checker(Policy{OCSP: true})
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	var dead []*server
	for range 8 {
		s := serving(t, silent)
		dead = append(dead, s)
		for range maxPerResponder {
			leaf := naming(ca, nil, []string{s.URL})
			group.Go(func() { c.Await(ctx, path(leaf, ca)) })
		}
	}
	testserver.Eventually(t, "load", func() error {
		for _, s := range dead {
			if n := s.calls.Load(); n < maxPerResponder {
				return fmt.Errorf("%d calls", n)
			}
		}
		return nil
	})
	began := time.Now()
	if a := asked(c, path(naming(ca, nil, []string{good.URL}), ca)); a.Status != Good || time.Since(began) > 9*time.Second {
		t.Errorf("%+v, after %v", a, time.Since(began))
	}
}

// servingTLS is the address of a server of https.
func servingTLS(t testing.TB, id *testpki.Identity, serve http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(serve)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{id.TLS()}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// TestSoftWaitsOnce: where a status that can't be known counts as good, nobody waits again for who has not answered.
// TestLateAnswerIsTold is what comes of asking again.
func TestSoftWaitsOnce(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, silent)
	r := run(t, Options{Budget: 200 * time.Millisecond, Retry: time.Hour})
	c := r.checker(Policy{OCSP: true, DistributionPoints: true, Soft: true, Refresh: time.Hour})
	for name, leaf := range map[string]*testpki.Identity{
		"responder": naming(ca, nil, []string{s.URL}), "distribution point": naming(ca, []string{"http://127.0.0.1:1/list.crl"}, nil),
	} {
		if a := c.Status(path(leaf, ca), time.Now()); !a.Pending {
			t.Errorf("%s: the first call does not wait: %+v", name, a)
		}
		testserver.Eventually(t, "the failure", func() error {
			if a := asked(c, path(leaf, ca)); a.Status != Good || a.Until.Before(time.Now().Add(50*time.Minute)) {
				return fmt.Errorf("%+v", a)
			}
			return nil
		})
		later := time.Now().Add(90 * time.Minute) // it may be asked again
		if a := c.Status(path(leaf, ca), later); a.Pending || a.Status != Good || !a.Until.After(later) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}
