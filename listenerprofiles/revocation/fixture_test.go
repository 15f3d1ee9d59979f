package revocation

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

// newCA is a root that may sign CRLs.
func newCA(t testpki.T, name string, change ...func(*x509.Certificate)) *testpki.Identity {
	return testpki.NewCA(t, name, append([]func(*x509.Certificate){signsCRLs}, change...)...)
}

func signsCRLs(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }

// naming is a client certificate that names distribution points and responders.
func naming(ca *testpki.Identity, points, responders []string) *testpki.Identity {
	return ca.Issue(testpki.Leaf{CommonName: "client", Change: func(c *x509.Certificate) {
		c.CRLDistributionPoints, c.OCSPServer = points, responders
	}})
}

// A crl describes a CRL. Its zero value is an empty one of today, number 1.
type crl struct {
	number     int64
	this, next time.Time // zero: an hour ago, in an hour
	revoked    []*testpki.Identity
	removed    []*testpki.Identity // of a delta
	base       int64               // of a delta; 0: complete
	extensions []pkix.Extension
	serials    []*big.Int
	algorithm  x509.SignatureAlgorithm
}

func (c crl) der(t testing.TB, ca *testpki.Identity) []byte {
	t.Helper()
	template := &x509.RevocationList{
		Number: big.NewInt(max(c.number, 1)), ThisUpdate: c.this, NextUpdate: c.next, ExtraExtensions: c.extensions,
		SignatureAlgorithm: c.algorithm,
	}
	if c.this.IsZero() {
		template.ThisUpdate = time.Now().Add(-time.Hour)
	}
	if c.next.IsZero() {
		template.NextUpdate = time.Now().Add(time.Hour)
	}
	add := func(serial *big.Int, reason int) {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: template.ThisUpdate, ReasonCode: reason})
	}
	for _, one := range c.revoked {
		add(one.Cert.SerialNumber, 1)
	}
	for _, one := range c.removed {
		add(one.Cert.SerialNumber, removeFromCRL)
	}
	for _, serial := range c.serials {
		add(serial, 0)
	}
	if c.base > 0 {
		template.ExtraExtensions = append(template.ExtraExtensions, critical(t, oidDelta, big.NewInt(c.base)))
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.Cert, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (c crl) pem(t testing.TB, ca *testpki.Identity) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: pemLabel, Bytes: c.der(t, ca)})
}

func critical(t testing.TB, id asn1.ObjectIdentifier, value any) pkix.Extension {
	t.Helper()
	e := extension(t, id, value)
	e.Critical = true
	return e
}

func extension(t testing.TB, id asn1.ObjectIdentifier, value any) pkix.Extension {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: id, Value: der}
}

// The values of a freshestCRL and an issuingDistributionPoint.
type (
	pointName struct {
		Full []asn1.RawValue `asn1:"optional,tag:0"`
	}
	point struct {
		Name pointName `asn1:"optional,tag:0"`
	}
	scope struct {
		Name        pointName      `asn1:"optional,tag:0"`
		OnlyUsers   bool           `asn1:"optional,tag:1"`
		OnlyCAs     bool           `asn1:"optional,tag:2"`
		SomeReasons asn1.BitString `asn1:"optional,tag:3"`
		Indirect    bool           `asn1:"optional,tag:4"`
		Attributes  bool           `asn1:"optional,tag:5"`
	}
)

func named(addresses ...string) (name pointName) {
	for _, at := range addresses {
		name.Full = append(name.Full, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(at)})
	}
	return name
}

// path is a certificate with all above it, the root too.
func path(leaf *testpki.Identity, above ...*testpki.Identity) []*x509.Certificate {
	certs := []*x509.Certificate{leaf.Cert}
	for _, one := range above {
		certs = append(certs, one.Cert)
	}
	return certs
}

// A log collects what is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) count(words string) int { return strings.Count(l.String(), words) }

// A rig is a Registry that runs until the test ends.
type rig struct {
	*Registry
	t   testing.TB
	log *logged
}

func run(t testing.TB, o Options) *rig {
	t.Helper()
	log := &logged{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	if o.Look == 0 {
		o.Look = 10 * time.Millisecond
	}
	r := &rig{New(o), t, log}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) checker(p Policy) *Checker {
	r.t.Helper()
	c, err := r.Checker(p)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// eventually waits for a status.
func eventually(t testing.TB, c *Checker, path []*x509.Certificate, want Status) {
	t.Helper()
	testserver.Eventually(t, "status", func() error {
		if a := c.Status(path, time.Now()); a.Status != want || a.Pending {
			return fmt.Errorf("%v, pending %v, %v; want %v", a.Status, a.Pending, a.Err, want)
		}
		return nil
	})
}

// asked is the status after Await.
func asked(c *Checker, path []*x509.Certificate) Answer {
	c.Await(context.Background(), path)
	return c.Status(path, time.Now())
}

// problem waits until a source has a problem.
func (r *rig) problem(words string) {
	r.t.Helper()
	testserver.Eventually(r.t, "problem", func() error {
		for _, s := range r.State() {
			if strings.Contains(s.Problem, words) {
				return nil
			}
		}
		return fmt.Errorf("none says %q: %+v", words, r.State())
	})
}

func (r *rig) noProblem() {
	r.t.Helper()
	testserver.Eventually(r.t, "problem", func() error {
		for _, s := range r.State() {
			if s.Problem != "" {
				return errors.New(s.Problem)
			}
		}
		return nil
	})
}

// put writes a file, as a whole.
func put(t testing.TB, file string, data []byte) {
	t.Helper()
	next := file + ".next"
	testserver.Write(t, next, string(data))
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}

// file is a file with that content in a folder of the test.
func file(t testing.TB, data []byte) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "ca.crl")
	put(t, at, data)
	return at
}

type errCount struct {
	words     string
	got, want int
}

func (e errCount) Error() string {
	return fmt.Sprintf("%q is there %d times, not %d", e.words, e.got, e.want)
}

var (
	ocspSigning = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	anyUsage    = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
)
