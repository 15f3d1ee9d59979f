package listenerprofiles

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/printable"
	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
)

// Parse reads listenerprofiles.xml in WSO2's form, with our addition ServerName. It is strict: an unknown, repeated or
// misplaced element, attribute or word is an error. The error joins *ParseErrors, as many as are found at once; file is
// used in messages only.
//
// Nothing is resolved: paths stay relative, and passwords keep their ${env:NAME} and ${file:PATH}.
func Parse(file string, data []byte) ([]Settings, error) {
	profiles, err := parse(file, data)
	var settings []Settings
	for _, w := range profiles {
		settings = append(settings, w.Settings)
	}
	return settings, err
}

func parse(file string, data []byte) ([]written, error) {
	root, err := readDocument(file, data)
	if err != nil {
		return nil, err
	}
	p := &parser{file: file}
	profiles := p.profiles(root)
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b *ParseError) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		var problems Problems
		for _, problem := range p.problems {
			problems = append(problems, problem)
		}
		return nil, join(problems)
	}
	return profiles, nil
}

// A parser collects problems and continues.
type parser struct {
	file     string
	problems []*ParseError
}

func (p *parser) fail(e *element, format string, args ...any) {
	p.problems = append(p.problems, e.problem(p.file, format, args...))
}

func (p *parser) profiles(root *element) []written {
	if root.name != "parameter" {
		p.fail(root, `the root element is <parameter name="SSLProfiles">`)
		return nil
	}
	if len(root.attributes) != 1 || qualified(root.attributes[0].Name) != "name" || root.attributes[0].Value != "SSLProfiles" {
		p.fail(root, `the root element has the attribute name="SSLProfiles" and no other`)
	}
	p.noText(root)
	var profiles []written
	lines := make(map[string]int) // by name
	for _, child := range root.children {
		if child.name != "profile" {
			p.fail(child, "unknown element in <parameter>")
			continue
		}
		before := len(p.problems)
		s := p.profile(child)
		if len(p.problems) > before {
			continue
		}
		if line, ok := lines[s.Name]; ok {
			p.fail(child, "%s is there already, in line %d", s.Name, line)
			continue
		}
		lines[s.Name] = s.Line
		profiles = append(profiles, s)
	}
	if len(root.children) == 0 && len(p.problems) == 0 {
		p.fail(root, "there is no <profile>: name one, or leave out dynamicSSLProfiles")
	}
	return profiles
}

// A socketName tells the profiles of a set apart.
type socketName struct {
	addr netip.Addr
	name string
}

func (p *parser) profile(e *element) written {
	s := written{
		Settings: Settings{Line: e.line},
		places:   map[Part]place{{}: e.place()},
		aliases:  map[Part]string{},
	}
	parts := p.parts(e, "bindAddress", "ServerName", "KeyStore", "TrustStore", "SSLVerifyClient", "HttpsProtocols", "PreferredCiphers",
		"CertificateRevocationVerifier")
	if part := p.needed(e, parts, "bindAddress"); part != nil {
		var at bind
		word(p, part, parseBindAddress, &at)
		s.BindAddress, s.BindHost = at.addr, at.host
	}
	if part := parts["ServerName"]; part != nil {
		word(p, part, parseServerName, &s.ServerName)
	}
	if part := p.needed(e, parts, "KeyStore"); part != nil {
		p.keyStore(&s, part)
	}
	if part := parts["TrustStore"]; part != nil {
		s.TrustStore = p.store(&s, part, "Location", "Type", "Password")
	}
	if part := parts["SSLVerifyClient"]; part != nil {
		word(p, part, ParseVerifyClient, &s.VerifyClient)
	}
	if s.VerifyClient != None && parts["TrustStore"] == nil {
		p.fail(e,
			"<TrustStore> is missing: client certificates are asked for (%s), and there is nothing to judge them by",
			s.VerifyClient)
	}
	if part := parts["HttpsProtocols"]; part != nil {
		p.protocols(&s, part)
	}
	if part := parts["PreferredCiphers"]; part != nil {
		words(p, part, ParseCiphers, &s.Ciphers)
	}
	if part := parts["CertificateRevocationVerifier"]; part != nil {
		p.revocation(&s, part)
	}
	for name, part := range parts {
		s.places[Part{Element: name}] = part.place()
	}
	s.Name = profileName(s.Settings)
	return s
}

