package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport/gateway/control"
	"sallyport/gateway/decision"
	"sallyport/internal/printable"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
)

// listener reads one entry of `listeners:`. One without a keyStore is plain HTTP.
func (l *loader) listener(n node) control.Listener {
	m := n.mapping("a listener")
	defer m.end()
	name, address := m.name("name"), m.address()
	tls := &listenerprofiles.Options{Listener: name.Value, Vouching: l.cfg.Header.Rules.Registered}
	tls.Own.KeyStore, tls.Own.Order = m.serverKeys("keyStore")
	tls.Own.TrustStore = m.trustStore("trustStore").Value
	interval := m.dynamicSSLProfiles(tls)
	for _, other := range l.cfg.Listeners {
		if name.OK && other.Name == name.Value {
			l.errorf(name.Place,
				"a second listener %s, the first in line %d: give each its own name", name.Value, other.Line)
		}
		if address.OK && sameAddress(other.Address, address.Value) {
			l.errorf(address.Place, "address %s takes the port of listener %s (%s): give each its own",
				address.Value, other.Name, other.Address)
		}
	}
	verify, said := ask(m, "sslVerifyClient", listenerprofiles.Optional, listenerprofiles.ParseVerifyClient)
	tls.Own.VerifyClient = verify
	tls.Own.Protocols = m.protocols()
	var revoked control.Placed[revocation.Policy]
	if m.find("keyStore") != nil {
		revoked = m.revocation()
		tls.Own.Revocation = revoked.Value
	}
	tls.Own.Ciphers = askEach(m, "preferredCiphers", listenerprofiles.ParseCiphers)
	header := m.word("clientCertificateHeader", "off", "off", "address", "certificate")
	out := control.Listener{
		Place: n.Place,
		Listener: decision.Listener{
			Name:              name.Value,
			Address:           address.Value,
			DoorByCertificate: header.Value == "certificate",
			Proxies:           m.proxyProtocol(),
		},
		Believes: header.Value != "off",
	}
	if m.find("keyStore") == nil {
		l.checkPlain(m, address, header)
	} else {
		l.checkTLS(m, verify, said, header)
		if verify == listenerprofiles.None && revoked.Keys != nil {
			l.errorf(revoked.Place, "revocation is of clients' certificates, which sslVerifyClient none doesn't ask for: say optional or "+
				"require, or remove it; profiles say it by CertificateRevocationVerifier")
		}
		out.TLS, out.FileReadInterval, out.Keys = tls, interval, m.keys()
	}
	if out.Believes {
		l.checkHeaderDoor(name.Value, header)
	}
	return out
}

// proxyProtocol reads who begins each connection with a header of the PROXY protocol, nil for nobody.
func (m *mapping) proxyProtocol() *decision.Proxies {
	s, given := m.sub("proxyProtocol")
	if !given {
		return nil
	}
	defer s.end()
	s.need("addresses", "the proxies that begin each connection with a PROXY header, as in [10.1.2.0/24]")
	s.notEmpty("addresses", "name the proxies, or remove proxyProtocol")
	proxies := decision.Proxies(s.networks("addresses", "is everybody: name the proxies alone"))
	return &proxies
}

// checkPlain refuses on a plain listener what needs TLS.
func (l *loader) checkPlain(m *mapping, address, header text) {
	for _, key := range []string{"trustStore", "sslVerifyClient", "httpsProtocols", "preferredCiphers", "dynamicSSLProfiles", "revocation"} {
		m.refuse(key, "has no meaning without a keyStore: add a keyStore for HTTPS, or remove it")
	}
	switch {
	case header.Value == "certificate":
		l.errorf(header.Place,
			"clientCertificateHeader certificate needs TLS, for the load balancer to show its own: add a keyStore, or "+
				"say address")
	case header.Value == "address" && address.OK && !isLoopback(address.Value):
		if len(l.cfg.Header.Balancers) == 0 {
			l.errorf(header.Place,
				"a plain listener that others can reach believes the certificate header of nobody yet: name the load "+
					"balancers in mutualSSL.loadBalancers.addresses, or listen on 127.0.0.1")
		} else {
			l.warnf(header.Place,
				"certificates reach this listener by plain HTTP over the network: whoever can send from a load "+
					"balancer's address is believed")
		}
	}
}

// checkTLS reports what a TLS listener lacks.
func (l *loader) checkTLS(m *mapping, verify listenerprofiles.VerifyClient, said, header text) {
	if m.find("trustStore") == nil && verify != listenerprofiles.None {
		at, why := m.Place, " (the default)"
		if said.OK {
			at, why = said.Place, ""
		}
		l.errorf(at,
			"sslVerifyClient %s%s needs a trustStore: add one, or say sslVerifyClient: none", verify, why)
	}
	if header.Value != "certificate" {
		return
	}
	if verify == listenerprofiles.None {
		l.errorf(header.Place,
			"clientCertificateHeader certificate needs the load balancer's own certificate, which sslVerifyClient "+
				"none doesn't ask for: say optional or require")
	}
	if l.cfg.Balancers.Value.Location == "" {
		l.errorf(header.Place,
			"clientCertificateHeader certificate needs mutualSSL.loadBalancers.trustStore, to know the load balancers "+
				"by")
	}
}

// checkHeaderDoor reports a missing trust store for certificates from the header, and warns of a header that is never
// believed.
func (l *loader) checkHeaderDoor(listener string, header text) {
	switch {
	case len(l.cfg.Header.Balancers) == 0:
		l.warnf(header.Place,
			"the certificate header stays off on listener %s: mutualSSL.loadBalancers.addresses names nobody", listener)
	case l.cfg.HeaderTrust.Value.Location == "":
		l.errorf(header.Place,
			"clientCertificateHeader %s needs mutualSSL.trustStore, to judge the certificates in the header by",
			header.Value)
	}
}

