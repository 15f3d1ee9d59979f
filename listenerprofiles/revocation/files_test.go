package revocation

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

func TestFileThatIsNoCRLIsAnError(t *testing.T) {
	ca := newCA(t, "CA")
	good := crl{}.pem(t, ca)
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "it is empty"},
		{"garbage", []byte("garbage"), "no CRL"},
		{"DER that is no CRL", ca.Cert.Raw, ""},
		{"a certificate", ca.CertPEM(), `"CERTIFICATE", not X509 CRL`},
		{"half a DER", crl{}.der(t, ca)[:100], "malformed"},
		{"half a PEM", good[:len(good)-30], "has no end"},
		{"more after it", append(crl{}.der(t, ca), 0), "more after the CRL"},
		{"a good and a bad one", append(bytes.Clone(good), "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"...), "CRL 2:"},
		{"of the future", crl{this: time.Now().Add(time.Hour), next: time.Now().Add(2 * time.Hour)}.der(t, ca), "is of the future"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := file(t, tt.data)
			_, err := New(Options{}).Checker(Policy{CRL: []string{at}})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), at) {
				t.Errorf("error %v, want %q and the file", err, tt.want)
			}
		})
	}
	for name, at := range map[string]string{"missing": filepath.Join(t.TempDir(), "none.crl"), "a folder": t.TempDir()} {
		if _, err := New(Options{}).Checker(Policy{CRL: []string{at}}); err == nil || !strings.Contains(err.Error(), at) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestPolicyThatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		policy Policy
		want   string
	}{
		{Policy{CRL: []string{"ca.crl"}}, "absolute path"},
		{Policy{CRL: []string{"ftp://127.0.0.1/ca.crl"}}, "not an http or https URL"},
		{Policy{CRL: []string{"http://"}}, "not an http or https URL"},
		{Policy{CRL: []string{"http://user:secret@127.0.0.1/ca.crl"}}, "user name or password"},
		{Policy{MaxAge: -1}, "negative"},
		{Policy{Refresh: -1}, "negative"},
		{Policy{CacheSize: -1}, "negative"},
	} {
		if _, err := New(Options{}).Checker(tt.policy); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: error %v, want %q", tt.policy, err, tt.want)
		}
	}
}

func TestNothingIsLookedUp(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	zero := run(t, Options{}).checker(Policy{})
	list := run(t, Options{}).checker(Policy{CRL: []string{file(t, crl{revoked: []*testpki.Identity{leaf, ca}}.pem(t, ca))}})
	for _, tt := range []struct {
		name    string
		checker *Checker
		path    []*x509.Certificate
	}{
		{"no checker", nil, path(leaf, ca)},
		{"the zero policy", zero, path(leaf, ca)},
		{"an entry of the trust store", list, path(ca)},
		{"nothing", list, nil},
	} {
		if a := asked(tt.checker, tt.path); a.Status != Good || a.Pending || a.Err != nil || !a.Until.After(time.Now()) {
			t.Errorf("%s: %+v", tt.name, a)
		}
	}
}

