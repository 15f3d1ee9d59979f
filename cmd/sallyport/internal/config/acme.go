package config

import (
	"encoding/base64"
	"net/mail"
	"net/url"
	"strings"

	"sallyport/certstore"
	"sallyport/gateway/control"
	"sallyport/listenerprofiles/acme"
	"sallyport/listenerprofiles/challenge"
)

// acme reads `acme:`, the CA that server certificates are ordered from. The listeners and the store were read before.
func (l *loader) acme(m *mapping) (out control.Placed[acme.Settings]) {
	s, given := m.sub("acme")
	if !given {
		return out
	}
	defer s.end()
	s.need("directory", "the URL of the CA's directory, as in https://acme-v02.api.letsencrypt.org/directory")
	out.Place, out.Keys = s.Place, s.keys()
	v := &out.Value
	v.Directory = s.checked("directory", "an https:// URL, as in https://acme-v02.api.letsencrypt.org/directory", isDirectory)
	v.Email = s.checked("email", "an address, as in ops@example.com", isEmail)
	v.CAFile = s.path("caFile")
	if e, given := s.sub("eab"); given {
		e.need("keyID", "as the CA gave it")
		e.need("hmac", "as the CA gave it: keep it out of this file, as in ${file:secrets/acme.hmac}")
		v.KeyID, v.HMAC = e.text("keyID").Value, e.secret("hmac")
		if _, err := base64.RawURLEncoding.DecodeString(v.HMAC); err != nil {
			l.errorf(e.find("hmac").value.Place, "hmac is no base64url without padding, as CAs give it")
		}
		e.end()
	}
	l.validations(s, v)
	l.acmeStorage(s, v)
	return out
}

// checked reads a text that has a form.
func (m *mapping) checked(key, form string, is func(string) bool) string {
	t := m.text(key)
	if t.OK && !is(t.Value) {
		m.load.errorf(t.Place, "%s is to be %s", key, form)
		return ""
	}
	return t.Value
}

func isDirectory(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.Fragment == ""
}

func isEmail(text string) bool {
	a, err := mail.ParseAddress(text)
	return err == nil && a.Address == text
}

// validations reads by what the CA may validate: without `challenges`, by whatever listeners there are.
func (l *loader) validations(s *mapping, v *acme.Settings) {
	plain := false
	for _, listener := range l.cfg.Listeners {
		plain = plain || listener.TLS == nil
	}
	values, given := s.texts("challenges")
	s.notEmpty("challenges", "name http-01 or tls-alpn-01, or remove it")
	if !given {
		v.HTTP, v.TLSALPN = plain, true
		return
	}
	for _, t := range values {
		switch {
		case !t.OK:
		case t.Value == "tls-alpn-01":
			v.TLSALPN = true
		case t.Value == "http-01" && !plain:
			l.errorf(t.Place, "http-01 needs a plain listener, which the CA reaches at port 80: add one, or remove http-01")
		case t.Value == "http-01":
			v.HTTP = true
		default:
			l.errorf(t.Place, "%q is no challenge that is answered here: name http-01 or tls-alpn-01", t.Value)
		}
	}
}

// acmeStorage reads where keys and certificates are kept.
func (l *loader) acmeStorage(s *mapping, v *acme.Settings) {
	at := s.word("storage", "files", "files", "store")
	v.Shared = at.Value == "store"
	if !v.Shared {
		s.refuse("keyFile", "is for storage: store: remove it")
		if v.Folder = s.path("folder"); v.Folder == "" {
			v.Folder = s.from.resolve("acme")
		}
		return
	}
	s.refuse("folder", "is for storage: files: remove it")
	v.KeyFile = s.path("keyFile")
	if u, err := certstore.ParseURL(l.cfg.Store.Value.URL); err == nil && u.InMemory() {
		l.errorf(at.Place, "the store is in memory, and keys would be lost with it: say storage: files, or name another store")
	}
}

// checkReserved refuses a context at which an API would have the path that CAs ask at.
func (l *loader) checkReserved(m *mapping, context string) {
	e := m.find("context")
	if e == nil || context == "" || !l.cfg.ACME.Value.HTTP {
		return
	}
	if strings.HasPrefix(challenge.PathPrefix, strings.TrimSuffix(context, "/")+"/") {
		l.errorf(e.value.Place, "at context %s an API would have %s, which belongs to acme: choose another context, or leave http-01 out of "+
			"acme.challenges", context, challenge.PathPrefix)
	}
}
