package config

import (
	"slices"

	"sallyport/policy/ratelimit"
)

// A Tier is a named limit of calls, valid by ratelimit's rules.
type Tier struct {
	Pos
	Name         string // letters, digits, ".", "_", "-"; unique, none of the built-in names
	RequestCount int    // calls per UnitTime; 0: nobody passes
	UnitTime     int    // of TimeUnit; default 1
	TimeUnit     string // as ratelimit.ParseUnit accepts it
	Burst        int    // size of the bucket; 0: as RequestCount
}

// tier reads one entry of `tiers:`.
func (l *loader) tier(n node) Tier {
	m := n.mapping("a tier")
	defer m.end()
	name := m.name("name")
	if name.OK {
		if slices.ContainsFunc(ratelimit.BuiltIn(), func(t ratelimit.Tier) bool { return t.Name == name.Value }) {
			l.errorf(name.Pos, "tier %s is built in: give yours another name", name.Value)
		}
		for _, other := range l.cfg.Tiers {
			if other.Name == name.Value {
				l.errorf(name.Pos,
					"a second tier %s, the first in line %d: give each its own name", name.Value, other.Line)
			}
		}
	}
	m.need("requestCount", "how many calls may pass in the time")
	m.need("timeUnit", "as in min")
	before := len(l.errs)
	out := Tier{
		Pos:          n.Pos,
		Name:         name.Value,
		RequestCount: m.integer("requestCount", 0, ratelimit.MaxCount, 0),
		UnitTime:     m.integer("unitTime", 1, ratelimit.MaxCount, 1),
		TimeUnit:     ask(m, "timeUnit", "", ratelimit.ParseUnit).Value,
		Burst:        m.integer("burst", 1, ratelimit.MaxCount, 0),
	}
	if unit, err := ratelimit.ParseUnit(out.TimeUnit); err == nil && name.OK && len(l.errs) == before {
		tier := ratelimit.Tier{
			Name: out.Name, RequestCount: out.RequestCount, UnitTime: out.UnitTime, TimeUnit: unit, Burst: out.Burst,
		}
		if err := tier.Validate(); err != nil {
			l.errorf(n.Pos, "%v", err)
		}
	}
	return out
}

// checkTier reports a tier that is unknown.
func (l *loader) checkTier(t text) {
	var known []string
	for _, tier := range ratelimit.BuiltIn() {
		known = append(known, tier.Name)
	}
	for _, tier := range l.cfg.Tiers {
		known = append(known, tier.Name)
	}
	if !t.OK || slices.Contains(known, t.Value) {
		return
	}
	if near := nearest(t.Value, known); near != "" {
		l.errorf(t.Pos, "there is no tier %s: did you mean %s?", quote(t.Value), near)
		return
	}
	l.errorf(t.Pos, "there is no tier %s: use %s, or add it under tiers", quote(t.Value), either(known))
}
