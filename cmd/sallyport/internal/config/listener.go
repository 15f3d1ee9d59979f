package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
)

// A Listener is one socket that takes calls: HTTPS if it has a KeyStore, else plain HTTP.
type Listener struct {
	Pos
	Name    string // letters, digits, ".", "_", "-"; unique
	Address string // host:port as net.Listen takes it; port 0 lets the system choose

	// On a plain listener the rest is zero, except that SSLVerifyClient is "none" and ClientCertificateHeader is set.

	KeyStore   *KeyStore // nil: plain HTTP
	TrustStore *KeyStore // verifies client certificates; set unless SSLVerifyClient is "none"
	// SSLVerifyClient is "none", "optional" (the default under TLS) or "require", in lower case.
	SSLVerifyClient    string
	HTTPSProtocols     []string            // as listenerprofiles.ParseProtocols accepts them; empty: both versions
	PreferredCiphers   []string            // as listenerprofiles.ParseCiphers accepts them; empty: ECDHE with AEAD only
	DynamicSSLProfiles *DynamicSSLProfiles // nil: no listenerprofiles.xml

	// ClientCertificateHeader is which peers may set the certificate header: "off" (default) none, "address" the load
	// balancers' addresses, "certificate" these if they also present a certificate of the load balancers' trust store.
	ClientCertificateHeader string
}

// TLS reports whether the listener speaks HTTPS.
func (l *Listener) TLS() bool { return l.KeyStore != nil }

// A KeyStore names a store of keys and certificates, or of trusted certificates. It is not opened here.
type KeyStore struct {
	Pos
	Location    string // absolute
	Type        string // as keystore.ParseType returns it; "": detected by content
	Password    Secret // "" if not named
	KeyPassword Secret // "" if not named; never set in a trust store
	Alias       string // of the key entry; "" if not named; never set in a trust store
}

// DynamicSSLProfiles names a listenerprofiles.xml, WSO2's dynamicSSLProfilesConfig.
type DynamicSSLProfiles struct {
	Pos
	FilePath         string        // absolute
	BaseDir          string        // base of relative paths in the XML, absolute; default the XML's folder
	FileReadInterval time.Duration // between two looks at the file, at least 1 s; default 10 min
}

// listener reads one entry of `listeners:`.
func (l *loader) listener(n node) Listener {
	m := n.mapping("a listener")
	defer m.end()
	name := m.name("name")
	address := m.address()
	out := Listener{
		Pos:                n.Pos,
		Name:               name.Value,
		Address:            address.Value,
		KeyStore:           m.keyStore("keyStore"),
		TrustStore:         m.trustStore("trustStore"),
		DynamicSSLProfiles: m.dynamicSSLProfiles(),
	}
	for _, other := range l.cfg.Listeners {
		if name.OK && other.Name == name.Value {
			l.errorf(name.Pos,
				"a second listener %s, the first in line %d: give each its own name", name.Value, other.Line)
		}
		if address.OK && sameAddress(other.Address, address.Value) {
			l.errorf(address.Pos, "address %s is that of listener %s: give each its own", address.Value, other.Name)
		}
	}
	verify := ask(m, "sslVerifyClient", listenerprofiles.Optional.String(), listenerprofiles.ParseVerifyClient)
	out.SSLVerifyClient = verify.Value
	out.HTTPSProtocols = m.protocols()
	out.PreferredCiphers = askEach(m, "preferredCiphers", listenerprofiles.ParseCiphers)
	header := m.word("clientCertificateHeader", "off", "off", "address", "certificate")
	out.ClientCertificateHeader = header.Value
	if m.find("keyStore") == nil {
		l.checkPlain(m, &out, address, header)
	} else {
		l.checkTLS(m, &out, verify, header)
	}
	if header.OK && header.Value != "off" {
		l.checkHeaderDoor(&out, header)
	}
	return out
}

// checkPlain refuses on a plain listener what needs TLS.
func (l *loader) checkPlain(m *mapping, out *Listener, address, header text) {
	for _, key := range []string{"trustStore", "sslVerifyClient", "httpsProtocols", "preferredCiphers", "dynamicSSLProfiles"} {
		m.refuse(key, "has no meaning without a keyStore: add a keyStore for HTTPS, or remove it")
	}
	out.SSLVerifyClient, out.HTTPSProtocols = "none", nil
	switch {
	case header.Value == "certificate":
		l.errorf(header.Pos,
			"clientCertificateHeader certificate needs TLS, for the load balancer to show its own: add a keyStore, or "+
				"say address")
	case header.Value == "address" && address.OK && !isLoopback(address.Value):
		if len(l.cfg.MutualSSL.LoadBalancers.Addresses) == 0 {
			l.errorf(header.Pos,
				"a plain listener that others can reach believes the certificate header of nobody yet: name the load "+
					"balancers in mutualSSL.loadBalancers.addresses, or listen on 127.0.0.1")
		} else {
			l.warnf(header.Pos,
				"certificates reach this listener by plain HTTP over the network: whoever can send from a load "+
					"balancer's address is believed")
		}
	}
}

