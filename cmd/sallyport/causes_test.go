package main_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

// admitsNobody is what cert add says of a certificate that is registered and not good now.
var admitsNobody = regexp.MustCompile(`(?m)^note: it admits nobody as things are: (.*?)(?:: put its CA.*)?$`)

// TestCertAddNamesTheCause: what can never be good is registered by force alone. The cause that cert add gives is the
// one that explain and validate find.
func TestCertAddNamesTheCause(t *testing.T) {
	t.Parallel()
	d := newDemo(t)
	now := time.Now()
	root := testpki.NewCA(t, "Root")
	old := root.IssueCA("Old", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
	d.writeTrustStore([]*x509.Certificate{root.Cert, old.Cert})
	client := func(change ...func(*testpki.Leaf)) testpki.Leaf {
		leaf := testpki.Leaf{CommonName: "client"}
		for _, f := range change {
			f(&leaf)
		}
		return leaf
	}
	template := func(f func(*x509.Certificate)) func(*testpki.Leaf) { return func(l *testpki.Leaf) { l.Change = f } }
	key := func(k crypto.Signer) func(*testpki.Leaf) { return func(l *testpki.Leaf) { l.Key = k } }
	for name, c := range map[string]struct {
		who   *testpki.Identity
		never bool
		cause string // "": it is good
	}{
		"good":    {root.Issue(client()), false, ""},
		"rsa1024": {root.Issue(client(key(testpki.NewRSA(t, 1024)))), true, "1024 bits"},
		"p224":    {root.Issue(client(key(testpki.NewEC(t, elliptic.P224())))), true, "P-224"},
		"server":  {root.Issue(client(func(l *testpki.Leaf) { l.Usages = testpki.ServerOnly })), true, "extended key usage"},
		"usage": {root.Issue(client(template(func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyEncipherment
		}))), true, "digital signature"},
		"expired": {root.Issue(client(func(l *testpki.Leaf) { l.NotAfter = now.Add(-time.Minute) })), true, "expired on "},
		"of-old":  {old.Issue(client()), true, "Old"},
		"critical": {root.Issue(client(template(func(c *x509.Certificate) {
			e := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}
			c.ExtraExtensions = append(c.ExtraExtensions, e)
		}))), true, "critical"},
		"early":    {root.Issue(client(func(l *testpki.Leaf) { l.NotBefore = now.Add(time.Hour) })), false, "not valid before "},
		"stranger": {testpki.NewCA(t, "Stranger").Issue(client()), false, "nothing in the trust store vouches for the certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			file := "clients/" + name + ".crt"
			d.write(file, string(c.who.CertPEM()))
			add := []string{"cert", "add", "--api", "payments:1.0.0", "--alias", "a-" + name, "--tier", "Gold", file}
			code, stdout, stderr := d.run(add...)
			if c.never {
				if code != 2 || stdout != "" || !strings.Contains(stderr, c.cause) || !strings.Contains(stderr, "--force") {
					t.Fatalf("exit code %d, %s%s", code, stdout, stderr)
				}
				refusal := stderr
				if code, _, stderr = d.run(append(add, "--force")...); code != 0 {
					t.Fatalf("with --force: exit code %d, %s", code, stderr)
				}
				if m := admitsNobody.FindStringSubmatch(stderr); m == nil || !strings.Contains(refusal, m[1]) {
					t.Errorf("with --force it says another cause: %s%s", refusal, stderr)
				}
			} else if code != 0 {
				t.Fatalf("exit code %d, %s", code, stderr)
			}
			code, explained, _ := d.run("explain", "--api", "payments:1.0.0", "--cert", file)
			m := admitsNobody.FindStringSubmatch(stderr)
			if c.cause == "" {
				if m != nil || code != 0 {
					t.Errorf("it is good, and cert add says %q, explain exits %d", stderr, code)
				}
				return
			}
			if m == nil || !strings.Contains(m[1], c.cause) || code != 1 ||
				count(explained, "the certificate is bad: "+m[1]) != 1 {
				t.Errorf("cert add says %q, explain exits %d:\n%s", stderr, code, explained)
				return
			}
			said := "client certificate a-" + name + " of payments:1.0.0 (store) admits nobody: " + m[1]
			if n := count(d.mustRun("validate"), said); n != 1 {
				t.Errorf("validate names the cause %d times: %s", n, m[1])
			}
		})
	}
}

// TestCertificateThatEndsTomorrow: validate names it, and serve's log.
func TestCertificateThatEndsTomorrow(t *testing.T) {
	d := newDemo(t)
	root := testpki.NewCA(t, "Root")
	d.writeTrustStore([]*x509.Certificate{root.Cert})
	end := time.Now().Add(20 * time.Hour).UTC()
	d.write("clients/brief.crt", string(root.Issue(testpki.Leaf{CommonName: "brief", NotAfter: end}).CertPEM()))
	d.mustRun("cert", "add", "--api", "payments:1.0.0", "--alias", "brief", "--tier", "Gold", "clients/brief.crt")
	const name = "payments:1.0.0 brief (PRODUCTION)"
	want := "certificate (client) " + name + " ends on " + end.Format(time.RFC3339) + ", within a day: renew it"
	if out := d.mustRun("validate"); count(out, want) != 1 {
		t.Errorf("no line %s in\n%s", want, out)
	}
	p := d.quickstart()
	eventually(t, "the log names it", func() bool {
		return count(p.stderr.String(), "level=WARN", `msg="a certificate ends soon"`, `name="`+name+`"`) == 1
	})
	p.stop()
}

// TestFingerprintsOfFiles: cert list and cert show print the digest of what an API file registers, too.
func TestFingerprintsOfFiles(t *testing.T) {
	const security = "    security: [mutualssl]\n"
	d := newDemo(t, security, security+
		"    clientCertificates:\n      - {alias: filed, certificate: clients/unregistered.crt, tier: Gold}\n")
	sum := certstore.Fingerprint(d.certificate("clients/unregistered.crt"))
	print := hex.EncodeToString(sum[:])
	name := []string{"--api", "payments:1.0.0", "--alias", "filed"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"cert", "list"}, " " + print[:16] + "…"},
		{[]string{"cert", "list", "-o", "json"}, `"sha256": "` + print + `"`},
		{append([]string{"cert", "show"}, name...), "SHA-256   " + print},
		{append([]string{"cert", "show", "-o", "json"}, name...), `"sha256": "` + print + `"`},
	} {
		if out := d.mustRun(c.args...); count(out, c.want) != 1 {
			t.Errorf("%q: no line with %s in\n%s", c.args, c.want, out)
		}
	}
}
