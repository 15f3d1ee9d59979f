package control

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/certstore"
	"sallyport/internal/printable"
)

// Kinds of certificates, for metrics and the log.
const (
	KindClient     = "client"      // registered for an API
	KindServer     = "server"      // a listener's own
	KindTrustStore = "trust_store" // an entry of a trust store, or of a caFile
	KindUpstream   = "upstream"    // the gateway's own, for a server
	KindKeyManager = "key_manager" // verifies tokens
)

// A Certificate is one that something stops working without.
type Certificate struct {
	Kind     string
	Name     string // what it is for, whose it is and where it stands
	NotAfter time.Time
}

// Certificates are those that the Assembly works with, the first to end first. Of clients it has at most those that end
// first. Nothing is read for it.
func (a *Assembly) Certificates(most int) []Certificate {
	clients := a.Clients.ByEnd()
	return a.certificates(clients[:min(len(clients), most)])
}

func (a *Assembly) certificates(clients []*certstore.Client) (list []Certificate) {
	for _, c := range clients {
		name := fmt.Sprintf("%s %s (%s)", c.API, printable.Text(c.Alias), c.KeyType)
		list = append(list, Certificate{KindClient, name, c.Certificate.NotAfter})
	}
	for _, l := range a.Spec.Listeners {
		set := a.sets[l.Name]
		if set == nil {
			continue
		}
		for _, p := range set.Profiles() {
			for _, leaf := range p.Leafs {
				list = append(list, certificateOf(KindServer, "listener "+l.Name+", "+p.From, leaf))
			}
			if p.Trust != nil {
				list = append(list, entriesOf(p.TrustStore.Location, p.Trust.Certificates())...)
			}
		}
	}
	list = append(list, a.opened...)
	for _, k := range a.Spec.KeyManagers {
		if a.tokens == nil {
			break
		}
		verify, roots := a.tokens.Certificates(k.Value.Name)
		for _, c := range verify {
			list = append(list, certificateOf(KindKeyManager, k.Value.Name+", "+k.Value.CertificateFile, c))
		}
		list = append(list, entriesOf(k.Value.CAFile, roots)...)
	}
	slices.SortFunc(list, func(x, y Certificate) int {
		return cmp.Or(x.NotAfter.Compare(y.NotAfter), strings.Compare(x.Kind, y.Kind), strings.Compare(x.Name, y.Name))
	})
	return slices.CompactFunc(list, func(x, y Certificate) bool { return x.id() == y.id() })
}

func (c Certificate) id() string { return c.Kind + " " + c.Name + " " + c.NotAfter.UTC().String() }

// certificateOf names a certificate of a file.
func certificateOf(kind, where string, c *x509.Certificate) Certificate {
	subject := c.Subject.String()
	if subject == "" {
		sum := certstore.Fingerprint(c)
		subject = "SHA-256 " + hex.EncodeToString(sum[:8])
	}
	return Certificate{kind, where + ": " + printable.Text(limitText(subject)), c.NotAfter}
}

func entriesOf(file string, certs []*x509.Certificate) (list []Certificate) {
	for _, c := range certs {
		list = append(list, certificateOf(KindTrustStore, file, c))
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
	return fmt.Sprintf("certificate (%s) %s %s: renew it", e.Kind, e.Name, when)
}

// endings are those of a sorted list that end soon, the first to end first.
func endings(list []Certificate, now time.Time) (soon []Ending) {
	for _, c := range list {
		left := c.NotAfter.Sub(now)
		if left <= -day {
			continue // nobody has missed it since
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
	clients, horizon := a.Clients.ByEnd(), now.Add(time.Duration(warnDays[len(warnDays)-1])*day)
	soon, _ := slices.BinarySearchFunc(clients, horizon, func(c *certstore.Client, horizon time.Time) int {
		return cmp.Or(c.Certificate.NotAfter.Compare(horizon), -1) // behind those that end with it
	})
	return endings(a.certificates(clients[:soon]), now)
}

// maxEndings is how many certificates are told of at once.
const maxEndings = 100

// A calendar remembers which endings were told.
type calendar struct {
	mu   sync.Mutex
	last time.Time       // all of them were told
	told map[string]bool // by id
}

// tellEndings logs, once a day, each certificate that ends soon; between, those that are new.
func (l *Loop) tellEndings(a *Assembly) {
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
		l.log.Warn(message, "kind", e.Kind, "name", e.Name, "not_after", e.NotAfter.UTC(), "within_days", e.Within)
	}
	if lines > maxEndings {
		l.log.Warn("more certificates end soon: sallyport validate names all", "more", lines-maxEndings)
	}
}
