package rule

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"net/netip"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// An Input is a call as rules see it.
type Input struct {
	Certificate *Certificate // nil: none was found good
	Token       *Token       // nil: none was found good
	Method      string
	Path        string
	Resource    string // its template
	Host        string
	API         string     // NAME:VERSION
	Address     netip.Addr // the client's; zero: not known
	Now         time.Time
}

// A Certificate is a client certificate that was found good, and its registration. Which names it has, whoever reads
// certificates for other rules says, too.
type Certificate struct {
	X509        *x509.Certificate // never nil
	Fingerprint [sha256.Size]byte
	SPKI        [sha256.Size]byte
	CN, O, OU   Names // of the subject
	DNS         Names // of the subjectAltName
	URIs        Names
	Emails      Names
	IPs         Names
	Policies    []string
	BadSubject  bool // the subject has a part that can't be read
	BadIssuer   bool
	Alias       string
	KeyType     string
	Tier        string
	Scopes      []string // that the call has by it
}

// Names are the names of one kind.
type Names struct {
	All    []string
	Unread bool // there are others, which can't be read: nothing is said of names of the kind then
}

// A Token is what an access token says that was found good.
type Token struct {
	KeyManager string
	Issuer     string
	Subject    string
	Client     string
	ID         string
	Audience   []string
	Scopes     []string
	Expires    time.Time
}

// A variable is one of those that expressions may read. Those with a dot are variables of their own in CEL, too: there
// is no value "certificate" that could be compared, built or left half empty.
type variable struct {
	name string
	kind *cel.Type
	size uint64 // the most characters of a text, or of each text of a list, that costs are estimated with
	of   func(*Input) any
}

// Sizes that a call or a certificate hardly has. What is larger may exceed the bound of costs when it is evaluated, and
// is refused then.
const (
	someTexts = 64 // of a list
	shortText = 256
	name      = 1024
	longText  = 8192
)

var texts = cel.ListType(cel.StringType)

// variables are all of them. docs/rules.md has the same list: a test compares.
var variables = []variable{
	{"certificate.present", cel.BoolType, 0, func(in *Input) any { return types.Bool(in.Certificate != nil) }},
	{"certificate.subject", cel.StringType, name, ofCertificate(func(c *Certificate) any { return distinguished(c.X509.RawSubject, c.BadSubject) })},
	{"certificate.issuer", cel.StringType, name, ofCertificate(func(c *Certificate) any { return distinguished(c.X509.RawIssuer, c.BadIssuer) })},
	{"certificate.cn", cel.StringType, name, ofCertificate(func(c *Certificate) any { return single(c.CN, errManyCN) })},
	{"certificate.o", cel.StringType, name, ofCertificate(func(c *Certificate) any { return single(c.O, errManyO) })},
	{"certificate.ou", texts, name, ofCertificate(func(c *Certificate) any { return readable(c.OU) })},
	{"certificate.serial", cel.StringType, shortText, ofX509(func(c *x509.Certificate) any { return types.String(serial(c)) })},
	{"certificate.sha256", cel.StringType, 2 * sha256.Size, ofCertificate(func(c *Certificate) any {
		return types.String(hex.EncodeToString(c.Fingerprint[:]))
	})},
	{"certificate.spki", cel.StringType, 2 * sha256.Size, ofCertificate(func(c *Certificate) any {
		return types.String(hex.EncodeToString(c.SPKI[:]))
	})},
	{"certificate.dns", texts, shortText, ofCertificate(func(c *Certificate) any { return readable(c.DNS) })},
	{"certificate.uris", texts, name, ofCertificate(func(c *Certificate) any { return readable(c.URIs) })},
	{"certificate.emails", texts, shortText, ofCertificate(func(c *Certificate) any { return readable(c.Emails) })},
	{"certificate.ips", texts, 39, ofCertificate(func(c *Certificate) any { return readable(c.IPs) })},
	{"certificate.policies", texts, shortText, ofCertificate(func(c *Certificate) any { return list(c.Policies) })},
	{"certificate.notAfter", cel.TimestampType, 0, ofX509(func(c *x509.Certificate) any { return types.Timestamp{Time: c.NotAfter} })},
	{"certificate.alias", cel.StringType, name, ofCertificate(func(c *Certificate) any { return types.String(c.Alias) })},
	{"certificate.keyType", cel.StringType, 10, ofCertificate(func(c *Certificate) any { return types.String(c.KeyType) })},
	{"certificate.tier", cel.StringType, 512, ofCertificate(func(c *Certificate) any { return types.String(c.Tier) })},
	{"certificate.scopes", texts, shortText, ofCertificate(func(c *Certificate) any { return list(c.Scopes) })},

	{"token.present", cel.BoolType, 0, func(in *Input) any { return types.Bool(in.Token != nil) }},
	{"token.issuer", cel.StringType, name, ofToken(func(t *Token) any { return types.String(t.Issuer) })},
	{"token.subject", cel.StringType, name, ofToken(func(t *Token) any { return types.String(t.Subject) })},
	{"token.client", cel.StringType, name, ofToken(func(t *Token) any { return types.String(t.Client) })},
	{"token.id", cel.StringType, name, ofToken(func(t *Token) any { return types.String(t.ID) })},
	{"token.audience", texts, name, ofToken(func(t *Token) any { return list(t.Audience) })},
	{"token.scopes", texts, shortText, ofToken(func(t *Token) any { return list(t.Scopes) })},
	{"token.keyManager", cel.StringType, shortText, ofToken(func(t *Token) any { return types.String(t.KeyManager) })},
	{"token.expires", cel.TimestampType, 0, ofToken(func(t *Token) any { return types.Timestamp{Time: t.Expires} })},

	{"method", cel.StringType, shortText, func(in *Input) any { return types.String(in.Method) }},
	{"path", cel.StringType, longText, func(in *Input) any { return types.String(in.Path) }},
	{"resource", cel.StringType, name, func(in *Input) any { return types.String(in.Resource) }},
	{"host", cel.StringType, shortText, func(in *Input) any { return types.String(in.Host) }},
	{"api", cel.StringType, shortText, func(in *Input) any { return types.String(in.API) }},
	{"address", cel.StringType, 39, addressOf},
	{"now", cel.TimestampType, 0, func(in *Input) any { return types.Timestamp{Time: in.Now} }},
}

