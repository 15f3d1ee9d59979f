package trust

import (
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"sallyport/internal/printable"
)

// JudgeServer judges the certificate of a server. Paths are all that crypto/x509 has found from it to who is trusted, for
// the server's name and server authentication: without any the answer is no. Beyond that its key has to be as strong as a
// client's, and no deny list may name a certificate on any of the paths. A no is a Fault.
func JudgeServer(paths [][]*x509.Certificate, denied *Denials) error {
	if len(paths) == 0 || len(paths[0]) == 0 {
		return fault(Untrusted, "nothing that is trusted vouches for the certificate")
	}
	if err := checkKey(paths[0][0]); err != nil {
		return err
	}
	for _, path := range paths {
		if entry := denied.Find(path); entry != nil {
			return DeniedBy(entry)
		}
	}
	return nil
}

// ServerFault returns why crypto/x509 has not believed a server's certificate as a Fault, if that is what err is of; else
// nil.
func ServerFault(err error, now time.Time) *Fault {
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &name):
		return fault(Name, "the certificate is not for %s: no DNS name or IP address of its subjectAltName is that", printable.Quote(name.Host))
	case errors.As(err, &invalid) && invalid.Cert != nil && invalid.Reason == x509.Expired:
		whose := printable.Quote(limitText(invalid.Cert.Subject.String()))
		if now.Before(invalid.Cert.NotBefore) {
			return fault(NotYetValid, "%s is not valid before %s", whose, stamp(invalid.Cert.NotBefore))
		}
		return fault(Expired, "%s expired on %s", whose, stamp(invalid.Cert.NotAfter))
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return fault(ExtendedKeyUsage, "the extended key usage of the certificate, or of an issuer, does not allow server authentication")
	case errors.As(err, &invalid):
		return fault(Chain, "the certificate's chain is not good: %s", printable.Quote(limitText(strings.TrimPrefix(invalid.Error(), "x509: "))))
	case errors.As(err, &unknown) && unknown.Cert != nil:
		issuer := printable.Quote(limitText(unknown.Cert.Issuer.String()))
		switch a := unknown.Cert.SignatureAlgorithm; a { // which crypto/x509 does not check
		case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1:
			return fault(Chain, "a certificate is signed by %s, which can be forged, so that its issuer %s does not vouch for it", a, issuer)
		}
		return fault(Untrusted, "nothing that is trusted vouches for the certificate: its path ends at the issuer %s", issuer)
	case errors.As(err, new(x509.UnhandledCriticalExtension)):
		return fault(CriticalExtension, "the certificate, or an issuer's, has a critical extension that is unknown here")
	}
	return nil
}