// serverKeys reads what a listener takes its keys from: a store or, with type ACME, what a CA is asked for.
func (m *mapping) serverKeys(key string) (ref keystore.Ref, order listenerprofiles.Order) {
	s, given := m.sub(key)
	if !given {
		return ref, order
	}
	defer s.end()
	if e := s.find("type"); e == nil || !isACME(e.value) {
		for _, only := range []string{"names", "keyTypes"} {
			s.refuse(only, "belongs to type ACME: remove it")
		}
		return s.keyFile(), order
	}
	for _, file := range []string{"location", "password", "keyPassword", "alias"} {
		s.refuse(file, "has no meaning with type ACME, whose keys a CA issues: remove it")
	}
	s.need("names", "the hosts that certificates are for, as in [api.example.com]")
	s.notEmpty("names", "name the hosts that certificates are for")
	order.Names = askEach(s, "names", listenerprofiles.ParseNames)
	s.notEmpty("keyTypes", "name ecdsa or rsa, or remove it for ecdsa")
	order.KeyTypes = askEach(s, "keyTypes", listenerprofiles.ParseKeyTypes)
	return ref, order
}

func isACME(n node) bool {
	word, ok := n.rawText()
	return ok && listenerprofiles.IsACME(word)
}

// keyStore reads a store with a private key, without a Location if there is none under key.
func (m *mapping) keyStore(key string) (out keystore.Ref) {
	s, given := m.sub(key)
	if !given {
		return out
	}
	defer s.end()
	return s.keyFile()
}

func (m *mapping) keyFile() keystore.Ref {
	out := m.store()
	out.KeyPassword = m.secret("keyPassword")
	out.Alias = m.aliases()
	return out
}

// aliases reads alias, a name or a list of names.
func (m *mapping) aliases() keystore.Aliases {
	e := m.find("alias")
	if e == nil || e.value.kind() != "a list" {
		return keystore.Aliases(m.text("alias").Value)
	}
	m.notEmpty("alias", "name the keys to serve, or remove it for all of them")
	values, _ := m.texts("alias")
	return keystore.JoinAliases(plain(values)...)
}

// trustStore reads a store of certificates alone, without a Location if there is none under key.
func (m *mapping) trustStore(key string) (out control.Placed[keystore.Ref]) {
	s, given := m.sub(key)
	if !given {
		return out
	}
	defer s.end()
	for _, only := range []string{"keyPassword", "alias"} {
		s.refuse(only, "has no meaning in a trust store: all its certificates are trusted; remove it")
	}
	return control.Placed[keystore.Ref]{Place: s.Place, Value: s.store(), Keys: s.keys()}
}

func (m *mapping) store() keystore.Ref {
	m.need("location", "the file of the store")
	out := keystore.Ref{Location: m.path("location")}
	out.Type, _ = ask(m, "type", "", keystore.ParseType)
	out.Password = m.secret("password")
	return out
}

// dynamicSSLProfiles reads where the listener's listenerprofiles.xml is, and returns the time between two looks at it.
func (m *mapping) dynamicSSLProfiles(tls *listenerprofiles.Options) time.Duration {
	s, given := m.sub("dynamicSSLProfiles")
	if !given {
		return 0
	}
	defer s.end()
	s.need("filePath", "the listenerprofiles.xml")
	tls.FilePath, tls.BaseDir, tls.Secrets = s.path("filePath"), s.path("baseDir"), s.secrets()
	if m.load.instead != "" && tls.BaseDir != "" && within(tls.BaseDir, m.load.cfg.Cluster.Folder) {
		m.load.errorf(s.find("baseDir").value.Place, "files of gateway.config.folder that %s names by this baseDir can't be checked "+
			"before they are there: leave baseDir out, or name a folder in that one", filepath.Base(tls.FilePath))
	}
	return s.duration("fileReadInterval", time.Second, 10*time.Minute)
}

// secrets reads what the aliases of passwords in the file stand for.
func (m *mapping) secrets() listenerprofiles.Secrets {
	s, given := m.sub("secrets")
	if !given {
		return nil
	}
	out := listenerprofiles.Secrets{}
	for _, e := range s.entries {
		switch {
		case e.key == "":
			m.load.errorf(e.Place, "an alias in secrets is empty: give its name, or remove it")
		case e.value.kind() == "nothing": // in {alias: a, b}, b is an alias
			m.load.errorf(e.Place, "an alias in secrets has no value: give one, in quotes, or remove it")
		default:
			out[e.key] = s.secret(e.key)
		}
	}
	return out
}

// protocols reads httpsProtocols.
func (m *mapping) protocols() []uint16 {
	m.notEmpty("httpsProtocols", "name TLSv1.2 or TLSv1.3, or remove it for both")
	return askEach(m, "httpsProtocols", listenerprofiles.ParseProtocols)
}

// address reads the host and port under `address`.
func (m *mapping) address() text {
	m.need("address", "host:port, as in 0.0.0.0:8243")
	if n, ok := m.take("address"); ok && n.kind() == "a number" {
		m.load.errorf(n.Place, "address is to be host:port, as in 0.0.0.0:8243: add the host")
		return text{Place: n.Place}
	}
	t := m.text("address")
	if t.OK && !isAddress(t.Value) {
		m.load.errorf(t.Place,
			"address %s is to be host:port, as in 0.0.0.0:8243 or [::1]:8243, the port a number from 0 to 65535",
			printable.Quote(t.Value))
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
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return strings.EqualFold(hostA, hostB) || isEverywhere(hostA) || isEverywhere(hostB)
}

// isEverywhere reports whether to listen on host is to listen on every address of this machine, IPv4 and IPv6.
func isEverywhere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
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