func TestFile(t *testing.T) {
	root := newCA(t, "Root")
	inner := root.IssueCA("Inner", signsCRLs)
	good, bad := inner.Issue(testpki.Leaf{}), inner.Issue(testpki.Leaf{})
	ofRoot := crl{}.pem(t, root)
	ofInner := crl{revoked: []*testpki.Identity{bad}}.pem(t, inner)
	revokedCA := crl{revoked: []*testpki.Identity{inner}}.pem(t, root)
	twin := newCA(t, "Root") // another key under the same name
	noSigner := testpki.NewCA(t, "Root")
	byTwin := crl{revoked: []*testpki.Identity{good, bad}}.pem(t, twin)
	stranger := newCA(t, "Stranger")
	for _, tt := range []struct {
		name   string
		files  [][]byte
		policy Policy
		path   []*x509.Certificate
		want   Status
	}{
		{"good", [][]byte{ofRoot, ofInner}, Policy{}, path(good, inner, root), Good},
		{"revoked", [][]byte{ofRoot, ofInner}, Policy{}, path(bad, inner, root), Revoked},
		{"in one file", [][]byte{append(bytes.Clone(ofRoot), ofInner...)}, Policy{}, path(bad, inner, root), Revoked},
		{"its issuer", [][]byte{revokedCA, ofInner}, Policy{}, path(good, inner, root), Revoked},
		{"its issuer, leaf only", [][]byte{revokedCA, ofInner}, Policy{LeafOnly: true}, path(good, inner, root), Good},
		{"no list of the root", [][]byte{ofInner}, Policy{}, path(good, inner, root), Unknown},
		{"no list of the root, leaf only", [][]byte{ofInner}, Policy{LeafOnly: true}, path(good, inner, root), Good},
		{"no list of the root, soft", [][]byte{ofInner}, Policy{Soft: true}, path(good, inner, root), Good},
		{"revoked, no list of the root", [][]byte{ofInner}, Policy{}, path(bad, inner, root), Revoked},
		{"revoked, no list of the root, soft", [][]byte{ofInner}, Policy{Soft: true}, path(bad, inner, root), Revoked},
		{"of a stranger", [][]byte{crl{}.pem(t, stranger)}, Policy{}, path(inner, root), Unknown},
		{"of a CA of the same name", [][]byte{byTwin}, Policy{}, path(inner, root), Unknown},
		{"of a CA of the same name, beside", [][]byte{byTwin, ofRoot}, Policy{}, path(inner, root), Good},
		{"of the CA of the same name", [][]byte{byTwin, ofRoot}, Policy{}, path(twin.Issue(testpki.Leaf{}), twin), Good},
		{"by a CA that may not sign CRLs", [][]byte{unchecked(t, noSigner)}, Policy{}, path(noSigner.Issue(testpki.Leaf{}), noSigner), Unknown},
		{"of another key that it names", [][]byte{rekeyed(t, root)}, Policy{}, path(inner, root), Unknown},
		{"ended", [][]byte{crl{this: time.Now().Add(-time.Hour), next: time.Now().Add(-time.Minute)}.pem(t, root)}, Policy{}, path(inner, root), Unknown},
		{
			"ended, but it was revoked by then", [][]byte{crl{
				this: time.Now().Add(-time.Hour), next: time.Now().Add(-time.Minute), revoked: []*testpki.Identity{inner},
			}.pem(t, root)}, Policy{Soft: true}, path(inner, root), Revoked,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, Options{})
			for _, data := range tt.files {
				tt.policy.CRL = append(tt.policy.CRL, file(t, data))
			}
			c := r.checker(tt.policy)
			for range 2 { // what was checked is remembered
				a := asked(c, tt.path)
				if a.Status != tt.want || a.Pending || (a.Err == nil) != (tt.want == Good) {
					t.Errorf("%+v, want %v", a, tt.want)
				}
				if a.Err != nil && !strings.Contains(a.Err.Error(), "certificate ") {
					t.Errorf("no certificate is named: %v", a.Err)
				}
			}
		})
	}
}

// rekeyed is a CRL that names another key than it is signed by.
func rekeyed(t *testing.T, ca *testpki.Identity) []byte {
	other := *ca
	cert := *ca.Cert
	cert.SubjectKeyId = []byte("another key")
	other.Cert = &cert
	return crl{}.pem(t, &other)
}

// TestEndedListGivesWay: a CA that counts anew after a loss is believed when its last list has ended.
func TestEndedListGivesWay(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	now := time.Now()
	at := file(t, crl{number: 9, this: now.Add(-time.Hour), next: now.Add(time.Hour)}.pem(t, ca))
	var ahead atomic.Int64
	clock := func() time.Time { return now.Add(time.Duration(ahead.Load())) }
	r := run(t, Options{Now: clock})
	c := r.checker(Policy{CRL: []string{at}})
	if a := c.Status(path(leaf, ca), clock()); a.Status != Good {
		t.Fatalf("%+v", a)
	}
	put(t, at, crl{number: 1, this: now, next: now.Add(3 * time.Hour), revoked: []*testpki.Identity{leaf}}.pem(t, ca))
	r.problem("is older than the one in force")
	if a := c.Status(path(leaf, ca), clock()); a.Status != Good {
		t.Fatalf("%+v", a)
	}
	ahead.Store(int64(2 * time.Hour))
	testserver.Eventually(t, "the new one", func() error {
		if a := c.Status(path(leaf, ca), clock()); a.Status != Revoked {
			ahead.Add(int64(time.Second)) // it is read again after a while
			return errStatus{a}
		}
		return nil
	})
}

type errStatus struct{ Answer }

func (e errStatus) Error() string { return e.Status.String() }

// unchecked is a CRL by a CA that may not sign any, which x509 refuses to make.
func unchecked(t *testing.T, ca *testpki.Identity) []byte {
	may := *ca
	cert := *ca.Cert
	cert.KeyUsage |= x509.KeyUsageCRLSign
	may.Cert = &cert
	return crl{}.pem(t, &may)
}

