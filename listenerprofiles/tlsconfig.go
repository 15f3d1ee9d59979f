package listenerprofiles

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
)

// newProfile makes s ready to serve, but for its ticket keys. trusted is the content of its trust store.
func newProfile(s Settings, from source, trusted []byte, checker *revocation.Checker, cfg Options) (*Profile, []PartError) {
	p := &Profile{Settings: s, Vouching: cfg.Vouching, source: from}
	var problems []PartError
	fault := func(element string, err error) {
		part := Part{Element: element}
		if of := (*keystore.Fault)(nil); errors.As(err, &of) {
			part.Of = of.Part
		}
		problems = append(problems, PartError{s.Name, part, err})
	}
	keys, err := from.keys(cfg.Now())
	if err != nil {
		fault("KeyStore", err)
	}
	if from.had == nil {
		p.source = source{KeySource: heldKeys(keys)}
	}
	p.skippedKeys, p.Leafs, p.From, p.Challenge = keys.Skipped, keys.leafs(), keys.From, keys.Challenge
	if s.TrustStore.Location != "" {
		if p.Trust, err = trust.Open(trusted, s.TrustStore); err != nil {
			fault("TrustStore", err)
		}
	} else if s.VerifyClient != None {
		fault("TrustStore", fmt.Errorf("client certificates are asked for (%s), and there is no trust store to judge "+
			"them: name one, or say none", s.VerifyClient))
	}
	if element, err := checkWords(s, keys.Pairs); err != nil {
		fault(element, err)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	p.rules = trust.Rules{Anchors: p.Trust, Registered: p.Vouching, Revocation: checker}
	p.TLS = tlsConfig(s, keys.Pairs, &p.rules, cfg)
	if s.VerifyClient != None {
		p.Any = p.TLS.Clone()
		p.Any.ClientCAs = x509.NewCertPool()
	}
	return p, nil
}

// checkWords checks that protocols, ciphers and keys fit together, so that no profile is loaded that no client can
// use. With an error it returns the element at fault.
func checkWords(s Settings, pairs []tls.Certificate) (element string, err error) {
	switch s.VerifyClient {
	case None, Optional, Require:
	default:
		return "SSLVerifyClient", fmt.Errorf("unknown value %d", int(s.VerifyClient))
	}
	for _, v := range s.Protocols {
		if v != tls.VersionTLS12 && v != tls.VersionTLS13 {
			return "HttpsProtocols", fmt.Errorf("%s is refused", tls.VersionName(v))
		}
	}
	for _, c := range s.Ciphers {
		if !slices.Contains(defaultCiphers, c) {
			return "PreferredCiphers", fmt.Errorf("%s is refused", tls.CipherSuiteName(c))
		}
	}
	if s.Ciphers == nil || !(len(s.Protocols) == 0 || slices.Contains(s.Protocols, tls.VersionTLS12)) {
		return "", nil
	}
	if len(s.Ciphers) == 0 {
		return "PreferredCiphers", errors.New("names no suite of TLS 1.2, while TLSv1.2 is enabled; " +
			"leave TLSv1.2 out of HttpsProtocols if that is meant")
	}
	types := keyTypes(s, pairs)
	for _, isRSA := range types {
		if slices.ContainsFunc(s.Ciphers, func(c uint16) bool { return byRSA(c) == isRSA }) {
			return "", nil
		}
	}
	if len(types) == 0 {
		return "", nil // reported already
	}
	return "PreferredCiphers", errors.New("names no suite of TLS 1.2 that goes with the server's key")
}

// keyTypes tells of each of the server's keys, or of those that it is to get from a CA, whether it is RSA.
func keyTypes(s Settings, pairs []tls.Certificate) (isRSA []bool) {
	for _, kind := range s.Order.KeyTypes {
		isRSA = append(isRSA, kind == "rsa")
	}
	for i := range pairs {
		isRSA = append(isRSA, usesRSA(&pairs[i]))
	}
	return isRSA
}

// byRSA reports whether a TLS 1.2 suite authenticates with an RSA key, or else with one on a curve.
func byRSA(suite uint16) bool {
	switch suite {
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return true
	}
	return false
}

// tlsConfig never leaves ClientCAs nil when certificates are asked for: nil would mean the system's roots. With these
// kinds of ClientAuth it is only the list of names to send: crypto/tls does not verify by it.
func tlsConfig(s Settings, pairs []tls.Certificate, rules *trust.Rules, cfg Options) *tls.Config {
	c := &tls.Config{
		GetCertificate: newChoice(pairs, cfg.Now).get, // in the place of Certificates, to be asked for every client
		MinVersion:     tls.VersionTLS12,
		MaxVersion:     tls.VersionTLS13,
		CipherSuites:   slices.Clone(s.Ciphers),
		NextProtos:     []string{"h2", "http/1.1"},
		ClientAuth:     tls.NoClientCert,
		Time:           cfg.Now,
	}
	if len(s.Protocols) > 0 {
		c.MinVersion, c.MaxVersion = slices.Min(s.Protocols), slices.Max(s.Protocols)
	}
	if len(c.CipherSuites) == 0 {
		c.CipherSuites = slices.Clone(defaultCiphers)
	}
	switch s.VerifyClient {
	case None:
	case Optional:
		c.ClientAuth = tls.RequestClientCert
		c.ClientCAs = askedFor(rules.Anchors, cfg.AlsoAskFor)
		c.VerifyConnection = func(state tls.ConnectionState) error { return hold(cfg.Shown, state.PeerCertificates) }
	default:
		c.ClientAuth = tls.RequireAnyClientCert
		c.ClientCAs = askedFor(rules.Anchors, cfg.AlsoAskFor)
		c.VerifyConnection = good(rules, cfg)
	}
	return c
}

// maxAskedFor is how many bytes of names a CertificateRequest may hold. The message is limited to 64 KiB, and
// Java's clients accept 32 KiB.
const maxAskedFor = 30 << 10

// askedFor returns a pool with each subject of the stores once, for CertificateRequest. If there are too many it is
// empty, which asks for a certificate of any issuer (RFC 8446 section 4.2.4, RFC 5246 section 7.4.4): with some of the
// names only, clients of the others would not send theirs.
func askedFor(stores ...*trust.Anchors) *x509.CertPool {
	pool, size := x509.NewCertPool(), 0
	named := make(map[string]bool)
	for _, anchors := range stores {
		if anchors == nil {
			continue
		}
		for _, cert := range anchors.Certificates() {
			if subject := string(cert.RawSubject); !named[subject] {
				named[subject] = true
				size += 2 + len(subject)
				pool.AddCert(cert)
			}
		}
	}
	if size > maxAskedFor {
		return x509.NewCertPool()
	}
	return pool
}

// good returns a check that ends the handshake of a client whose certificates are beyond the bounds, or not good by rules,
// or denied. Nothing is waited for: where it has to be asked first whether one is revoked, calls wait. As VerifyConnection
// it also runs on resumption, which VerifyPeerCertificate does not, and
// before crypto/tls verifies the client's own signature. Which APIs a registration admits to is judged call by call.
func good(rules *trust.Rules, cfg Options) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		chain := state.PeerCertificates
		if err := hold(cfg.Shown, chain); err != nil {
			return err
		}
		registered := cfg.Registered != nil && cfg.Vouching != trust.None && len(chain) > 0 && cfg.Registered(sha256.Sum256(chain[0].Raw))
		var issuers *trust.Issuers
		if cfg.Issuers != nil {
			issuers = cfg.Issuers()
		}
		now := cfg.Now()
		v, err := rules.Judge(chain, registered, issuers, now)
		if err == nil {
			err = holdStanding(rules.Standing(chain[0], v), cfg, now)
		}
		if cause := trust.CauseOf(err); err != nil && cause != trust.StatusUnknown {
			return &Refused{string(cause), err}
		}
		return nil
	}
}

// holdStanding returns why a certificate that was found good is not, by the deny list and by what issuers have revoked.
func holdStanding(s *trust.Standing, cfg Options, now time.Time) error {
	if cfg.Denied != nil {
		if entry := s.Denied(cfg.Denied()); entry != nil {
			return trust.DeniedBy(entry)
		}
	}
	return s.Check(now)
}

func hold(shown trust.Bounds, chain []*x509.Certificate) error {
	if err := shown.Hold(chain); err != nil {
		return &Refused{string(trust.TooLarge), err}
	}
	return nil
}

// Refused is why a client's certificates ended the handshake that they were shown in.
type Refused struct {
	Why string // one of trust's Causes
	error
}

// Unwrap returns the cause.
func (r *Refused) Unwrap() error { return r.error }
