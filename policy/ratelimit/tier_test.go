package ratelimit

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBuiltInTiersAreWSO2s(t *testing.T) {
	want := []Tier{
		{Name: "Unlimited", Unlimited: true},
		{Name: "Gold", RequestCount: 5000, UnitTime: 1, TimeUnit: Minute},
		{Name: "Silver", RequestCount: 2000, UnitTime: 1, TimeUnit: Minute},
		{Name: "Bronze", RequestCount: 1000, UnitTime: 1, TimeUnit: Minute},
		{Name: "Unauthenticated", RequestCount: 500, UnitTime: 1, TimeUnit: Minute},
	}
	if diff := cmp.Diff(want, BuiltIn()); diff != "" {
		t.Error(diff)
	}
	for _, tier := range BuiltIn() {
		if err := tier.Validate(); err != nil {
			t.Errorf("%s: %v", tier.Name, err)
		}
	}
}

// docs/security.md, I 124: zero means none; anything that makes no sense is an error.
func TestValidate(t *testing.T) {
	ok := func(count, unitTime int, unit Unit, burst int) Tier {
		return Tier{Name: "T", RequestCount: count, UnitTime: unitTime, TimeUnit: unit, Burst: burst}
	}
	years := int(MaxWindow / (366 * 24 * time.Hour))
	for _, tt := range []struct {
		name string
		tier Tier
		want string // part of the error; empty: none
	}{
		{"an ordinary one", ok(3, 1, Minute, 0), ""},
		{"none pass", ok(0, 1, Minute, 0), ""},
		{"none pass a month", ok(0, 1, Month, 0), ""},
		{"the greatest", ok(math.MaxInt32, 1, Second, math.MaxInt32), ""},
		{"a burst below the count", ok(100, 1, Hour, 5), ""},
		{"a burst above the count", ok(5, 1, Second, 100), ""},
		{"a quota a day", ok(10000, 1, Day, 0), ""},
		{"the longest month", ok(1, int(MaxWindow/(31*24*time.Hour)), Month, 0), ""},
		{"unlimited", Tier{Name: "U", Unlimited: true}, ""},

		{"the zero tier", Tier{}, "without a name"},
		{"no unit", ok(1, 1, 0, 0), "timeUnit"},
		{"an unknown unit", ok(1, 1, Month+1, 0), "timeUnit"},
		{"a negative count", ok(-1, 1, Minute, 0), "requestCount -1"},
		{"too great a count", ok(math.MaxInt32+1, 1, Minute, 0), "requestCount 2147483648"},
		{"no unit time", ok(1, 0, Minute, 0), "unitTime 0"},
		{"a negative unit time", ok(1, -1, Minute, 0), "unitTime -1"},
		{"a unit time that overflows", ok(1, math.MaxInt, Hour, 0), "unitTime"},
		{"one hour too many", ok(1, years*366*24+1, Hour, 0), "unitTime"},
		{"a negative burst", ok(1, 1, Minute, -1), "burst -1"},
		{"too great a burst", ok(1, 1, Minute, math.MaxInt32+1), "burst 2147483648"},
		{"a burst a day", ok(1, 1, Day, 1), "burst 1: a quota by day or month has none"},
		{"a burst a month", ok(1, 1, Month, 1), "burst 1"},
		{"a burst of none", ok(0, 1, Minute, 1), "lets none pass"},
		{"a burst that never fills", ok(1, 1000, Hour, math.MaxInt32), "filling it"},
		{"unlimited and a limit", Tier{Name: "U", Unlimited: true, RequestCount: 1}, "unlimited and a limit"},
		{"unlimited and a unit", Tier{Name: "U", Unlimited: true, TimeUnit: Minute}, "unlimited and a limit"},
		{"a line break in the name", Tier{Name: "a\nb", Unlimited: true}, "tier name"},
		{"a space before the name", Tier{Name: " a", Unlimited: true}, "tier name"},
		{"broken UTF-8", Tier{Name: "a\xff", Unlimited: true}, "tier name"},
		{"a long name", Tier{Name: strings.Repeat("a", 256), Unlimited: true}, "256 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.tier.Validate()
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestParseUnit(t *testing.T) {
	for word, want := range map[string]Unit{
		"sec": Second, "min": Minute, "hour": Hour, "day": Day, "month": Month,
		"": 0, "Min": 0, "MIN": 0, " min": 0, "minute": 0, "hours": 0, "days": 0, "months": 0, "year": 0, "s": 0,
	} {
		got, err := ParseUnit(word)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %v, %v; want %v", word, got, err, want)
		}
		if want != 0 && got.String() != word {
			t.Errorf("%q is written as %q", word, got)
		}
	}
}

func FuzzParseUnit(f *testing.F) {
	for _, s := range []string{"sec", "min", "hour", "day", "month", "", "hours", "Min"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := ParseUnit(s); err == nil && (u == 0 || u.String() != s || u.length() == 0) {
			t.Errorf("%q is unit %d, written %q", s, u, u)
		} else if err != nil && u != 0 {
			t.Errorf("%q: unit %d beside an error", s, u)
		}
	})
}

func TestNewTiers(t *testing.T) {
	trial := Tier{Name: "Trial", RequestCount: 3, UnitTime: 1, TimeUnit: Minute}
	named := func(name string) Tier { trial := trial; trial.Name = name; return trial }
	for _, tt := range []struct {
		name string
		own  []Tier
		want string
	}{
		{"none", nil, ""},
		{"one", []Tier{trial}, ""},
		{"two", []Tier{trial, named("Other")}, ""},
		{"a built-in one", []Tier{named("Gold")}, "tier Gold is built in"},
		{"a built-in one twice", []Tier{trial, named("Gold"), named("Gold")}, "tier Gold is built in"},
		{"Unlimited made finite", []Tier{named("Unlimited")}, "tier Unlimited is built in"},
		{"one twice", []Tier{trial, trial}, "tier Trial is there twice"},
		{"another without limit", []Tier{{Name: "Free", Unlimited: true}}, "only the built-in tier Unlimited"},
		{"one that is not valid", []Tier{{Name: "Bad", RequestCount: -1}}, "tier Bad: requestCount -1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tiers, err := NewTiers(tt.own)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || tiers != nil {
					t.Fatalf("got %v, %v; want an error with %q", tiers, err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(tiers.Names()), len(BuiltIn())+len(tt.own); got != want || tiers.Names()[0] != Unlimited {
				t.Errorf("%d names, want %d: %q", got, want, tiers.Names())
			}
			for _, want := range append(BuiltIn(), tt.own...) {
				if got, ok := tiers.Find(want.Name); !ok || got != want {
					t.Errorf("%s: got %+v, %v", want.Name, got, ok)
				}
			}
		})
	}
}

// docs/security.md, I 124: a tier that isn't there is not found, in whatever spelling, and so never without limit.
func TestUnknownTierIsNotFound(t *testing.T) {
	tiers, err := NewTiers(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "unlimited", "UNLIMITED", "Unlimited ", "gold", "Trial", "Gold:PRODUCTION", "0"} {
		if got, ok := tiers.Find(name); ok || got != (Tier{}) {
			t.Errorf("%q is found: %+v", name, got)
		}
	}
	if _, ok := (*Tiers)(nil).Find("Gold"); ok {
		t.Error("a nil Tiers knows Gold")
	}
	if _, ok := new(Tiers).Find("Gold"); ok {
		t.Error("a zero Tiers knows Gold")
	}
}