// protocols reads HttpsProtocols. WSO2 writes older versions by default: they are left out with a warning.
func (p *parser) protocols(s *written, e *element) {
	words(p, e, func(list []string) ([]uint16, error) {
		versions, old, err := readProtocols(list)
		switch {
		case err != nil || len(old) == 0:
		case len(versions) == 0:
			err = fmt.Errorf("nothing is left to serve, these are older than TLS 1.2: %s; name TLSv1.2 or TLSv1.3", strings.Join(old, ", "))
		default:
			s.warnings = append(s.warnings, e.problem(p.file,
				"older than TLS 1.2, and never served: %s", strings.Join(old, ", ")))
		}
		return versions, err
	}, &s.Protocols)
}

// storeParts are the elements of KeyStore and TrustStore.
var storeParts = map[string]keystore.Part{
	"Location":               keystore.Location,
	"Type":                   keystore.Type,
	"Password":               keystore.Password,
	"KeyPassword":            keystore.KeyPassword,
	"ServerCertificateAlias": keystore.Alias,
	"Names":                  Names,
	"KeyTypes":               KeyTypes,
}

// keyStore reads a KeyStore, whose elements depend on its Type.
func (p *parser) keyStore(s *written, e *element) {
	if !slices.ContainsFunc(e.children, func(c *element) bool { return c.name == "Type" && IsACME(c.word()) }) {
		p.refuse(e, "belongs to type ACME: remove it", "Names", "KeyTypes")
		s.KeyStore = p.store(s, e, "Location", "Type", "Password", "KeyPassword", "ServerCertificateAlias")
		return
	}
	p.refuse(e, "has no meaning with type ACME, whose keys a CA issues: remove it", "Location", "Password", "KeyPassword",
		"ServerCertificateAlias")
	parts := p.parts(e, "Type", "Names", "KeyTypes")
	for name, part := range parts {
		s.places[Part{e.name, storeParts[name]}] = part.place()
	}
	if part := parts["Type"]; part != nil {
		p.noChildren(part)
	}
	s.Order.KeyTypes, _ = ParseKeyTypes(nil)
	if part := parts["KeyTypes"]; part != nil {
		words(p, part, ParseKeyTypes, &s.Order.KeyTypes)
	}
	switch part := parts["Names"]; {
	case part != nil:
		words(p, part, ParseNames, &s.Order.Names)
	case s.ServerName == "" || strings.HasPrefix(s.ServerName, "*"):
		p.fail(e, "<Names> is missing, and no <ServerName> says the one host: name the hosts that certificates are for")
	default:
		s.Order.Names = []string{s.ServerName}
	}
}

// refuse takes elements out of e that are known and not allowed here.
func (p *parser) refuse(e *element, why string, names ...string) {
	e.children = slices.DeleteFunc(e.children, func(c *element) bool {
		refused := slices.Contains(names, c.name)
		if refused {
			p.fail(c, "%s", why)
		}
		return refused
	})
}

func (p *parser) store(s *written, e *element, allowed ...string) keystore.Ref {
	var ref keystore.Ref
	parts := p.parts(e, allowed...)
	for name, part := range parts {
		s.places[Part{e.name, storeParts[name]}] = part.place()
	}
	if part := p.needed(e, parts, "Location"); part != nil {
		word(p, part, func(text string) (string, error) { return text, checkLocation(text) }, &ref.Location)
	}
	if part := parts["Type"]; part != nil {
		word(p, part, keystore.ParseType, &ref.Type)
	}
	if part := parts["ServerCertificateAlias"]; part != nil {
		word(p, part, func(text string) (keystore.Aliases, error) { return keystore.JoinAliases(text), nil }, &ref.Alias)
	}
	if ref.Type == "JKS" || ref.Type == "PKCS12" {
		p.needed(e, parts, "Password")
	}
	password := func(of keystore.Part) (text string) {
		if part := parts[string(of)]; part != nil {
			text, s.aliases[Part{e.name, of}] = p.password(part)
		}
		return text
	}
	ref.Password, ref.KeyPassword = password(keystore.Password), password(keystore.KeyPassword)
	return ref
}