// What is absent is an error and no empty text: no comparison with it holds, nor does its negation.
var (
	errNoCertificate = absent("the call has no certificate: ask for certificate.present first")
	errNoToken       = absent("the call has no token: ask for token.present first")
	errNoAddress     = absent("the client's address is not known")
	errManyCN        = absent("the certificate has more than one common name")
	errManyO         = absent("the certificate has more than one organization")
	errName          = absent("the certificate has a name that can't be read")
)

func absent(why string) *types.Err { return types.NewErr("%s", why).(*types.Err) }

func ofCertificate(get func(*Certificate) any) func(*Input) any {
	return func(in *Input) any {
		if in.Certificate == nil {
			return errNoCertificate
		}
		return get(in.Certificate)
	}
}

func ofX509(get func(*x509.Certificate) any) func(*Input) any {
	return ofCertificate(func(c *Certificate) any { return get(c.X509) })
}

func ofToken(get func(*Token) any) func(*Input) any {
	return func(in *Input) any {
		if in.Token == nil {
			return errNoToken
		}
		return get(in.Token)
	}
}

func addressOf(in *Input) any {
	if !in.Address.IsValid() {
		return errNoAddress
	}
	return types.String(in.Address.Unmap().WithZone("").String())
}

func list(values []string) any { return types.NewStringList(types.DefaultTypeAdapter, values) }

// readable are names, unless there are some that can't be read: that one is not there could not be told.
func readable(n Names) any {
	if n.Unread {
		return errName
	}
	return list(n.All)
}

// distinguished is a name in the order and the form of RFC 2253, as "openssl x509 -nameopt RFC2253" shows it.
func distinguished(raw []byte, bad bool) any {
	var name pkix.RDNSequence
	if bad {
		return errName
	}
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return errName
	}
	return types.String(name.String())
}

// single is the one name that there is, or "" if there is none. Of several a CA may have verified only some, and readers
// differ in which one they take.
func single(n Names, several *types.Err) any {
	switch {
	case n.Unread:
		return errName
	case len(n.All) > 1:
		return several
	case len(n.All) == 1:
		return types.String(n.All[0])
	}
	return types.String("")
}

// serial is a certificate's serial number in hexadecimal digits, two for each octet.
func serial(c *x509.Certificate) string {
	if c.SerialNumber.Sign() < 0 {
		return c.SerialNumber.Text(16)
	}
	digits := c.SerialNumber.Text(16)
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	return digits
}

var byName = func() map[string]*variable {
	m := map[string]*variable{}
	for i := range variables {
		m[variables[i].name] = &variables[i]
	}
	return m
}()

// An activation resolves the variables of an expression when they are read.
type activation Input

// ResolveName implements cel.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	v := byName[name]
	if v == nil {
		return nil, false
	}
	return v.of((*Input)(a)), true
}

// Parent implements cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }
