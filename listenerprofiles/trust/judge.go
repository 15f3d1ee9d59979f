package trust

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/internal/printable"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
)

// A Cause is why a certificate is not good, as one word for logs, metrics and output. The words never change.
type Cause string

// The causes. Those that Never reports cannot be mended by waiting or by another trust store.
const (
	Expired           Cause = "expired"
	NotYetValid       Cause = "not_yet_valid" // it or its issuer
	CriticalExtension Cause = "critical_extension"
	ExtendedKeyUsage  Cause = "extended_key_usage"
	KeyUsage          Cause = "key_usage"
	Key               Cause = "key"
	Malformed         Cause = "malformed"      // crypto/x509 cannot read it
	IssuerExpired     Cause = "issuer_expired" // or one further up
	Chain             Cause = "chain"          // an issuer may not issue it
	Untrusted         Cause = "untrusted"      // nothing in the trust store vouches for it
	TooLarge          Cause = "too_large"      // more is shown than is looked at
	Revoked           Cause = "revoked"        // it, or an issuer, by who issued it
	StatusUnknown     Cause = "status_unknown" // whether it is revoked can't be known now
	Denied            Cause = "denied"         // a deny list names it, or an issuer of it
	Name              Cause = "name"           // of a server: it is for another one
	Unexamined        Cause = "unexamined"     // too many others were that are not good: see Effort
)

// Never reports whether a certificate that is bad for that cause stays bad, whatever is trusted and however long one
// waits.
func (c Cause) Never() bool {
	switch c {
	case NotYetValid, Untrusted, TooLarge, Denied, Revoked, StatusUnknown, Unexamined, "": // a revocation may have been a hold
		return false
	}
	return true
}

// A Fault is a certificate that is not good, and why. Its text is for logs and operators.
type Fault struct {
	Cause Cause
	text  string
}

func (f *Fault) Error() string { return f.text }

// Unwrap matches keystore's errors of the same meaning.
func (f *Fault) Unwrap() error {
	if f.Cause == Expired {
		return keystore.ErrExpired
	}
	return nil
}

// Outside is the Fault for a certificate that was judged earlier and whose Validity does not contain the time now.
func Outside(cause Cause) *Fault {
	if cause == NotYetValid {
		return fault(cause, "the certificate, or one of its chain, is not valid yet")
	}
	return fault(cause, "the certificate, or one of its chain, has expired")
}

// Unreadable is the Fault for a certificate that crypto/x509 cannot read, with what that says.
func Unreadable(err error) *Fault {
	return fault(Malformed, "the certificate cannot be read: %s", limitText(strings.TrimPrefix(err.Error(), "x509: ")))
}

func fault(cause Cause, format string, args ...any) *Fault {
	return &Fault{cause, fmt.Sprintf(format, args...)}
}

// CauseOf returns the cause of an error that Judge and its like have returned; else "".
func CauseOf(err error) Cause {
	if err == nil {
		return "" // most often, and then f below takes no memory: TestAllocDecide
	}
	var f *Fault
	if errors.As(err, &f) {
		return f.Cause
	}
	return ""
}

// A Registered says which registered certificates need no trust store: their registration vouches for them, as WSO2's
// does. Its zero value is SelfSigned.
type Registered uint8

// The words of mutualSSL.trustRegistered.
const (
	SelfSigned Registered = iota // those that their own key has signed
	All
	None
)

var registeredWords = [...]string{SelfSigned: "selfSigned", All: "all", None: "none"}

func (r Registered) String() string { return registeredWords[r] }

// ParseRegistered reads a word of mutualSSL.trustRegistered.
func ParseRegistered(word string) (Registered, error) {
	if i := slices.Index(registeredWords[:], word); i >= 0 {
		return Registered(i), nil
	}
	return None, fmt.Errorf("%s is none of %s", printable.Quote(word), strings.Join(registeredWords[:], ", "))
}

