package control

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/certstore"
	"sallyport/internal/printable"
	"sallyport/listenerprofiles"
)

// Kinds of certificates, for metrics and the log.
const (
	KindClient     = "client"      // registered for an API
	KindServer     = "server"      // a listener's own, and what is sent beside it
	KindTrustStore = "trust_store" // an entry of a trust store, or of a caFile
	KindBalancer   = "balancer"    // an entry of the load balancers' trust store
	KindUpstream   = "upstream"    // the gateway's own, for a server, and what is sent beside it
	KindKeyManager = "key_manager" // verifies tokens
)

// A Certificate is one that something stops working without, or that is registered without being of use here.
type Certificate struct {
	Kind     string
	For      string // a listener, an API, a key manager or a registration; "" for trust stores, which several share
	Subject  string // "" for a registration
	From     string // a file, certstore.InStore, or who issues it; "" if no file says
	NotAfter time.Time
	Renews   time.Time // when whoever it is from renews it by itself; zero: nobody does
	Note     string    // what else there is to know of it; "": nothing
}

// Name says what the certificate is for, whose it is and where it stands.
func (c Certificate) Name() string {
	where := c.For
	if c.Kind != KindClient && c.From != "" {
		where = strings.TrimPrefix(c.For+", "+c.From, ", ")
	}
	return c.with(where)
}

// Label is Name without where it stands.
func (c Certificate) Label() string { return c.with(c.For) }

func (c Certificate) with(where string) string {
	if where == "" || c.Subject == "" {
		return where + c.Subject
	}
	return where + ": " + c.Subject
}

func (c Certificate) id() string { return c.Kind + " " + c.Name() + " " + c.NotAfter.UTC().String() }

// compare orders certificates by their end.
func (c Certificate) compare(other Certificate) int {
	return cmp.Or(c.NotAfter.Compare(other.NotAfter), strings.Compare(c.Kind, other.Kind), strings.Compare(c.For, other.For),
		strings.Compare(c.From, other.From), strings.Compare(c.Subject, other.Subject))
}

// Certificates are those that the Assembly works with and those that are registered, the first to end first. Of
// registrations it has at most those that end first. No file is read for it.
func (a *Assembly) Certificates(now time.Time, most int) []Certificate {
	return a.certificates(now, a.registrationsByEnd(func(list []*certstore.Client) int { return min(len(list), most) }))
}

func (a *Assembly) certificates(now time.Time, registered []Certificate) []Certificate {
	list := slices.Concat(registered, a.opened)
	for _, l := range a.Spec.Listeners {
		set := a.sets[l.Name]
		if set == nil {
			continue
		}
		for _, p := range set.Profiles() {
			list = append(list, serverCertificates(l.Name, p, now)...)
			if p.Trust != nil {
				list = append(list, entriesOf(KindTrustStore, p.TrustStore.Location, p.Trust.Certificates())...)
			}
		}
	}
	for _, k := range a.Spec.KeyManagers {
		if a.tokens == nil {
			break
		}
		verify, roots := a.tokens.Certificates(k.Value.Name)
		for _, c := range verify {
			list = append(list, certificateOf(KindKeyManager, k.Value.Name, k.Value.CertificateFile, c))
		}
		list = append(list, entriesOf(KindTrustStore, k.Value.CAFile, roots)...)
	}
	slices.SortFunc(list, Certificate.compare)
	return slices.CompactFunc(list, func(x, y Certificate) bool { return x.compare(y) == 0 })
}

// serverCertificates are what a profile of a listener serves.
func serverCertificates(listener string, p *listenerprofiles.Profile, now time.Time) (list []Certificate) {
	keys, err := p.Keys(now)
	for _, leaf := range p.Leafs {
		c := certificateOf(KindServer, "listener "+listener, p.From, leaf)
		if len(p.Leafs) > 1 {
			c.Subject += " (" + leaf.PublicKeyAlgorithm.String() + ")"
		}
		c.Renews, c.Note = keys.Renews, troubleOf(keys, err)
		for i, pair := range keys.Pairs { // of which the source may have newer ones by now
			if !pair.Leaf.Equal(leaf) {
				continue
			}
			if i < len(keys.Due) {
				c.Renews = keys.Due[i]
			}
			for _, c := range chainOf(pair)[1:] {
				list = append(list, certificateOf(KindServer, "listener "+listener, p.From, c))
			}
		}
		list = append(list, c)
	}
	return list
}

// troubleOf says what keeps a source of keys from renewing them; "" if nothing does.
func troubleOf(keys listenerprofiles.Keys, err error) string {
	if err = errors.Join(keys.Trouble, err); err == nil {
		return ""
	}
	return "it can't be renewed: " + printable.Text(strings.ReplaceAll(err.Error(), "\n", "; "))
}

// chainOf is a key's certificate and those that are sent beside it.
func chainOf(pair tls.Certificate) []*x509.Certificate {
	chain := []*x509.Certificate{pair.Leaf}
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, c)
		}
	}
	return chain
}

