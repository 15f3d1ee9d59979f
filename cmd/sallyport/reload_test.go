package main_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fast makes the gateway look for changes as often as the configuration allows.
var fast = []string{
	"certificateReloadPeriod: 2s", "certificateReloadPeriod: 100ms",
	"fileReadInterval: 2s", "fileReadInterval: 1s",
}

// slow leaves changes to SIGHUP.
var slow = []string{
	"certificateReloadPeriod: 2s", "certificateReloadPeriod: 1h",
	"fileReadInterval: 2s", "fileReadInterval: 1h",
}

const (
	bothVersions = "<HttpsProtocols>TLSv1.2,TLSv1.3</HttpsProtocols>"
	newestOnly   = "<HttpsProtocols>TLSv1.3</HttpsProtocols>"
)

// TestReloadProfiles changes listenerprofiles.xml ten times under load, by rename and in place, with and without SIGHUP:
// each change comes into force, and no call fails. Then the file is invalid: the last valid profiles serve on, and log,
// metrics and readiness report it until the file is valid again.
func TestReloadProfiles(t *testing.T) {
	d := newDemo(t, fast...)
	p := d.quickstart()
	stop := d.load()

	both := d.read("listenerprofiles.xml")
	newest := strings.Replace(both, bothVersions, newestOnly, 1)
	if newest == both {
		t.Fatalf("no %s in listenerprofiles.xml", bothVersions)
	}
	for i := range 10 {
		content := []string{newest, both}[i%2]
		change := []func(string, string){d.swap, d.swap, d.write, d.write}[i%4]
		change("listenerprofiles.xml", content)
		if i < 6 {
			p.signal(syscall.SIGHUP)
		}
		eventually(t, fmt.Sprintf("change %d of listenerprofiles.xml is in force", i+1), func() bool {
			return d.speaks(tls.VersionTLS12) == (i%2 == 1)
		})
	}

	const what = "profiles of listener https"
	for _, broken := range []string{
		strings.Replace(both, "<SSLVerifyClient>optional", "<SSLVerifyClient>perhaps", 1),
		both[:len(both)/2],
		strings.Replace(both, "stores/client-truststore.jks", "stores/nowhere.jks", 1),
	} {
		failures := p.metric(`sallyport_reload_failures_total{what="` + what + `"}`)
		d.write("listenerprofiles.xml", broken)
		eventually(t, "the broken file is counted and named", func() bool {
			now := p.metric(`sallyport_reload_failures_total{what="` + what + `"}`)
			return now != failures && now != "" && strings.Contains(p.ready(), what)
		})
		if got := p.metric(`sallyport_reload_good{what="` + what + `"}`); got != "0" {
			t.Errorf("sallyport_reload_good is %q while the file is broken", got)
		}
		eventually(t, "the log tells of the broken file", func() bool { return p.stderr.contains("listener profiles were not reloaded") })
		if !d.speaks(tls.VersionTLS12) || !d.speaks(tls.VersionTLS13) {
			t.Error("the last good profiles do not serve on")
		}
		d.write("listenerprofiles.xml", both)
		eventually(t, "the mended file is in force", func() bool { return p.good() })
	}
	d.swap("listenerprofiles.xml", newest)
	eventually(t, "changes are followed again", func() bool { return !d.speaks(tls.VersionTLS12) })

	stop()
	p.stop()
}

// TestReloadBySignal reloads by SIGHUP alone: a file that is valid again is no longer reported.
func TestReloadBySignal(t *testing.T) {
	d := newDemo(t, slow...)
	p := d.quickstart()
	for _, file := range []string{"listenerprofiles.xml", "sallyport.yaml", "secrets/client-truststore.password"} {
		good := d.read(file)
		d.write(file, good+"<")
		p.signal(syscall.SIGHUP)
		eventually(t, file+" is called broken", func() bool { return strings.Contains(p.ready(), "the one before it serves on") })
		if r := d.client("gold", dialects[3]).get(t, "/orders/42"); r.status != http.StatusOK {
			t.Errorf("while %s is broken: %d", file, r.status)
		}
		d.write(file, good)
		p.signal(syscall.SIGHUP)
		eventually(t, file+" is not called broken any more", func() bool { return p.good() })
	}
	p.stop()
}