// checkTLS reports what a TLS listener lacks.
func (l *loader) checkTLS(m *mapping, out *Listener, verify, header text) {
	if m.find("trustStore") == nil && out.SSLVerifyClient != "none" {
		at, why := m.Pos, " (the default)"
		if verify.OK {
			at, why = verify.Pos, ""
		}
		l.errorf(at,
			"sslVerifyClient %s%s needs a trustStore: add one, or say sslVerifyClient: none", out.SSLVerifyClient, why)
	}
	if header.Value != "certificate" {
		return
	}
	if out.SSLVerifyClient == "none" {
		l.errorf(header.Pos,
			"clientCertificateHeader certificate needs the load balancer's own certificate, which sslVerifyClient "+
				"none doesn't ask for: say optional or require")
	}
	if l.cfg.MutualSSL.LoadBalancers.TrustStore == nil {
		l.errorf(header.Pos,
			"clientCertificateHeader certificate needs mutualSSL.loadBalancers.trustStore, to know the load balancers "+
				"by")
	}
}

// checkHeaderDoor reports a missing trust store for certificates from the header, and warns of a header that is never
// believed.
func (l *loader) checkHeaderDoor(out *Listener, header text) {
	switch {
	case len(l.cfg.MutualSSL.LoadBalancers.Addresses) == 0:
		l.warnf(header.Pos,
			"the certificate header stays off on listener %s: mutualSSL.loadBalancers.addresses names nobody", out.Name)
	case l.cfg.MutualSSL.TrustStore == nil:
		l.errorf(header.Pos,
			"clientCertificateHeader %s needs mutualSSL.trustStore, to judge the certificates in the header by",
			header.Value)
	}
}

// keyStore reads a store with a private key, nil if there is none under key.
func (m *mapping) keyStore(key string) *KeyStore {
	s, given := m.sub(key)
	if !given {
		return nil
	}
	defer s.end()
	out := s.store()
	out.KeyPassword = s.secret("keyPassword")
	out.Alias = s.text("alias").Value
	return out
}

// trustStore reads a store of certificates alone.
func (m *mapping) trustStore(key string) *KeyStore {
	s, given := m.sub(key)
	if !given {
		return nil
	}
	defer s.end()
	for _, only := range []string{"keyPassword", "alias"} {
		s.refuse(only, "has no meaning in a trust store: all its certificates are trusted; remove it")
	}
	return s.store()
}

func (m *mapping) store() *KeyStore {
	m.need("location", "the file of the store")
	return &KeyStore{
		Pos:      m.Pos,
		Location: m.path("location"),
		Type:     ask(m, "type", "", keystore.ParseType).Value,
		Password: m.secret("password"),
	}
}

func (m *mapping) dynamicSSLProfiles() *DynamicSSLProfiles {
	s, given := m.sub("dynamicSSLProfiles")
	if !given {
		return nil
	}
	defer s.end()
	s.need("filePath", "the listenerprofiles.xml")
	out := &DynamicSSLProfiles{
		Pos:              s.Pos,
		FilePath:         s.path("filePath"),
		BaseDir:          s.path("baseDir"),
		FileReadInterval: s.duration("fileReadInterval", time.Second, 10*time.Minute),
	}
	if out.BaseDir == "" && out.FilePath != "" {
		out.BaseDir = filepath.Dir(out.FilePath)
	}
	return out
}

// protocols reads httpsProtocols.
func (m *mapping) protocols() []string {
	m.notEmpty("httpsProtocols", "name TLSv1.2 or TLSv1.3, or remove it for both")
	return askEach(m, "httpsProtocols", listenerprofiles.ParseProtocols)
}

// address reads the host and port under `address`.
func (m *mapping) address() text {
	m.need("address", "host:port, as in 0.0.0.0:8243")
	if n, ok := m.take("address"); ok && n.kind() == "a number" {
		m.load.errorf(n.Pos, "address is to be host:port, as in 0.0.0.0:8243: add the host")
		return text{Pos: n.Pos}
	}
	t := m.text("address")
	if t.OK && !isAddress(t.Value) {
		m.load.errorf(t.Pos,
			"address %s is to be host:port, as in 0.0.0.0:8243 or [::1]:8243, the port a number from 0 to 65535",
			quote(t.Value))
		t.OK = false
	}
	return t
}

// isAddress reports whether s is host:port, where host may be empty, an IP address or a name.
func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isPort(port) {
		return false
	}
	_, err = netip.ParseAddr(host)
	return err == nil || host == "" || isHostname(host)
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == s
}

// isHostname reports whether s is a DNS name of a host (RFC 1123, 2.1): ASCII, no trailing dot, not all digits at the
// end.
func isHostname(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isLetter(c) && !isDigit(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// sameAddress reports whether two listeners cannot both listen at their addresses.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && portA == portB && portA != "0" && strings.EqualFold(hostA, hostB)
}

// isLoopback reports whether only this machine can reach address.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}
