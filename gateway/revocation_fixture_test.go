package gateway_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/listenerprofiles/revocation"
)

// signsCRLs lets a CA sign lists of what it has revoked.
func signsCRLs(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }

// A revoker is who tells what two CAs have revoked, a root and what issues under it.
type revoker struct {
	*fixture
	root, inter *party
	clients     [2]*party
	number      int64

	mu      sync.Mutex
	revoked map[string]bool // serial numbers that the responder knows of
	asked   map[string]bool // likewise, of whom it was asked
	silent  bool            // it doesn't answer
}

// serve has the fixture's profiles trust the root, and look revocations up by the policy. The CAs' own lists are files in
// the fixture's folder.
func (r *revoker) serve(t *testing.T, f *fixture, policy revocation.Policy) {
	t.Helper()
	r.fixture = f
	f.registry = revocation.New(revocation.Options{Now: f.clock.Now, Look: 20 * time.Millisecond, Changed: f.gateway.Recheck})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.registry.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	f.policy = policy
	f.policy.CRL = nil
	for _, name := range policy.CRL {
		f.policy.CRL = append(f.policy.CRL, filepath.Join(f.dir, name))
	}
	r.list(f.dir)
	f.setProfiles(t, f.profiles(t, certPEM(f.caA, r.root), allProfiles...))
}

// newRevoker returns a root and an intermediate that sign lists.
func newRevoker() *revoker {
	root := issue("Revoking Root", nil, isCA, signsCRLs)
	return &revoker{root: root, inter: issue("Revoking Issuer", root, isCA, signsCRLs), revoked: map[string]bool{}, asked: map[string]bool{}}
}

// list writes new lists of both, with these certificates in those of their issuers.
func (r *revoker) list(dir string, revoked ...*party) {
	r.number++
	for name, by := range map[string]*party{"root.crl": r.root, "inter.crl": r.inter} {
		template := &x509.RevocationList{
			Number: big.NewInt(r.number), ThisUpdate: r.clock.Now().Add(-time.Minute), NextUpdate: r.clock.Now().Add(time.Hour),
		}
		for _, p := range revoked {
			if p.cert.Issuer.CommonName == by.cert.Subject.CommonName {
				template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
					SerialNumber: p.cert.SerialNumber, RevocationTime: r.clock.Now().Add(-time.Minute),
				})
			}
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, by.cert, by.key)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".new"), der, 0o600)
		}
		if err == nil {
			err = os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name))
		}
		if err != nil {
			panic(err)
		}
	}
}

// responder answers OCSP for the intermediate, and serves its list.
func (r *revoker) responder(t *testing.T) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		asked, err := ocsp.ParseRequest(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		status, silent := ocsp.Good, r.silent
		r.asked[asked.SerialNumber.String()] = true
		if r.revoked[asked.SerialNumber.String()] {
			status = ocsp.Revoked
		}
		r.mu.Unlock()
		if silent {
			<-q.Context().Done()
			return
		}
		now := r.clock.Now()
		answer, err := ocsp.CreateResponse(r.inter.cert, r.inter.cert, ocsp.Response{
			Status: status, SerialNumber: asked.SerialNumber, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
			RevokedAt: now.Add(-time.Minute),
		}, r.inter.key)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func (r *revoker) tell(revoked *party, silent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent = silent; revoked != nil {
		r.revoked[revoked.cert.SerialNumber.String()] = true
	}
}

// wasAsked reports whether the responder was asked about a certificate.
func (r *revoker) wasAsked(p *party) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[p.cert.SerialNumber.String()]
}
