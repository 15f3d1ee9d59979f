package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// MutualSSL is what holds for client certificates on every listener.
type MutualSSL struct {
	Pos
	// ClientCertificateHeader is the one header that a load balancer's word is read from, as written or as the pinned
	// HeaderFormat has it. Default X-WSO2-CLIENT-CERTIFICATE.
	ClientCertificateHeader string
	HeaderFormat            string // "auto" (default), "rfc9440", "xfcc" or "alb"
	LoadBalancers           LoadBalancers
	TrustStore              *KeyStore // for certificates that come in the header; nil: none of them is good

	EnableCertificateChainValidation bool          // always false: true is not built yet
	ForwardClientCertificateHeader   bool          // the backend gets the certificate
	CertificateReloadPeriod          time.Duration // the longest until a change in the store or a file is seen, at least 100 ms; default 10 s
}

// LoadBalancers are the peers that may speak for clients.
type LoadBalancers struct {
	Pos
	Addresses  []netip.Prefix // masked, IPv4 never as IPv6; none: the header is off
	TrustStore *KeyStore      // their own certificates, for listeners that say "certificate"; nil: none
}

const defaultHeader = "X-WSO2-CLIENT-CERTIFICATE"

// pinnedHeaders are the header names that belong to a format.
var pinnedHeaders = map[string]string{
	"rfc9440": "Client-Cert",
	"xfcc":    "X-Forwarded-Client-Cert",
	"alb":     "X-Amzn-Mtls-Clientcert",
}

// mutualSSL reads `mutualSSL:`.
func (l *loader) mutualSSL(m *mapping) MutualSSL {
	s, _ := m.sub("mutualSSL")
	defer s.end()
	out := MutualSSL{Pos: s.Pos}
	out.ClientCertificateHeader = defaultHeader
	header := s.text("clientCertificateHeader")
	if header.OK {
		l.checkHeaderName(header)
		out.ClientCertificateHeader = header.Value
	}
	format := s.word("headerFormat", "auto", "auto", "rfc9440", "xfcc", "alb")
	out.HeaderFormat = format.Value
	if pinned := pinnedHeaders[format.Value]; pinned != "" {
		if header.OK && !strings.EqualFold(header.Value, pinned) {
			l.errorf(header.Pos, "headerFormat %s is read from %s: remove clientCertificateHeader", format.Value, pinned)
		}
		out.ClientCertificateHeader = pinned
	}
	out.LoadBalancers = l.loadBalancers(s)
	out.TrustStore = s.trustStore("trustStore")
	chain, at := s.boolean("enableCertificateChainValidation", false)
	if chain {
		l.errorf(at, "enableCertificateChainValidation is not built yet: say false, and register each client certificate")
	}
	out.ForwardClientCertificateHeader, _ = s.boolean("forwardClientCertificateHeader", false)
	out.CertificateReloadPeriod = s.duration("certificateReloadPeriod", 100*time.Millisecond, 10*time.Second)
	return out
}

// checkHeaderName refuses names that a certificate can't come under: those that carry the message, and those that the
// gateway sets for the backend.
func (l *loader) checkHeaderName(t text) {
	name := strings.ToLower(strings.ReplaceAll(t.Value, "_", "-"))
	switch {
	case !isToken(t.Value), strings.Contains(t.Value, "_"): // "_" and "-" are one to many backends, and to nobody else
		l.errorf(t.Pos, "clientCertificateHeader %s is no header name: use letters, digits and \"-\"", quote(t.Value))
	case slices.Contains(takenHeaders, name), strings.HasPrefix(name, "x-sallyport-"), strings.HasPrefix(name, "proxy-"),
		strings.HasPrefix(name, "sec-"), strings.HasPrefix(name, "content-"), strings.HasPrefix(name, "access-control-"):
		l.errorf(t.Pos, "clientCertificateHeader %s has a meaning of its own: choose a name like %s", quote(t.Value), defaultHeader)
	}
}

var takenHeaders = []string{
	"accept", "accept-encoding", "age", "authorization", "cache-control", "connection", "cookie", "date", "expect", "forwarded", "from", "host", "http2-settings",
	"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "keep-alive", "location", "max-forwards", "origin", "pragma", "range",
	"referer", "retry-after", "server", "set-cookie", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade",
	"user-agent", "vary", "via", "warning", "www-authenticate", "x-client-cert-hash", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
	"x-jwt-assertion", "x-request-id",
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
