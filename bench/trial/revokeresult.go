package trial

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/bench/live"
)

// A RevokeResult is how the connections of a revocation fared.
type RevokeResult struct {
	RevokeOptions
	Changes []Change
	Steady  []Steady      // the parts of the Load
	Calls   int           // answers and messages of all connections that were served
	Slowest time.Duration // call that was served
	Stalled time.Duration // the longest that this process stood still, by which times may be too long
	Errors  []string      // of connections that had their right, at most maxTold
	Failed  int           // of these, all
}

// A Change is one of the Ways, or how a right came back.
type Change struct {
	Way         Way
	Connections int
	Known       time.Duration   // from when the first acted until the gateway could know, at most
	After       []time.Duration // from then to each connection's end, or until it was served, in ascending order
	Late        int             // connections that were served, or went on, after the limit; or were not served again
	Reached     int             // certificates of which a call reached the backend, or a stream was open there, after the limit
	Others      int             // errors of connections that had their right, meanwhile
	How         map[string]int  // how connections ended
}

// maxTold bounds how many errors are told in words.
const maxTold = 10

// Verdict returns what is wrong with the result, or nil.
func (r RevokeResult) Verdict() error {
	var list []error
	wrong := func(format string, args ...any) { list = append(list, fmt.Errorf(format, args...)) }
	for _, c := range r.Changes {
		if c.Connections == 0 {
			wrong("%s: no connection", c.Way)
		}
		if c.Late > 0 {
			wrong("%s: %d of %d connections were late by the limit of %v", c.Way, c.Late, c.Connections, r.Limit)
		}
		if c.Reached > 0 {
			wrong("%s: calls of %d certificates reached the backend after %v", c.Way, c.Reached, r.Limit)
		}
	}
	for _, s := range r.Steady {
		if due := s.Rate * s.Took.Seconds(); s.Calls == 0 || float64(s.Calls) < 0.95*due {
			wrong("the load by %s: %d calls were answered of %.0f that were due", s.Name, s.Calls, due)
		}
		for kind, f := range s.Errors {
			wrong("the load by %s: %d calls failed by %s, such as: %s", s.Name, f.Count, kind, f.Example)
		}
	}
	if r.Failed > 0 {
		wrong("%d errors of connections that had their right, such as:", r.Failed)
		for _, text := range r.Errors {
			wrong("%s", text)
		}
	}
	return errors.Join(list...)
}

// A fate is how a connection fared.
type fate struct {
	live.Carrier
	past    []live.Period
	slowest time.Duration // call that was served
}

// judge tells how the connections fared.
func (v *revoking) judge() RevokeResult {
	r := RevokeResult{RevokeOptions: v.RevokeOptions, Stalled: v.stalled, Steady: v.parts}
	changes := map[Way]*Change{}
	for _, a := range v.acts {
		changes[a.way] = &Change{Way: a.way, How: map[string]int{}}
	}
	for _, m := range v.members {
		for _, f := range m.fates {
			r.Slowest = max(r.Slowest, f.slowest)
			back := false // since when every call is to be served again
			for _, p := range f.past {
				if p.Served {
					r.Calls += p.Count
					back = back || !m.again.IsZero() && !p.Began.Before(m.again)
				} else if m.way == "" || p.Began.Before(m.acted) || back {
					r.Failed++
					changes[v.during(p.Began)].Others++
					if len(r.Errors) < maxTold {
						r.Errors = append(r.Errors, fmt.Sprintf("%s, %s, during %s: %s", m.Name, f.Carrier, v.during(p.Began), p.Text))
					}
				}
			}
			if m.way != "" {
				changes[m.way].end(m, f.past, v.Limit)
			}
			if !m.again.IsZero() {
				changes[backBy[m.way]].back(m, f, v.Limit)
			}
		}
		if m.way != "" {
			end := changes[m.way]
			end.Known = max(end.Known, m.known.Sub(m.acted))
			if m.last.After(m.known.Add(v.Limit)) || m.open > 0 {
				end.Reached++
			}
		}
	}
	for _, a := range v.acts {
		c := changes[a.way]
		slices.Sort(c.After)
		r.Changes = append(r.Changes, *c)
	}
	return r
}

// during returns the way that was under way at a time.
func (v *revoking) during(at time.Time) Way {
	way := v.acts[0].way
	for _, a := range v.acts {
		if !at.Before(a.began) {
			way = a.way
		}
	}
	return way
}

// end takes how a connection ended.
func (c *Change) end(m *member, past []live.Period, limit time.Duration) {
	c.Connections++
	limited := m.known.Add(limit)
	done, late := false, false
	for _, p := range past {
		if !m.again.IsZero() && p.Sent.After(m.again) {
			break
		}
		switch {
		case p.Served:
			late = late || p.LastSent.After(limited) && (m.again.IsZero() || p.LastSent.Before(m.again))
		case !done && !p.Began.Before(m.acted):
			done = true
			c.After = append(c.After, max(p.Began.Sub(m.known), 0))
			c.How[p.Text]++
			late = late || p.Began.After(limited)
		}
	}
	if late || !done {
		c.Late++
	}
}

// back takes how a connection came back.
func (c *Change) back(m *member, f fate, limit time.Duration) {
	c.Connections++
	c.Known = max(c.Known, m.returned.Sub(m.again))
	for _, p := range f.past {
		if p.Served && !p.Began.Before(m.again) {
			after := max(p.Began.Sub(m.returned), 0)
			if f.Carrier.Calls() { // streams rest before they are opened again
				c.After = append(c.After, after)
				after += reopened
			}
			if after > limit+reopened {
				c.Late++
			}
			return
		}
	}
	c.Late++
}

// backBy is how what has ended a way comes back.
var backBy = map[Way]Way{Removal: AddedAgain, DenyList: DeniedNoMore}
