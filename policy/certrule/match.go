package certrule

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"sallyport/internal/printable"
)

// A Match says which leaves of a registered CA count. Each key that is given has to hold; within a key one of its entries
// has to. The zero Match admits every leaf.
type Match struct {
	// DNS are host names of the subjectAltName, compared without regard to the case of ASCII letters, international ones
	// as A-labels (xn--…). *.partner.test is exactly one label before partner.test: neither partner.test itself nor
	// a.b.partner.test. The common name is no host name, nor is a URI.
	DNS []string `json:"dns,omitempty"`
	// URI are URIs of the subjectAltName, compared byte for byte but for the case of scheme and host. A final /* stands for
	// one or more further segments: spiffe://partner.test/*. A URI with user information, or with a segment "." or "..",
	// in the clear or escaped, matches nothing; one with an escape, an empty segment, a query or a fragment is below no other.
	URI []string `json:"uri,omitempty"`
	// Email are addresses of the subjectAltName, compared byte for byte before the @, and without regard to case after it.
	// *@partner.test is any address at partner.test itself.
	Email []string `json:"email,omitempty"`
	// IP are addresses of the subjectAltName, or networks that they are in: 10.0.0.0/8. An IPv4 address in IPv6 form is in
	// no network.
	IP []string `json:"ip,omitempty"`
	// Subject are names as RFC 4514 writes them: O=Partner,C=DE. All their pairs have to be in the subject, in whatever
	// order, each value whole and byte for byte; pairs joined by "+" within one relative distinguished name.
	Subject []string `json:"subject,omitempty"`
	// SPKI are the SHA-256 of the SubjectPublicKeyInfo: in hex, in base64, or as sha256/BASE64.
	SPKI []string `json:"spki,omitempty"`
	// Policies are object identifiers of certificatePolicies. anyPolicy in a certificate is none but itself.
	Policies []string `json:"policies,omitempty"`
	// Fingerprint are the SHA-256 of the certificate's DER, written as SPKI.
	Fingerprint []string `json:"fingerprint,omitempty"`
}

// Bounds of a Match.
const (
	MaxMatch   = 4096 // bytes of its text
	maxEntries = 64   // of a key
)

// A matchKey is a key of a Match.
type matchKey struct {
	name    string
	entries func(*Match) *[]string
	// compile reads an entry into m.
	compile func(m *Matcher, entry string) error
	holds   func(m *Matcher, f *Facts) bool
}

var matchKeys = []matchKey{
	{"dns", func(m *Match) *[]string { return &m.DNS }, (*Matcher).addDNS, (*Matcher).holdsDNS},
	{"uri", func(m *Match) *[]string { return &m.URI }, (*Matcher).addURI, (*Matcher).holdsURI},
	{"email", func(m *Match) *[]string { return &m.Email }, (*Matcher).addEmail, (*Matcher).holdsEmail},
	{"ip", func(m *Match) *[]string { return &m.IP }, (*Matcher).addIP, (*Matcher).holdsIP},
	{"subject", func(m *Match) *[]string { return &m.Subject }, (*Matcher).addSubject, (*Matcher).holdsSubject},
	{"spki", func(m *Match) *[]string { return &m.SPKI }, (*Matcher).addSPKI, (*Matcher).holdsSPKI},
	{"policies", func(m *Match) *[]string { return &m.Policies }, (*Matcher).addPolicy, (*Matcher).holdsPolicy},
	{"fingerprint", func(m *Match) *[]string { return &m.Fingerprint }, (*Matcher).addFingerprint, (*Matcher).holdsFingerprint},
}

// Keys are the keys of a Match, in the order of its text.
func Keys() []string {
	var names []string
	for _, k := range matchKeys {
		names = append(names, k.name)
	}
	return names
}

// Entries are what the Match has under a key; nil if that is not one of Keys.
func (m *Match) Entries(key string) []string {
	for _, k := range matchKeys {
		if k.name == key {
			return *k.entries(m)
		}
	}
	return nil
}