// TestReloadOutOfReach: a change that leaves an API without callers comes into force, and the log names the API, once.
func TestReloadOutOfReach(t *testing.T) {
	d := newDemo(t, slow...)
	p := d.quickstart()
	const says = "nobody can call payments:1.0.0 /*: it demands a client certificate"
	if p.stderr.contains(says) {
		t.Errorf("payments is in reach:\n%s", p.stderr)
	}
	d.edit("sallyport.yaml", "    security: [mutualssl]\n", "    security: [mutualssl]\n    listeners: [quiet]\n",
		"listeners:\n", fmt.Sprintf("listeners:\n  - name: quiet\n    address: 127.0.0.1:%d\n    sslVerifyClient: none\n"+
			"    keyStore: {location: stores/gateway.jks, type: JKS, password: \"${file:secrets/gateway.password}\", alias: gateway}\n", freePort(t)))
	for range 2 {
		p.signal(syscall.SIGHUP)
		eventually(t, "the log says that payments is out of reach", func() bool { return p.stderr.contains(says) })
	}
	eventually(t, "payments is served elsewhere", func() bool {
		return d.client("gold", dialect{tls.VersionTLS13, true}).get(t, "/payments/7").status == http.StatusNotFound
	})
	if n := strings.Count(p.stderr.String(), says); n != 1 {
		t.Errorf("the log says it %d times:\n%s", n, p.stderr)
	}
	p.stop()
}

// TestReloadConfiguration adds an API to sallyport.yaml while the gateway runs. An invalid file is not taken, and used
// allowances stay used.
func TestReloadConfiguration(t *testing.T) {
	d := newDemo(t, append(threeADay, fast...)...)
	p := d.quickstart()
	stop := d.load()
	trial, anybody := d.client("trial", dialects[0]), d.client("", dialects[3])
	for range 3 {
		if r := trial.get(t, "/orders/1"); r.status != http.StatusOK {
			t.Fatalf("trial: %d", r.status)
		}
	}

	if r := anybody.get(t, "/extra/1"); r.status != http.StatusNotFound || r.code(t) != "404" {
		t.Fatalf("an API that is not there: %d", r.status)
	}
	const extra = `apis:
  - {name: extra, version: 2.0.0, context: /extra, defaultVersion: true, security: [none], upstream: {urls: ["http://127.0.0.1:%d"]}}
`
	d.edit("sallyport.yaml", "apis:\n", fmt.Sprintf(extra, d.Ports.Backend))
	eventually(t, "the new API is there", func() bool { return anybody.get(t, "/extra/1").status == http.StatusOK })
	if r := trial.get(t, "/orders/1"); r.status != http.StatusTooManyRequests {
		t.Errorf("after the reload trial has a new allowance: %d", r.status)
	}

	good := d.read("sallyport.yaml")
	d.swap("sallyport.yaml", good+"\nsurprise: 1\n")
	eventually(t, "the broken configuration is named", func() bool { return strings.Contains(p.ready(), `unknown key "surprise"`) })
	if got := p.metric(`sallyport_reload_failures_total{what="configuration"}`); got != "1" {
		t.Errorf("failures in /metrics: %q", got)
	}
	eventually(t, "the log tells of the broken configuration", func() bool { return p.stderr.contains("the configuration was not reloaded") })
	if r := anybody.get(t, "/extra/1"); r.status != http.StatusOK {
		t.Errorf("the last good configuration does not serve on: %d", r.status)
	}
	d.swap("sallyport.yaml", strings.Replace(good, "context: /extra", "context: /other", 1))
	eventually(t, "the API has moved", func() bool {
		return anybody.get(t, "/other/1").status == http.StatusOK && anybody.get(t, "/extra/1").status == http.StatusNotFound
	})
	eventually(t, "the configuration is called good again", func() bool { return p.good() })
	stop()
	p.stop()
}

// TestCertificatesBesideARunningGateway registers and removes a certificate with the program's commands. Calls on
// connections that are already open see each change.
func TestCertificatesBesideARunningGateway(t *testing.T) {
	d := newDemo(t, fast...)
	p := d.quickstart()
	stop := d.load()
	clients := make([]*client, len(dialects))
	for i, how := range dialects {
		clients[i] = d.client("unregistered", how)
	}
	awake := d.keepAwake(clients)
	become := func(status int) {
		t.Helper()
		for i, c := range clients {
			eventually(t, fmt.Sprintf("%s: status %d", dialects[i], status), func() bool { awake(); return c.get(t, "/payments/1").status == status })
		}
	}
	name := []string{"--api", "payments:1.0.0", "--alias", "newcomer"}

	become(http.StatusUnauthorized)
	d.mustRun(append([]string{"cert", "add", "--tier", "Gold", "clients/unregistered.crt"}, name...)...)
	become(http.StatusOK)
	if r := clients[0].get(t, "/orders/1"); r.status != http.StatusUnauthorized {
		t.Errorf("registered for payments, it may call orders: %d", r.status)
	}
	d.mustRun(append([]string{"cert", "update", "--tier", "Trial"}, name...)...)
	become(http.StatusTooManyRequests)
	d.mustRun(append([]string{"cert", "remove"}, name...)...)
	become(http.StatusUnauthorized)

	for i, c := range clients {
		if n := c.dials.Load(); n != 1 {
			t.Errorf("%s: %d connections instead of one", dialects[i], n)
		}
	}
	stop()
	p.stop()
}

