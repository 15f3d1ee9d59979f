package listenerprofiles

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sallyport/internal/printable"
	"sallyport/listenerprofiles/keystore"
)

// Parse reads listenerprofiles.xml in WSO2's form, with our addition ServerName. It is strict: an unknown, repeated or
// misplaced element, attribute or word is an error. The error joins *ParseErrors, as many as are found at once; file is
// used in messages only.
//
// Nothing is resolved: paths stay relative, and passwords keep their ${env:NAME} and ${file:PATH}.
func Parse(file string, data []byte) ([]Settings, error) {
	root, err := readDocument(file, data)
	if err != nil {
		return nil, err
	}
	p := &parser{file: file}
	settings := p.profiles(root)
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b *ParseError) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		var problems []error
		for _, problem := range p.problems {
			problems = append(problems, problem)
		}
		return nil, join(problems)
	}
	return settings, nil
}

// A parser collects problems and continues.
type parser struct {
	file     string
	problems []*ParseError
}

func (p *parser) fail(e *element, format string, args ...any) {
	p.problems = append(p.problems, e.problem(p.file, format, args...))
}

func (p *parser) profiles(root *element) []Settings {
	if root.name != "parameter" {
		p.fail(root, `the root element is <parameter name="SSLProfiles">`)
		return nil
	}
	if len(root.attributes) != 1 || qualified(root.attributes[0].Name) != "name" || root.attributes[0].Value != "SSLProfiles" {
		p.fail(root, `the root element has the attribute name="SSLProfiles" and no other`)
	}
	p.noText(root)
	var settings []Settings
	lines := make(map[socketName]int)
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
		where := socketName{s.BindAddress, s.ServerName}
		if line, ok := lines[where]; ok {
			p.fail(child, "%s is there already, in line %d", s.Name, line)
			continue
		}
		lines[where] = s.Line
		settings = append(settings, s)
	}
	if len(root.children) == 0 && len(p.problems) == 0 {
		p.fail(root, "there is no <profile>: name one, or leave out dynamicSSLProfiles")
	}
	return settings
}

// A socketName tells the profiles of a file apart.
type socketName struct {
	addr netip.Addr
	name string
}

func (p *parser) profile(e *element) Settings {
	s := Settings{Line: e.line}
	parts := p.parts(e, "bindAddress", "ServerName", "KeyStore", "TrustStore", "SSLVerifyClient", "HttpsProtocols", "PreferredCiphers",
		"CertificateRevocationVerifier")
	if part := p.needed(e, parts, "bindAddress"); part != nil {
		word(p, part, parseBindAddress, &s.BindAddress)
	}
	if part := parts["ServerName"]; part != nil {
		word(p, part, parseServerName, &s.ServerName)
	}
	if part := p.needed(e, parts, "KeyStore"); part != nil {
		s.KeyStore = p.store(part, "Location", "Type", "Password", "KeyPassword", "ServerCertificateAlias")
	}
	if part := parts["TrustStore"]; part != nil {
		s.TrustStore = p.store(part, "Location", "Type", "Password")
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
		words(p, part, ParseProtocols, &s.Protocols)
	}
	if part := parts["PreferredCiphers"]; part != nil {
		words(p, part, ParseCiphers, &s.Ciphers)
	}
	if part := parts["CertificateRevocationVerifier"]; part != nil {
		p.revocation(part)
	}
	s.Name = profileName(s)
	return s
}

func (p *parser) store(e *element, allowed ...string) keystore.Ref {
	var ref keystore.Ref
	parts := p.parts(e, allowed...)
	if part := p.needed(e, parts, "Location"); part != nil {
		word(p, part, func(text string) (string, error) { return text, checkLocation(text) }, &ref.Location)
	}
	if part := parts["Type"]; part != nil {
		word(p, part, keystore.ParseType, &ref.Type)
	}
	if part := parts["ServerCertificateAlias"]; part != nil {
		word(p, part, func(text string) (string, error) { return text, nil }, &ref.Alias)
	}
	if ref.Type == "JKS" || ref.Type == "PKCS12" {
		p.needed(e, parts, "Password")
	}
	ref.Password = p.password(parts["Password"])
	ref.KeyPassword = p.password(parts["KeyPassword"])
	return ref
}

// password reads the text verbatim, as Java does. Messages don't show it.
func (p *parser) password(e *element) string {
	if e == nil {
		return ""
	}
	p.noChildren(e)
	text := e.text.String()
	if err := checkSecret(text); err != nil {
		p.fail(e, "%s", err)
	}
	return text
}

// revocation checks the element, and that revocation is switched off.
func (p *parser) revocation(e *element) {
	parts := p.parts(e, "Enable", "CacheSize", "CacheDelay", "FullChainValidation", "ExpiryValidation")
	var enabled, ignored bool
	if part := p.needed(e, parts, "Enable"); part != nil {
		word(p, part, parseBool, &enabled)
		if enabled {
			p.fail(part, "certificate revocation is not built yet")
		}
	}
	for _, name := range []string{"FullChainValidation", "ExpiryValidation"} {
		if part := parts[name]; part != nil {
			word(p, part, parseBool, &ignored)
		}
	}
	for _, name := range []string{"CacheSize", "CacheDelay"} {
		if part := parts[name]; part != nil {
			var n uint64
			word(p, part, func(text string) (uint64, error) {
				n, err := strconv.ParseUint(text, 10, 31)
				if err != nil {
					return 0, fmt.Errorf("%s is not a whole number", printable.Quote(text))
				}
				return n, nil
			}, &n)
		}
	}
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
			p.noAttributes(child)
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
		message := fmt.Sprintf("unknown attribute %s", printable.Quote(qualified(a.Name)))
		if a.Name.Local == "secretAlias" {
			message += ", write ${env:NAME} or ${file:PATH} in the element instead"
		}
		p.fail(e, "%s", message)
	}
	e.attributes = nil // reported once
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
	text := strings.Trim(e.text.String(), xmlSpace)
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
func words(p *parser, e *element, parse func([]string) ([]uint16, error), into *[]uint16) {
	word(p, e, func(text string) ([]uint16, error) {
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
