package gateway_test

import (
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// A forger makes certificates without end, each unlike all before.
type forger struct {
	like *party // what they look like
	made *atomic.Uint64
}

// header is the next one, as NGINX hands it on: another signature, which is of the right form and wrong.
func (f forger) header() string {
	der := slices.Clone(f.like.cert.Raw)
	end := der[len(der)-8:]
	binary.BigEndian.PutUint64(end, binary.BigEndian.Uint64(end)^f.made.Add(1))
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

// latencies are how long a client's calls take, until stop is closed. Each of them has to be answered 200.
func latencies(t *testing.T, call func() answer, stop <-chan struct{}) (took []time.Duration) {
	for {
		select {
		case <-stop:
			return took
		default:
		}
		began := time.Now()
		if a := call(); a.status != http.StatusOK {
			t.Errorf("a good client: %d (%s)", a.status, a.body)
			return took
		}
		took = append(took, time.Since(began))
		time.Sleep(time.Millisecond) // it is one client, and no load
	}
}

func p99(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)*99/100]
}

// TestForgedHeaderFlood: a flood of certificates in the header, each unlike all before, that name a registered CA which did
// not sign them, takes a quarter of a core at most and no memory. Who is known goes on without an error, and a new one
// is let in soon after.
func TestForgedHeaderFlood(t *testing.T) {
	w := theWorld()
	byRSA := &party{identity: testpki.SelfSigned(testpki.Panic, testpki.Leaf{CommonName: "RSA CA", Key: testpki.NewRSA(testpki.Panic, 2048), Usages: testpki.NoUsages, Change: isCA})}
	byRSA.cert, byRSA.key = byRSA.identity.Cert, byRSA.identity.Key
	f := newDoorFixture(t, withChains, register(client(payAPI, "inter", w.interA, "Unlimited"), client(payAPI, "rsa", byRSA, "Unlimited")))
	f.config.Rules.Anchors = trusting(t, f.caA, f.interA, byRSA)
	f.setDoor(t, f.config)
	clientAuth := usage(x509.ExtKeyUsageClientAuth)
	var made atomic.Uint64
	forgers := []forger{{issue("forged", w.interA, clientAuth), &made}, {issue("forged", byRSA, clientAuth), &made}}
	balancer := f.through(t, byCert, f.balancer, false, "127.0.0.1")
	shaken := f.client(t, issue("shaken", w.interA, clientAuth), via{})
	told := certificateHeader(issue("told", w.interA, clientAuth))
	const target = "https://opt.test/pay/1.0/x"
	calls := []func() answer{
		func() answer { return get(t, balancer, target, told) },
		func() answer { return get(t, shaken, target) },
	}
	watch := func(during time.Duration) (both [2][]time.Duration) {
		stop := make(chan struct{})
		var group sync.WaitGroup
		for i, call := range calls {
			group.Go(func() { both[i] = latencies(t, call, stop) })
		}
		time.Sleep(during)
		close(stop)
		group.Wait()
		return both
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}

	// flood has four callers send what next returns, as fast as they can, beside the two good ones.
	const during = 3 * time.Second
	var statuses [600]atomic.Int64
	flood := func(next func(caller int) string) (both [2][]time.Duration) {
		stop := make(chan struct{})
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() {
				c := f.through(t, byCert, f.balancer, false, "127.0.0.1")
				for made.Load() < 1_000_000 {
					select {
					case <-stop:
						return
					default:
					}
					a, err := do(c, "GET", target, nil, header("X-WSO2-CLIENT-CERTIFICATE", next(i)))
					if err != nil {
						t.Error(err)
						return
					}
					statuses[a.status].Add(1)
				}
			})
		}
		both = watch(during)
		close(stop)
		group.Wait()
		return both
	}
	quiet := watch(during)
	known := forgers[0].header()
	loaded := flood(func(int) string { return known }) // as many calls, and nothing to examine
	sent := made.Load()
	before, effort := heap(), f.listeners[2].Door.Effort()
	for i := range statuses {
		statuses[i].Store(0)
	}
	began := time.Now()
	busy := flood(func(caller int) string { return forgers[caller%2].header() })
	flooded := time.Since(began)
	count, took := effort.Spent()
	grown := heap() - before

	if passed := made.Load() - sent - uint64(statuses[401].Load()+statuses[503].Load()); passed != 0 {
		t.Errorf("%d of the forged were answered neither 401 nor 503", passed)
	}
	if count == 0 || took > flooded/4+500*time.Millisecond {
		t.Errorf("%d forged were examined, which took %v of %v", count, took, flooded)
	}
	if grown > 32<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	fresh := certificateHeader(issue("fresh", w.interA, clientAuth))
	ended := time.Now()
	eventually(t, "a new one is let in", func() bool {
		a := get(t, balancer, target, fresh)
		if a.status != http.StatusOK && (a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "") {
			t.Fatalf("a new one: %d, %q", a.status, a.header)
		}
		return a.status == http.StatusOK
	})
	t.Logf("%d forged calls in %v (%d examined in %v, %d answered 503); heap grown by %d KiB; p99 by header %v alone, %v beside as many calls with one that is remembered, %v beside the flood; by handshake %v, %v, %v; a new one let in after %v",
		made.Load()-sent, flooded, count, took, statuses[503].Load(), grown>>10, p99(quiet[0]), p99(loaded[0]), p99(busy[0]), p99(quiet[1]), p99(loaded[1]), p99(busy[1]), time.Since(ended))
}