// TestABrokenStoreServesOn takes the database away from a running gateway and gives it back.
func TestABrokenStoreServesOn(t *testing.T) {
	d := newDemo(t, fast...)
	p := d.quickstart()
	stop := d.load()
	good := d.read("sallyport.db")
	d.swap("sallyport.db", "this is no database, and it is long enough to be looked at as one")
	eventually(t, "the store is called broken", func() bool { return strings.Contains(p.ready(), "store: the last change was refused") })
	eventually(t, "log and metrics tell of the store", func() bool {
		return p.stderr.contains("the store cannot be read") && p.metric(`sallyport_reload_good{what="store"}`) == "0"
	})
	if r := d.client("gold", dialects[0]).get(t, "/payments/1"); r.status != http.StatusOK {
		t.Errorf("without a store: %d", r.status)
	}
	d.swap("sallyport.db", good)
	eventually(t, "the store is called good again", func() bool { return p.good() })
	d.mustRun("cert", "remove", "--api", "payments:1.0.0", "--alias", "bronze")
	eventually(t, "changes in the store are followed again", func() bool {
		return d.client("bronze", dialects[0]).get(t, "/payments/1").status == http.StatusUnauthorized
	})
	stop()
	p.stop()
}

// betweenCalls runs do while no call of load is under way.
func (d *demoFolder) betweenCalls(do func()) {
	for range cap(d.room) {
		d.room <- struct{}{}
	}
	defer func() {
		for range cap(d.room) {
			<-d.room
		}
	}()
	do()
}

// speaks tells whether a new connection of that TLS version is welcome.
func (d *demoFolder) speaks(version uint16) bool {
	_, err := d.client("gold", dialect{version, false}).call("/orders/42")
	return err == nil
}

// load makes about fifty calls a second as gold, alternating between kept and new connections, HTTP/1.1 and HTTP/2, with at
// most four under way at once. stop ends the calls and reports every one that failed.
func (d *demoFolder) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	http1, http2 := dialect{tls.VersionTLS13, false}, dialect{tls.VersionTLS13, true}
	old := []*client{d.client("gold", http1), d.client("gold", http2), d.client("gold", dialect{tls.VersionTLS12, false})}
	for _, c := range old {
		c.get(d.t, "/orders/1") // opens the connection
	}
	var mu sync.Mutex
	var failed []string
	calls := 0
	var turns [3]sync.Mutex // of old: with two calls at once an HTTP/1.1 client would open another connection
	one := func(i int) {
		var c *client
		switch kind := i % 5; kind {
		case 0, 1, 2:
			turns[kind].Lock()
			defer turns[kind].Unlock()
			c = old[kind]
		case 3:
			c = d.client("gold", http1)
		case 4:
			c = d.client("gold", http2)
		}
		r, err := c.call("/orders/1")
		mu.Lock()
		defer mu.Unlock()
		calls++
		if err != nil || r.status != http.StatusOK {
			failed = append(failed, fmt.Sprintf("call %d of kind %d: status %d, %v", i, i%5, r.status, err))
		}
		if i%5 > 2 {
			c.http.CloseIdleConnections()
		}
	}
	var running sync.WaitGroup
	room := make(chan struct{}, 4)
	d.room = room
	running.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				room <- struct{}{}
				running.Go(func() {
					defer func() { <-room }()
					one(i)
				})
			}
		}
	})
	ended := sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	d.t.Cleanup(ended)
	return func() {
		d.t.Helper()
		ended()
		for _, f := range failed {
			d.t.Error(f)
		}
		if calls == 0 {
			d.t.Error("no call was made under load")
		}
		d.t.Logf("%d calls under load", calls)
	}
}

// TestTakenPort: a port that is taken is no wrong configuration, so that whoever starts the gateway may try again.
func TestTakenPort(t *testing.T) {
	d := newDemo(t)
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if code, _, errs := d.run("serve"); code != 1 || !strings.Contains(errs, "listener https: ") || !strings.Contains(errs, "in use") {
		t.Errorf("exit code %d\n%s", code, errs)
	}
}
