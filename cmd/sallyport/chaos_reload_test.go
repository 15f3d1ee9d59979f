package main_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// onlyAES128 and onlyAES256 are settings of listenerprofiles.xml that a TLS 1.2 handshake tells apart and that change
// nothing else for the clients of these tests.
const (
	onlyAES128 = "<PreferredCiphers>TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256</PreferredCiphers>"
	onlyAES256 = "<PreferredCiphers>TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384</PreferredCiphers>"
)

// profileVersions are two valid contents of listenerprofiles.xml.
func (d *demoFolder) profileVersions() [2]string {
	d.t.Helper()
	text := d.read("listenerprofiles.xml")
	versions := [2]string{
		strings.Replace(text, bothVersions, bothVersions+onlyAES128, 1),
		strings.Replace(text, bothVersions, bothVersions+onlyAES256, 1),
	}
	if versions[0] == versions[1] {
		d.t.Fatal("listenerprofiles.xml has no place for ciphers")
	}
	return versions
}

// cipher is the TLS 1.2 cipher that a new connection gets; 0 if there is none.
func (d *demoFolder) cipher() uint16 {
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err != nil {
		return 0
	}
	defer c.Close()
	return c.ConnectionState().CipherSuite
}

// has tells which of the two profileVersions is in force.
func (d *demoFolder) has(version int) bool {
	switch d.cipher() {
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:
		return version == 0
	case tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
		return version == 1
	}
	return false
}

const profilesOfHTTPS = `what="profiles of listener https"`

// TestChaosReloads changes listenerprofiles.xml repeatedly under load, with an invalid file before every fifth valid one: no
// call fails, no open connection is closed, every change and every failure is counted once, and nothing leaks. Held:
// security J 128, faults R1, R3.
func TestChaosReloads(t *testing.T) {
	d := newDemo(t, fast...)
	p := d.quickstart()
	held := make([]*client, len(dialects))
	for i, how := range dialects {
		held[i] = d.client("gold", how)
		held[i].get(t, "/orders/1")
	}
	awake := d.keepAwake(held)
	stop := d.load()
	versions := d.profileVersions()
	d.swap("listenerprofiles.xml", versions[1])
	// The counter follows the change: a handshake can see new profiles before they are counted.
	good := 0.0
	eventually(t, "the first profiles are in force and counted", func() bool {
		good = p.total("sallyport_reloads_total", profilesOfHTTPS)
		return good > 0 && d.has(1)
	})
	before := p.holdings()
	bad := p.total("sallyport_reload_failures_total", profilesOfHTTPS)

	n, broken := scaled(15, 100), 0
	for i := range n {
		if i%5 == 4 {
			text := []string{"", versions[0][:len(versions[0])/2], strings.Replace(versions[0], "<SSLVerifyClient>optional", "<SSLVerifyClient>perhaps", 1)}[broken%3]
			d.swap("listenerprofiles.xml", text)
			broken++
			eventually(t, "the broken file is counted", func() bool {
				awake()
				return p.total("sallyport_reload_failures_total", profilesOfHTTPS) == bad+float64(broken)
			})
			if !d.has(1 - i%2) {
				t.Errorf("after %d changes a broken file is in force", i)
			}
		}
		d.swap("listenerprofiles.xml", versions[i%2])
		eventually(t, fmt.Sprintf("change %d is in force", i+1), func() bool { awake(); return d.has(i % 2) })
		for k, c := range held {
			if r := c.get(t, "/orders/1"); r.status != http.StatusOK {
				t.Errorf("after change %d, %s: %d", i+1, dialects[k], r.status)
			}
		}
	}
	stop()
	for i, c := range held {
		if dials := c.dials.Load(); dials != 1 {
			t.Errorf("%s: %d connections instead of one", dialects[i], dials)
		}
	}
	counted := func() float64 { return p.total("sallyport_reloads_total", profilesOfHTTPS) - good }
	eventually(t, fmt.Sprintf("%d good changes are counted", n), func() bool { return counted() >= float64(n) })
	if got := counted(); got != float64(n) {
		t.Errorf("%v good changes are counted instead of %d", got, n)
	}
	if got := p.total("sallyport_reload_failures_total", profilesOfHTTPS) - bad; got != float64(broken) {
		t.Errorf("%v broken changes are counted instead of %d", got, broken)
	}
	if got := p.ready(); !p.good() {
		t.Errorf("in the end the gateway says %q", got)
	}
	p.settlesTo(before, 10)
	p.stopClean()
}

// TestChaosNewConnections opens connections continuously while profiles are reloaded: none is refused.
func TestChaosNewConnections(t *testing.T) {
	d := newDemo(t, fast...)
	p := d.quickstart()
	versions := d.profileVersions()
	connections, reloads := scaled(200, 1000), scaled(4, 20)

	var wg sync.WaitGroup
	todo := make(chan int)
	for range 4 {
		wg.Go(func() {
			for i := range todo {
				c := d.client("gold", dialects[i%len(dialects)])
				if r, err := c.call("/orders/1"); err != nil || r.status != http.StatusOK {
					t.Errorf("connection %d (%s): status %d, %v", i, dialects[i%len(dialects)], r.status, err)
				}
				c.http.CloseIdleConnections()
			}
		})
	}
	changed, sent := 0, 0
	for changed < reloads || sent < connections {
		if changed < reloads && sent >= changed*connections/reloads {
			d.swap("listenerprofiles.xml", versions[changed%2])
			reached := func() bool { return d.has(changed % 2) }
			for !reached() { // with new connections all the while
				todo <- sent
				sent++
			}
			changed++
		}
		if sent < connections {
			todo <- sent
			sent++
		}
	}
	close(todo)
	wg.Wait()
	t.Logf("%d connections during %d reloads", sent, changed)
	if n := p.total("sallyport_connections_refused_total"); n != 0 {
		t.Errorf("%v connections were refused", n)
	}
	p.stopClean()
}

// TestChaosSignals sends SIGHUP every 10 ms under load: no call fails, nothing leaks, and the last configuration comes into
// force. Held: fault R2.
func TestChaosSignals(t *testing.T) {
	d := newDemo(t, slow...)
	p := d.quickstart()
	stop := d.load()
	anybody := d.client("", dialects[3])
	anybody.get(t, "/hello/1")
	before := p.holdings()
	good := d.read("sallyport.yaml")
	const extra = "apis:\n  - {name: extra, version: 2.0.0, context: /extra, security: [none], upstream: {urls: [\"http://127.0.0.1:%d\"]}, resources: [{path: /%d, methods: [GET]}]}\n"
	last, n := 0, scaled(150, 1000)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range n {
		if i%50 == 25 {
			last++
			d.swap("sallyport.yaml", strings.Replace(good, "apis:\n", fmt.Sprintf(extra, d.Ports.Backend, last), 1))
		}
		p.signal(syscall.SIGHUP)
		<-tick.C
	}
	p.signal(syscall.SIGHUP)
	eventually(t, "the last configuration is in force", func() bool {
		return anybody.get(t, fmt.Sprint("/extra/2.0.0/", last)).status == http.StatusOK
	})
	stop()
	p.settlesTo(before, 10)
	if got := p.ready(); !p.good() {
		t.Errorf("in the end the gateway says %q", got)
	}
	p.stopClean()
}
