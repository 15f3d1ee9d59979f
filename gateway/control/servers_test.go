package control

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
)

// TestServerLines: until when a certificate is served and what happens next, for files and for what renews itself.
func TestServerLines(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	leaf := func(left time.Duration) []Certificate {
		return []Certificate{{Kind: KindServer, For: "ECDSA", Subject: "CN=own", NotAfter: now.Add(left)}}
	}
	file := Server{Listener: "https", Profile: "listener https", From: "own.p12", Look: 10 * time.Second}
	ca := Server{Listener: "https", Profile: "profile 0.0.0.0 a.test", From: "ACME ca.test"}
	with := func(s Server, leafs []Certificate, renews time.Duration, trouble string) Server {
		s.Leafs, s.Trouble = leafs, trouble
		if renews != 0 {
			s.Renews = now.Add(renews)
		}
		return s
	}
	for _, tt := range []struct {
		server  Server
		managed bool
		want    string
	}{
		{with(file, leaf(90*day), 0, ""), false, "listener https: CN=own (ECDSA) from own.p12 ends on 2027-02-28T12:00:00Z, in 90 days; a renewed one is served within 10s of being there"},
		{with(file, leaf(0), 0, ""), false, "listener https: CN=own (ECDSA) from own.p12 has ended on 2026-11-30T12:00:00Z, now; a renewed one is served within 10s of being there"},
		{with(file, leaf(-25*time.Hour), 0, ""), false, "listener https: CN=own (ECDSA) from own.p12 has ended on 2026-11-29T11:00:00Z, 1 day ago; a renewed one is served within 10s of being there"},
		{with(ca, leaf(40*day), 10*day, ""), true, "listener https, profile 0.0.0.0 a.test: CN=own (ECDSA) from ACME ca.test ends on 2027-01-09T12:00:00Z, in 40 days; its renewal is due on 2026-12-10T12:00:00Z, in 10 days"},
		{with(ca, leaf(2*time.Hour), -time.Minute, "no answer"), true, "listener https, profile 0.0.0.0 a.test: CN=own (ECDSA) from ACME ca.test ends on 2026-11-30T14:00:00Z, in 2 hours; no answer; its renewal is due on 2026-11-30T11:59:00Z, 1 minute ago"},
		{with(ca, nil, 0, "no answer"), true, "listener https, profile 0.0.0.0 a.test: none yet from ACME ca.test, so that no handshake ends well; no answer"},
		{with(ca, nil, 0, ""), true, "listener https, profile 0.0.0.0 a.test: none yet from ACME ca.test, so that no handshake ends well"},
	} {
		got := tt.server.Lines(now)
		if want := []string{"certificate of " + tt.want}; !slices.Equal(got, want) || tt.server.Managed() != tt.managed {
			t.Errorf("got  %q (managed: %t)\nwant %q", got, tt.server.Managed(), want)
		}
	}
	hostile := with(file, leaf(day), 0, "")
	hostile.From, hostile.Profile = "a\x1b[2J\nb", "c\nd"
	if lines := hostile.Lines(now); len(lines) != 1 || strings.ContainsAny(lines[0], "\x1b\n") {
		t.Errorf("%q", lines)
	}
}

// renewing is a key source that renews its keys by itself.
type renewing listenerprofiles.Keys

func (r *renewing) Keys(time.Time) (listenerprofiles.Keys, error) {
	return listenerprofiles.Keys(*r), nil
}

// TestServersOfAKeySource: where keys are from, when they are renewed and what keeps them from it is their source's word.
// TestInHand: nobody is told of a certificate that its source renews in time.
func TestInHand(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		ends, renews time.Duration // from now; 0: nobody renews it
		note         string
		told         bool
	}{
		{20 * time.Hour, 0, "", true},
		{20 * time.Hour, time.Hour, "", false},
		{20 * time.Hour, -time.Hour, "", false},
		{20 * time.Hour, -10 * time.Hour, "", true},
		{20 * time.Hour, time.Hour, "it can't be renewed", true},
		{-time.Hour, -20 * time.Hour, "", true},
		{200 * day, 100 * day, "it can't be renewed", false},
	} {
		one := Certificate{Kind: KindServer, NotAfter: now.Add(c.ends), Note: c.note}
		if c.renews != 0 {
			one.Renews = now.Add(c.renews)
		}
		if told := len(endings([]Certificate{one}, now)) > 0; told != c.told {
			t.Errorf("%+v: told %v", c, told)
		}
	}
}

func TestServersOfAKeySource(t *testing.T) {
	p, due := thePKI(), time.Now().Add(10*day)
	pair := tls.Certificate{Certificate: [][]byte{p.server.cert.Raw, p.ca.cert.Raw}, PrivateKey: p.server.key, Leaf: p.server.cert}
	keys := listenerprofiles.Keys{Pairs: []tls.Certificate{pair}, From: "ACME ca.test", Renews: due, Trouble: errors.New("no\nanswer")}
	source := (*renewing)(&keys)
	b := newBed(t, func(b *bed, _ *Options) {
		own := b.spec.Load().Listeners[0].TLS
		own.Own.KeyStore, own.Own.Order = keystore.Ref{}, listenerprofiles.Order{Names: []string{"server.test"}, KeyTypes: []string{"ecdsa"}}
		own.ACME = func(listenerprofiles.Order) listenerprofiles.KeySource { return source }
	})
	servers := b.InForce().Servers(time.Now())
	own := servers[len(servers)-1]
	if own.From != keys.From || !own.Renews.Equal(due) || own.Trouble != "it can't be renewed: no; answer" || !own.Managed() || len(own.Leafs) != 1 {
		t.Errorf("%+v", own)
	}
	var got []string
	for _, c := range b.InForce().Certificates(time.Now(), 0) {
		if c.From == keys.From {
			got = append(got, c.Subject+" "+c.Note)
			if c.Renews.IsZero() == (c.Subject == "CN=server") {
				t.Errorf("%s is renewed at %v", c.Subject, c.Renews)
			}
		}
	}
	if want := []string{"CN=CA ", "CN=server it can't be renewed: no; answer"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