// Add adds an entry under a key. The error says what is wrong with either.
func (m *Match) Add(key, entry string) error {
	for _, k := range matchKeys {
		if k.name != key {
			continue
		}
		if err := k.check(new(Matcher), *k.entries(m), entry); err != nil {
			return err
		}
		*k.entries(m) = append(*k.entries(m), entry)
		return nil
	}
	return fmt.Errorf("match has no key %s: its keys are %s", printable.Quote(key), strings.Join(Keys(), ", "))
}

// check compiles an entry that comes after others.
func (k *matchKey) check(into *Matcher, before []string, entry string) error {
	switch {
	case slices.Contains(before, entry):
		return fmt.Errorf("%s %s is here twice: keep one", k.name, printable.Quote(entry))
	case len(before) == maxEntries:
		return fmt.Errorf("%s has more than %d entries", k.name, maxEntries)
	case !isPlain(entry):
		return fmt.Errorf("%s %s is empty, too long, no UTF-8, or has a control character", k.name, printable.Quote(entry))
	}
	if err := k.compile(into, entry); err != nil {
		return fmt.Errorf("%s %s: %w", k.name, printable.Quote(entry), err)
	}
	return nil
}

// IsZero reports whether the Match admits every leaf.
func (m Match) IsZero() bool {
	return !slices.ContainsFunc(matchKeys, func(k matchKey) bool { return len(*k.entries(&m)) > 0 })
}

// Compile returns the Match to decide with. The error says which entry is no good, and why.
func (m Match) Compile() (*Matcher, error) {
	compiled := &Matcher{compiled: true}
	for _, k := range matchKeys {
		given := *k.entries(&m)
		for i, entry := range given {
			if err := k.check(compiled, given[:i], entry); err != nil {
				return nil, err
			}
		}
		*k.entries(&compiled.match) = slices.Clone(given)
	}
	if m.IsZero() {
		return compiled, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(compiled.match); err != nil {
		return nil, err
	}
	if compiled.text = strings.TrimSuffix(b.String(), "\n"); len(compiled.text) > MaxMatch {
		return nil, fmt.Errorf("match has more than %d bytes as JSON", MaxMatch)
	}
	return compiled, nil
}

// Parse reads the text of a Matcher. Whatever Text would not have written is an error, but for white space and the order
// of keys: an unknown or repeated key, an entry that is no good, a key without entries, none at all.
func Parse(text string) (*Matcher, error) {
	if len(text) > MaxMatch {
		return nil, fmt.Errorf("match has more than %d bytes", MaxMatch)
	}
	d := json.NewDecoder(strings.NewReader(text))
	notJSON := errors.New(`match is not JSON as in {"dns":["*.partner.test"]}`)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, notJSON
	}
	var m Match
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return nil, notJSON
		}
		if seen[key] {
			return nil, fmt.Errorf("match has the key %s twice", printable.Quote(key))
		}
		seen[key] = true
		var entries []*string
		if err := d.Decode(&entries); err != nil {
			return nil, notJSON
		}
		if len(entries) == 0 {
			return nil, fmt.Errorf("match has the key %s without entries", printable.Quote(key))
		}
		for _, entry := range entries {
			if entry == nil {
				return nil, notJSON
			}
			if err := m.Add(key, *entry); err != nil {
				return nil, err
			}
		}
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, notJSON
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, notJSON
	}
	if m.IsZero() {
		return nil, errors.New("match has no key")
	}
	return m.Compile()
}

// A Matcher is a Match to decide with. It never changes. One that Compile or Parse has not made admits nobody.
type Matcher struct {
	compiled bool
	match    Match
	text     string

	dns, dnsBelow     map[string]bool // names, and domains one label below which they are
	uris              map[string]bool
	urisBelow         []string // with their final slash
	emails, emailsAt  map[string]bool
	networks          []netip.Prefix
	subjects          [][][]attribute
	keys, policies    map[string]bool
	fingerprintHashes map[string]bool
}

// Match is what the Matcher was made of. The caller does not change it.
func (m *Matcher) Match() Match { return m.match }

// Text is the Match as JSON, "" if it admits every leaf.
func (m *Matcher) Text() string { return m.text }

// IsZero reports whether the Matcher admits every leaf.
func (m *Matcher) IsZero() bool { return m.compiled && m.text == "" }

