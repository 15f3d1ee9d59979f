package acme

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/crypto/ocsp"
)

// A staple is what a CA's OCSP responder says of a certificate (RFC 6960).
type staple struct {
	raw     []byte // nil: nothing is known
	revoked bool
	until   time.Time // it is stapled before that
	refresh time.Time // when it is to be asked for again
}

// stapleOf reads a response, and checks that it is one of the issuer for the certificate.
func stapleOf(raw []byte, leaf, issuer *x509.Certificate, now time.Time) (s staple, err error) {
	res, err := ocsp.ParseResponseForCert(raw, leaf, nil)
	if err == nil {
		err = signedFor(res, issuer, now)
	}
	if err != nil {
		return s, err
	}
	if res.NextUpdate.IsZero() {
		return s, errors.New("it does not say until when it holds")
	}
	s.until = res.NextUpdate
	if by := res.Certificate; by != nil && by.NotAfter.Before(s.until) {
		s.until = by.NotAfter
	}
	s.refresh = res.ThisUpdate.Add(s.until.Sub(res.ThisUpdate) / 2)
	switch {
	case res.Status == ocsp.Revoked:
		s.revoked = true
	case res.Status != ocsp.Good:
		return s, errors.New("the responder doesn't know the certificate")
	case !now.Before(s.until):
		return s, errors.New("it has ended")
	default:
		s.raw = raw
	}
	return s, nil
}

// signedFor checks that a response is signed by the issuer of the certificate, or by whom that has let sign (RFC 6960
// section 4.2.2.2). Some responders send the issuer's own certificate along.
func signedFor(res *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	by := res.Certificate // whose signature was checked
	switch {
	case by == nil:
		return res.CheckSignatureFrom(issuer)
	case by.Equal(issuer):
		return nil
	case !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("it is signed by a certificate that may not sign for OCSP")
	case now.Before(by.NotBefore) || now.After(by.NotAfter):
		return errors.New("it is signed by a certificate that is not valid now")
	}
	return by.CheckSignatureFrom(issuer)
}

// askPause is the time between two questions to a CA or its responder, after one that was not answered well.
const askPause = 5 * time.Minute

// staple returns the newest staple of a certificate: the one that is kept while it is fresh, else what the responder says,
// which is not asked before a given time. An error leaves the one that is kept, if that still holds. There is nothing to
// staple for a CA without a responder.
func (m *Manager) staple(
	ctx context.Context, s certmagic.Storage, cert *tls.Certificate, now, notBefore time.Time,
) (st staple, err error) {
	if len(cert.Leaf.OCSPServer) == 0 || len(cert.Certificate) < 2 {
		return st, nil
	}
	issuer, err := x509.ParseCertificate(cert.Certificate[1])
	if err != nil {
		return st, err
	}
	sum := sha256.Sum256(cert.Leaf.Raw)
	key := staplesAt + hex.EncodeToString(sum[:])
	if raw, err := s.Load(ctx, key); err == nil {
		if st, err = stapleOf(raw, cert.Leaf, issuer, now); err == nil && now.Before(st.refresh) {
			return st, nil
		}
	}
	if now.Before(notBefore) {
		st.refresh = notBefore
		return st, nil
	}
	raw, err := m.askResponder(ctx, cert.Leaf, issuer)
	if err == nil {
		var fresh staple
		if fresh, err = stapleOf(raw, cert.Leaf, issuer, now); err == nil {
			st = fresh
			err = s.Store(ctx, key, raw)
		}
	}
	if err != nil || !now.Before(st.refresh) {
		st.refresh = now.Add(askPause)
	}
	if err != nil {
		return st, fmt.Errorf("OCSP responder %s: %w", cert.Leaf.OCSPServer[0], err)
	}
	return st, nil
}

func (m *Manager) askResponder(ctx context.Context, leaf, issuer *x509.Certificate) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, leaf.OCSPServer[0], bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/ocsp-request")
	res, err := m.responders.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", res.Status)
	}
	return io.ReadAll(res.Body)
}