// secureVault is the namespace of secretAlias. The prefix that is bound to it is svns in WSO2's files.
const secureVault = "http://org.wso2.securevault/configuration"

// password reads the text verbatim, as Java does, or the alias under which WSO2's secure vault has the password: an
// attribute, beside which the text does not count, or the text $secret{ALIAS}, which a deployment.toml with encrypted
// secrets leaves. Messages don't show the text.
func (p *parser) password(e *element) (text, alias string) {
	p.noChildren(e)
	for _, a := range e.attributes {
		switch {
		case a.Name != xml.Name{Space: secureVault, Local: "secretAlias"}:
			p.unknownAttribute(e, a)
		case alias != "":
			p.fail(e, "secretAlias is here twice")
		case strings.Trim(a.Value, xmlSpace) == "":
			p.fail(e, "secretAlias is empty: name the alias of the password")
		default:
			alias = strings.Trim(a.Value, xmlSpace)
		}
	}
	text = e.text.String()
	if rest, ok := strings.CutPrefix(strings.Trim(text, xmlSpace), "$secret{"); ok && alias == "" {
		if rest, ok = strings.CutSuffix(rest, "}"); ok {
			alias = rest
		}
	}
	if alias != "" {
		return "", alias
	}
	if err := checkSecret(text); err != nil {
		p.fail(e, "%s", err)
	}
	return text, ""
}

// revocation reads CertificateRevocationVerifier: a Policy that is on, or its zero value if it is switched off.
func (p *parser) revocation(s *written, e *element) {
	enabled, said := p.enableAttribute(e)
	parts := p.parts(e, "Enable", "CacheSize", "CacheDelay", "FullChainValidation", "ExpiryValidation")
	switch part := parts["Enable"]; {
	case part != nil && said:
		p.fail(part, "the attribute enable says it already: keep one of both")
	case part != nil:
		word(p, part, parseBool, &enabled)
	case !said:
		p.fail(e, "<Enable> is missing")
	}
	full, expiry := true, true
	for name, into := range map[string]*bool{"FullChainValidation": &full, "ExpiryValidation": &expiry} {
		if part := parts[name]; part != nil {
			word(p, part, parseBool, into)
		}
	}
	if enabled {
		p.needed(e, parts, "CacheSize")
		p.needed(e, parts, "CacheDelay")
	}
	// The bounds are WSO2's, which takes its own defaults beyond them.
	size := p.bounded(s, enabled, parts["CacheSize"], 51, 9_999, "10000 answers are remembered")
	delay := p.bounded(s, enabled, parts["CacheDelay"], 2, 1_439, "it is 5 minutes")
	if !enabled {
		return
	}
	if part := parts["ExpiryValidation"]; part != nil && !expiry {
		s.warnings = append(s.warnings, part.problem(p.file, "false has no effect: expired certificates are never admitted"))
	}
	if s.VerifyClient == None {
		s.warnings = append(s.warnings, e.problem(p.file, "nothing is looked up: SSLVerifyClient none asks for no certificate"))
		return
	}
	s.Revocation = revocation.Policy{
		OCSP:               true,
		DistributionPoints: true,
		LeafOnly:           !full,
		CacheSize:          size,
		Refresh:            time.Duration(delay) * time.Minute,
	}
}

// enableAttribute takes the attribute enable out of e, by which axis2.xml switches the verifier on and off.
func (p *parser) enableAttribute(e *element) (enabled, said bool) {
	e.attributes = slices.DeleteFunc(e.attributes, func(a xml.Attr) bool {
		if qualified(a.Name) != "enable" {
			return false
		}
		var err error
		if enabled, err = parseBool(strings.Trim(a.Value, xmlSpace)); err != nil {
			p.fail(e, "attribute enable: %s", err)
		}
		said = true
		return true
	})
	return enabled, said
}

