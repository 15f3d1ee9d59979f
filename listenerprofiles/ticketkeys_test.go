package listenerprofiles

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// ticketFor gets a session of name from set, which is kept from then on, and returns a call that offers it each time.
func ticketFor(t *testing.T, f *fixture, set func() *Set, version uint16, name string, client *party) func() (string, error) {
	t.Helper()
	cache := &oneTicket{}
	call := func() (string, error) {
		cfg := f.clientConfig(name, client)
		cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, cache
		got, _, err := callInMemory(set, cfg)
		return got, err
	}
	if got, err := call(); err != nil || !strings.Contains(got, "resumed false") || cache.state == nil {
		t.Fatalf("%s %q: %q, %v", tls.VersionName(version), name, got, err)
	}
	cache.frozen = true
	return call
}

// offer demands that a session is resumed, or that it is not and the client notices nothing of it.
func offer(t *testing.T, when string, call func() (string, error), resumed bool) {
	t.Helper()
	want := map[bool]string{false: "; resumed false", true: "; resumed true"}[resumed]
	if got, err := call(); err != nil || !strings.HasSuffix(got, want) {
		t.Errorf("%s: %q, %v, want%s", when, got, err, want)
	}
}

// seldom keeps tests of days from looking at files thousands of times.
func seldom(c *Config) { c.FileReadInterval, c.StoreReadInterval = 100*time.Hour, 100*time.Hour }

func TestTicketKeysAreRotated(t *testing.T) {
	f := newFixture(t)
	profiles := []string{"127.0.0.1 name=opt.test", "127.0.0.1 name=mtls.test verify=require", "127.0.0.1 verify=require"}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		f.xml(t, profiles...)
		synctest.Test(t, func(t *testing.T) {
			w := startWatch(t, f, seldom) // at one millisecond
			var calls []func() (string, error)
			get := func() {
				for _, name := range []string{"opt.test", "mtls.test"} {
					calls = append(calls, ticketFor(t, f, w.last.Load, version, name, f.client))
				}
			}
			expect := func(when string, resumed ...bool) {
				t.Helper()
				for i, call := range calls {
					offer(t, when, call, resumed[i/2])
				}
			}
			get()
			time.Sleep(12*time.Hour - 2*time.Millisecond)
			get()
			expect("before the first rotation", true, true)
			time.Sleep(time.Hour)
			get()
			expect("one rotation later", true, true, true)
			time.Sleep(11*time.Hour - time.Millisecond)
			expect("shortly before the first key ends", true, true, true)
			time.Sleep(3 * time.Millisecond)
			expect("two rotations later", false, false, true)
			time.Sleep(12 * time.Hour)
			expect("three rotations later", false, false, false)
			w.after(t, 0, 1, 0) // a rotation is no new set
		})
	}
}

