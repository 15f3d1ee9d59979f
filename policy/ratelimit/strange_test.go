package ratelimit

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testredis"
)

// TestRedisClockPutBack puts Redis's clock back, as a failover to a server with another clock does: that refills nothing,
// and delays nobody.
func TestRedisClockPutBack(t *testing.T) {
	var mu sync.Mutex
	node, skew := noon, time.Duration(0)
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return node }
	redisNow := func() time.Time { mu.Lock(); defer mu.Unlock(); return node.Add(skew) }
	set := func(d, s time.Duration) { mu.Lock(); defer mu.Unlock(); node, skew = node.Add(d), s }
	l, _ := run(t, Options{Redis: single(t), Timeout: patient, Now: now, prefix: prefix(), redisTime: redisNow})
	b := l.Bucket(client("a"), perMinute(4))
	want := func(passes int) {
		t.Helper()
		passed := 0
		for Await(context.Background(), now, b).Allowed {
			passed++
		}
		if passed != passes {
			t.Errorf("%d calls pass, want %d", passed, passes)
		}
		l.settle()
	}
	want(4)
	set(0, -time.Hour)
	want(0)
	set(pollPauseAtMost, -time.Hour) // the node asks again
	want(0)
	set(15*time.Second, -time.Hour)
	want(1)
	set(15*time.Second, -time.Hour)
	want(1)
}

// TestAnswersOfOthers holds docs/security.md, I 126: an answer to another question is an error, whose connections are
// closed, and gives nobody anything.
func TestAnswersOfOthers(t *testing.T) {
	shifter := testredis.NewShifter(t, testredis.Start(t, testredis.Options{}).Address)
	told := make(chan error, 1000)
	l, _ := run(t, Options{
		Redis: Redis{Addresses: []string{shifter.Address}}, Timeout: patient, OnFailure: DenyAll, prefix: prefix(),
		Told: func(err error) { told <- err },
	})
	large := l.Bucket(client("large"), per(1000, Hour))
	small := l.Bucket(client("small"), Tier{Name: "T", RequestCount: 3, UnitTime: 24, TimeUnit: Hour})
	passed := 0
	take := func() {
		Await(context.Background(), time.Now, large)
		if Await(context.Background(), time.Now, small).Allowed {
			passed++
		}
	}
	take()
	before := l.shared.client.Load()
	shifter.Shift()
	for err := error(nil); !errors.Is(err, errMixedUp); {
		take()
		select {
		case err = <-told:
		case <-time.After(time.Millisecond):
		}
	}
	shifter.Mend()
	for l.State().Failing != nil {
		take()
		time.Sleep(time.Millisecond)
	}
	if l.shared.client.Load() == before {
		t.Error("the connections are the same")
	}
	for range 10 {
		take()
	}
	if passed > 3 {
		t.Errorf("%d calls pass, want 3 at most", passed)
	}
}

// TestTiersChangeWithoutRedis: changing tiers to and fro while Redis doesn't answer gives nothing.
func TestTiersChangeWithoutRedis(t *testing.T) {
	for _, unit := range []Unit{Hour, Day} {
		l := unasked(t)
		passed := 0
		for range 20 {
			for _, n := range []int{10, 12} {
				passed += passes(l.Bucket(client("a"), per(n, unit)), noon, 50)
			}
		}
		if passed < 10 || passed > 12 {
			t.Errorf("%v: %d calls pass, want 10 to 12", unit, passed)
		}
	}
}

// TestKeyOfOthers: a key that holds something else is one bucket's trouble.
func TestKeyOfOthers(t *testing.T) {
	server := testredis.Start(t, testredis.Options{})
	l, _ := run(t, Options{Redis: Redis{Addresses: []string{server.Address}}, Timeout: patient, OnFailure: DenyAll, prefix: prefix()})
	foreign, own := client("foreign"), client("own")
	server.Do("SET", l.shared.keyOf(foreign.tag(), "t"), "something else")
	if v := Await(context.Background(), time.Now, l.Bucket(foreign, perMinute(5))); v.Allowed || !v.Uncounted {
		t.Errorf("a bucket that can't be read: %+v", v)
	}
	if v := Await(context.Background(), time.Now, l.Bucket(own, perMinute(5))); !v.Allowed || v.Uncounted {
		t.Errorf("another bucket: %+v", v)
	}
	if err := l.State().Failing; err != nil {
		t.Errorf("all of Redis fails: %v", err)
	}
}

// TestKeysInRedis holds docs/security.md, I 125: a key shows nothing of what it is for, whatever an alias holds, is short,
// and ends by itself; those of a bucket are in one slot.
func TestKeysInRedis(t *testing.T) {
	server := testredis.Start(t, testredis.Options{})
	l, _ := run(t, Options{Redis: Redis{Addresses: []string{server.Address}}, Timeout: patient})
	for _, name := range []string{"alias", "a:b", "a b", "a\nb", `"}{`, strings.Repeat("alias", 2000)} {
		for _, unit := range []Unit{Minute, Day, Month} {
			key := client(name)
			key.API = unit.String()
			if v := Await(context.Background(), time.Now, l.Bucket(key, per(50, unit))); !v.Allowed {
				t.Errorf("%.20q: %+v", name, v)
			}
		}
	}
	l.settle()
	keys := strings.Fields(server.Do("KEYS", "*"))
	if len(keys) < 6*3+1 {
		t.Fatalf("%d keys: %q", len(keys), keys)
	}
	for _, key := range keys {
		if !regexp.MustCompile(`^sallyport:\{[0-9a-z]{1,32}\}:[a-z](:l)?$`).MatchString(key) {
			t.Errorf("key %q", key)
		}
		if life, err := strconv.Atoi(strings.TrimSpace(server.Do("PTTL", key))); err != nil || life <= 0 {
			t.Errorf("%s lasts for %d ms, %v", key, life, err)
		}
	}
}

// TestCallThatWaitedInVainIsCounted: Redis answers in time for one call, and too late for another one that came just after
// the question, and needs one of its own. OnFailure lets that pass, and Redis hears of it.
func TestCallThatWaitedInVainIsCounted(t *testing.T) {
	t.Parallel()
	const latency, timeout, burst = 400 * time.Millisecond, 600 * time.Millisecond, 7 // leased one by one
	proxy := testredis.Proxy(t, testredis.Start(t, testredis.Options{}).Address)
	l, _ := run(t, Options{Redis: Redis{Addresses: []string{proxy.Address}}, Timeout: timeout, prefix: prefix()})
	b := l.Bucket(client("a"), Tier{Name: "T", RequestCount: 1, UnitTime: 24, TimeUnit: Hour, Burst: burst})
	questions := func() uint64 {
		a := b.share().account
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.leased[sharedTokens].number
	}
	var passed, inVain atomic.Int64
	call := func() {
		v := await(b)
		if v.Allowed {
			passed.Add(1)
		}
		if v.Uncounted {
			inVain.Add(1)
		}
	}
	call() // Redis has the script now
	l.settle()
	proxy.Slow(latency)
	var both sync.WaitGroup
	asked := questions()
	both.Go(call)
	for questions() == asked {
		time.Sleep(time.Millisecond)
	}
	both.Go(call)
	both.Wait()
	t.Logf("%d calls waited in vain", inVain.Load()) // none on a machine that is so busy that the second one came late
	proxy.Clear()
	for end := time.Now().Add(2 * leaseInRedis); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		call()
	}
	if n := passed.Load(); n > burst {
		t.Errorf("%d calls pass, want %d", n, burst)
	}
}
