package config

import (
	"errors"
	"fmt"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/clientcert"
	"sallyport/gateway/control"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
	"sallyport/policy"
	"sallyport/policy/ratelimit"
	"sallyport/policy/token"
)

// Spec translates c for the rooms that serve it. What a room refuses is among the Spec's Problems.
func (c *Config) Spec() *control.Spec {
	m := c.MutualSSL
	s := &control.Spec{
		Place:       control.Place{File: c.File},
		Digest:      c.digest,
		Files:       c.Files,
		Globs:       c.Globs,
		Period:      m.CertificateReloadPeriod,
		Header:      clientcert.DoorConfig{Header: m.ClientCertificateHeader, Balancers: m.LoadBalancers.Addresses},
		HeaderTrust: placedRef(m.TrustStore),
		Balancers:   placedRef(m.LoadBalancers.TrustStore),
		Routing: decision.Settings{
			CertificateHeader:  m.ClientCertificateHeader,
			ForwardCertificate: m.ForwardClientCertificateHeader,
		},
		Store: control.Placed[string]{Place: control.Place(c.StorePos), Value: c.Store},
		Fixed: c.fixed(),
	}
	for _, w := range c.Warnings {
		s.Warnings.Add(control.Place(w.Pos), errors.New(w.Message))
	}
	var err error
	s.Header.Format, err = clientcert.ParseFormat(m.HeaderFormat)
	s.Problems.Add(control.Place(m.Pos), err)
	for _, l := range c.Listeners {
		s.Listeners = append(s.Listeners, l.spec(s))
	}
	s.Tiers = c.tiers(&s.Problems)
	s.Clients = c.clients(&s.Problems)
	for _, k := range c.KeyManagers {
		s.KeyManagers = append(s.KeyManagers, control.Placed[token.KeyManager]{
			Place: control.Place(k.Pos),
			Value: token.KeyManager{
				Name:            k.Name,
				Type:            k.Type,
				Issuer:          k.Issuer,
				JWKS:            k.JWKS,
				CertificateFile: k.Certificate,
				CAFile:          k.CAFile,
				TokenType:       k.TokenType,
			},
		})
	}
	for _, api := range c.APIs {
		s.APIs = append(s.APIs, api.spec(s))
	}
	return s
}

// AllTiers returns the tiers that may be named, the built-in ones included. The error is Errors.
func (c *Config) AllTiers() (*ratelimit.Tiers, error) {
	var problems control.Problems
	tiers := c.tiers(&problems)
	return tiers, placed(problems)
}

// FileClients returns the certificates that API files register. The error is Errors.
func (c *Config) FileClients() ([]certstore.Client, error) {
	var problems control.Problems
	clients := c.clients(&problems)
	return clients, placed(problems)
}

// fixed returns the settings that a running gateway cannot follow, by key.
func (c *Config) fixed() map[string]any {
	log, limits := c.Log, c.Limits
	log.Pos, limits.Pos = Pos{}, Pos{} // a setting that has only moved is the same
	var status *Status
	if c.Status != nil {
		unplaced := *c.Status
		unplaced.Pos = Pos{}
		status = &unplaced
	}
	return map[string]any{"status": status, "log": log, "limits": limits, "drainTimeout": c.DrainTimeout}
}

func (l *Listener) spec(s *control.Spec) control.Listener {
	out := control.Listener{
		Place: control.Place(l.Pos),
		Listener: decision.Listener{
			Name:              l.Name,
			Address:           l.Address,
			DoorByCertificate: l.ClientCertificateHeader == "certificate",
		},
		Believes: l.ClientCertificateHeader != "off",
	}
	if !l.TLS() {
		return out
	}
	verify, err1 := listenerprofiles.ParseVerifyClient(l.SSLVerifyClient)
	protocols, err2 := listenerprofiles.ParseProtocols(l.HTTPSProtocols)
	ciphers, err3 := listenerprofiles.ParseCiphers(l.PreferredCiphers)
	s.Problems.Add(out.Place, errors.Join(err1, err2, err3))
	out.TLS = &listenerprofiles.Config{
		Listener: l.Name,
		Own: listenerprofiles.Settings{
			Name: "listener " + l.Name, VerifyClient: verify, Protocols: protocols, Ciphers: ciphers,
			KeyStore: placedRef(l.KeyStore).Value, TrustStore: placedRef(l.TrustStore).Value,
		},
	}
	if d := l.DynamicSSLProfiles; d != nil {
		out.TLS.FilePath, out.TLS.BaseDir, out.FileReadInterval = d.FilePath, d.BaseDir, d.FileReadInterval
	}
	return out
}

