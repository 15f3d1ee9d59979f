package config

import "slices"

// builtInTiers are the names of the tiers that need no entry under `tiers:`, WSO2's default policies.
var builtInTiers = []string{"Unlimited", "Gold", "Silver", "Bronze", "Unauthenticated"}

// A Tier is a named limit of calls.
type Tier struct {
	Pos
	Name         string // letters, digits, ".", "_", "-"; unique, none of the built-in names
	RequestCount int    // calls per UnitTime, 0 (nobody passes) to 1,000,000,000
	UnitTime     int    // of TimeUnit, 1 to 1,000,000; default 1
	TimeUnit     string // "sec", "min", "hour", "day" or "month"
	Burst        int    // size of the bucket, for sec, min and hour only; 0: as RequestCount
}

// tier reads one entry of `tiers:`.
func (l *loader) tier(n node) Tier {
	m := n.mapping("a tier")
	defer m.end()
	name := m.name("name")
	if name.OK {
		if slices.Contains(builtInTiers, name.Value) {
			l.errorf(name.Pos, "tier %s is built in: give yours another name", name.Value)
		}
		for _, other := range l.cfg.Tiers {
			if other.Name == name.Value {
				l.errorf(name.Pos, "a second tier %s, the first in line %d: give each its own name", name.Value, other.Line)
			}
		}
	}
	m.need("requestCount", "how many calls may pass in the time")
	m.need("timeUnit", "sec, min, hour, day or month")
	out := Tier{
		Pos:          n.Pos,
		Name:         name.Value,
		RequestCount: m.integer("requestCount", 0, 1_000_000_000, 0),
		UnitTime:     m.integer("unitTime", 1, 1_000_000, 1),
		TimeUnit:     m.word("timeUnit", "", "sec", "min", "hour", "day", "month").Value,
		Burst:        m.integer("burst", 1, 1_000_000_000, 0),
	}
	if e := m.find("burst"); e != nil && (out.TimeUnit == "day" || out.TimeUnit == "month") {
		l.errorf(e.Pos, "burst is for tiers by sec, min or hour: a quota by %s has none; remove it", out.TimeUnit)
	}
	return out
}

// checkTier reports a tier that is unknown.
func (l *loader) checkTier(t text) {
	if !t.OK || slices.Contains(builtInTiers, t.Value) {
		return
	}
	known := slices.Clone(builtInTiers)
	for _, tier := range l.cfg.Tiers {
		if tier.Name == t.Value {
			return
		}
		known = append(known, tier.Name)
	}
	if near := nearest(t.Value, known); near != "" {
		l.errorf(t.Pos, "there is no tier %s: did you mean %s?", quote(t.Value), near)
		return
	}
	l.errorf(t.Pos, "there is no tier %s: use %s, or add it under tiers", quote(t.Value), either(builtInTiers))
}
