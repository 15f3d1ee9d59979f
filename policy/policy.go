// Package policy says whether a caller may make a call, from the proofs it showed and those the API demands.
package policy

// A Want is how much an API or a resource cares for one kind of proof.
// Its zero value is Off: that kind of proof opens nothing.
type Want uint8

const (
	Off       Want = iota // not a way in
	Optional              // a way in; another may serve instead
	Mandatory             // without it nobody comes in, whatever else they show
)

// A Precedence says whose identity a call has when both proofs are good.
type Precedence uint8

const (
	// CertificateFirst lets a good certificate settle the call: the token is not looked at. WSO2 2.6.0's rule.
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

// A Proof is the state of one kind of evidence. Its zero value is Unexamined: nobody has looked yet.
type Proof uint8

const (
	Unexamined    Proof = iota
	Absent              // nothing of the kind was presented
	Good                // presented, and good for this API
	Bad                 // presented and not good, whatever is wrong with it
	Expired             // a token that was good but for its end
	WrongAudience       // a good token that is meant for somebody else
	Unavailable         // a token whose key cannot be had now, so that nobody can say
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

// A Reason says why a call is refused. Its zero value is None.
type Reason uint8

const (
	None                Reason = iota
	MissingCredentials         // 900902: nothing was presented
	InvalidCredentials         // 900901: what was presented is not good
	TokenExpired               // 900903
	AudienceMismatch           // 900914
	KeyUnavailable             // 503: the key that would tell cannot be had
	NoSecurityDeclared         // the zero Security: a fault of ours, refused as InvalidCredentials
	MissingEvidenceKind        // evidence of a state that does not belong to its kind: a fault of ours
)

// A Decision is the outcome for one call. Its zero value refuses.
type Decision struct {
	Allowed bool
	By      Method // whose identity the call has; Nothing if it is open or refused
	Need    Method // Certificate or Token: fetch that proof and ask again; the decision is not taken yet
	Reason  Reason // why it is refused; None if Allowed or while Need is set
}

// Decide weighs have against want. It looks at no more than it has to: a proof that could change nothing is never
// needed, and Decision.Need names the next one to fetch, the certificate first.
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
		return d // the token might have replaced the certificate's identity, so nobody can say who calls
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

// byTokenInstead lets the token decide after the certificate did not. With no token either, a certificate that was
// presented and is not good is the reason, since then something was presented.
func byTokenInstead(have Evidence) Decision {
	d := byToken(have)
	if d.Reason == MissingCredentials && have.Certificate == Bad {
		d.Reason = InvalidCredentials
	}
	return d
}

func refuse(r Reason) Decision { return Decision{Reason: r} }
