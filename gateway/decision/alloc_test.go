//go:build !race

package decision

import (
	"testing"

	"sallyport/gateway/http1"
	"sallyport/policy/certrule"
)

// TestAllocDecide: to decide an allowed mTLS call, with a scope and three limits, takes no memory.
func TestAllocDecide(t *testing.T) {
	tab := newTable(t)
	fresh := *tab.exchange
	n := testing.AllocsPerRun(1000, func() {
		if err := tab.decide(&fresh); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if x := tab.exchange; x.Client == nil || x.Client.Alias != "acme" || x.Allowance.Window == 0 {
		t.Errorf("decided as %+v", x)
	}
}

// TestAllocDecideByRole: nor does one whose scope is one of a role's.
func TestAllocDecideByRole(t *testing.T) {
	tab := newTable(t)
	tab.decider.Snapshot().Clients.All()[0].Scopes = nil
	fresh := *tab.exchange
	if err := tab.decide(&fresh); err == nil {
		t.Fatal("admitted without a scope")
	}
	roles, err := certrule.ScopesFrom{SubjectOU: map[string][]string{"Orders": {"orders:write", "orders:read"}}}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	tab.decider.Snapshot().Routes.routes[0].ScopesFrom = roles
	if n := testing.AllocsPerRun(1000, func() {
		if err := tab.decide(&fresh); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestAllocStreams: a call with an answer of unknown length is watched without taking memory, and so is a round over it.
func TestAllocStreams(t *testing.T) {
	tab := newTable(t)
	x := tab.watched(t, func() { t.Error("broken off") })
	answer := &http1.Response{Status: 200, Length: http1.InChunks}
	answer.Fields = []http1.Field{{Name: "Content-Type", Value: "application/json; charset=utf-8"}}
	if n := testing.AllocsPerRun(1000, func() {
		x.Over()
		x.Streams(answer)
	}); n != 0 {
		t.Errorf("watching a call: %v allocations, want 0", n)
	}
	var r round
	if n := testing.AllocsPerRun(1000, func() { r.walk(tab.decider, tab.decider.Snapshot()) }); n != 0 {
		t.Errorf("a round: %v allocations, want 0", n)
	}
}
