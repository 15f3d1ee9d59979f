package decision

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/gateway/http1"
	"sallyport/policy"
	"sallyport/policy/token"
)

// watched is a call that was admitted, and is watched.
func (t *table) watched(tb testing.TB, breakOff func()) *Exchange {
	tb.Helper()
	x := *t.exchange
	x.BreakOff = breakOff
	if err := Decide(&x); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(x.place.Leave)
	x.Watch(true)
	return &x
}

// watch runs the decider until the test ends.
func (t *table) watch(tb testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { t.decider.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		run.Wait()
	})
}

// TestFaultsOfOneStream: a stream that cannot be judged, or not be broken off without a panic, ends alone.
func TestFaultsOfOneStream(t *testing.T) {
	tab := newTable(t)
	tab.decider.cfg.Recheck = time.Millisecond
	var endedA, endedB, keptC atomic.Int64
	a := tab.watched(t, func() { endedA.Add(1) })
	b := tab.watched(t, func() { endedB.Add(1); panic("in BreakOff") })
	c := tab.watched(t, func() { keptC.Add(1) })
	a.connection, b.connection = nil, nil // judging them panics
	tab.watch(t)
	for endedA.Load() == 0 || endedB.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	last := tab.watched(t, func() {})
	last.connection = nil
	for last.rightEnded() == nil { // another round is over
		time.Sleep(time.Millisecond)
	}
	for _, x := range []*Exchange{a, b, c, last} {
		x.Over()
		x.Over()
	}
	if endedA.Load() != 1 || endedB.Load() != 1 || keptC.Load() != 0 {
		t.Errorf("broken off %d, %d and %d times", endedA.Load(), endedB.Load(), keptC.Load())
	}
	if a.Fail(errors.New("a failure"), false); a.Refusal().Reason != Internal {
		t.Errorf("the call that could not be judged is %v", a.Err)
	}
	if c.rightEnded() != nil {
		t.Errorf("the other one has ended: %v", c.rightEnded())
	}
}

// TestStreamsComeAndGo: calls that are watched for a moment, while rounds go over them, are never broken off after Over,
// and leave nothing behind.
func TestStreamsComeAndGo(t *testing.T) {
	tab := newTable(t)
	tab.decider.cfg.Recheck = time.Millisecond
	tab.watch(t)
	nobody := tab.decider.Snapshot()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 2000 {
				var over atomic.Bool
				x := *tab.exchange
				x.Snapshot = nobody
				x.BreakOff = func() {
					if over.Load() {
						t.Error("broken off after Over")
					}
				}
				x.Watch(i%2 == 0)
				x.Watch(true)
				x.Over()
				over.Store(true)
			}
		})
	}
	for range 20 { // swaps, half of which admit nobody
		tab.decider.Set(Snapshot{Routes: &Table{}, Clients: &Clients{}})
		time.Sleep(time.Millisecond)
	}
	all.Wait()
	if open := tab.decider.streams.appendOpen(nil); len(open) != 0 {
		t.Errorf("%d are left", len(open))
	}
}

// A strictVerifier fails the test if it is asked in a way that may wait.
type strictVerifier struct {
	testing.TB
	claims *token.Claims
}

func (v strictVerifier) Cached(string) (*token.Claims, bool) { return nil, false }

func (v strictVerifier) Verify(context.Context, string) (*token.Claims, error) {
	v.Error("Verify was called")
	return nil, token.ErrInvalid
}

func (v strictVerifier) Still(_ string, was *token.Claims) (*token.Claims, error) {
	if was != v.claims {
		v.Errorf("its claims were %v", was)
	}
	return v.claims, nil
}

// TestOtherRights: a stream whose token or certificate would let in another, or to another place, has lost its right.
func TestOtherRights(t *testing.T) {
	const certificate, byToken = policy.Certificate, policy.Token
	claims := &token.Claims{Subject: "alice", Scopes: []string{"orders:read"}}
	for _, c := range []struct {
		name   string
		was    policy.Method
		now    policy.Security
		denied bool
	}{
		{"the same certificate", certificate, policy.Security{Certificate: policy.Optional}, false},
		{"the same token", byToken, policy.Security{Token: policy.Optional}, false},
		{"a certificate, now open", certificate, policy.Security{Open: true}, false},
		{"a token, now open", byToken, policy.Security{Open: true}, false},
		{"nobody's, now a certificate's", policy.Nothing, policy.Security{Certificate: policy.Optional}, false},
		{"a certificate's, now the token's", certificate, policy.Security{Token: policy.Optional}, true},
		{"the token's, now a certificate's", byToken, policy.Security{Certificate: policy.Optional}, true},
		{"nothing is declared", byToken, policy.Security{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab := newTable(t)
			routes := tab.decider.Snapshot().Routes
			routes.settings.Tokens = strictVerifier{t, claims}
			x := *tab.exchange
			x.Request.Fields = []http1.Field{{Name: "Authorization", Value: "Bearer abc"}}
			if err := Decide(&x); err != nil {
				t.Fatal(err)
			}
			defer x.place.Leave()
			x.Access.By, x.Claims = c.was, claims
			if c.was != certificate {
				x.Client = nil
			}
			x.Resource.Security = c.now // as in a table of its own
			if err := new(round).stillAdmitted(&x, tab.decider.Snapshot()); (err != nil) != c.denied {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestStreamsEndWithinASecondOfExpiry: a certificate expires just after a round over the streams, by the second that
// rounds begin at, and the stream ends within a second of that.
func TestStreamsEndWithinASecondOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := newTable(t)
		began, end := time.Now(), tab.leaf.NotAfter
		tab.decider.cfg.Now = func() time.Time { return end.Add(time.Since(began) - 3*time.Second) }
		var ended atomic.Int64
		x := tab.watched(t, func() { ended.Store(int64(tab.decider.cfg.Now().Sub(end))) })
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { tab.decider.Run(ctx) })
		time.Sleep(10 * time.Second)
		cancel()
		run.Wait()
		x.Over()
		if after := time.Duration(ended.Load()); after <= 0 || after >= time.Second {
			t.Errorf("the stream ended %v after its certificate", after)
		}
	})
}
