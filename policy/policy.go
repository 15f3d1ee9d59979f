// Package policy decides whether a caller may make a call, from the proofs that it presented and those that the API
// demands.
package policy

// A Want is what an API or a resource demands of one kind of proof.
// Its zero value is Off: that kind of proof opens nothing.
type Want uint8

const (
	Off       Want = iota // not a way in
	Optional              // a way in; another may serve instead
	Mandatory             // without it every call is refused, whatever else is presented
)

// A Precedence decides whose identity a call has when both proofs are good.
type Precedence uint8

const (
	// CertificateFirst decides by a good certificate alone: the token is not examined. It is the rule of WSO2 2.6.0.
	CertificateFirst Precedence = iota
	// TokenFirst lets a good token's identity replace the certificate's.
	TokenFirst
)

// Security is what an API or a resource demands. Its zero value admits nobody.
type Security struct {
	Open        bool // needs no credential; the other fields are then without effect
	Certificate Want // mutualssl, mutualssl_mandatory
	Token       Want // oauth2, oauth_basic_auth_api_key_mandatory
	Precedence  Precedence
}

// A Proof is the state of one kind of evidence. Its zero value is Unexamined.
type Proof uint8

const (
	Unexamined    Proof = iota
	Absent              // nothing of the kind was presented
	Good                // presented, and good for this API
	Bad                 // presented and not good, whatever is wrong with it
	Expired             // a token that has expired and is good otherwise
	WrongAudience       // a good token for another audience
	Unavailable         // a token that cannot be verified now, because its key is unavailable
)

// Evidence is what is known of a caller so far. Its zero value knows nothing.
type Evidence struct {
	Certificate Proof // Unexamined, Absent, Good or Bad
	Token       Proof
}

// A Method is a kind of proof.
type Method uint8

const (
	Nothing     Method = iota // nobody, or an open resource
	Certificate               // the client certificate
	Token                     // the OAuth2 access token
)

// A Reason is why a call is refused. Its zero value is None.
type Reason uint8

const (
	None                Reason = iota
	MissingCredentials         // 900902: nothing was presented
	InvalidCredentials         // 900901: what was presented is not good
	TokenExpired               // 900903
	AudienceMismatch           // 900914
	KeyUnavailable             // 503: the key that would verify the token is unavailable
	NoSecurityDeclared         // the zero Security: our own fault, refused as InvalidCredentials
	MissingEvidenceKind        // evidence in a state that its kind cannot have: our own fault
)

// A Decision is the outcome for one call. Its zero value refuses.
type Decision struct {
	Allowed bool
	By      Method // whose identity the call has; Nothing if open or refused
	Need    Method // Certificate or Token: no decision yet: fetch that proof and ask again
	Reason  Reason // why it is refused; None if Allowed or while Need is set
}

// Decide weighs have against want. It never asks for a proof that could not change the outcome; Decision.Need names the
// next one to fetch, the certificate first.
// The zero Security and the zero Decision refuse.
func Decide(want Security, have Evidence) Decision {
	if want.Open {
		return Decision{Allowed: true}
	}
	if want.Certificate == Off && want.Token == Off {
		return refuse(NoSecurityDeclared)
	}
	if have.Certificate > Bad {
		return refuse(MissingEvidenceKind)
	}

	if want.Certificate == Off {
		return byToken(have)
	}
	if have.Certificate == Unexamined {
		return Decision{Need: Certificate}
	}
	if want.Token == Off || want.Certificate == Mandatory && have.Certificate != Good {
		return byCertificate(have)
	}
	if have.Certificate != Good {
		return byTokenInstead(have)
	}

	// The certificate is good, and tokens are a way in too.
	if want.Precedence == CertificateFirst && want.Token != Mandatory {
		return byCertificate(have)
	}
	d := byToken(have)
	switch {
	case d.Need != Nothing:
		return d
	case d.Allowed && want.Precedence == CertificateFirst:
		return byCertificate(have)
	case d.Allowed || want.Token == Mandatory:
		return d
	case have.Token == Unavailable:
		return d // the token might have replaced the certificate's identity, so the caller is unknown
	}
	return byCertificate(have)
}

func byCertificate(have Evidence) Decision {
	switch have.Certificate {
	case Good:
		return Decision{Allowed: true, By: Certificate}
	case Absent:
		return refuse(MissingCredentials)
	default:
		return refuse(InvalidCredentials)
	}
}

func byToken(have Evidence) Decision {
	switch have.Token {
	case Unexamined:
		return Decision{Need: Token}
	case Good:
		return Decision{Allowed: true, By: Token}
	case Absent:
		return refuse(MissingCredentials)
	case Expired:
		return refuse(TokenExpired)
	case WrongAudience:
		return refuse(AudienceMismatch)
	case Unavailable:
		return refuse(KeyUnavailable)
	default:
		return refuse(InvalidCredentials)
	}
}

// byTokenInstead lets the token decide when the certificate is not good. If there is no token either, a bad certificate
// is the reason, because something was presented.
func byTokenInstead(have Evidence) Decision {
	d := byToken(have)
	if d.Reason == MissingCredentials && have.Certificate == Bad {
		d.Reason = InvalidCredentials
	}
	return d
}

func refuse(r Reason) Decision { return Decision{Reason: r} }