// Equal reports whether both were made of the same Match. Two that are nil are equal.
func (m *Matcher) Equal(other *Matcher) bool {
	if m == nil || other == nil {
		return m == other
	}
	return m.compiled == other.compiled && m.text == other.text
}

// String is the Match on one line, for people: its keys, each with its entries.
func (m *Matcher) String() string {
	var parts []string
	for _, k := range matchKeys {
		if entries := *k.entries(&m.match); len(entries) > 0 {
			parts = append(parts, k.name+" "+strings.Join(entries, " or "))
		}
	}
	return strings.Join(parts, "; ")
}

// errNotCompiled is our own fault.
var errNotCompiled = errors.New("its registration's match was not compiled")

// errSaysNothing is of a certificate that was not read: a match can't be held to it.
var errSaysNothing = errors.New("the certificate was not read, so that it holds no match of a registration")

// A NoMatch names the key of a Match that a leaf does not hold.
type NoMatch string

// Error is for logs: a caller never learns it.
func (k NoMatch) Error() string {
	return "certificate does not hold the registration's match: " + string(k)
}

// Admits returns nil if the leaf holds the Match, else why not, as a NoMatch.
func (m *Matcher) Admits(leaf *x509.Certificate) error {
	if m != nil && m.IsZero() && leaf != nil {
		return nil
	}
	return m.AdmitsFacts(FactsOf(leaf))
}

// AdmitsFacts is Admits for a leaf that was read. It does not allocate, unless it admits nobody.
func (m *Matcher) AdmitsFacts(f *Facts) error {
	if m == nil || !m.compiled {
		return errNotCompiled
	}
	if f == nil || f == nothing {
		return errSaysNothing
	}
	for i := range matchKeys {
		k := &matchKeys[i]
		if len(*k.entries(&m.match)) > 0 && !k.holds(m, f) {
			return NoMatch(k.name)
		}
	}
	return nil
}

func add(set *map[string]bool, entry string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	(*set)[entry] = true
}

func (m *Matcher) addDNS(entry string) error {
	domain, wild := strings.CutPrefix(entry, "*.")
	host, ok := parseHost(domain)
	switch {
	case !ok && strings.Contains(domain, "*"):
		return errors.New("a * stands for one whole label at the beginning: *.partner.test")
	case !ok && strings.HasSuffix(domain, "."):
		return errors.New("leave out the final dot")
	case !ok && strings.ContainsFunc(domain, func(r rune) bool { return r >= 0x80 }):
		return errors.New("write it in ASCII: xn--…")
	case !ok:
		return errors.New("it is no host name, as in api.partner.test or *.partner.test")
	case wild:
		add(&m.dnsBelow, host)
	default:
		add(&m.dns, host)
	}
	return nil
}

func (m *Matcher) holdsDNS(f *Facts) bool {
	return slices.ContainsFunc(f.DNS, func(name string) bool {
		_, domain, _ := strings.Cut(name, ".")
		return m.dns[name] || m.dnsBelow[domain]
	})
}

func (m *Matcher) addURI(entry string) error {
	above, wild := strings.CutSuffix(entry, "/*")
	u, ok := parseURI(above)
	switch {
	case strings.Contains(above, "*"):
		return errors.New("a * stands at the end alone, after a slash, for one or more segments: spiffe://partner.test/*")
	case !ok:
		return errors.New("it is no URI that can be compared, as in spiffe://partner.test/billing: scheme and host in ASCII, no user, no . or .. segment")
	case wild && !u.plain:
		return errors.New("what is below it can't be told: before /* stand scheme, host and segments without escapes")
	case wild:
		m.urisBelow = append(m.urisBelow, u.text+"/")
	default:
		add(&m.uris, u.text)
	}
	return nil
}

func (m *Matcher) holdsURI(f *Facts) bool {
	return slices.ContainsFunc(f.uris, func(u uri) bool {
		return m.uris[u.text] || u.plain && slices.ContainsFunc(m.urisBelow, func(above string) bool {
			return strings.HasPrefix(u.text, above)
		})
	})
}

