package control

import (
	"encoding/hex"
	"log/slog"
	"slices"

	"sallyport/certstore"
	"sallyport/internal/ends"
)

// A registrationName is what a registration keeps while its certificate, tier and scopes change.
type registrationName struct {
	stored  bool // else a file has it
	api     certstore.API
	keyType certstore.KeyType
	alias   string
}

func nameOf(c *certstore.Client) registrationName {
	return registrationName{c.Source == certstore.InStore, c.API, c.KeyType, c.Alias}
}

// different returns was and is without what both begin and end with.
func different(was, is []certstore.Client) (x, y []certstore.Client) {
	same := func(x, y *certstore.Client) bool {
		return x.Certificate == y.Certificate && nameOf(x) == nameOf(y) && x.Tier == y.Tier && slices.Equal(x.Scopes, y.Scopes) && x.Match.Equal(y.Match)
	}
	first, last := ends.Common(was, is, same)
	return was[first : len(was)-last], is[first : len(is)-last]
}

// tellChanges logs once each registration that next has and last has not, or has otherwise, and the reverse, whether it is
// admitted or not, and so with denials. It reports whether there are any.
func (l *Loop) tellChanges(last, next *Assembly) (changed bool) {
	was, is := different(last.registered.clients, next.registered.clients)
	inFiles, filesNow := different(last.Spec.Clients, next.Spec.Clients)
	was, is = slices.Concat(inFiles, was), slices.Concat(filesNow, is)
	for _, list := range [][]certstore.Client{was, is} {
		for i := range list {
			list[i].Fingerprint = certstore.Fingerprint(list[i].Certificate)
		}
	}
	before := make(map[registrationName]*certstore.Client, len(was))
	for i := range was {
		before[nameOf(&was[i])] = &was[i]
	}
	for i := range is {
		c := &is[i]
		old := before[nameOf(c)]
		delete(before, nameOf(c))
		switch {
		case old == nil:
			l.tellChange("added", c)
		case old.Fingerprint != c.Fingerprint || old.Tier != c.Tier || !slices.Equal(old.Scopes, c.Scopes) || !old.Match.Equal(c.Match):
			l.tellChange("changed", c, slog.Group("before", append([]any{
				"fingerprint", hex.EncodeToString(old.Fingerprint[:]), "tier", old.Tier, "scopes", old.Scopes,
			}, matchOf(old)...)...))
		default:
			continue
		}
		changed = true
	}
	for i := range was { // in their order
		if c := &was[i]; before[nameOf(c)] == c {
			l.tellChange("removed", c)
			changed = true
		}
	}
	return l.tellDenials(last, next) || changed
}

// tellDenials logs each denial that next has and last has not, and the reverse.
func (l *Loop) tellDenials(last, next *Assembly) (changed bool) {
	was, is := last.registered.denials, next.registered.denials
	first, end := ends.Common(was, is, func(x, y *certstore.Denial) bool { return sameDenial(*x, *y) })
	was, is = was[first:len(was)-end], is[first:len(is)-end]
	tell := func(message, change string, list []certstore.Denial) {
		for i := range list {
			l.log.Info(message, "change", change, "id", list[i].ID(), "names", limitText(list[i].By()), "comment", list[i].Comment)
			changed = true
		}
	}
	tell("certificates were put on the deny list", "denied", certstore.DenialsWith(was, is)[len(was):])
	tell("certificates were taken off the deny list", "undenied", certstore.DenialsWith(is, was)[len(is):])
	return changed
}

func (l *Loop) tellChange(what string, c *certstore.Client, more ...any) {
	by := "the file " + c.Source
	if c.Source == certstore.InStore {
		by = "the command line" // the store has no user
	}
	l.log.Info("a client certificate was "+what, append([]any{
		"change", what, "api", c.API.String(), "alias", c.Alias, "key_type", string(c.KeyType), "tier", c.Tier, "scopes", c.Scopes,
		"fingerprint", hex.EncodeToString(c.Fingerprint[:]), "subject", limitText(c.Certificate.Subject.String()),
		"not_after", c.Certificate.NotAfter.UTC(), "by", by,
	}, append(matchOf(c), more...)...)...)
}

// matchOf is which leaves of a CA count, for the log; nothing if all do.
func matchOf(c *certstore.Client) []any {
	if c.Match == nil {
		return nil
	}
	return []any{"match", c.Match.Text()}
}

// maxSubject is how many bytes of a name from a certificate are logged.
const maxSubject = 256

func limitText(s string) string {
	if len(s) > maxSubject {
		return s[:maxSubject] + "…"
	}
	return s
}
