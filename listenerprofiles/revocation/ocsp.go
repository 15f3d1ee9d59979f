package revocation

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // of CertIDs
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

// maxResponse is how long a response of a responder may be.
const maxResponse = 64 << 10

// A response is what a responder says of a certificate.
type response struct {
	status Status    // Unknown: the responder does not know the certificate
	this   time.Time // thisUpdate
	next   time.Time // nextUpdate, or the end of its signer's validity; zero: neither is named
}

// parseResponse reads the response of a responder about the certificate of an issuer with that serial number (RFC
// 6960).
//
// ocsp.ParseResponseForCert compares serial numbers alone, and checks the signature of a certificate that comes along
// without asking whose that is; the rest is done here.
func parseResponse(der []byte, by *issuer, serial *big.Int, now time.Time) (response, error) {
	if len(der) > maxResponse {
		return response{}, fmt.Errorf("a response larger than %d bytes", maxResponse)
	}
	res, err := ocsp.ParseResponseForCert(der, &x509.Certificate{SerialNumber: serial}, nil)
	if err != nil {
		return response{}, err
	}
	until, err := signedFor(res, by, now)
	if err != nil {
		return response{}, err
	}
	if err := isAbout(res.TBSResponseData, by, serial); err != nil {
		return response{}, err
	}
	r := response{this: res.ThisUpdate, next: res.NextUpdate}
	switch {
	case r.this.After(now.Add(skew)):
		return response{}, errors.New("the response is of the future")
	case !r.next.IsZero() && (r.next.Before(r.this) || !now.Before(r.next)):
		return response{}, fmt.Errorf("the response has ended: nextUpdate was %s", r.next.UTC().Format(time.RFC3339))
	case r.next.IsZero() && !now.Before(r.this.Add(withoutNextUpdate)):
		return response{}, errors.New("the response has no nextUpdate, and is older than a day")
	}
	if r.next.IsZero() || !until.IsZero() && until.Before(r.next) {
		r.next = until
	}
	switch res.Status {
	case ocsp.Good:
		r.status = Good
	case ocsp.Revoked:
		r.status = Revoked
	}
	return r, nil
}

// signedFor checks that a response is signed by the issuer of the certificate, or by a certificate that it has issued
// for that (RFC 6960 section 4.2.2.2), and returns until when that one is valid. Some responders send the issuer's own
// certificate along. Whether the delegate's certificate is revoked is not asked: it would be by the delegate.
func signedFor(res *ocsp.Response, by *issuer, now time.Time) (until time.Time, err error) {
	delegate := res.Certificate // whose signature of the response was checked
	switch {
	case delegate == nil:
		return until, res.CheckSignatureFrom(by.cert)
	case by.is(delegate):
		return until, nil
	case !bytes.Equal(delegate.RawIssuer, by.cert.RawSubject):
		return until, errors.New("the response is signed by a certificate of another issuer")
	case !slices.Contains(delegate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return until, errors.New("the response is signed by a certificate that may not sign for OCSP")
	case delegate.KeyUsage != 0 && delegate.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return until, errors.New("the response is signed by a certificate whose key usage does not let it sign")
	case len(delegate.UnhandledCriticalExtensions) > 0:
		return until, errors.New("the response is signed by a certificate with an unknown critical extension")
	case now.Before(delegate.NotBefore) || now.After(delegate.NotAfter):
		return until, errors.New("the response is signed by a certificate that is not valid now")
	}
	return delegate.NotAfter, delegate.CheckSignatureFrom(by.cert)
}

// certIDHashes are the hashes of issuers in responses.
var certIDHashes = map[string]crypto.Hash{
	"1.3.14.3.2.26":          crypto.SHA1,
	"2.16.840.1.101.3.4.2.1": crypto.SHA256,
	"2.16.840.1.101.3.4.2.2": crypto.SHA384,
	"2.16.840.1.101.3.4.2.3": crypto.SHA512,
}

// isAbout checks that what ocsp.ParseResponseForCert has taken from ResponseData, the first response with the serial
// number, is about a certificate of the issuer, by the hashes of its name and key, and that no critical extension says
// more.
func isAbout(data cryptobyte.String, by *issuer, serial *big.Int) error {
	errData := errors.New("malformed response")
	var responses, extensions cryptobyte.String
	var tag cbasn1.Tag
	var more bool
	context := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).Constructed().ContextSpecific() }
	var skipped cryptobyte.String
	if !data.ReadASN1(&data, cbasn1.SEQUENCE) || !data.SkipOptionalASN1(context(0)) ||
		!data.ReadAnyASN1(&skipped, &tag) || !data.SkipASN1(cbasn1.GeneralizedTime) ||
		!data.ReadASN1(&responses, cbasn1.SEQUENCE) ||
		!data.ReadOptionalASN1(&extensions, &more, context(1)) || !data.Empty() {
		return errData
	}
	if more && !extensions.ReadASN1(&extensions, cbasn1.SEQUENCE) {
		return errData
	}
	for !extensions.Empty() {
		var one cryptobyte.String
		var critical bool
		if !extensions.ReadASN1(&one, cbasn1.SEQUENCE) || !one.SkipASN1(cbasn1.OBJECT_IDENTIFIER) ||
			one.PeekASN1Tag(cbasn1.BOOLEAN) && !one.ReadASN1Boolean(&critical) {
			return errData
		}
		if critical {
			return errors.New("the response has a critical extension that is not known")
		}
	}
	for !responses.Empty() {
		var one, id, algorithm, name, key cryptobyte.String
		var hash asn1.ObjectIdentifier
		number := new(big.Int)
		if !responses.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1(&id, cbasn1.SEQUENCE) ||
			!id.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&hash) ||
			!id.ReadASN1(&name, cbasn1.OCTET_STRING) || !id.ReadASN1(&key, cbasn1.OCTET_STRING) || !id.ReadASN1Integer(number) {
			return errData
		}
		if number.Cmp(serial) != 0 {
			continue
		}
		h := certIDHashes[hash.String()]
		if h == 0 || len(by.key) == 0 || !bytes.Equal(name, sum(h, by.cert.RawSubject)) || !bytes.Equal(key, sum(h, by.key)) {
			return errors.New("the response is about a certificate of another issuer")
		}
		return nil
	}
	return errors.New("the response is about another certificate")
}

func sum(hash crypto.Hash, data []byte) []byte {
	h := hash.New()
	h.Write(data)
	return h.Sum(nil)
}