func (m *Matcher) addEmail(entry string) error {
	local, domain, ok := parseEmail(entry)
	switch {
	case !ok:
		return errors.New("it is no address, as in billing@partner.test or *@partner.test")
	case local == "*":
		add(&m.emailsAt, domain)
	case strings.Contains(local, "*"):
		return errors.New("a * stands alone before the @: *@partner.test")
	default:
		add(&m.emails, local+"@"+domain)
	}
	return nil
}

func (m *Matcher) holdsEmail(f *Facts) bool {
	return slices.ContainsFunc(f.Email, func(address string) bool {
		_, domain, _ := strings.Cut(address, "@")
		return m.emails[address] || m.emailsAt[domain]
	})
}

func (m *Matcher) addIP(entry string) error {
	if !strings.Contains(entry, "/") {
		ip, err := parseAddress(entry)
		if err != nil {
			return errors.New("it is no address or network, as in 10.0.0.1 or 10.0.0.0/8")
		}
		m.networks = append(m.networks, netip.PrefixFrom(ip, ip.BitLen()))
		return nil
	}
	network, err := netip.ParsePrefix(entry)
	switch {
	case err != nil || network.Addr().Is4In6():
		return errors.New("it is no network, as in 10.0.0.0/8 or 2001:db8::/32")
	case network != network.Masked():
		return fmt.Errorf("its address has bits beyond its length: write %s", network.Masked())
	}
	m.networks = append(m.networks, network)
	return nil
}

func (m *Matcher) holdsIP(f *Facts) bool {
	return slices.ContainsFunc(f.IP, func(ip netip.Addr) bool {
		return slices.ContainsFunc(m.networks, func(network netip.Prefix) bool { return network.Contains(ip) })
	})
}

func (m *Matcher) addSubject(entry string) error {
	subject, err := parseSubject(entry)
	if err != nil {
		return err
	}
	m.subjects = append(m.subjects, subject)
	return nil
}

func (m *Matcher) holdsSubject(f *Facts) bool {
	return slices.ContainsFunc(m.subjects, func(rule [][]attribute) bool { return nameHolds(f.subject, rule) })
}

// nameHolds reports whether each part of rule is within a part of name.
func nameHolds(name, rule [][]attribute) bool {
	for _, part := range rule {
		within := false
		for _, rdn := range name {
			within = within || partHolds(rdn, part)
		}
		if !within {
			return false
		}
	}
	return true
}

func partHolds(rdn, part []attribute) bool {
	for _, wanted := range part {
		if !slices.ContainsFunc(rdn, func(a attribute) bool { return a.holds(wanted) }) {
			return false
		}
	}
	return true
}

// parseHash reads a SHA-256, and returns it as bytes.
func parseHash(entry string) (string, error) {
	if sum, err := hex.DecodeString(strings.ReplaceAll(entry, ":", "")); err == nil && len(sum) == 32 {
		return string(sum), nil
	}
	text := strings.TrimRight(strings.TrimPrefix(entry, "sha256/"), "=")
	if sum, err := base64.RawStdEncoding.Strict().DecodeString(text); err == nil && len(sum) == 32 {
		return string(sum), nil
	}
	return "", errors.New("it is no SHA-256: 64 hex digits, or 44 characters of base64, as in sha256/…=")
}

func (m *Matcher) addSPKI(entry string) error {
	sum, err := parseHash(entry)
	if err == nil {
		add(&m.keys, sum)
	}
	return err
}

func (m *Matcher) holdsSPKI(f *Facts) bool { return m.keys[string(f.SPKI[:])] }

func (m *Matcher) addFingerprint(entry string) error {
	sum, err := parseHash(entry)
	if err == nil {
		add(&m.fingerprintHashes, sum)
	}
	return err
}

func (m *Matcher) holdsFingerprint(f *Facts) bool {
	return m.fingerprintHashes[string(f.Fingerprint[:])]
}

func (m *Matcher) addPolicy(entry string) error {
	oid, err := parseOID(entry)
	if err == nil {
		add(&m.policies, oid)
	}
	return err
}

func (m *Matcher) holdsPolicy(f *Facts) bool {
	return slices.ContainsFunc(f.Policies, func(oid string) bool { return m.policies[oid] })
}
