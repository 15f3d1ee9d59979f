package decision

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/gateway/clientcert"
	"sallyport/policy/ratelimit"
)

// TestMostUses: MaxUses registrations are counted each for itself and what comes on top together. A registration that
// stays keeps its count over reloads, whatever becomes of its tier; one that goes is gone with it, and the room is for
// those that were on top.
func TestMostUses(t *testing.T) {
	tab := newTable(t)
	tiers, err := ratelimit.NewTiers(nil)
	if err != nil {
		t.Fatal(err)
	}
	api := func(i int) certstore.API { return certstore.API{Name: fmt.Sprint(i), Version: "1"} }
	// reload has the one certificate registered for these APIs.
	reload := func(tier string, apis ...int) {
		t.Helper()
		var list []certstore.Client
		for _, i := range apis {
			list = append(list, certstore.Client{
				API: api(i), Alias: "acme", KeyType: certstore.Production, Tier: tier, Certificate: tab.leaf, Source: "test",
			})
		}
		index, err := certstore.NewIndex(list)
		if err != nil {
			t.Fatal(err)
		}
		clients, unknown := NewClients(index, tiers, tab.limits)
		if unknown != nil {
			t.Fatal(unknown)
		}
		tab.decider.Set(Snapshot{Routes: tab.decider.Snapshot().Routes, Clients: clients})
	}
	call := func(under *Snapshot, i, times int) {
		for range times {
			x := *tab.exchange
			x.Snapshot, x.Route = under, &Route{API: api(i)}
			x.Certificate = clientcert.Unregistered(sha256.Sum256(tab.leaf.Raw), &Clients{})
			tab.decider.Finish(&x)
		}
	}
	const together = -1
	// expect compares how many are told of, and the calls of some.
	expect := func(when string, told int, want map[int]uint64) {
		t.Helper()
		uses, calls := tab.decider.Uses(), map[string]uint64{}
		for _, u := range uses {
			name := ""
			if u.Client != nil {
				name = u.Client.API.Name
			}
			if _, twice := calls[name]; twice {
				t.Errorf("%s: %q is there twice", when, name)
			}
			if calls[name] = u.Calls; (u.Calls == 0) != u.Seen.Equal(time.Time{}) {
				t.Errorf("%s: %d calls of %q, the last of them %v", when, u.Calls, name, u.Seen)
			}
		}
		if len(uses) != told {
			t.Errorf("%s: %d are told of, want %d", when, len(uses), told)
		}
		for _, i := range []int{0, MaxUses, MaxUses + 1, together} {
			name := fmt.Sprint(i)
			if i == together {
				name = ""
			}
			n, is := calls[name]
			if wanted, wants := want[i]; n != wanted || is != wants {
				t.Errorf("%s: %d calls of %q (%t), want %d (%t)", when, n, name, is, wanted, wants)
			}
		}
	}
	all := make([]int, MaxUses+2)
	for i := range all {
		all[i] = i
	}

	reload("Gold", all...)
	before := tab.decider.Snapshot()
	call(before, 0, 1)
	call(before, MaxUses, 2)
	call(before, MaxUses+1, 3)
	expect("two on top", MaxUses+1, map[int]uint64{0: 1, together: 5})

	reload("Silver", all...)
	call(tab.decider.Snapshot(), 0, 1)
	call(tab.decider.Snapshot(), MaxUses+1, 1)
	call(before, 0, 1) // it was under way
	expect("a reload", MaxUses+1, map[int]uint64{0: 3, together: 6})

	reload("Silver", 0, MaxUses, MaxUses+1)
	call(tab.decider.Snapshot(), MaxUses+1, 1)
	expect("room for those on top", 3, map[int]uint64{0: 3, MaxUses: 0, MaxUses + 1: 1})

	reload("Silver", MaxUses+1)
	expect("two gone", 1, map[int]uint64{MaxUses + 1: 1})

	reload("Silver", all...)
	call(before, MaxUses, 1) // of the first snapshot, where it was on top
	expect("all again", MaxUses+1, map[int]uint64{0: 0, MaxUses + 1: 1, together: 7})
}
