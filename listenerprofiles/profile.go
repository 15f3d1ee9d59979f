// Package listenerprofiles turns listenerprofiles.xml into the TLS profiles of a listener.
//
// The way is file -> Settings (Parse) -> Profile -> Set (Load). A Set never changes. Read looks at the files again, and
// takes over every profile that is still the same.
package listenerprofiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/revocation"
	"sallyport/listenerprofiles/trust"
)

// A VerifyClient is how a listener handles client certificates (WSO2's SSLVerifyClient). Its zero value requests one.
type VerifyClient int

// The three words of SSLVerifyClient.
const (
	Optional VerifyClient = iota // asks; whatever comes, or nothing, completes the handshake and is judged call by call
	None                         // does not ask
	Require                      // asks, and ends the handshake without a certificate that the trust store or its registration vouches for
)

// String returns the word as it is written in listenerprofiles.xml.
func (v VerifyClient) String() string {
	switch v {
	case None:
		return "none"
	case Optional:
		return "optional"
	case Require:
		return "require"
	}
	return fmt.Sprintf("VerifyClient(%d)", int(v))
}

// strictness orders the words: none < optional < require.
func (v VerifyClient) strictness() int {
	switch v {
	case None:
		return 0
	case Optional:
		return 1
	}
	return 2
}

// Bounds are the trust store's, of the certificates that a client may show.
type Bounds = trust.Bounds

// Settings are what listenerprofiles.xml says of one profile, or a listener of its own. Printed, they show no password.
type Settings struct {
	Name         string     // for messages: "listener https", "profile 0.0.0.0 api.example.com"
	BindAddress  netip.Addr // the local address; 0.0.0.0 and :: mean any; the zero Addr in a listener's own settings
	BindHost     string     // the name that bindAddress says, of which Load finds the addresses; "" if it says an address
	ServerName   string     // lower case, without trailing dot; "*.x" stands for one label before x; "" for every name
	KeyStore     keystore.Ref
	TrustStore   keystore.Ref // without a Location: there is none, which only None allows
	VerifyClient VerifyClient
	Protocols    []uint16 // tls.VersionTLS12 and/or 13; nil means both
	Ciphers      []uint16 // the allow-list for TLS 1.2; nil means ECDHE with AEAD. TLS 1.3 has its own, which Go fixes
	Order        Order    // of a key store of type ACME, in the place of KeyStore; without Names there is none
	Line         int      // where the profile begins in the file

	// Revocation is how clients' certificates are looked up. A profile of the file that doesn't say has the listener's.
	Revocation revocation.Policy
}

// A Part is the part of a profile that something is about: an element, and for KeyStore and TrustStore one of theirs.
type Part struct {
	Element string // as in listenerprofiles.xml, or FilePath for that file; "" for the profile as a whole
	Of      keystore.Part
}

// A written is a profile as it stands in the file.
type written struct {
	Settings
	places   map[Part]place  // of all elements; that of the profile has no name
	aliases  map[Part]string // of passwords that are not in the file
	warnings []error         // *ParseErrors
}

// place returns where a part is, or the nearest element that it would be in.
func (w written) place(part Part) (at place, element string) {
	if at, ok := w.places[part]; ok && part.Of != "" {
		if part.Of == keystore.Alias {
			return at, "ServerCertificateAlias"
		}
		return at, string(part.Of)
	}
	if at, ok := w.places[Part{Element: part.Element}]; ok && part.Element != "" {
		return at, part.Element
	}
	return w.places[Part{}], "profile"
}

// A Profile is Settings made ready to serve. It never changes, but for the keys of its session tickets, which
// Set.RotateTicketKeys rotates.
type Profile struct {
	Settings
	TLS      *tls.Config         // to be returned by GetConfigForClient; has ticket keys of its own
	Any      *tls.Config         // the same, asking for a certificate of any issuer; nil for None
	Trust    *trust.Anchors      // nil only for None without a trust store
	Vouching trust.Registered    // which registered certificates need no trust store
	Leafs    []*x509.Certificate // the server's own, in the order of the key store; none as long as no CA has issued any
	From     string              // where they are from, for people

	// Challenge returns the certificate that answers a validation by TLS-ALPN-01 of a name; nil: there is none.
	Challenge func(ctx context.Context, serverName string) (*tls.Certificate, error)

	source      source
	rules       trust.Rules
	tickets     ticketKeys
	skippedKeys []error // entries of the key store that can't be used
	made        digests
}

// Keys returns what the profile's KeySource has now: how it stands with renewal, and keys that the next reading will
// serve.
func (p *Profile) Keys(now time.Time) (Keys, error) { return p.source.Keys(now) }

// profileName names a profile in messages.
func profileName(s Settings) string {
	address := s.BindHost
	switch {
	case s.BindHost == "":
		address = s.BindAddress.String()
	case s.BindAddress.IsValid():
		address += " (" + s.BindAddress.String() + ")"
	}
	return strings.TrimSpace("profile " + address + " " + s.ServerName)
}

// Rules are what the certificates of clients are judged by.
func (p *Profile) Rules() *trust.Rules { return &p.rules }

// Vouches reports whether registrations vouch for any certificate, and whether for some at least.
func (p *Profile) Vouches() (all, some bool) {
	return p.Vouching == trust.All, p.Vouching != trust.None
}