// Vouches reports whether the registration of a certificate makes it trusted.
func (r Registered) Vouches(registered *x509.Certificate) bool {
	switch r {
	case SelfSigned:
		// By the signature alone: names can be copied. CheckSignatureFrom would ask for a CA.
		return registered.CheckSignature(registered.SignatureAlgorithm, registered.RawTBSCertificate, registered.Signature) == nil
	case All:
		return true
	}
	return false
}

// Rules are what certificates are judged by: those of a profile, or of the header. Their zero value believes none.
type Rules struct {
	Anchors    *Anchors            // the trust store in force; nil: it vouches for none
	Registered Registered          // which registered certificates their registration vouches for
	Revocation *revocation.Checker // what issuers have revoked; nil: that isn't looked up
}

// A Verdict is what Judge has found out about a good certificate.
type Verdict struct {
	Validity
	Paths          []Path // how it is trusted, the one first that lasts longest
	ByRegistration bool   // its registration vouches for it, and nothing in the trust store does: there is one Path, without an issuer

	signers []*Issuer // see Anchors.signers, where Paths may lack some: a deny list may name them
}

// Judge says whether chain[0], the certificate whose key a client has proven to hold, is good at now, or else returns a
// *Fault. It is the one judge: whoever wants to know asks here, and then the Standing, since issuers and operators may
// change their minds. Registration for an API is not its business.
//
// A certificate is good if it is within its validity; has no critical extension that is unknown; has no extended key
// usage, or one that allows client authentication; has no key usage, or one that allows digital signatures (RFC 5280
// section 4.2.1.3); has a key that TLS takes; and is trusted. Trusted is what the Anchors vouch for; and, if the
// certificate is registered, what Registered vouches for, which is never more than the certificate itself. The rest of
// chain, and the registered CAs issuers, which may be nil, only ever help to build the path: they are no identity.
//
// The answer holds for the whole Validity, and is all that can be said as long as Unchanged says; so long does a Fault.
func (r *Rules) Judge(chain []*x509.Certificate, registered bool, issuers *Issuers, now time.Time) (Verdict, error) {
	paths, err := r.Anchors.Verify(chain, issuers, now)
	if err == nil {
		v := Verdict{Validity: paths[0].Validity, Paths: paths}
		if r.Anchors.has(chain[0]) || len(paths) == maxPaths { // there may be more paths, that don't count
			v.signers = r.Anchors.signers(chain, issuers)
		}
		return v, nil
	}
	switch CauseOf(err) {
	case Untrusted, Chain, IssuerExpired, NotYetValid:
		if registered && checkLeaf(chain[0], now) == nil && r.Registered.Vouches(chain[0]) {
			v := window(chain[0])
			return Verdict{v, []Path{{Validity: v}}, true, r.Anchors.signers(chain, issuers)}, nil
		}
	}
	return Verdict{}, err
}

