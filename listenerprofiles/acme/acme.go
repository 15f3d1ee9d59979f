// Package acme orders server certificates from a CA that speaks ACME (RFC 8555), renews them, and keeps them in files or
// in a store that several gateways share.
//
// certmagic keeps the storage, one order at a time for a name, and the decision when to renew; none of its globals is
// used. What is ours: who asks when (one task a name and kind of key), the order itself, of which each step is kept so
// that a process that is killed goes on with it, and the answers to the CA's validations (package challenge).
package acme

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"time"

	"sallyport/internal/printable"
)

// Settings are what a CA and its user have agreed on, and where what it issues is kept. They are comparable. Printed, they
// show no secret.
type Settings struct {
	Directory string // the URL of the CA's directory
	Email     string // to which the CA may write; "": to nobody
	CAFile    string // PEM of the CAs that the directory's own certificate chains to; "": the system's
	KeyID     string // of the external account that the CA asks for (RFC 8555 section 7.3.4); "": it asks for none
	HMAC      string // its key, in base64url
	Shared    bool   // keep in the store; else in files
	Folder    string // of the files
	KeyFile   string // of the keys that what is kept in the store is encrypted under; "": it isn't
	HTTP      bool   // the CA may validate by HTTP-01
	TLSALPN   bool   // and by TLS-ALPN-01
}

// String names the CA.
func (s Settings) String() string {
	if u, err := url.Parse(s.Directory); err == nil && u.Host != "" {
		return "ACME " + u.Host
	}
	return "ACME"
}

// Format writes String for every verb, %#v included.
func (s Settings) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText writes String, in JSON and in logs as well.
func (s Settings) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Kinds of keys.
const (
	ECDSA = "ecdsa" // on P-256
	RSA   = "rsa"   // of 2,048 bits
)

// retryAfter is how long the next attempt waits after so many that failed, one after the other. In the first hour there
// are five: CAs count failed validations an hour.
var retryAfter = []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour}

// pauseAfter is how long an attempt waits after that many failures for a certificate that lives so long; 0: it is not
// known. Whoever has short-lived certificates expects to be asked more often.
func pauseAfter(failures int, life time.Duration) time.Duration {
	pause := retryAfter[min(max(failures, 1), len(retryAfter))-1]
	if life > 0 {
		pause = min(pause, max(life/20, time.Second))
	}
	return pause
}

// lifetime is how long a certificate is valid, as certmagic counts it.
func lifetime(leaf *x509.Certificate) time.Duration { return endOf(leaf).Sub(leaf.NotBefore) }

// endOf is the first moment at which a certificate is not valid any more.
func endOf(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Truncate(time.Second).Add(time.Second)
}

func ended(leaf *x509.Certificate, now time.Time) bool { return !now.Before(endOf(leaf)) }

// renewalTime is when certmagic renews a certificate: when a third of its life is left, or at the time that was selected
// in the window which the CA suggests (RFC 9773).
func renewalTime(leaf *x509.Certificate, selected time.Time) time.Time {
	third := endOf(leaf).Add(-lifetime(leaf) / 3)
	if selected.IsZero() {
		return third
	}
	if early := selected.Add(-checkInterval); early.Before(third) {
		return early
	}
	return third
}

// checkInterval is how early certmagic renews before the selected time.
const checkInterval = time.Second

// firstOf returns the earliest of times that are not zero; zero if all are.
func firstOf(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// shownError is what a CA, a responder or the storage says of a problem, as shown does.
func shownError(err error) string { return cmp.Or(shown(err.Error()), "unknown") }

// shown bounds a text that others chose, and has it printable.
func shown(text string) string {
	const most = 500
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return printable.Text(text)
}
