package config

import (
	"slices"

	"sallyport/gateway/control"
	"sallyport/internal/printable"
	"sallyport/policy/ratelimit"
)

// readTiers reads `tiers:`.
func (l *loader) readTiers(m *mapping) {
	var own []ratelimit.Tier
	for _, n := range m.nodes("tiers") {
		tier := l.tier(n)
		l.tiers = append(l.tiers, control.Placed[ratelimit.Tier]{Place: n.Place, Value: tier})
		own = append(own, tier)
	}
	var err error
	l.cfg.Tiers, err = ratelimit.NewTiers(own)
	l.cfg.Problems.Add(l.cfg.Place, err)
}

// tier reads one entry of `tiers:`.
func (l *loader) tier(n node) ratelimit.Tier {
	m := n.mapping("a tier")
	defer m.end()
	name := m.name("name")
	if name.OK {
		if slices.ContainsFunc(ratelimit.BuiltIn(), func(t ratelimit.Tier) bool { return t.Name == name.Value }) {
			l.errorf(name.Place, "tier %s is built in: give yours another name", name.Value)
		}
		for _, other := range l.tiers {
			if other.Value.Name == name.Value {
				l.errorf(name.Place,
					"a second tier %s, the first in line %d: give each its own name", name.Value, other.Line)
			}
		}
	}
	m.need("requestCount", "how many calls may pass in the time")
	m.need("timeUnit", "as in min")
	before := len(l.errs)
	out := ratelimit.Tier{
		Name:         name.Value,
		RequestCount: m.integer("requestCount", 0, ratelimit.MaxCount, 0),
		UnitTime:     m.integer("unitTime", 1, ratelimit.MaxCount, 1),
	}
	unit, given := ask(m, "timeUnit", 0, ratelimit.ParseUnit)
	out.TimeUnit, out.Burst = unit, m.integer("burst", 1, ratelimit.MaxCount, 0)
	if given.OK && name.OK && len(l.errs) == before {
		if err := out.Validate(); err != nil {
			l.errorf(n.Place, "%v", err)
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
	for _, tier := range l.tiers {
		known = append(known, tier.Value.Name)
	}
	if !t.OK || slices.Contains(known, t.Value) {
		return
	}
	if near := nearest(t.Value, known); near != "" {
		l.errorf(t.Place, "there is no tier %s: did you mean %s?", printable.Quote(t.Value), near)
		return
	}
	l.errorf(t.Place, "there is no tier %s: use %s, or add it under tiers", printable.Quote(t.Value), either(known))
}