// checkLeaf applies to every leaf, whoever vouches for it.
func checkLeaf(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fault(Expired, "the certificate expired on %s", stamp(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		return fault(NotYetValid, "the certificate is not valid before %s", stamp(leaf.NotBefore))
	case !allowsClientAuth(leaf):
		return fault(ExtendedKeyUsage, "the certificate's extended key usage does not allow client authentication")
	case !allowsSignatures(leaf):
		return fault(KeyUsage, "the certificate's key usage does not allow digital signatures")
	}
	for _, id := range readNames(leaf).UnhandledCriticalExtensions {
		return fault(CriticalExtension, "the certificate has a critical extension that is unknown here, %s", id)
	}
	return checkKey(leaf)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func allowsClientAuth(leaf *x509.Certificate) bool {
	if len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0 {
		_, has := extension(leaf, oidExtKeyUsage) // with no usage in it it allows nothing
		return !has
	}
	return slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

var (
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidNames       = asn1.ObjectIdentifier{2, 5, 29, 17}                    // subjectAltName
	oidUPN         = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3} // userPrincipalName
)

func allowsSignatures(leaf *x509.Certificate) bool {
	_, has := extension(leaf, oidKeyUsage) // with no bit set it allows nothing
	return !has && leaf.KeyUsage == 0 || leaf.KeyUsage&x509.KeyUsageDigitalSignature != 0
}

func checkKey(leaf *x509.Certificate) error {
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fault(Key, "the certificate has an RSA key of %d bits: between %d and %d are accepted", bits, minRSABits, maxRSABits)
		}
		if key.E < 3 || key.E%2 == 0 {
			return fault(Key, "the certificate has an RSA key with the exponent %d, which protects nothing", key.E)
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P224() {
			return fault(Key, "the certificate's key is on the curve P-224: P-256, P-384 and P-521 are accepted")
		}
	case ed25519.PublicKey:
	default:
		return fault(Key, "the certificate's key is of a kind that is not accepted: RSA, ECDSA and Ed25519 are")
	}
	return nil
}

// readNames returns cert as one whose subjectAltName is known, if that is all it takes: a user's certificate may have
// no other name than a critical userPrincipalName, which crypto/x509 does not read and calls unhandled. Names are not
// used here, so that it restricts nothing (RFC 5280 section 4.2.1.6).
func readNames(cert *x509.Certificate) *x509.Certificate {
	i := slices.IndexFunc(cert.UnhandledCriticalExtensions, oidNames.Equal)
	if i < 0 {
		return cert
	}
	if names, ok := extension(cert, oidNames); !ok || !onlyUPN(names) {
		return cert
	}
	read := *cert
	read.UnhandledCriticalExtensions = slices.Delete(slices.Clone(cert.UnhandledCriticalExtensions), i, i+1)
	return &read
}

// extension returns the value of an extension, of which a certificate has one at most.
func extension(cert *x509.Certificate, id asn1.ObjectIdentifier) (value []byte, ok bool) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(id) {
			return e.Value, true
		}
	}
	return nil, false
}

// onlyUPN reports whether names, a subjectAltName, are userPrincipalNames and nothing else.
func onlyUPN(names []byte) bool {
	var list []asn1.RawValue
	if rest, err := asn1.Unmarshal(names, &list); err != nil || len(rest) > 0 || len(list) == 0 {
		return false
	}
	for _, name := range list {
		var other struct {
			ID    asn1.ObjectIdentifier
			Value string `asn1:"explicit,tag:0,utf8"`
		}
		rest, err := asn1.UnmarshalWithParams(name.FullBytes, &other, "tag:0") // otherName
		if err != nil || len(rest) > 0 || !other.ID.Equal(oidUPN) {
			return false
		}
	}
	return true
}

// unverified is the Fault for a leaf without a path to an entry of a, of which x509 says why.
func (a *Anchors) unverified(leaf *x509.Certificate, err error, now time.Time) *Fault {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		issuer := printable.Quote(invalid.Cert.Subject.String())
		if now.Before(invalid.Cert.NotBefore) {
			return fault(NotYetValid, "the certificate's issuer %s is not valid before %s", issuer, stamp(invalid.Cert.NotBefore))
		}
		return fault(IssuerExpired, "the certificate's issuer %s expired on %s", issuer, stamp(invalid.Cert.NotAfter))
	case !errors.As(err, &unknown):
		return fault(Chain, "the certificate's chain is not good: %s", limitText(strings.TrimPrefix(err.Error(), "x509: ")))
	}
	issuer := printable.Quote(leaf.Issuer.String())
	if len(a.named[string(leaf.RawIssuer)]) > 0 {
		switch leaf.SignatureAlgorithm { // which crypto/x509 does not check
		case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1:
			return fault(Chain, "the certificate is signed by %s, which can be forged, so that its issuer %s does not vouch for it", leaf.SignatureAlgorithm, issuer)
		}
		return fault(Untrusted, "nothing in the trust store vouches for the certificate: an entry has the name of its issuer, %s, and did not issue it", issuer)
	}
	return fault(Untrusted, "nothing in the trust store vouches for the certificate, whose issuer is %s", issuer)
}