// Keys live as long as they live, whatever is reloaded around them, and whoever watches.
func TestTicketKeysSurviveReloads(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1 name=mtls.test verify=require", "127.0.0.1 name=other.test trust=other.pem", "127.0.0.1 verify=require")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		synctest.Test(t, func(t *testing.T) {
			w := startWatch(t, f, seldom)
			mine := ticketFor(t, f, w.last.Load, version, "mtls.test", f.client)
			other := ticketFor(t, f, w.last.Load, version, "other.test", nil)
			time.Sleep(11 * time.Hour)
			w.disk.write("other.pem", certPEM(f.other, f.ca))
			w.after(t, 0, 1, 0)
			if err := w.Reload(); err != nil {
				t.Error(err)
			}
			w.after(t, 0, 2, 0)
			offer(t, "unchanged by the reload", mine, true)
			offer(t, "changed by the reload", other, false)
			time.Sleep(12 * time.Hour)
			offer(t, "after 23 hours", mine, true)
			time.Sleep(time.Hour)
			offer(t, "after 24 hours, and 13 after the reload", mine, false)
		})
		synctest.Test(t, func(t *testing.T) {
			cfg := f.config()
			seldom(&cfg)
			set, err := Load(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			mine := ticketFor(t, f, func() *Set { return set }, version, "mtls.test", f.client)
			for hour := range 24 { // a new Watcher each hour
				offer(t, "with many Watchers", mine, true)
				if hour == 13 {
					later := ticketFor(t, f, func() *Set { return set }, version, "mtls.test", f.client)
					defer offer(t, "a ticket of the second key", later, true)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				if err := NewWatcher(cfg, set, func(*Set) { t.Error("swapped") }, nil).Run(ctx); err != nil {
					t.Error(err)
				}
				cancel()
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_ = NewWatcher(cfg, set, nil, nil).Run(ctx)
			offer(t, "with many Watchers, at the end", mine, false)
		})
	}
}

// The clock is Config.Now, even where it goes otherwise than timers do.
func TestTicketKeysFollowTheClock(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		w := startWatch(t, f, func(c *Config) {
			c.StoreReadInterval = time.Hour
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		call := ticketFor(t, f, w.last.Load, tls.VersionTLS13, "", f.client)
		ahead.Store(int64(13 * time.Hour))
		time.Sleep(time.Minute)
		offer(t, "13 hours ahead", call, true)
		ahead.Store(int64(25 * time.Hour))
		time.Sleep(time.Minute)
		offer(t, "25 hours ahead", call, false)

		call = ticketFor(t, f, w.last.Load, tls.VersionTLS13, "", f.client)
		ahead.Store(0) // nobody knows how old the keys are
		time.Sleep(time.Minute)
		offer(t, "set back", call, false)
	})
}

// Whenever rotate is called, and it is called late or early: the first key is younger than 12 hours and all than 24, and
// what it returns is when that ends.
func TestRotate(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var keys ticketKeys
	var cfg tls.Config
	made := make(map[[32]byte]bool)
	now := time.Unix(0, 0)
	for range 2000 {
		wait := keys.rotate(&cfg, now)
		for i, k := range keys.keys {
			age := k.age(now)
			if age < 0 || age >= 24*time.Hour || i == 0 && age >= 12*time.Hour || i > 0 && made[k.bytes] != true {
				t.Fatalf("key %d of %d is %v old", i, len(keys.keys), age)
			}
			made[k.bytes] = true
		}
		oldest := keys.keys[len(keys.keys)-1]
		if wait <= 0 || wait > 12*time.Hour || len(keys.keys) > 2 || oldest.age(now.Add(wait)) > 24*time.Hour {
			t.Fatalf("%d keys, wait %v", len(keys.keys), wait)
		}
		switch random.IntN(3) {
		case 0:
			now = now.Add(wait)
		case 1:
			now = now.Add(time.Duration(random.Int64N(int64(wait))))
		case 2:
			now = now.Add(time.Duration(random.Int64N(int64(40*time.Hour))) - time.Hour)
		}
	}
	if len(made) < 500 || made[[32]byte{}] {
		t.Errorf("%d keys", len(made))
	}
}

// A8: keys change under handshakes, and no client notices.
func TestRotationUnderHandshakes(t *testing.T) {
	f := newFixture(t)
	set := f.load(t, "127.0.0.1 verify=require")
	p := set.Find(anyIPv4, "")
	stop := make(chan struct{})
	var rotation sync.WaitGroup
	rotation.Go(func() {
		for now := time.Now(); ; now = now.Add(5 * time.Hour) {
			select {
			case <-stop:
				return
			default:
				p.tickets.rotate(p.TLS, now)
			}
		}
	})
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			cfg := f.clientConfig("", f.client)
			cfg.MinVersion = []uint16{tls.VersionTLS12, tls.VersionTLS13}[i%2]
			cfg.MaxVersion, cfg.ClientSessionCache = cfg.MinVersion, &oneTicket{}
			for range 30 {
				if got, _, err := callInMemory(func() *Set { return set }, cfg); err != nil || !strings.HasPrefix(got, "profile 127.0.0.1; client; ") {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	rotation.Wait()
}
