package control

import (
	"crypto/tls"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// oneTicket is a client's memory for one session; frozen, it keeps the one it has.
type oneTicket struct {
	mu     sync.Mutex
	state  *tls.ClientSessionState
	frozen bool
}

func (o *oneTicket) Get(string) (*tls.ClientSessionState, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state, o.state != nil
}

func (o *oneTicket) Put(_ string, state *tls.ClientSessionState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if state != nil && !o.frozen {
		o.state = state
	}
}

// ticket gets a session of name, which is kept from then on, and returns a call that offers it each time.
func (b *bed) ticket(t *testing.T, version uint16, name string, client *party) (resumed func() (bool, error)) {
	t.Helper()
	cache := &oneTicket{}
	call := func() (bool, error) {
		cfg := b.clientTLS(name, client)
		cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, cache
		s, err := b.handshake(b.set, cfg)
		return s.DidResume, err
	}
	if got, err := call(); err != nil || got || cache.state == nil {
		t.Fatalf("%s %q: resumed %t, %v", tls.VersionName(version), name, got, err)
	}
	cache.frozen = true
	return call
}

// offer demands that a session is resumed, or that it is not and the client notices nothing of it.
func offer(t *testing.T, when string, call func() (bool, error), want bool) {
	t.Helper()
	if got, err := call(); err != nil || got != want {
		t.Errorf("%s: resumed %t, %v, want %t", when, got, err, want)
	}
}

// seldom keeps tests of days from looking at files thousands of times.
func seldom(profiles ...string) func(*bed, *Options) {
	return func(b *bed, _ *Options) {
		s := b.spec.Load()
		s.Period, s.Listeners[0].FileReadInterval = 100*time.Hour, 100*time.Hour
		b.disk.write("listenerprofiles.xml", []byte(profilesXML(profiles...)))
	}
}

func TestTicketKeysAreRotated(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		synctest.Test(t, func(t *testing.T) {
			b := startBed(t, seldom("127.0.0.1 name=opt.test", "127.0.0.1 name=mtls.test verify=require", "127.0.0.1 verify=require")) // at one millisecond
			var calls []func() (bool, error)
			get := func() {
				for _, name := range []string{"opt.test", "mtls.test"} {
					calls = append(calls, b.ticket(t, version, name, b.client))
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
			b.after(t, 0, https, 0, 0) // a rotation is no new set
		})
	}
}

// Keys live as long as they live, whatever is reloaded around them.
func TestTicketKeysSurviveReloads(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		synctest.Test(t, func(t *testing.T) {
			b := startBed(t, seldom("127.0.0.1 name=mtls.test verify=require", "127.0.0.1 name=other.test trust=other.pem", "127.0.0.1 verify=require"))
			mine := b.ticket(t, version, "mtls.test", b.client)
			other := b.ticket(t, version, "other.test", nil)
			time.Sleep(11 * time.Hour)
			b.disk.write("other.pem", certPEM(b.other, b.ca))
			b.after(t, 0, https, 0, 0)
			if err := b.Reload(t.Context()); err != nil {
				t.Error(err)
			}
			b.after(t, 0, https, 1, 0)
			b.change(func(s *Spec) { s.Listeners[0].TLS.Own.VerifyClient = 0 }) // another configuration, the same profiles
			if err := b.Reload(t.Context()); err != nil {
				t.Error(err)
			}
			offer(t, "unchanged by the reload", mine, true)
			offer(t, "changed by the reload", other, false)
			time.Sleep(12 * time.Hour)
			offer(t, "after 23 hours", mine, true)
			time.Sleep(time.Hour)
			offer(t, "after 24 hours, and 13 after the reload", mine, false)
		})
	}
}

// The clock is Options.Now, even where it goes otherwise than timers do.
func TestTicketKeysFollowTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		b := startBed(t, func(b *bed, cfg *Options) {
			seldom("127.0.0.1")(b, cfg)
			cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		call := b.ticket(t, tls.VersionTLS13, "", b.client)
		ahead.Store(int64(13 * time.Hour))
		time.Sleep(time.Minute)
		offer(t, "13 hours ahead", call, true)
		ahead.Store(int64(25 * time.Hour))
		time.Sleep(time.Minute)
		offer(t, "25 hours ahead", call, false)

		call = b.ticket(t, tls.VersionTLS13, "", b.client)
		ahead.Store(0) // nobody knows how old the keys are
		time.Sleep(time.Minute)
		offer(t, "set back", call, false)
	})
}

// A3: one interval and a second after a CA is gone from a store, or a store from the file, its client's ticket opens
// nothing.
func TestTicketEndsWithItsCA(t *testing.T) {
	for _, change := range []func(*bed){
		func(b *bed) { b.disk.write("trust.pem", certPEM(b.other)) },
		func(b *bed) {
			b.disk.write("listenerprofiles.xml", []byte(profilesXML("127.0.0.1 verify=require trust=other.pem")))
		},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			synctest.Test(t, func(t *testing.T) {
				b := startBed(t, func(b *bed, cfg *Options) {
					cfg.settle, b.spec.Load().Listeners[0].FileReadInterval = 0, 10*time.Second
					b.disk.write("listenerprofiles.xml", []byte(profilesXML("127.0.0.1 verify=require")))
				})
				call := b.ticket(t, version, "", b.client)
				offer(t, "before", call, true)
				change(b)
				b.after(t, 11*time.Second, https, 1, 0)
				if resumed, err := call(); err == nil {
					t.Errorf("%s: let in, resumed: %t", tls.VersionName(version), resumed)
				}
			})
		}
	}
}