func TestFileChanges(t *testing.T) {
	ca := newCA(t, "CA")
	one, two := ca.Issue(testpki.Leaf{}), ca.Issue(testpki.Leaf{})
	revoked := func(number int64, which ...*testpki.Identity) []byte {
		return crl{number: number, this: time.Now().Add(time.Duration(number-100) * time.Minute), revoked: which}.pem(t, ca)
	}
	at := file(t, revoked(1, one))
	changes := make(chan struct{}, 100)
	r := run(t, Options{Changed: func() { changes <- struct{}{} }})
	c := r.checker(Policy{CRL: []string{at}})
	eventually(t, c, path(one, ca), Revoked)
	eventually(t, c, path(two, ca), Good)

	before := c.Generation()
	put(t, at, revoked(2, two))
	eventually(t, c, path(two, ca), Revoked)
	eventually(t, c, path(one, ca), Good)
	if c.Generation() == before {
		t.Error("the generation is the same")
	}
	<-changes

	t.Run("an older one is not taken", func(t *testing.T) {
		put(t, at, revoked(1, one))
		r.problem("is older than the one in force")
		eventually(t, c, path(two, ca), Revoked)
		eventually(t, c, path(one, ca), Good)
		restore := func() {
			put(t, at, revoked(2, two))
			r.noProblem()
		}
		restore()
		put(t, at, crl{number: 1, this: time.Now()}.pem(t, ca))
		r.problem("is older than the one in force") // by its number, although not by its date
		eventually(t, c, path(two, ca), Revoked)
		restore()
		put(t, at, crl{number: 2, this: time.Now().Add(-100 * time.Hour)}.pem(t, ca))
		r.problem("is older than the one in force") // by its date, although not by its number
		eventually(t, c, path(two, ca), Revoked)
	})
	t.Run("a bad one is not taken", func(t *testing.T) {
		for _, tt := range []struct{ data, want string }{
			{"garbage", "no CRL"},
			{"", "is empty"},
			{string(ca.CertPEM()), "CERTIFICATE"},
			{string(crl{number: 9}.pem(t, newCA(t, "CA"))), "is not signed by the key of the one before"},
			{string(crl{number: 9}.pem(t, newCA(t, "Other"))), "is not there any more"},
		} {
			put(t, at, []byte(tt.data))
			r.problem(tt.want)
			eventually(t, c, path(two, ca), Revoked)
			eventually(t, c, path(one, ca), Good)
		}
	})
	t.Run("none is there", func(t *testing.T) {
		if err := os.Remove(at); err != nil {
			t.Fatal(err)
		}
		r.problem("no such file")
		eventually(t, c, path(one, ca), Good)
		if again, err := r.Checker(Policy{CRL: []string{at}}); again != c || err != nil {
			t.Errorf("a reload meanwhile: %v", err)
		}
		if more, err := r.Checker(Policy{CRL: []string{at}, Soft: true}); err != nil || more == c {
			t.Errorf("a reload with another policy meanwhile: %v", err)
		}
	})
	t.Run("a good one again", func(t *testing.T) {
		put(t, at, revoked(3, one))
		eventually(t, c, path(one, ca), Revoked)
		eventually(t, c, path(two, ca), Good)
		r.noProblem()
		testserver.Eventually(t, "log", func() error { return r.log.wants("CRL is good again", 3) })
	})
	t.Run("written slowly in place", func(t *testing.T) {
		f, err := os.OpenFile(at, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		data := revoked(4, two)
		for i, half := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
			if _, err := f.Write(half); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				r.problem("has no end")
				eventually(t, c, path(one, ca), Revoked)
			}
		}
		eventually(t, c, path(two, ca), Revoked)
	})
	t.Run("behind a link", func(t *testing.T) { // as Kubernetes mounts files
		dir := t.TempDir()
		for name, data := range map[string][]byte{"5": revoked(5, one), "6": revoked(6, two)} {
			testserver.Write(t, filepath.Join(dir, name), string(data))
		}
		link := filepath.Join(dir, "ca.crl")
		if err := os.Symlink("5", link); err != nil {
			t.Fatal(err)
		}
		c := r.checker(Policy{CRL: []string{link}})
		eventually(t, c, path(one, ca), Revoked)
		if err := os.Symlink("6", link+".next"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".next", link); err != nil {
			t.Fatal(err)
		}
		eventually(t, c, path(two, ca), Revoked)
		eventually(t, c, path(one, ca), Good)
	})
}

func (l *logged) wants(words string, times int) error {
	if n := l.count(words); n != times {
		return errCount{words, n, times}
	}
	return nil
}