// certificateOf names a certificate of a file.
func certificateOf(kind, of, file string, c *x509.Certificate) Certificate {
	subject := c.Subject.String()
	if subject == "" && len(c.DNSNames) > 0 { // as public CAs have it
		subject = "DNS:" + c.DNSNames[0]
	}
	if subject == "" {
		sum := certstore.Fingerprint(c)
		subject = "SHA-256 " + hex.EncodeToString(sum[:8])
	}
	return Certificate{Kind: kind, For: of, Subject: printable.Text(limitText(subject)), From: file, NotAfter: c.NotAfter}
}

func entriesOf(kind, file string, certs []*x509.Certificate) (list []Certificate) {
	for _, c := range certs {
		list = append(list, certificateOf(kind, "", file, c))
	}
	return list
}

// certificatesOf returns the certificates of a PEM file that can be read.
func certificatesOf(data []byte) (list []*x509.Certificate) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			list = append(list, cert)
		}
	}
	return list
}

const day = 24 * time.Hour

// warnDays are how many days before a certificate's end it is told of in other words.
var warnDays = []int{1, 7, 30}

// An Ending is a certificate that ends soon, or has ended within the last day.
type Ending struct {
	Certificate
	Within int // days, of warnDays; 0: it has ended
}

// String says what ends and when.
func (e Ending) String() string {
	when := "ends on " + e.NotAfter.UTC().Format(time.RFC3339)
	switch e.Within {
	case 0:
		when = "has ended on " + e.NotAfter.UTC().Format(time.RFC3339)
	case 1:
		when += ", within a day"
	default:
		when += fmt.Sprintf(", within %d days", e.Within)
	}
	return fmt.Sprintf("certificate (%s) %s %s: renew it", e.Kind, e.Name(), when)
}

// inHand reports whether a certificate is renewed by itself, in time as it seems: a quarter of the time that is left for
// it may go by.
func (c Certificate) inHand(now time.Time) bool {
	return !c.Renews.IsZero() && c.Note == "" && now.Before(c.Renews.Add(c.NotAfter.Sub(c.Renews)/4))
}

// endings are those of a sorted list that end soon, the first to end first.
func endings(list []Certificate, now time.Time) (soon []Ending) {
	for _, c := range list {
		left := c.NotAfter.Sub(now)
		if left <= -day || c.inHand(now) {
			continue // nobody has missed it since, or nobody has to do anything
		}
		within := 0
		if left >= 0 {
			i := slices.IndexFunc(warnDays, func(days int) bool { return left <= time.Duration(days)*day })
			if i < 0 {
				break
			}
			within = warnDays[i]
		}
		soon = append(soon, Ending{c, within})
	}
	return soon
}

// Endings tells which of the Assembly's certificates end soon.
func (a *Assembly) Endings(now time.Time) []Ending {
	horizon := now.Add(time.Duration(warnDays[len(warnDays)-1]) * day)
	return endings(a.certificates(now, a.registrationsByEnd(func(clients []*certstore.Client) int {
		soon, _ := slices.BinarySearchFunc(clients, horizon, func(c *certstore.Client, horizon time.Time) int {
			return cmp.Or(c.Certificate.NotAfter.Compare(horizon), -1) // behind those that end with it
		})
		return soon
	})), now)
}

// maxEndings is how many certificates are told of at once.
const maxEndings = 100

// A calendar remembers which endings were told.
type calendar struct {
	mu   sync.Mutex
	last time.Time       // all of them were told
	told map[string]bool // by id
}

// id tells endings apart: one that has come is another one than that which was to come.
func (e Ending) id() string {
	if e.Within == 0 {
		return e.Certificate.id() + " ended"
	}
	return e.Certificate.id()
}

// tellEndings logs, once a day, each certificate that ends soon; between, those that are new, or have ended since. It
// returns how long until the next one ends; 0 if none ends soon.
func (l *Loop) tellEndings(a *Assembly) (next time.Duration) {
	now, c := l.cfg.Now(), &l.calendar
	soon := a.Endings(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	daily := now.Sub(c.last) >= day || now.Before(c.last) // or the clock was set back
	if daily {
		c.last = now
	}
	told, before := map[string]bool{}, c.told
	c.told = told
	lines := 0
	for _, e := range soon {
		if left := e.NotAfter.Sub(now); next == 0 && left >= 0 {
			next = left + 1
		}
		told[e.id()] = true
		if !daily && before[e.id()] {
			continue
		}
		if lines++; lines > maxEndings {
			continue
		}
		message := "a certificate ends soon"
		if e.Within == 0 {
			message = "a certificate has ended"
		}
		l.log.Warn(message, "kind", e.Kind, "name", e.Name(), "not_after", e.NotAfter.UTC(), "within_days", e.Within)
	}
	if lines > maxEndings {
		l.log.Warn("more certificates end soon: sallyport certificates --within 30d lists all", "more", lines-maxEndings)
	}
	return next
}
