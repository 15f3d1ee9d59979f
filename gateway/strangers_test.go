//go:build unix

package gateway_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// ownChain is a client certificate of nobody's, with that many authorities above it, all of one key and of about that
// many bytes.
func ownChain(authorities, bytes int, key crypto.Signer) *party {
	padded := func(c *x509.Certificate) {
		isCA(c)
		c.BasicConstraintsValid = true
		if used := 600; bytes > used {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: make([]byte, bytes-used)}}
		}
	}
	list := []*testpki.Identity{testpki.SelfSigned(testpki.Panic, testpki.Leaf{CommonName: "Own 0", Key: key, Change: padded})}
	for i := 1; i < authorities; i++ {
		list = append(list, list[i-1].Issue(testpki.Leaf{CommonName: fmt.Sprintf("Own %d", i), Key: key, Change: padded}))
	}
	leaf := list[len(list)-1].Issue(testpki.Leaf{CommonName: "stranger"})
	p := &party{cert: leaf.Cert, key: leaf.Key, identity: leaf}
	for i := len(list) - 1; i >= 0; i-- {
		p.also = append(p.also, &party{cert: list[i].Cert})
	}
	return p
}

func (p *party) size() (n int) {
	for _, der := range p.tls().Certificate {
		n += len(der)
	}
	return n
}

// Strangers' chains, which take a second to make.
var (
	ownRSA = sync.OnceValue(func() *party { return ownChain(15, 0, testpki.RSA8192()) })
	own190 = sync.OnceValue(func() *party { return ownChain(15, 190<<10/15, testpki.NewEd25519(testpki.Panic)) })
	// The most certificates that crypto/tls takes.
	ownMany = sync.OnceValue(func() *party {
		p := ownChain(1, 0, testpki.NewEd25519(testpki.Panic))
		for small := p.also[0]; p.size() < 250<<10; {
			p.also = append(p.also, small)
		}
		return p
	})
)

