package control

import (
	"fmt"
	"strings"
	"time"

	"sallyport/internal/printable"
	"sallyport/listenerprofiles"
)

// A Server is what a profile of a listener serves, until when, and what happens next.
type Server struct {
	Listener string
	Profile  string        // as listenerprofiles names it
	Leafs    []Certificate // none: its source has had no key yet, and no handshake ends well
	From     string
	Renews   time.Time     // when the source replaces the first by itself; zero: it doesn't
	Trouble  string        // what keeps it from doing so; "": nothing
	Look     time.Duration // between two looks at what it is from
}

// Servers are the profiles of all listeners.
func (a *Assembly) Servers(now time.Time) (list []Server) {
	for _, l := range a.Spec.Listeners {
		set := a.sets[l.Name]
		if set == nil {
			continue
		}
		for _, p := range set.Profiles() {
			list = append(list, serverOf(l.Name, p, now, a.Spec.Period))
		}
	}
	return list
}

func serverOf(listener string, p *listenerprofiles.Profile, now time.Time, look time.Duration) Server {
	keys, err := p.Keys(now)
	s := Server{Listener: listener, Profile: p.Name, From: p.From, Renews: keys.Renews, Trouble: troubleOf(keys, err), Look: look}
	for _, leaf := range p.Leafs {
		s.Leafs = append(s.Leafs, certificateOf(KindServer, leaf.PublicKeyAlgorithm.String(), p.From, leaf))
	}
	return s
}

// Managed reports whether the source renews its keys by itself.
func (s Server) Managed() bool { return !s.Renews.IsZero() || s.Trouble != "" || len(s.Leafs) == 0 }

// End is when the first of the certificates ends; the zero time if there is none.
func (s Server) End() (end time.Time) {
	for _, c := range s.Leafs {
		if end.IsZero() || c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// Lines tell of the server in a line for each of its certificates.
func (s Server) Lines(now time.Time) (lines []string) {
	name := "listener " + s.Listener
	if s.Profile != name {
		name += ", " + s.Profile
	}
	name = "certificate of " + printable.Text(name) + ": "
	from := printable.Text(s.From)
	if len(s.Leafs) == 0 {
		return append(lines, name+"none yet from "+from+", so that no handshake ends well"+s.next(now))
	}
	for _, c := range s.Leafs {
		verb := "ends"
		if !now.Before(c.NotAfter) {
			verb = "has ended"
		}
		lines = append(lines, fmt.Sprintf("%s%s (%s) from %s %s on %s, %s%s", name, c.Subject, c.For, from, verb, stamp(c.NotAfter), Distance(c.NotAfter, now), s.next(now)))
	}
	return lines
}

// next says what happens next, behind a semicolon.
func (s Server) next(now time.Time) string {
	var parts []string
	if s.Trouble != "" {
		parts = append(parts, s.Trouble)
	}
	switch {
	case !s.Renews.IsZero():
		parts = append(parts, "its renewal is due on "+stamp(s.Renews)+", "+Distance(s.Renews, now))
	case s.Trouble == "" && len(s.Leafs) > 0:
		parts = append(parts, fmt.Sprintf("a renewed one is served within %s of being there", s.Look))
	}
	if len(parts) == 0 {
		return ""
	}
	return "; " + strings.Join(parts, "; ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Distance is how far a time is from now, in its largest unit: "in 12 days", "3 hours ago".
func Distance(t, now time.Time) string {
	d := t.Sub(now).Abs()
	for _, unit := range []struct {
		name string
		of   time.Duration
	}{{"day", day}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		n := int64(d / unit.of)
		if n == 0 {
			continue
		}
		text := fmt.Sprint(n, " ", unit.name)
		if n > 1 {
			text += "s"
		}
		if t.After(now) {
			return "in " + text
		}
		return text + " ago"
	}
	return "now"
}
