package token

import (
	"cmp"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A payload is the claims set of a token (RFC 7519, section 4), as jwt.Claims.
type payload struct {
	issuer, subject, clientID, tokenID string
	audience, scopes                   []string
	expires, starts, issued            *time.Time
	notAccess                          bool // it has the marks of another kind of token
}

// UnmarshalJSON reads the claims strictly. A claim that is used has the type it should have: null is not absence.
func (p *payload) UnmarshalJSON(b []byte) error {
	members, err := parseObject(b)
	if err != nil {
		return err
	}
	// A token bound to a certificate or key (RFC 7800, RFC 8705) is worthless to a caller without it.
	if _, has := members["cnf"]; has {
		return errors.New("it is bound by cnf, and that check is not built yet")
	}
	var azp, clientID, consumerKey string
	for _, claim := range []struct {
		name  string
		value *string
	}{
		{"iss", &p.issuer},
		{"sub", &p.subject},
		{"jti", &p.tokenID},
		{"azp", &azp},
		{"client_id", &clientID},
		{"consumerKey", &consumerKey},
	} {
		if _, err := members.text(claim.name, claim.value); err != nil {
			return err
		}
	}
	p.clientID = cmp.Or(azp, clientID, consumerKey)
	p.notAccess = hasOtherMarks(members)
	for _, claim := range []struct {
		name  string
		value **time.Time
	}{
		{"exp", &p.expires},
		{"nbf", &p.starts},
		{"iat", &p.issued},
	} {
		if *claim.value, err = members.seconds(claim.name); err != nil {
			return err
		}
	}
	if p.audience, err = members.texts("aud", one); err != nil {
		return err
	}
	scp, err := members.texts("scp", words)
	if err != nil {
		return err
	}
	if p.scopes, err = members.texts("scope", words); err != nil {
		return err
	}
	if _, has := members["scope"]; !has {
		p.scopes = scp
	}
	return nil
}

// hasOtherMarks reports whether claims are those of a token that is not for access: an ID token's nonce and hashes
// (OpenID Connect Core, section 3.3.2.11), the events of a logout token (RFC 8417), or a typ by which Keycloak tells its
// own apart. Its typ Bearer speaks for an access token, in which older ones have a nonce.
func hasOtherMarks(members object) bool {
	if typ, ok := asText(members["typ"]); ok {
		switch strings.ToLower(typ) {
		case "bearer":
			return false
		case "id", "refresh", "offline", "logout":
			return true
		}
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash", "events"} {
		if _, has := members[name]; has {
			return true
		}
	}
	return false
}

// claims are what a verified payload tells the rest of the gateway.
func (p *payload) claims(from *issuer) *Claims {
	return &Claims{
		KeyManager: from.Name,
		Issuer:     p.issuer,
		Subject:    p.subject,
		ClientID:   p.clientID,
		TokenID:    p.tokenID,
		Scopes:     p.scopes,
		Audience:   p.audience,
		Expires:    *p.expires,
	}
}

// validFrom is when a verified token begins to be good: nbf less the leeway. iat tells its age only (RFC 7519, section
// 4.1.6): one ahead of our clock is no reason to refuse.
func (p *payload) validFrom(leeway time.Duration) time.Time {
	if p.starts == nil {
		return time.Time{}
	}
	return p.starts.Add(-leeway)
}

// The methods of jwt.Claims.

func (p *payload) GetExpirationTime() (*jwt.NumericDate, error) { return date(p.expires), nil }
func (p *payload) GetNotBefore() (*jwt.NumericDate, error)      { return date(p.starts), nil }
func (p *payload) GetIssuedAt() (*jwt.NumericDate, error)       { return date(p.issued), nil }
func (p *payload) GetIssuer() (string, error)                   { return p.issuer, nil }
func (p *payload) GetSubject() (string, error)                  { return p.subject, nil }
func (p *payload) GetAudience() (jwt.ClaimStrings, error)       { return p.audience, nil }

func date(t *time.Time) *jwt.NumericDate {
	if t == nil {
		return nil
	}
	return &jwt.NumericDate{Time: *t}
}