// TestChainsBeyondTheLimits: a chain of more bytes, more certificates or larger keys than the limits allow ends the
// handshake, of an optional and of a demanded certificate alike, counted and told as any that is refused; one within
// them is judged call by call. Held: security L 154.
func TestChainsBeyondTheLimits(t *testing.T) {
	var away turnedAway
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.Connections = away.add })
	long := ownChain(15, 0, testpki.NewEd25519(testpki.Panic))
	long.also = append(long.also, long.also[0])
	for _, c := range []struct {
		name string
		who  *party
		says string
	}{
		{"16 and one", long, "limits.certificates, 16"},
		{"35 KB", ownRSA(), "limits.certificateBytes, 32768"},
		{"190 KB", own190(), "more bytes than may come"},
		{"as many as crypto/tls takes", ownMany(), "more bytes than may come"},
	} {
		for _, sni := range []string{"opt.test", "mtls.test"} {
			for _, tls12 := range []bool{false, true} {
				t.Run(fmt.Sprint(c.name, " ", sni, " ", tls12), func(t *testing.T) {
					before := away.of("handshake")
					f.handshakeFails(t, f.client(t, c.who, via{tls12: tls12}), "https://"+sni+"/both/1.0/x")
					if t.Failed() {
						t.FailNow()
					}
					eventually(t, "it is counted", func() bool { return away.of("handshake") > before })
				})
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		eventually(t, c.says, func() bool { return strings.Contains(f.log.String(), c.says) })
	}
	within := f.client(t, ownChain(14, 1<<10, testpki.NewEd25519(testpki.Panic)), via{})
	f.denied(t, 401, "900901", func() answer { return get(t, within, "https://opt.test/both/1.0/x") })
	f.allowed(t, func() answer {
		return get(t, within, "https://opt.test/both/1.0/x", bearer(f.token(t, "alice", nil)))
	})
}

// cpu is what the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // pools and weak caches
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// tryOnce connects, makes a call, and returns its status, or 0 if there was no answer.
func (f *fixture) tryOnce(who *party, sni string) int {
	c, err := tls.Dial("tcp", f.address, f.clientTLS(who, via{sni: sni}))
	if err != nil {
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "GET /both/1.0/x HTTP/1.1\r\nHost: %s\r\n\r\n", sni); err != nil {
		return 0
	}
	b := make([]byte, 12)
	n, _ := c.Read(b)
	var status int
	_, _ = fmt.Sscanf(string(b[:n]), "HTTP/1.1 %d", &status)
	return status
}

// costs is the CPU, of both sides, that a connection with a call takes, at best.
func (f *fixture) costs(t *testing.T, who *party, sni string, status int) time.Duration {
	t.Helper()
	const connections = 10
	best := time.Hour
	for range 5 {
		before := cpu()
		for range connections {
			if got := f.tryOnce(who, sni); got != status {
				t.Fatalf("status %d, want %d", got, status)
			}
		}
		best = min(best, (cpu()-before)/connections)
	}
	return best
}

// showing is a party that shows so many authorities of its chain only.
func (p *party) showing(authorities int) *party {
	return &party{cert: p.cert, key: p.key, identity: p.identity, also: p.also[:authorities]}
}

// TestStrangersCostNothing: connections of strangers who show as much as crypto/tls takes, or as the limits allow, take
// at most a small multiple of the CPU that an ordinary one takes, both sides counted, under `optional` and `require`.
// Held: security L 154.
func TestStrangersCostNothing(t *testing.T) {
	f := newFixture(t)
	ordinary := f.costs(t, f.a4, "opt.test", 200)
	for _, c := range []struct {
		name     string
		who      *party
		optional int
		most     time.Duration
	}{
		{"ordinary chain", f.a2, 401, 4 * ordinary},
		{"15 authorities of RSA-8192", ownRSA(), 0, 4 * ordinary}, // it was 16 times an ordinary one
		{"13 of them, within the limits", ownRSA().showing(13), 401, 4 * ordinary},
		{"190 KB", own190(), 0, 4 * ordinary}, // the client's part is most of it
		{"as many as crypto/tls takes", ownMany(), 0, 5 * ordinary},
	} {
		for sni, status := range map[string]int{"opt.test": c.optional, "mtls.test": 0} {
			if c.who == f.a2 && sni == "mtls.test" {
				status = 401 // it is trusted, and nobody's
			}
			took := f.costs(t, c.who, sni, status)
			t.Logf("%s at %s: %v, an ordinary one %v", c.name, sni, took, ordinary)
			if took > c.most {
				t.Errorf("%s at %s: %v, an ordinary one %v", c.name, sni, took, ordinary)
			}
		}
	}
}

// TestStrangersHoldLittle: what a stranger's connection holds once its call was refused. Held: security L 154.
func TestStrangersHoldLittle(t *testing.T) {
	f := newFixture(t)
	holds := func(who *party) int64 {
		const connections = 50
		open := func() {
			under := dialRaw(t, f.address, nil).Conn
			c := tls.Client(under, f.clientTLS(who, via{sni: "opt.test"}))
			if c.Handshake() == nil {
				if _, err := fmt.Fprint(c, "GET /both/1.0/x HTTP/1.1\r\nHost: opt.test\r\n\r\n"); err == nil {
					_, _ = c.Read(make([]byte, 1))
				}
			}
		}
		open() // what is made once
		before := liveHeap()
		for range connections {
			open()
		}
		return (liveHeap() - before) / connections
	}
	ordinary := max(holds(f.a4), 20<<10) // what tests before have left may end meanwhile
	for _, c := range []struct {
		name string
		who  *party
		most int64
	}{
		{"ordinary chain", f.a2, 2 * ordinary},
		{"190 KB", own190(), ordinary},
		{"as many as crypto/tls takes", ownMany(), ordinary},
		// What crypto/tls's buffers have grown to for 32 KiB, which nobody can take from it, and little more.
		{"all that the limits allow", ownRSA().showing(13), 96 << 10},
	} {
		held := holds(c.who)
		t.Logf("%s: %d bytes, an ordinary one %d", c.name, held, ordinary)
		if held > c.most {
			t.Errorf("%s: %d bytes, at most %d", c.name, held, c.most)
		}
	}
}

// TestStrangersInNumbers: 300 strangers who show 190 KB each, and come again and again, leave the process as it is, and
// a client beside them without an error. Held: security L 154.
func TestStrangersInNumbers(t *testing.T) {
	f := newFixture(t)
	victim := f.client(t, f.a4, via{http2: true})
	get(t, victim, "https://mtls.test/both/1.0/x")
	who := own190()
	before := liveHeap()
	var strangers sync.WaitGroup
	work := make(chan bool)
	for range 20 {
		strangers.Go(func() {
			for range work {
				c := dialRaw(t, f.address, nil) // it stays open
				o := tls.Client(c.Conn, f.clientTLS(who, via{sni: "opt.test"}))
				if o.Handshake() == nil {
					_, _ = o.Read(make([]byte, 1))
				}
			}
		})
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 300 {
			work <- true
		}
		close(work)
		strangers.Wait()
	}()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for calls := 0; ; calls++ {
		a, err := do(victim, "GET", "https://mtls.test/both/1.0/x", nil)
		if err != nil || a.status != 200 {
			t.Fatalf("call %d of the client: status %d, %v", calls, a.status, err)
		}
		select {
		case <-pace.C:
			continue
		case <-done:
		}
		break
	}
	if grown := liveHeap() - before; grown > 64<<20 {
		t.Errorf("%d MiB more than before", grown>>20)
	}
}

// TestStrangerIsRegistered: a certificate that was nobody's when its connection began is admitted with the first call
// after its registration, chain and all, over HTTP/1.1 and HTTP/2. Held: security A 4.
func TestStrangerIsRegistered(t *testing.T) {
	eachVersion(t, func(t *testing.T, http2 bool) {
		f := newFixture(t)
		for _, sni := range []string{"opt.test", "mtls.test"} {
			who := issue("late "+sni, f.interA, usage(x509.ExtKeyUsageClientAuth))
			c := f.client(t, who, via{http2: http2})
			f.denied(t, 401, "900901", func() answer { return get(t, c, "https://"+sni+"/both/1.0/x") })
			f.clients = append(f.clients, client(bothAPI, "late-"+sni, who, "Unlimited"))
			f.setClients(t)
			f.allowed(t, func() answer {
				a := get(t, c, "https://"+sni+"/both/1.0/x")
				if !a.kept() {
					t.Error("on another connection")
				}
				return a
			})
		}
	})
}

// TestEarlyCertificateIsSeenAgain: a registered certificate that was refused for not being valid yet is admitted once it
// is, on the same connection. Held: security L 154.
func TestEarlyCertificateIsSeenAgain(t *testing.T) {
	begins := newClock().Now().Add(5 * time.Second)
	early := issue("early", theWorld().interA, validity(begins, begins.Add(time.Hour)), usage(x509.ExtKeyUsageClientAuth))
	f := newFixture(t, register(client(bothAPI, "early", early, "Unlimited")))
	c := f.client(t, early, via{})
	f.denied(t, 401, "900901", func() answer { return get(t, c, "https://opt.test/both/1.0/x") })
	f.clock.Advance(5 * time.Second)
	f.allowed(t, func() answer {
		a := get(t, c, "https://opt.test/both/1.0/x")
		if !a.kept() {
			t.Error("on another connection")
		}
		return a
	})
}
