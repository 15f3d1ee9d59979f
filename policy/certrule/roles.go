package certrule

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/internal/printable"
)

// ScopesFrom says which scopes an API gives for what a certificate says. Values are compared whole, byte for byte but for
// the case of a URI's scheme and host. The scopes are taken as they are: who reads them has checked them.
type ScopesFrom struct {
	SubjectOU map[string][]string // by an organizational unit of the subject
	SANURI    map[string][]string // by a URI of the subjectAltName
	// Extension is by a value of an extension, which is a UTF8String, PrintableString or IA5String, or a SEQUENCE OF them.
	Extension ExtensionScopes
	PSD2Roles map[string][]string // by a role of a PSD2 statement; see PSD2Roles
}

// ExtensionScopes are the scopes that an extension's values stand for.
type ExtensionScopes struct {
	OID    string
	Values map[string][]string
}

// readExtensions are those that are no texts, or that have a rule of their own.
var readExtensions = []string{oidSubjectAltName, oidQCStatements}

// Compile returns the roles to decide with, nil if there are none. The error says which is no good, and why.
func (s ScopesFrom) Compile() (*Roles, error) {
	r := &Roles{ou: s.SubjectOU, extension: s.Extension.Values, oid: s.Extension.OID, psd2: s.PSD2Roles}
	for _, list := range []struct {
		key   string
		roles map[string][]string
	}{{"subjectOU", s.SubjectOU}, {"sanURI", s.SANURI}, {"extension", s.Extension.Values}, {"psd2Roles", s.PSD2Roles}} {
		for _, role := range slices.Sorted(maps.Keys(list.roles)) {
			if err := CheckRole(list.key, role); err != nil {
				return nil, err
			}
			if len(list.roles[role]) == 0 {
				return nil, fmt.Errorf("%s %s stands for no scope", list.key, printable.Quote(role))
			}
		}
	}
	for _, role := range slices.Sorted(maps.Keys(s.SANURI)) {
		u, _ := parseURI(role) // it was checked
		if r.uri == nil {
			r.uri = map[string][]string{}
		}
		r.uri[u.text] = slices.Concat(r.uri[u.text], s.SANURI[role])
	}
	if len(s.Extension.Values) > 0 || s.Extension.OID != "" {
		if err := CheckExtension(s.Extension.OID); err != nil {
			return nil, err
		}
	}
	if len(r.ou)+len(r.uri)+len(r.extension)+len(r.psd2) == 0 {
		return nil, nil
	}
	return r, nil
}

// CheckRole returns what is wrong with a value that stands for scopes under subjectOU, sanURI, extension or psd2Roles, or nil.
func CheckRole(key, value string) error {
	_, isURI := parseURI(value)
	switch {
	case !isPlain(value):
		return fmt.Errorf("%s %s is empty, too long, no UTF-8, or has a control character", key, printable.Quote(value))
	case key == "sanURI" && strings.HasSuffix(value, "/*"):
		return fmt.Errorf("%s %s: URIs of roles are compared whole: name each", key, printable.Quote(value))
	case key == "sanURI" && !isURI:
		return fmt.Errorf("%s %s is no URI that can be compared, as in spiffe://partner.test/billing", key, printable.Quote(value))
	case key == "psd2Roles" && !slices.Contains(PSD2Roles(), value):
		return fmt.Errorf("%s %s is none of %s", key, printable.Quote(value), strings.Join(PSD2Roles(), ", "))
	}
	return nil
}

// CheckExtension returns what is wrong with the object identifier of an extension that roles may be by, or nil.
func CheckExtension(oid string) error {
	if _, err := parseOID(oid); err != nil {
		return fmt.Errorf("extension: %w", err)
	}
	if slices.Contains(readExtensions, oid) {
		return errors.New("extension " + oid + " is no text: name sanURI or psd2Roles instead")
	}
	return nil
}

// Roles are a ScopesFrom to decide with. They never change. Nil gives no scope.
type Roles struct {
	ou, uri, extension, psd2 map[string][]string
	oid                      string
}

// A Role is what a certificate says, and the scopes that it stands for.
type Role struct {
	Kind   string // subjectOU, sanURI, extension or psd2Roles
	Value  string
	Scopes []string
}

// each calls f with each role that the certificate has, until it returns false.
func (r *Roles) each(facts *Facts, f func(Role) bool) {
	if r == nil || facts == nil {
		return
	}
	for _, ou := range facts.OU {
		if scopes := r.ou[ou]; scopes != nil && !f(Role{"subjectOU", ou, scopes}) {
			return
		}
	}
	for _, u := range facts.uris {
		if scopes := r.uri[u.text]; scopes != nil && !f(Role{"sanURI", u.text, scopes}) {
			return
		}
	}
	for i := range facts.extensions {
		if facts.extensions[i].oid != r.oid {
			continue
		}
		for _, value := range facts.extensions[i].values {
			if scopes := r.extension[value]; scopes != nil && !f(Role{"extension", value, scopes}) {
				return
			}
		}
	}
	for _, role := range facts.PSD2 {
		if scopes := r.psd2[role]; scopes != nil && !f(Role{"psd2Roles", role, scopes}) {
			return
		}
	}
}

// Of returns the roles that a certificate has; nil, and nothing allocated, if it has none.
func (r *Roles) Of(f *Facts) (roles []Role) {
	r.each(f, func(role Role) bool {
		roles = append(roles, role)
		return true
	})
	return roles
}

// Scopes returns the scopes that a certificate's roles stand for, each once; nil, and nothing allocated, if it has none.
func (r *Roles) Scopes(f *Facts) (scopes []string) {
	r.each(f, func(role Role) bool {
		for _, scope := range role.Scopes {
			if !slices.Contains(scopes, scope) {
				scopes = append(scopes, scope)
			}
		}
		return true
	})
	return scopes
}

// Any reports whether the certificate has a role. It does not allocate.
func (r *Roles) Any(f *Facts) bool {
	found := false
	r.each(f, func(Role) bool {
		found = true
		return false
	})
	return found
}

// Give reports whether the certificate's roles stand for one of the scopes, or for "*", which is all of them. It does not
// allocate.
func (r *Roles) Give(f *Facts, wanted []string) bool {
	found := false
	r.each(f, func(role Role) bool {
		found = slices.ContainsFunc(role.Scopes, func(scope string) bool { return scope == "*" || slices.Contains(wanted, scope) })
		return !found
	})
	return found
}

// Equal reports whether both give the same scopes for the same.
func (r *Roles) Equal(other *Roles) bool {
	if r == nil || other == nil {
		return r == other
	}
	same := func(a, b map[string][]string) bool { return maps.EqualFunc(a, b, slices.Equal[[]string]) }
	return r.oid == other.oid && same(r.ou, other.ou) && same(r.uri, other.uri) && same(r.extension, other.extension) && same(r.psd2, other.psd2)
}