// placedRef returns an empty Ref for nil.
func placedRef(k *KeyStore) control.Placed[keystore.Ref] {
	if k == nil {
		return control.Placed[keystore.Ref]{}
	}
	return control.Placed[keystore.Ref]{
		Place: control.Place(k.Pos),
		Value: keystore.Ref{
			Location:    k.Location,
			Type:        k.Type,
			Alias:       k.Alias,
			Password:    k.Password.Reveal(),
			KeyPassword: k.KeyPassword.Reveal(),
		},
	}
}

func (c *Config) tiers(problems *control.Problems) *ratelimit.Tiers {
	var own []ratelimit.Tier
	for _, t := range c.Tiers {
		unit, err := ratelimit.ParseUnit(t.TimeUnit)
		problems.Add(control.Place(t.Pos), err)
		own = append(own, ratelimit.Tier{
			Name:         t.Name,
			RequestCount: t.RequestCount,
			UnitTime:     t.UnitTime,
			TimeUnit:     unit,
			Burst:        t.Burst,
		})
	}
	tiers, err := ratelimit.NewTiers(own)
	problems.Add(control.Place{File: c.File}, err)
	return tiers
}

func (c *Config) clients(problems *control.Problems) (list []certstore.Client) {
	for _, api := range c.APIs {
		for _, certificate := range api.ClientCertificates {
			client, err := certificate.client(api)
			problems.Add(control.Place(certificate.Pos), err)
			list = append(list, client)
		}
	}
	if len(*problems) == 0 {
		_, err := certstore.NewIndex(list)
		problems.Add(control.Place{File: c.File}, err)
	}
	return list
}

func (api *API) spec(s *control.Spec) control.API {
	out := control.API{
		Place:    control.Place(api.Pos),
		Tier:     api.Policy,
		CAFile:   api.Upstream.CAFile,
		KeyStore: placedRef(api.Upstream.KeyStore).Value,
	}
	upstream, err := api.Upstream.spec()
	s.Problems.Add(out.Place, err)
	out.Route = decision.Route{
		API:                  api.key(),
		Context:              api.Context,
		DefaultVersion:       api.DefaultVersion,
		Hosts:                api.Hosts,
		Listeners:            api.Listeners,
		Security:             api.demands,
		Audiences:            api.Audiences,
		ForwardAuthorization: api.ForwardAuthorization,
		MaxBody:              api.MaxBodySize,
		Upstream:             upstream,
	}
	if api.demands.Token != policy.Off {
		out.KeyManagers = api.KeyManagers
	}
	for _, r := range api.Resources {
		one := decision.Resource{Path: r.Path, Methods: r.Methods, Scopes: r.Scopes, Security: api.demands}
		if r.Security != nil {
			one.Security, err = policy.ParseSecurity(r.Security, api.Precedence)
			s.Problems.Add(control.Place(r.Pos), err)
		}
		out.Resources, out.ResourceTiers = append(out.Resources, one), append(out.ResourceTiers, r.Policy)
	}
	return out
}

func (u *Upstream) spec() (backend.Upstream, error) {
	out := backend.Upstream{
		URLs:         u.URLs,
		SandboxURLs:  u.SandboxURLs,
		PreserveHost: u.PreserveHost,
		Timeout:      u.Timeout,
		MaxCalls:     u.MaxCalls,
	}
	switch u.Protocol {
	case "http1":
	case "h2":
		out.Protocol = backend.HTTP2
	case "h2c":
		out.Protocol = backend.H2C
	default:
		return out, fmt.Errorf("unknown upstream protocol %q", u.Protocol)
	}
	return out, nil
}

func (c *ClientCertificate) client(api API) (certstore.Client, error) {
	certificate, err := certstore.ParseCertificate(c.Data)
	if err != nil {
		return certstore.Client{}, fmt.Errorf("certificate %s: %w", c.File, err)
	}
	keyType, err := certstore.ParseKeyType(c.KeyType)
	return certstore.Client{
		API: api.key(), Alias: c.Alias, KeyType: keyType, Tier: c.Tier,
		Scopes: c.Scopes, Certificate: certificate, Source: c.Pos.String(),
	}, err
}

// Placed turns control.Problems in err into Errors. Other errors stay as they are.
func Placed(err error) error {
	var problems control.Problems
	if !errors.As(err, &problems) {
		return err
	}
	return placed(problems)
}

func placed(problems control.Problems) error {
	var list Errors
	for _, p := range problems {
		list = append(list, Error{Pos(p.Place), p.Message})
	}
	if list == nil {
		return nil
	}
	return list
}