// bounded reads a whole number as Java does. One beyond low and high counts as 0, with a warning if that matters.
func (p *parser) bounded(s *written, matters bool, e *element, low, high int, instead string) int {
	if e == nil {
		return 0
	}
	n, before := 0, len(p.problems)
	word(p, e, func(text string) (int, error) {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%s is not a whole number", printable.Quote(text))
		}
		return int(n), nil
	}, &n)
	if n >= low && n <= high || len(p.problems) > before {
		return n
	}
	if matters {
		s.warnings = append(s.warnings, e.problem(p.file, "%d does not count, as in WSO2, since it is not from %d to %d: %s", n, low, high, instead))
	}
	return 0
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("unknown word %s, it is one of true, false", printable.Quote(text))
}

// parts returns e's children by name. Unknown and repeated ones, attributes and stray text are problems.
func (p *parser) parts(e *element, allowed ...string) map[string]*element {
	p.noAttributes(e)
	p.noText(e)
	parts := make(map[string]*element, len(e.children))
	for _, child := range e.children {
		switch {
		case !slices.Contains(allowed, child.name):
			message := fmt.Sprintf("unknown element in <%s>", e.name)
			for _, name := range allowed {
				if strings.EqualFold(name, child.name) {
					message += ", it is written <" + name + ">"
				}
			}
			p.fail(child, "%s", message)
		case parts[child.name] != nil:
			p.fail(child, "repeated, the first is in line %d", parts[child.name].line)
		default:
			switch child.name {
			case "Password", "KeyPassword", "CertificateRevocationVerifier": // their readers do
			default:
				p.noAttributes(child)
			}
			parts[child.name] = child
		}
	}
	return parts
}

func (p *parser) needed(e *element, parts map[string]*element, name string) *element {
	if parts[name] == nil {
		p.fail(e, "<%s> is missing", name)
	}
	return parts[name]
}

func (p *parser) noAttributes(e *element) {
	for _, a := range e.attributes {
		p.unknownAttribute(e, a)
	}
	e.attributes = nil // reported once
}

func (p *parser) unknownAttribute(e *element, a xml.Attr) {
	message := fmt.Sprintf("unknown attribute %s", printable.Quote(qualified(a.Name)))
	switch {
	case a.Name.Local != "secretAlias":
	case a.Name.Space == secureVault:
		message = "secretAlias belongs to <Password> and <KeyPassword>"
	default:
		message += `, secretAlias is known with a prefix that xmlns:PREFIX="` + secureVault + `" declares`
	}
	p.fail(e, "%s", message)
}

func (p *parser) noText(e *element) {
	if strings.Trim(e.text.String(), xmlSpace) != "" {
		p.fail(e, "text where only elements belong")
	}
}

func (p *parser) noChildren(e *element) {
	for _, child := range e.children {
		p.fail(child, "unknown element in <%s>", e.name)
	}
}

// word reads an element that holds a single value.
func word[T any](p *parser, e *element, parse func(string) (T, error), into *T) {
	p.noChildren(e)
	text := e.word()
	if text == "" {
		p.fail(e, "is empty: give it a value or leave it out")
		return
	}
	value, err := parse(text)
	if err != nil {
		p.fail(e, "%s", err)
		return
	}
	*into = value
}

// words reads an element that holds a comma list. As in WSO2, white space and empty places don't count.
func words[T any](p *parser, e *element, parse func([]string) ([]T, error), into *[]T) {
	word(p, e, func(text string) ([]T, error) {
		list := strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
		for i := range list {
			list[i] = strings.Trim(list[i], xmlSpace)
		}
		list = slices.DeleteFunc(list, func(s string) bool { return s == "" })
		if len(list) == 0 {
			return nil, errors.New("names nothing: leave it out")
		}
		return parse(list)
	}, into)
}
