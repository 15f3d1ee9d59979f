package config

import (
	"net/netip"
	"strings"
	"time"

	"sallyport/gateway/clientcert"
)

// MutualSSL is what holds for client certificates on every listener.
type MutualSSL struct {
	Pos
	// ClientCertificateHeader is the only header that client certificates are read from, as written or as the pinned
	// HeaderFormat defines it. Default X-WSO2-CLIENT-CERTIFICATE.
	ClientCertificateHeader string
	HeaderFormat            string // a word of clientcert.ParseFormat; default "auto"
	LoadBalancers           LoadBalancers
	TrustStore              *KeyStore // verifies certificates from the header; nil: none is good

	EnableCertificateChainValidation bool          // always false: true is not built yet
	ForwardClientCertificateHeader   bool          // the backend gets the certificate
	CertificateReloadPeriod          time.Duration // until a change is seen at the latest, from 100 ms; default 10 s
}

// LoadBalancers are the peers that may present their clients' certificates.
type LoadBalancers struct {
	Pos
	Addresses  []netip.Prefix // masked, IPv4 never as IPv6; empty: the header is off
	TrustStore *KeyStore      // their own certificates, for listeners that say "certificate"; nil: none
}

// mutualSSL reads `mutualSSL:`.
func (l *loader) mutualSSL(m *mapping) MutualSSL {
	s, _ := m.sub("mutualSSL")
	defer s.end()
	out := MutualSSL{Pos: s.Pos}
	out.ClientCertificateHeader = clientcert.DefaultHeader
	header := s.text("clientCertificateHeader")
	if header.OK {
		if err := clientcert.CheckHeader(header.Value); err != nil {
			l.errorf(header.Pos, "clientCertificateHeader %s %v", quote(header.Value), err)
		}
		out.ClientCertificateHeader = header.Value
	}
	out.HeaderFormat = ask(s, "headerFormat", clientcert.Auto.String(), clientcert.ParseFormat).Value
	if format, _ := clientcert.ParseFormat(out.HeaderFormat); format.Header() != "" {
		if header.OK && !strings.EqualFold(header.Value, format.Header()) {
			l.errorf(header.Pos,
				"headerFormat %s is read from %s: remove clientCertificateHeader", format, format.Header())
		}
		out.ClientCertificateHeader = format.Header()
	}
	out.LoadBalancers = l.loadBalancers(s)
	out.TrustStore = s.trustStore("trustStore")
	chain, at := s.boolean("enableCertificateChainValidation", false)
	if chain {
		l.errorf(at,
			"enableCertificateChainValidation is not built yet: say false, and register each client certificate")
	}
	out.ForwardClientCertificateHeader, _ = s.boolean("forwardClientCertificateHeader", false)
	out.CertificateReloadPeriod = s.duration("certificateReloadPeriod", 100*time.Millisecond, 10*time.Second)
	return out
}

func (l *loader) loadBalancers(m *mapping) LoadBalancers {
	s, _ := m.sub("loadBalancers")
	defer s.end()
	out := LoadBalancers{Pos: s.Pos}
	values, _ := s.texts("addresses")
	for _, v := range values {
		prefix, ok := parsePrefix(v.Value)
		switch {
		case !ok:
			l.errorf(v.Pos, "%s is to be an address or a network, as in 10.1.2.3 or 10.1.2.0/24", quote(v.Value))
		case prefix.Bits() == 0:
			l.errorf(v.Pos, "%s is everybody: name the load balancers alone", quote(v.Value))
		default:
			out.Addresses = append(out.Addresses, prefix)
		}
	}
	out.TrustStore = s.trustStore("trustStore")
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
