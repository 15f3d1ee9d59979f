package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

// A Unit is what a tier's UnitTime counts in. The zero Unit is none and not valid.
type Unit uint8

const (
	Second Unit = iota + 1
	Minute
	Hour
	Day   // of the calendar, UTC
	Month // of the calendar, UTC
)

var unitWords = [...]string{Second: "sec", Minute: "min", Hour: "hour", Day: "day", Month: "month"}

// ParseUnit reads a unit as configuration writes it: sec, min, hour, day or month, exactly.
func ParseUnit(s string) (Unit, error) {
	for u, word := range unitWords {
		if s == word && s != "" {
			return Unit(u), nil
		}
	}
	return 0, fmt.Errorf("%.60q is none of %s", s, strings.Join(unitWords[Second:], ", "))
}

// String is the unit as ParseUnit reads it, or "" if it is none.
func (u Unit) String() string {
	if int(u) < len(unitWords) {
		return unitWords[u]
	}
	return ""
}

// length is the longest that one unit lasts.
func (u Unit) length() time.Duration {
	switch u {
	case Second:
		return time.Second
	case Minute:
		return time.Minute
	case Hour:
		return time.Hour
	case Day:
		return 24 * time.Hour
	case Month:
		return 31 * 24 * time.Hour
	}
	return 0
}

// calendar reports whether the unit's periods begin with the calendar's.
func (u Unit) calendar() bool { return u == Day || u == Month }

// Bounds of a tier.
const (
	// MaxCount is the greatest RequestCount and Burst, the greatest that WSO2 stores.
	MaxCount = math.MaxInt32
	// MaxWindow is the longest period of a tier, and the longest that an empty bucket may take to fill.
	MaxWindow = 100 * 366 * 24 * time.Hour

	maxName = 255 // bytes
)

// A Tier is how many calls may pass in which time. The zero Tier is not valid, and a bucket of a tier that is not
// valid refuses every call.
//
// With Second, Minute and Hour it is a token bucket of Burst calls, refilled evenly. With Day and Month it is a quota
// that starts anew with the calendar in UTC; periods of several days or months are counted from 1970-01-01.
type Tier struct {
	Name         string
	RequestCount int  // calls a period; 0 lets none pass
	UnitTime     int  // units a period, at least 1
	TimeUnit     Unit // what UnitTime counts in
	Burst        int  // calls that may pass at once; 0 means RequestCount; not for Day and Month
	Unlimited    bool // no limit; the numbers are zero then
}

// Validate returns what is wrong with the tier, or nil.
func (t Tier) Validate() error {
	if err := checkName(t.Name); err != nil {
		return err
	}
	if err := t.checkNumbers(); err != nil {
		return fmt.Errorf("tier %s: %w", t.Name, err)
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("tier without a name")
	case len(name) > maxName:
		return fmt.Errorf("tier name of %d bytes: at most %d", len(name), maxName)
	case !utf8.ValidString(name), strings.ContainsFunc(name, unicode.IsControl), strings.TrimSpace(name) != name:
		return fmt.Errorf("tier name %q: control characters, broken UTF-8 and spaces around it are not allowed", name)
	}
	return nil
}

func (t Tier) checkNumbers() error {
	if t.Unlimited {
		if t.RequestCount != 0 || t.UnitTime != 0 || t.TimeUnit != 0 || t.Burst != 0 {
			return errors.New("unlimited and a limit at once")
		}
		return nil
	}
	switch {
	case t.RequestCount < 0 || t.RequestCount > MaxCount:
		return fmt.Errorf("requestCount %d: want 0 to %d", t.RequestCount, MaxCount)
	case t.TimeUnit.length() == 0:
		return fmt.Errorf("timeUnit is none of %s", strings.Join(unitWords[Second:], ", "))
	case t.UnitTime < 1 || int64(t.UnitTime) > int64(MaxWindow/t.TimeUnit.length()):
		return fmt.Errorf("unitTime %d: want 1 to %d for %s",
			t.UnitTime, int64(MaxWindow/t.TimeUnit.length()), t.TimeUnit)
	case t.Burst < 0 || t.Burst > MaxCount:
		return fmt.Errorf("burst %d: want 0 to %d", t.Burst, MaxCount)
	case t.Burst > 0 && t.TimeUnit.calendar():
		return fmt.Errorf("burst %d: a quota by day or month has none", t.Burst)
	case t.Burst > 0 && t.RequestCount == 0:
		return fmt.Errorf("burst %d: a requestCount of 0 lets none pass", t.Burst)
	case t.RequestCount > 0 && float64(t.burst())*float64(t.window()) > float64(t.RequestCount)*float64(MaxWindow):
		return fmt.Errorf("burst %d: filling it would take longer than %d hours", t.Burst, int(MaxWindow.Hours()))
	}
	return nil
}

// window is the tier's period, with months at their longest.
func (t Tier) window() time.Duration { return time.Duration(t.UnitTime) * t.TimeUnit.length() }

// burst is how many calls an untouched allowance lets pass at once.
func (t Tier) burst() int {
	if t.Burst > 0 {
		return t.Burst
	}
	return t.RequestCount
}

// rate is how fast a token bucket is refilled.
func (t Tier) rate() rate.Limit { return rate.Limit(float64(t.RequestCount) / t.window().Seconds()) }

// Unlimited is the name of the built-in tier without a limit.
const Unlimited = "Unlimited"

// BuiltIn returns the tiers that are always there, WSO2's default subscription policies.
func BuiltIn() []Tier {
	return []Tier{
		{Name: Unlimited, Unlimited: true},
		{Name: "Gold", RequestCount: 5000, UnitTime: 1, TimeUnit: Minute},
		{Name: "Silver", RequestCount: 2000, UnitTime: 1, TimeUnit: Minute},
		{Name: "Bronze", RequestCount: 1000, UnitTime: 1, TimeUnit: Minute},
		{Name: "Unauthenticated", RequestCount: 500, UnitTime: 1, TimeUnit: Minute},
	}
}

// Tiers are the tiers that may be named: the built-in ones and an operator's own. They never change.
// A nil or zero Tiers knows none.
type Tiers struct {
	names  []string
	byName map[string]Tier
}

// NewTiers adds own tiers to the built-in ones. It is an error if one is not valid, is named twice, has the name of a
// built-in one, or is Unlimited as only the built-in tier of that name may be.
func NewTiers(own []Tier) (*Tiers, error) {
	tiers := &Tiers{byName: make(map[string]Tier)}
	add := func(t Tier) {
		tiers.names = append(tiers.names, t.Name)
		tiers.byName[t.Name] = t
	}
	for _, t := range BuiltIn() {
		add(t)
	}
	builtIn := slices.Clone(tiers.names)
	for _, t := range own {
		if err := t.Validate(); err != nil {
			return nil, err
		}
		switch {
		case slices.Contains(builtIn, t.Name):
			return nil, fmt.Errorf("tier %s is built in: give yours another name", t.Name)
		case slices.Contains(tiers.names, t.Name):
			return nil, fmt.Errorf("tier %s is there twice", t.Name)
		case t.Unlimited:
			return nil, fmt.Errorf("tier %s: only the built-in tier Unlimited has no limit", t.Name)
		}
		add(t)
	}
	return tiers, nil
}

// Names returns the names of all tiers, the built-in ones first.
func (t *Tiers) Names() []string { return slices.Clone(t.names) }

// Find returns the tier of exactly this name; case counts. A tier that is not found is a refusal, never no limit.
func (t *Tiers) Find(name string) (Tier, bool) {
	if t == nil {
		return Tier{}, false
	}
	found, ok := t.byName[name]
	return found, ok
}
