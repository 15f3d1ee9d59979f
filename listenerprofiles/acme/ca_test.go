package acme_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testacme"
	"sallyport/internal/testpki"
)

// A fakeCA speaks ACME within the process, believes whatever it is told, and can be made to say anything.
type fakeCA struct {
	*testacme.CA
	url  string
	self *testpki.Identity

	mu       sync.Mutex
	accounts map[string]bool // by URL
	made     int             // accounts
	orders   []*fakeOrder
	loses    bool            // it has a fault with each order that names a certificate which it replaces
	lost     int             // how often
	due      map[string]bool // serials of certificates that are to be renewed now

	before func(what string) // is called before a request is looked at, by all at once; nil: nothing is
	// answer may answer a request instead: what is the first segment of the path.
	answer func(w http.ResponseWriter, what string, n int) bool
	// sign makes the chain that answers a CSR; nil: a good one.
	sign func(*x509.CertificateRequest) []byte
}

type fakeOrder struct {
	name   string
	status string
	proven bool
	chain  []byte
}

func newFakeCA(t testing.TB) *fakeCA {
	ca := &fakeCA{accounts: map[string]bool{}, due: map[string]bool{}, self: testpki.NewCA(t, "a fake CA")}
	server := httptest.NewTLSServer(ca)
	t.Cleanup(server.Close)
	ca.url = server.URL
	ca.CA = &testacme.CA{Directory: server.URL + "/dir", Roots: x509.NewCertPool()}
	ca.Roots.AddCert(server.Certificate())
	return ca
}

// count counts the orders for a name.
func (ca *fakeCA) count(name string) (n int) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, o := range ca.orders {
		if o.name == name {
			n++
		}
	}
	return n
}

// renewNow has the CA suggest that a certificate be renewed now.
func (ca *fakeCA) renewNow(leaf *x509.Certificate) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.due[base64.RawURLEncoding.EncodeToString(leaf.SerialNumber.Bytes())] = true
}

// do changes the CA while it answers nobody.
func (ca *fakeCA) do(change func()) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	change()
}

func (ca *fakeCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if ca.before != nil {
		ca.before(what)
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	n, _ := strconv.Atoi(rest)
	w.Header().Set("Replay-Nonce", rand.Text())
	if ca.answer != nil && ca.answer(w, what, n) {
		return
	}
	var jws struct{ Protected, Payload string }
	var header struct{ Kid string }
	if r.Method == http.MethodPost {
		_ = json.NewDecoder(r.Body).Decode(&jws)
		data, _ := base64.RawURLEncoding.DecodeString(jws.Protected)
		_ = json.Unmarshal(data, &header)
		if what != "account" && !ca.accounts[header.Kid] {
			problem(w, 400, "accountDoesNotExist", "who is that?")
			return
		}
	}
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	if what != "order" && what != "authz" && what != "chal" && what != "finalize" && what != "cert" {
		n = -1
	} else if n >= len(ca.orders) {
		problem(w, 404, "malformed", "no such order")
		return
	}
	switch what {
	case "dir":
		asJSON(w, 200, map[string]string{
			"newNonce": ca.url + "/nonce", "newAccount": ca.url + "/account", "newOrder": ca.url + "/new",
			"renewalInfo": ca.url + "/ari",
		})
	case "nonce":
	case "account":
		ca.made++
		at := fmt.Sprintf("%s/account/%d", ca.url, ca.made)
		ca.accounts[at] = true
		w.Header().Set("Location", at)
		asJSON(w, 201, map[string]string{"status": "valid"})
	case "new":
		var asked struct {
			Identifiers []struct{ Value string }
			Replaces    string
		}
		_ = json.Unmarshal(payload, &asked)
		if ca.loses && asked.Replaces != "" {
			ca.lost++
			problem(w, 500, "serverInternal", "there is no order of that certificate")
			return
		}
		ca.orders = append(ca.orders, &fakeOrder{name: asked.Identifiers[0].Value, status: "pending"})
		w.Header().Set("Location", fmt.Sprintf("%s/order/%d", ca.url, len(ca.orders)-1))
		ca.showOrder(w, 201, len(ca.orders)-1)
	case "order":
		ca.showOrder(w, 200, n)
	case "authz":
		ca.showAuthorization(w, n)
	case "chal":
		ca.orders[n].proven, ca.orders[n].status = true, "ready"
		asJSON(w, 200, map[string]string{"status": "processing", "type": "tls-alpn-01"})
	case "finalize":
		ca.finalize(payload, n)
		ca.showOrder(w, 200, n)
	case "cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(ca.orders[n].chain)
	case "ari":
		from := time.Now().Add(time.Hour)
		if _, serial, _ := strings.Cut(rest, "."); ca.due[serial] {
			from = time.Now().Add(-2 * time.Hour)
		}
		w.Header().Set("Retry-After", "0")
		asJSON(w, 200, map[string]any{"suggestedWindow": map[string]time.Time{"start": from, "end": from.Add(time.Hour)}})
	default:
		http.NotFound(w, r)
	}
}

func (ca *fakeCA) showOrder(w http.ResponseWriter, status, n int) {
	o := ca.orders[n]
	shown := map[string]any{
		"status": o.status, "identifiers": []map[string]string{{"type": "dns", "value": o.name}},
		"authorizations": []string{fmt.Sprintf("%s/authz/%d", ca.url, n)}, "finalize": fmt.Sprintf("%s/finalize/%d", ca.url, n),
	}
	if o.status == "valid" {
		shown["certificate"] = fmt.Sprintf("%s/cert/%d", ca.url, n)
	}
	asJSON(w, status, shown)
}

func (ca *fakeCA) showAuthorization(w http.ResponseWriter, n int) {
	status := "pending"
	if ca.orders[n].proven {
		status = "valid"
	}
	var challenges []map[string]string
	for _, kind := range []string{"tls-alpn-01", "http-01"} {
		challenges = append(challenges, map[string]string{
			"type": kind, "status": status, "token": fmt.Sprintf("token-%d", n), "url": fmt.Sprintf("%s/chal/%d", ca.url, n),
		})
	}
	asJSON(w, 200, map[string]any{
		"status": status, "identifier": map[string]string{"type": "dns", "value": ca.orders[n].name}, "challenges": challenges,
	})
}

func (ca *fakeCA) finalize(payload []byte, n int) {
	var asked struct{ CSR string }
	_ = json.Unmarshal(payload, &asked)
	der, _ := base64.RawURLEncoding.DecodeString(asked.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		ca.orders[n].status = "invalid"
		return
	}
	if ca.sign != nil {
		ca.orders[n].chain = ca.sign(csr)
	} else {
		ca.orders[n].chain = ca.certificate(csr.PublicKey, ca.orders[n].name, time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour))
	}
	ca.orders[n].status = "valid"
}

// certificate makes a chain.
func (ca *fakeCA) certificate(key any, name string, from, to time.Time) []byte {
	serial := new(big.Int).SetBytes([]byte(rand.Text()[:12]))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: to,
		AuthorityKeyId: []byte("ca"), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.self.Cert, key, ca.self.Key)
	if err != nil {
		panic(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), testpki.PEM(ca.self.Cert)...)
}

func asJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func problem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "status": status, "detail": detail})
}
