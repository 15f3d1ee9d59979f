package listenerprofiles

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	f := newFixture(t)
	set := f.load(t,
		"10.0.0.1",
		"10.0.0.1 name=a.test",
		"10.0.0.1 name=*.wild.test",
		"10.0.0.1 name=hard.wild.test",
		"10.0.0.2 name=a.test", // no nameless one: others fall through
		"0.0.0.0 name=b.test",
		"0.0.0.0",
		":: name=b.test",
		":: name=only6.test",
		"2001:db8::1 name=a.test",
	)
	onlyAny6 := f.load(t, ":: name=a.test")
	onlyAny4 := f.load(t, "0.0.0.0 name=a.test")
	tests := []struct {
		set         *Set
		local, name string
		want        string
	}{
		{set, "10.0.0.1", "", "profile 10.0.0.1"},
		{set, "10.0.0.1", "a.test", "profile 10.0.0.1 a.test"},
		{set, "::ffff:10.0.0.1", "a.test", "profile 10.0.0.1 a.test"},
		{set, "10.0.0.1", "x.wild.test", "profile 10.0.0.1 *.wild.test"},
		{set, "10.0.0.1", "hard.wild.test", "profile 10.0.0.1 hard.wild.test"},
		{set, "10.0.0.1", "wild.test", "profile 10.0.0.1"},
		{set, "10.0.0.1", ".wild.test", "profile 10.0.0.1"},
		{set, "10.0.0.1", "*.wild.test", "profile 10.0.0.1 *.wild.test"},
		{set, "10.0.0.1", "x.y.wild.test", "profile 10.0.0.1"}, // the star is one label
		{set, "10.0.0.1", "b.test", "profile 10.0.0.1"},        // its own nameless one comes before 0.0.0.0
		{set, "10.0.0.2", "a.test", "profile 10.0.0.2 a.test"},
		{set, "10.0.0.2", "b.test", "profile 0.0.0.0 b.test"},
		{set, "10.0.0.2", "", "profile 0.0.0.0"},
		{set, "10.0.0.3", "a.test", "profile 0.0.0.0"},
		{set, "10.0.0.3", "b.test", "profile 0.0.0.0 b.test"},
		{set, "2001:db8::1", "a.test", "profile 2001:db8::1 a.test"},
		{set, "2001:db8::1", "b.test", "profile :: b.test"},
		{set, "2001:db8::1", "c.test", "profile 0.0.0.0"}, // 0.0.0.0 comes after ::
		{set, "fe80::1%eth0", "only6.test", "profile :: only6.test"},
		{set, "10.0.0.3", "only6.test", "profile 0.0.0.0"},
		{onlyAny6, "10.0.0.1", "a.test", "profile :: a.test"},
		{onlyAny6, "10.0.0.1", "b.test", "listener https"},
		{onlyAny4, "::1", "a.test", "profile 0.0.0.0 a.test"},
		{onlyAny4, "::1", "", "listener https"},
	}
	for _, tt := range tests {
		local := netip.MustParseAddr(tt.local)
		if got := tt.set.Find(local, tt.name); got.Name != tt.want {
			t.Errorf("%s %q: %s, want %s", tt.local, tt.name, got.Name, tt.want)
		}
		if n := testing.AllocsPerRun(100, func() { tt.set.Find(local, tt.name) }); n != 0 {
			t.Errorf("%s %q: %v allocations", tt.local, tt.name, n)
		}
	}
	if got := set.Find(netip.Addr{}, "a.test"); got == nil {
		t.Error("the zero address finds nothing")
	}
	if got := set.Profiles(); len(got) != 11 || got[0].Name != "profile 10.0.0.1" || got[10].Name != "listener https" {
		t.Errorf("%d profiles", len(got))
	}
}

// What serves an unknown name is as strict as the strictest profile by name on the same socket, or the file is refused.
func TestUnknownNamesMeetNoWeakerProfile(t *testing.T) {
	tests := []struct {
		name     string
		own      VerifyClient
		profiles []string
		refused  string // a word of the error; "" when the file is good
	}{
		{"the nameless one of the address decides", None, []string{"10.0.0.1 name=a.test verify=require", "10.0.0.1 verify=require"}, ""},
		{"weaker beside it", Require, []string{"10.0.0.1 name=a.test verify=require", "10.0.0.1 verify=optional"}, "a.test says require"},
		{"none beside optional", Require, []string{"10.0.0.1 name=a.test", "10.0.0.1 verify=none"}, "a.test says optional"},
		{"stricter than need be", None, []string{"10.0.0.1 name=a.test verify=none", "10.0.0.1 verify=require"}, ""},
		{"unnamed falls to 0.0.0.0", None, []string{"10.0.0.1 name=a.test verify=require", "0.0.0.0 verify=require"}, ""},
		{"unnamed falls to a weaker 0.0.0.0", Require, []string{"10.0.0.1 name=a.test verify=require", "0.0.0.0"}, "served by profile 0.0.0.0"},
		{"unnamed falls to ::", None, []string{"10.0.0.1 name=a.test verify=require", ":: verify=require"}, ""},
		{"unnamed falls to a weaker ::", Require, []string{"10.0.0.1 name=a.test verify=require", ":: verify=none"}, "served by profile ::"},
		{"unnamed falls to the listener", Require, []string{"10.0.0.1 name=a.test verify=require"}, ""},
		{"unnamed falls to a weaker listener", Optional, []string{"10.0.0.1 name=a.test verify=require"}, "served by listener https"},
		{"names at 0.0.0.0 count where an address falls through", Optional, []string{"10.0.0.1 name=a.test", "0.0.0.0 name=b.test verify=require"}, "b.test says require"},
		{"names at 0.0.0.0 do not count beside a nameless one of the address", Require, []string{"10.0.0.1 verify=none", "0.0.0.0 name=b.test verify=require"}, ""},
		{"a wildcard counts as a name", Optional, []string{"0.0.0.0 name=*.test verify=require"}, "*.test says require"},
		{"a weaker wildcard beside a name is fine", Require, []string{"0.0.0.0 name=*.test", "0.0.0.0 name=a.test verify=require"}, ""},
		{"no names, nothing to hold", None, []string{"10.0.0.1 verify=none", "0.0.0.0 verify=require"}, ""},
	}
	f := newFixture(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.xml(t, tt.profiles...)
			cfg := f.config()
			cfg.Own.VerifyClient = tt.own
			set, err := Load(cfg, nil)
			if (err == nil) != (tt.refused == "") || (set == nil) != (err != nil) {
				t.Fatal(err)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.refused) || !strings.Contains(err.Error(), "listenerprofiles.xml:")) {
				t.Errorf("%v lacks %q", err, tt.refused)
			}
		})
	}
}

func BenchmarkFind(b *testing.B) {
	set := newFixture(b).load(b, "10.0.0.1 name=a.test", "0.0.0.0 name=*.wild.test", "0.0.0.0")
	local := netip.MustParseAddr("::ffff:10.0.0.1")
	b.ReportAllocs()
	for b.Loop() {
		set.Find(local, "x.wild.test")
	}
}
