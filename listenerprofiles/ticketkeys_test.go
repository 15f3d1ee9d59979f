package listenerprofiles

import (
	"crypto/tls"
	"math/rand/v2"
	"strings"
	"sync"
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

// Keys live as long as they live, whoever rotates them and however often.
func TestTicketKeysLiveADay(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1 name=mtls.test verify=require", "127.0.0.1 verify=require")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		synctest.Test(t, func(t *testing.T) {
			set, err := Load(f.config(), nil)
			if err != nil {
				t.Fatal(err)
			}
			get := func() func() (string, error) {
				return ticketFor(t, f, func() *Set { return set }, version, "mtls.test", f.client)
			}
			mine := get()
			for hour := range 24 {
				offer(t, "a ticket of the first key", mine, true)
				if hour == 13 {
					later := get()
					defer offer(t, "a ticket of the second key", later, true)
				}
				for range 60 {
					if wait := set.RotateTicketKeys(time.Now()); wait <= 0 || wait > 12*time.Hour {
						t.Fatalf("nothing is due for %v", wait)
					}
					time.Sleep(time.Minute)
				}
			}
			set.RotateTicketKeys(time.Now())
			offer(t, "at the end", mine, false)
		})
	}
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
		wait := keys.rotate(now, &cfg)
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
				p.rotate(now)
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
