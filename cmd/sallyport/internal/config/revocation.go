package config

import (
	"strings"
	"time"

	"sallyport/gateway/control"
	"sallyport/internal/printable"
	"sallyport/listenerprofiles/revocation"
)

// revocation reads how certificates are looked up. Without the key nothing is.
func (m *mapping) revocation() (out control.Placed[revocation.Policy]) {
	const sources = "name crl, crlDistributionPoints: true or ocsp: true"
	before := len(m.load.errs)
	s, given := m.sub("revocation")
	if !given {
		return out
	}
	defer s.end()
	p := revocation.Policy{
		CRL:                s.revocationLists("crl"),
		DistributionPoints: s.boolean("crlDistributionPoints"),
		OCSP:               s.boolean("ocsp"),
		Soft:               s.word("fail", "hard", "hard", "soft").Value == "soft",
		MaxAge:             s.duration("maxAge", time.Second, 0),
		Refresh:            s.duration("refresh", time.Second, 0),
		LeafOnly:           s.find("fullChain") != nil && !s.boolean("fullChain"),
		CacheSize:          s.integer("cacheSize", 1, 1_000_000, 0),
	}
	s.notEmpty("crl", "name a file or a URL, or remove it")
	if len(m.load.errs) == before && len(p.CRL) == 0 && !p.DistributionPoints && !p.OCSP {
		m.load.errorf(s.Place, "revocation names nothing to look certificates up in: %s, or remove it", sources)
	}
	return control.Placed[revocation.Policy]{Place: s.Place, Value: p, Keys: s.keys()}
}

// revocationLists reads files, which become absolute, and URLs.
func (m *mapping) revocationLists(key string) (lists []string) {
	values, _ := m.texts(key)
	for _, v := range values {
		if !strings.Contains(v.Value, "://") {
			lists = append(lists, m.from.resolve(v.Value))
		} else if _, why := parseURL(v.Value); why != "" {
			m.load.errorf(v.Place, "%s %s: %s", key, printable.Quote(withoutUser(v.Value)), why)
		} else {
			lists = append(lists, v.Value)
		}
	}
	return lists
}

// withoutUser leaves out of a URL for messages what may be a password.
func withoutUser(s string) string {
	scheme, rest, _ := strings.Cut(s, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = "…" + rest[at:]
	}
	return scheme + "://" + rest
}
