package main_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// listOf is a CRL of a CA in PEM, with these certificates in it.
func listOf(t *testing.T, ca *testpki.Identity, number int64, until time.Time, revoked ...*x509.Certificate) string {
	t.Helper()
	return string(listBy(t, ca, number, until, revoked...))
}

func listBy(t testpki.T, ca *testpki.Identity, number int64, until time.Time, revoked ...*x509.Certificate) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: until}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: list.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Cert, ca.Key)
	if err != nil {
		t.Fatalf("a CRL: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func signsLists(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }

// TestRevocationSources: a CRL file that is garbage, goes stale and comes back, and an address that is away and comes back,
// are named by log, once each, by metrics and by /readyz, which stays 200, and so is their end; a responder likewise.
func TestRevocationSources(t *testing.T) {
	filed, fetched := testpki.NewCA(t, "Filed CA", signsLists), testpki.NewCA(t, "Fetched CA", signsLists)
	list := listOf(t, fetched, 1, time.Now().Add(time.Hour))
	var away atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(list))
	}))
	t.Cleanup(server.Close)
	const trust = "sslVerifyClient: optional\n"
	d := newDemo(t, trust, trust+"    revocation: {crl: [filed.crl, "+server.URL+"], ocsp: true, refresh: 1s}\n")
	const stores = "stores/client-truststore.jks"
	d.write(stores, d.trustStoreFile("client-truststore", d.certificate("ca.crt"), filed.Cert, fetched.Cert))
	for name, ca := range map[string]*testpki.Identity{"filed": filed, "fetched": fetched} {
		d.putClient(ca, name)
		d.mustRun("cert", "add", "-c", d.ConfigFile, "--api", "payments:1.0.0", "--alias", name, "--tier", "Gold", "clients/"+name+".crt")
	}
	asked := filed.Issue(testpki.Leaf{CommonName: "asked", Change: func(c *x509.Certificate) {
		c.OCSPServer = []string{server.URL + "/ocsp"} // where no responder is
	}})
	d.write("clients/asked.crt", string(asked.CertPEM()))
	d.write("clients/asked.key", string(asked.KeyPEM()))
	d.mustRun("cert", "add", "-c", d.ConfigFile, "--api", "payments:1.0.0", "--alias", "asked", "--tier", "Gold", "clients/asked.crt")
	d.write("filed.crl", listOf(t, filed, 1, time.Now().Add(time.Hour)))
	p := d.quickstart()
	status := func(who string) int { return d.client(who, dialects[3]).get(t, "/payments/1").status }
	file, url := d.path("filed.crl"), server.URL
	metric := func(name, labels string) string { return p.metric("sallyport_revocation_" + name + "{" + labels + "}") }
	ofFile := func(name string) string { return metric(name, `issuer="CN=Filed CA",kind="file",location="`+file+`"`) }
	ofURL := func(name string) string { return metric(name, `issuer="CN=Fetched CA",kind="url",location="`+url+`"`) }
	told := func(parts ...string) func() bool {
		return func() bool { return count(p.ready(), append([]string{"revocation: "}, parts...)...) == 1 }
	}
	quiet := func() bool { return count(p.ready(), "revocation: ") == 0 }
	logged := func(want int, parts ...string) {
		t.Helper()
		eventually(t, "the log", func() bool { return count(p.stderr.String(), parts...) >= want })
		if n := count(p.stderr.String(), parts...); n != want {
			t.Errorf("the log has %d lines with %q, want %d", n, parts, want)
		}
	}

	eventually(t, "all is well", func() bool { return quiet() && ofURL("stale") == "0" && status("fetched") == http.StatusOK })
	if got := status("filed"); got != http.StatusOK || ofFile("entries") != "0" || ofFile("stale") != "0" || ofFile("problem") != "0" {
		t.Errorf("to begin with: %d, entries %s, stale %s, problem %s", got, ofFile("entries"), ofFile("stale"), ofFile("problem"))
	}

	d.swap("filed.crl", "garbage")
	eventually(t, "garbage is named", told("file "+file+": what is there is not taken since ", "no CRL"))
	if got := status("filed"); got != http.StatusOK || ofFile("problem") != "1" || ofFile("stale") != "0" {
		t.Errorf("with garbage: %d, problem %s, stale %s", got, ofFile("problem"), ofFile("stale"))
	}
	logged(1, "level=WARN", "CRL is not taken", file)

	d.swap("filed.crl", listOf(t, filed, 2, time.Now().Add(2*time.Second)))
	logged(1, "level=INFO", "CRL is good again", file)
	eventually(t, "stale is named", told("file "+file+": the CRL of CN=Filed CA is stale: it counted until "))
	if got := status("filed"); got != http.StatusServiceUnavailable || ofFile("stale") != "1" || status("fetched") != http.StatusOK {
		t.Errorf("stale: %d, %s; the other %d", got, ofFile("stale"), status("fetched"))
	}
	logged(1, "level=WARN", "CRL is stale", file, "Filed CA")
	if out := d.mustRun("validate"); count(out, "CRL file "+file+", of CN=Filed CA: it counted until ") != 1 {
		t.Errorf("validate does not name it:\n%s", out)
	}

	d.swap("filed.crl", listOf(t, filed, 3, time.Now().Add(time.Hour), filed.Cert))
	eventually(t, "the file is good again", func() bool { return quiet() && ofFile("stale") == "0" && status("filed") == http.StatusOK })
	if ofFile("entries") != "1" {
		t.Errorf("%s entries", ofFile("entries"))
	}
	logged(1, "level=INFO", "CRL is not stale any more", file)

	away.Store(true)
	eventually(t, "the address is named", told("url "+url+": what is there is not taken since ", "status 500"))
	if got := status("fetched"); got != http.StatusOK || ofURL("problem") != "1" || ofURL("stale") != "0" {
		t.Errorf("away: %d, problem %s, stale %s", got, ofURL("problem"), ofURL("stale"))
	}
	logged(1, "level=WARN", "CRL is not taken", url)
	away.Store(false)
	eventually(t, "the address is back", func() bool { return quiet() && ofURL("problem") == "0" })
	logged(1, "level=INFO", "CRL is good again", url)

	if got := status("asked"); got != http.StatusOK { // by the list
		t.Errorf("by way of a responder that doesn't answer: %d", got)
	}
	eventually(t, "the responder is named", told("ocsp "+url+"/ocsp: no answer that counts since "))
	if got := metric("problem", `issuer="",kind="ocsp",location="`+url+`/ocsp"`); got != "1" {
		t.Errorf("of the responder the metric says %q", got)
	}
	logged(1, "level=WARN", "OCSP responder gives no answer", url)
	if code, _ := p.status("/readyz"); code != http.StatusOK || strings.Contains(p.stderr.String(), "panic") {
		t.Errorf("/readyz: %d", code)
	}
	p.stop()
}
