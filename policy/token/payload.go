package token

import (
	"cmp"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A payload is the claims set of a token (RFC 7519, section 4), as jwt.Claims.
type payload struct {
	issuer, subject, clientID, tokenID string
	audience, scopes                   []string
	expires, starts, issued            *time.Time
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
