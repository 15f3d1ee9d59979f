package main_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// crlOf is a list of a CA that names these certificates.
func crlOf(t *testing.T, ca *testpki.Identity, revoked ...*testpki.Identity) string {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(24 * time.Hour)}
	for _, one := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: one.Cert.SerialNumber, RevocationTime: time.Now().Add(-time.Hour),
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Cert, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return string(der)
}

// TestBothDoorsDecideAlikeOnIssued presents what registered CAs have issued, and what looks like it, in a handshake, behind
// NGINX and behind HAProxy: the decisions are equal, or whoever terminates TLS refuses by itself. Held: security C 28-31,
// 33-36, 39, 43, D 59.
func TestBothDoorsDecideAlikeOnIssued(t *testing.T) {
	t.Parallel()
	d := newDemo(t)
	signs := func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign }
	root := testpki.NewCA(t, "I Root", signs)
	acme := root.IssueCA("I Acme", signs)
	narrow := root.IssueCA("I Narrow", signs, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains, c.ExcludedDNSDomains = true, []string{"good.test"}, []string{"evil.good.test"}
	})
	short := root.IssueCA("I Short", signs, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := short.IssueCA("I Below Short", signs)
	mute := root.IssueCA("I Mute", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	withdrawn := root.IssueCA("I Withdrawn", signs)
	maze := testpki.NewCA(t, "I Maze", signs)
	elsewhere := root.IssueCA("I Elsewhere", signs) // registered for another API
	registered := map[string]*testpki.Identity{"acme": acme, "narrow": narrow, "short": short, "below": below, "mute": mute, "withdrawn": withdrawn, "maze": maze}
	var registrations strings.Builder
	for alias, ca := range registered {
		d.write("clients/"+alias+".ca", string(ca.Cert.Raw))
		fmt.Fprintf(&registrations, "      - {alias: %s, certificate: clients/%s.ca, tier: Unlimited}\n", alias, alias)
	}
	d.write("clients/elsewhere.ca", string(elsewhere.Cert.Raw))
	d.edit("sallyport.yaml",
		"    security: [mutualssl, oauth2]\n", "    security: [mutualssl, oauth2]\n    clientCertificates: [{alias: elsewhere, certificate: clients/elsewhere.ca, tier: Unlimited}]\n",
		"    security: [mutualssl]\n", "    security: [mutualssl]\n    clientCertificates:\n"+registrations.String(),
		"\nmutualSSL:\n", "\nmutualSSL:\n  enableCertificateChainValidation: true\n  revocation: {crl: [root.crl, acme.crl], fail: soft}\n",
		"    # WSO2's listener profiles", "    revocation: {crl: [root.crl, acme.crl], fail: soft}\n    # WSO2's listener profiles")
	d.writeTrustStore([]*x509.Certificate{root.Cert})

	type row struct {
		name  string
		leaf  *testpki.Identity
		shown []*x509.Certificate // beside it, in a handshake
		want  string
	}
	var rows []row
	add := func(name string, by *testpki.Identity, want string, change ...func(*x509.Certificate)) *testpki.Identity {
		leaf := by.Issue(testpki.Leaf{CommonName: name, Change: func(c *x509.Certificate) {
			for _, f := range change {
				f(c)
			}
		}})
		rows = append(rows, row{name, leaf, leaf.Chain()[1:], want})
		return leaf
	}
	usage := func(u x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} }
	}
	names := func(n ...string) func(*x509.Certificate) { return func(c *x509.Certificate) { c.DNSNames = n } }
	const no = "900901"
	add("issued", acme, "acme")
	add("another of it", acme, "acme")
	add("of a CA of another API", elsewhere, no)
	add("of a root of nobody's, with its name", testpki.NewCA(t, "I Acme", signs), no)
	add("of a namesake under the same root", root.IssueCA("I Acme", signs), no)
	add("of a name that contains it", root.IssueCA("I Acme Evil", signs), no)
	add("of the root", root, no)
	add("of a leaf", acme.Issue(testpki.Leaf{CommonName: "a leaf"}), no)
	add("for servers", acme, no, usage(x509.ExtKeyUsageServerAuth))
	add("for e-mail", acme, no, usage(x509.ExtKeyUsageEmailProtection))
	add("expired", acme, no, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	add("not yet valid", acme, no, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	for name, good := range map[string]bool{
		"a.good.test": true, "A.GOOD.test": true, "*.good.test": false, "a.bad.test": false, "A.BAD.test": false, "agood.test": false, "good.test.bad.test": false,
		"evil.good.test": false, "EVIL.Good.test": false, "a.evil.good.test": false, "*.evil.good.test": false, "*.bad.test": false,
	} {
		add("narrow "+name, narrow, map[bool]string{true: "narrow", false: no}[good], names(name))
	}
	add("path of its length", short, "short")
	add("path too long", below, no)
	add("of a CA that may not sign", mute, no)
	lost := add("revoked", acme, no)
	add("of a revoked CA", withdrawn, no)
	denied := add("denied", acme, no)
	for _, n := range []int{14, 40} {
		add(fmt.Sprintf("%d cross-signed CAs", n), maze, no)
		last := &rows[len(rows)-1]
		last.shown = nil
		for i := range n {
			other := testpki.NewCA(t, fmt.Sprintf("I Maze %d", i%3), signs)
			last.shown = append(last.shown, other.Issue(testpki.Leaf{CommonName: "I Maze", Key: maze.Key, Usages: testpki.NoUsages, Change: func(c *x509.Certificate) {
				c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
			}}).Cert)
		}
	}
	d.write("root.crl", crlOf(t, root, withdrawn))
	d.write("acme.crl", crlOf(t, acme, lost))
	d.write("clients/denied.crt", string(denied.CertPEM()))
	d.mustRun("cert", "deny", "add", "--certificate", "clients/denied.crt")
	d.quickstart()
	balancers := []balancer{d.nginx(), d.haproxy()}

	for _, r := range rows {
		certificate := &tls.Certificate{Certificate: [][]byte{r.leaf.Cert.Raw}, PrivateKey: r.leaf.Key}
		for _, c := range r.shown {
			certificate.Certificate = append(certificate.Certificate, c.Raw)
		}
		direct := balancer{"nothing", d.Ports.HTTPS}
		var doors []door
		for _, how := range dialects {
			doors = append(doors, direct.as(t, certificate, how))
			if len(r.shown) < 2 {
				lb := d.byCertificateDoor(how)
				doors = append(doors, door{lb.name, func(path string, headers ...string) (reply, error) {
					return lb.call(path, append(headers, "X-WSO2-CLIENT-CERTIFICATE", escape(blockOf(r.leaf.Cert.Raw)))...)
				}})
			}
		}
		for _, how := range []dialect{dialects[0], dialects[3]} {
			doors = append(doors, balancers[0].as(t, certificate, how), balancers[1].as(t, certificate, how))
		}
		for _, at := range doors {
			before := d.backendCount()
			got := at.verdict(t, "/payments/1")
			calls := d.backendCount() - before - 1
			if broken := r.want == no && got == "broken" && (len(r.shown) > 15 || strings.HasPrefix(at.name, "behind HAProxy")); got != r.want && !broken || (calls == 1) != (r.want != no) {
				t.Errorf("%s, %s: %s and %d calls, want %s", r.name, at.name, got, calls, r.want)
			}
		}
	}
}
