package config

import (
	"net/netip"
	"strings"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/gateway/decision"
	"sallyport/internal/printable"
	"sallyport/listenerprofiles/trust"
)

// mutualSSL reads `mutualSSL:`.
func (l *loader) mutualSSL(m *mapping) {
	s, _ := m.sub("mutualSSL")
	defer s.end()
	c, door := l.cfg, &l.cfg.Header
	door.Header = clientcert.DefaultHeader
	header := s.text("clientCertificateHeader")
	if header.OK {
		if err := clientcert.CheckHeader(header.Value); err != nil {
			l.errorf(header.Place, "clientCertificateHeader %s %v", printable.Quote(header.Value), err)
		}
		door.Header = header.Value
	}
	door.Format, _ = ask(s, "headerFormat", clientcert.Auto, clientcert.ParseFormat)
	if own := door.Format.Header(); own != "" {
		if header.OK && !strings.EqualFold(header.Value, own) {
			l.errorf(header.Place, "headerFormat %s is read from %s: remove clientCertificateHeader", door.Format, own)
		}
		door.Header = own
	}
	l.loadBalancers(s)
	c.HeaderTrust = s.trustStore("trustStore")
	if c.HeaderRevocation = s.revocation(); c.HeaderRevocation.Keys != nil && s.find("trustStore") == nil {
		l.errorf(c.HeaderRevocation.Place, "revocation here is of certificates from the header, and there is no mutualSSL.trustStore to "+
			"judge them by: add one, or move it to a listener for those of its handshakes")
	}
	door.Rules.Registered, _ = ask(s, "trustRegistered", trust.SelfSigned, trust.ParseRegistered)
	c.ChainValidation = s.boolean("enableCertificateChainValidation")
	c.Routing.CertificateHeader = door.Header
	c.Routing.ForwardCertificate = s.boolean("forwardClientCertificateHeader")
	c.Routing.ExpiryHeader = l.expiryHeader(s)
	c.Period = s.duration("certificateReloadPeriod", 100*time.Millisecond, 10*time.Second)
}

// expiryHeader reads the name of the header that tells clients when their certificate ends.
func (l *loader) expiryHeader(s *mapping) string {
	header := s.text("expiryHeader")
	if !header.OK {
		return ""
	}
	if err := decision.CheckExpiryHeader(header.Value); err != nil {
		l.errorf(header.Place, "expiryHeader %s %v", printable.Quote(header.Value), err)
	}
	return header.Value
}

// loadBalancers reads the peers that may present their clients' certificates.
func (l *loader) loadBalancers(m *mapping) {
	s, _ := m.sub("loadBalancers")
	defer s.end()
	l.cfg.Header.Balancers = s.networks("addresses", "is everybody: name the load balancers alone")
	l.cfg.Balancers = s.trustStore("trustStore")
}

// networks reads addresses and networks. everybody is what is wrong with one that has all addresses.
func (m *mapping) networks(key, everybody string) []netip.Prefix {
	values, _ := m.texts(key)
	var out []netip.Prefix
	for _, v := range values {
		prefix, ok := parsePrefix(v.Value)
		switch {
		case !ok:
			m.load.errorf(v.Place, "%s is to be an address or a network, as in 10.1.2.3 or 10.1.2.0/24", printable.Quote(v.Value))
		case prefix.Bits() == 0:
			m.load.errorf(v.Place, "%s %s", printable.Quote(v.Value), everybody)
		default:
			out = append(out, prefix)
		}
	}
	return out
}

// parsePrefix reads an address or a network. IPv4 written as IPv6 becomes IPv4, as peers' addresses do.
func parsePrefix(s string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), addr.Zone() == ""
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 { // more than the IPv4 addresses
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), true
}
