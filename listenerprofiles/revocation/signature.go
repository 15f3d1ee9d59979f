package revocation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"hash/maphash"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// An issuer is a CA, by name and key. There is one for all its certificates (Registry.issuer), so that what was checked
// with its key is remembered by pointer.
type issuer struct {
	cert *x509.Certificate
	name uint64 // hash of its RawSubject, as list.name
	key  []byte // content of the subjectPublicKey, which OCSP hashes
}

func newIssuer(cert *x509.Certificate) *issuer {
	i := &issuer{cert: cert, name: maphash.Bytes(seed, cert.RawSubject)}
	spki, bits := cryptobyte.String(cert.RawSubjectPublicKeyInfo), cryptobyte.String(nil)
	var algorithm cryptobyte.String
	var unused uint8
	if spki.ReadASN1(&spki, cbasn1.SEQUENCE) && spki.ReadASN1(&algorithm, cbasn1.SEQUENCE) &&
		spki.ReadASN1(&bits, cbasn1.BIT_STRING) && bits.ReadUint8(&unused) && unused == 0 {
		i.key = bits
	}
	return i
}

// is reports whether cert is one of the issuer's.
func (i *issuer) is(cert *x509.Certificate) bool {
	return i.cert == cert || bytes.Equal(i.cert.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo) &&
		bytes.Equal(i.cert.RawSubject, cert.RawSubject)
}

// same reports whether two issuers are one. An issuer can have been forgotten and made anew.
func (i *issuer) same(j *issuer) bool { return i == j || j != nil && i.is(j.cert) }

func (i *issuer) String() string { return i.cert.Subject.String() }

// check reports why a list is none of the issuer: another name, another key.
func (l *list) check(i *issuer) error {
	cert := i.cert
	switch {
	case l.name != i.name || !bytes.Equal(l.issuer, cert.RawSubject):
		return errors.New("the CRL is of another issuer")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCRLSign == 0:
		return errors.New("the issuer's key usage does not let it sign CRLs")
	case len(l.authority) > 0 && len(cert.SubjectKeyId) > 0 && !bytes.Equal(l.authority, cert.SubjectKeyId):
		return errors.New("the CRL names another key of its issuer")
	}
	return l.verify(cert)
}

// verify is x509's Certificate.CheckSignature for a digest: the body of the list is gone when its issuer is known.
func (l *list) verify(cert *x509.Certificate) error {
	errKey := errors.New("the CRL is signed by another kind of key than its issuer's")
	errSignature := errors.New("the CRL is not signed by its issuer's key")
	hash := hashOf[l.algorithm]
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		switch l.algorithm {
		case x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
			salt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			if rsa.VerifyPSS(key, hash, l.signed, l.signature, salt) != nil {
				return errSignature
			}
			return nil
		case x509.SHA1WithRSA, x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA:
			if rsa.VerifyPKCS1v15(key, hash, l.signed, l.signature) != nil {
				return errSignature
			}
			return nil
		}
	case *ecdsa.PublicKey:
		switch l.algorithm {
		case x509.ECDSAWithSHA1, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
			if !ecdsa.VerifyASN1(key, l.signed, l.signature) {
				return errSignature
			}
			return nil
		}
	case ed25519.PublicKey:
		if l.algorithm == x509.PureEd25519 {
			if !ed25519.Verify(key, l.signed, l.signature) {
				return errSignature
			}
			return nil
		}
	}
	return errKey
}

// vouches reports whether a list that does not have cert says that it is good: cert is within the list's scope.
func (l *list) vouches(cert *x509.Certificate) bool {
	ca := cert.BasicConstraintsValid && cert.IsCA
	if l.onlyUsers && ca || l.onlyCAs && !ca {
		return false
	}
	return len(l.points) == 0 || slices.ContainsFunc(cert.CRLDistributionPoints, func(at string) bool {
		return slices.Contains(l.points, at)
	})
}
