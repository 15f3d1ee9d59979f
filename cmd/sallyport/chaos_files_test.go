package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// A watched file has two good contents, which the test distinguishes by what the gateway does.
type watched struct {
	d       *demoFolder
	p       *process
	file    string
	content [2]string
	inForce func(version int) bool
	serves  func() bool // holds for either version
	now     int         // the version in force
}

// TestChaosFiles changes each kind of file that the gateway reads in each way in which files change. A good content comes
// into force soon. A bad one is reported and counted while the last good one keeps serving, and the next good content is
// all it takes to recover. Held: security J 128, fault R4.
func TestChaosFiles(t *testing.T) {
	kinds := []struct {
		name string
		make func(t *testing.T) *watched
	}{
		{"listenerprofiles.xml", watchedProfiles},
		{"key store", watchedKeyStore},
		{"trust store of a listener", watchedListenerTrust},
		{"trust store of mutualSSL", watchedHeaderTrust},
		{"trust store of loadBalancers", watchedBalancerTrust},
		{"sallyport.yaml", watchedSettings},
		{"API file", watchedAPI},
		{"JWKS", watchedJWKS},
		{"client certificate", watchedClient},
		{"PEM trust store of mutualSSL", watchedHeaderTrustPEM},
	}
	for _, kind := range kinds {
		// Made one after the other, so that no two choose the same ports, then run in parallel: they mostly wait.
		w := kind.make(t)
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			w.d.t, w.p.t = t, t
			w.everyWay(t)
		})
	}
}

func (w *watched) everyWay(t *testing.T) {
	w.is(0)
	d, file := w.d, w.file

	// Touched only: nothing is reloaded.
	d.must(os.Chtimes(d.path(file), time.Now(), time.Now()))
	d.must(os.Chmod(d.path(file), 0o640))
	for range 20 { // meanwhile the gateway checks its files
		if !w.serves() {
			t.Errorf("%s was touched, and something that was good is not", file)
		}
	}
	w.broken("gone", func() { w.remove() })                       // which is seen after the touch
	store := w.p.total("sallyport_reloads_total", `what="store"`) // read once more after the start
	if n := w.p.total("sallyport_reloads_total") - store; n > 0 {
		t.Errorf("%v reloads for a file that was only touched, and then removed", n)
	}
	d.write(file, w.next()) // not the one that was there
	w.is(w.now)

	d.swap(file, w.next())
	w.is(w.now)
	w.slowly(w.next())
	w.is(w.now)

	// Kubernetes: the file is a link into ..data, which is a link to a folder that is swapped. Twice, because a watch that
	// follows the first rotation may be lost at the second.
	w.kubernetes()
	for range scaled(3, 6) {
		w.next()
		w.kubernetes()
		w.is(w.now)
	}
	// A link that is replaced by another.
	for i := range 2 {
		target := fmt.Sprintf("%s.v%d", file, i)
		d.write(target, w.next())
		w.link(filepath.Base(target))
		w.is(w.now)
	}
	// A regular file again, with an old modification time.
	d.write(file+".old", w.next())
	long := time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(d.path(file+".old"), long, long); err != nil {
		t.Fatal(err)
	}
	w.rename(file + ".old")
	w.is(w.now)

	broken := map[string]func(){
		"a folder":        func() { w.remove(); w.must(os.Mkdir(d.path(file), 0o755)) },
		"a dangling link": func() { w.link("nowhere") },
		"zero bytes":      func() { d.write(file, "") },
		"cut at half":     func() { d.swap(file, w.content[w.now][:len(w.content[w.now])/2]) },
		"another thing":   func() { d.swap(file, "\x00\x01 this is none of it: [") },
	}
	for what, harm := range broken {
		w.broken(what, harm)
		w.remove()
		d.write(file, w.next())
		w.is(w.now)
	}
	w.p.stopClean()
}

// is waits until a version is in force and nothing is reported as broken.
func (w *watched) is(version int) {
	w.d.t.Helper()
	w.now = version
	defer func() {
		if w.d.t.Failed() {
			w.d.t.Logf("in force: %t, serves: %t, ready: %q", w.inForce(version), w.serves(), w.p.ready())
		}
	}()
	eventually(w.d.t, fmt.Sprintf("version %d of %s is in force", version, w.file), func() bool { return w.inForce(version) && w.p.good() && w.serves() })
}

func (w *watched) next() string {
	w.now = 1 - w.now
	return w.content[w.now]
}

// broken does harm, waits until that is counted, logged and in the readiness report, and checks that the last good version
// still serves.
func (w *watched) broken(what string, harm func()) {
	w.d.t.Helper()
	failures := w.p.total("sallyport_reload_failures_total")
	harm()
	eventually(w.d.t, fmt.Sprintf("%s: %s is counted and named", w.file, what), func() bool {
		return w.p.total("sallyport_reload_failures_total") > failures && strings.Contains(w.p.ready(), "the last change was refused")
	})
	if !w.inForce(w.now) || !w.serves() {
		w.d.t.Errorf("%s: %s, and the last good version does not serve", w.file, what)
	}
}

func (w *watched) must(err error) {
	w.d.t.Helper()
	if err != nil {
		w.d.t.Fatal(err)
	}
}

func (w *watched) remove() { w.must(os.RemoveAll(w.d.path(w.file))) }

// rename replaces the file by renaming another over it.
func (w *watched) rename(other string) {
	w.d.t.Helper()
	w.must(os.Rename(w.d.path(other), w.d.path(w.file)))
}

// link replaces the file with a symbolic link, atomically.
func (w *watched) link(target string) {
	w.d.t.Helper()
	name := w.d.path(w.file) + ".link"
	w.must(os.Symlink(target, name))
	w.must(os.Rename(name, w.d.path(w.file)))
}

// kubernetes publishes the current version the way a mounted ConfigMap or Secret does.
func (w *watched) kubernetes() {
	w.d.t.Helper()
	dir, base := filepath.Split(w.d.path(w.file))
	version, err := os.MkdirTemp(dir, "..version-")
	w.must(err)
	w.must(os.WriteFile(filepath.Join(version, base), []byte(w.content[w.now]), 0o600))
	old, _ := os.Readlink(dir + "..data") // there is none the first time
	w.must(os.Symlink(filepath.Base(version), dir+"..data_tmp"))
	w.must(os.Rename(dir+"..data_tmp", dir+"..data"))
	if old == "" {
		w.link(filepath.Join("..data", base))
	} else {
		w.must(os.RemoveAll(filepath.Join(dir, old)))
	}
}

// slowly writes in place, an eighth every 100 ms; PEM one certificate at a time, so that each part is well-formed. The
// gateway promises to wait until a file has not changed for 200 ms. On a busy machine a pause may be longer than that, and
// the part written so far may come into force.
func (w *watched) slowly(content string) {
	w.d.t.Helper()
	const rest = 150 * time.Millisecond
	last := time.Now() // not after the last write
	file, err := os.Create(w.d.path(w.file))
	w.must(err)
	defer file.Close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	paused := false
	for step := len(content)/8 + 1; len(content) > 0; {
		n := min(step, len(content))
		if _, after, ok := strings.Cut(content, "-----END CERTIFICATE-----\n"); ok {
			n = len(content) - len(after)
		}
		now := time.Now()
		_, err := file.WriteString(content[:n])
		w.must(err)
		if pause := time.Since(last); pause > rest {
			w.d.t.Logf("%s was not written for %s, which may look like its end", w.file, pause)
			paused = true
		}
		last, content = now, content[n:]
		if content != "" {
			<-tick.C
		}
		if !w.serves() && !paused && time.Since(last) < rest {
			w.d.t.Errorf("%s is being written, and something that was good before and after is not", w.file)
		}
	}
}

func (d *demoFolder) watch(file string, content [2]string, inForce func(int) bool) *watched {
	d.t.Helper()
	d.write(file, content[0])
	w := &watched{d: d, p: d.quickstart(), file: file, content: content, inForce: inForce}
	gold := d.client("gold", dialects[3])
	w.serves = func() bool {
		r, err := gold.call("/orders/1")
		return err == nil && r.status == http.StatusOK
	}
	return w
}

// answers reports whether a call on a new connection gets this status.
func (d *demoFolder) answers(status int, certificate string, port int, path string, headers ...string) bool {
	c := d.client(certificate, dialects[0]).onPort(port)
	defer c.http.CloseIdleConnections()
	r, err := c.call(path, headers...)
	return err == nil && r.status == status
}

func status(version int) int {
	return []int{http.StatusUnauthorized, http.StatusOK}[version]
}

func watchedProfiles(t *testing.T) *watched {
	d := newDemo(t, fast...)
	return d.watch("listenerprofiles.xml", d.profileVersions(), d.has)
}

// shows reports whether the certificate on new connections has that serial number.
func (d *demoFolder) shows(port int, serial *big.Int) bool {
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return false
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(serial) == 0
}

func watchedKeyStore(t *testing.T) *watched {
	d := newDemo(t, fast...)
	var content [2]string
	var serials [2]*big.Int
	for i := range content {
		content[i], serials[i] = d.keyStoreFile(d.password("gateway"))
	}
	return d.watch("stores/gateway.jks", content, func(v int) bool {
		return d.shows(d.Ports.HTTPS, serials[v]) && d.shows(d.Ports.LoadBalancer, serials[v])
	})
}

// newcomer makes and registers the client "newcomer", whose CA the demonstration does not know. It returns that CA.
func (d *demoFolder) newcomer() *x509.Certificate {
	d.t.Helper()
	ca := testpki.NewCA(d.t, "Newcomers")
	d.putClient(ca, "newcomer")
	d.mustRun("cert", "add", "--api", "payments:1.0.0", "--alias", "newcomer", "--tier", "Gold", "clients/newcomer.crt")
	return ca.Cert
}

func watchedListenerTrust(t *testing.T) *watched {
	d := newDemo(t, fast...)
	// The listener for load balancers keeps its own store, so that the file changes one listener alone.
	other := d.newcomer()
	content := [2]string{
		d.trustStoreFile("client-truststore", d.certificate("ca.crt")),
		d.trustStoreFile("client-truststore", d.certificate("ca.crt"), other),
	}
	return d.watch("stores/client-truststore.jks", content, func(v int) bool {
		return d.answers(status(v), "newcomer", d.Ports.HTTPS, "/payments/1")
	})
}

// headerTrust configures a separate trust store for certificates in the header.
func (d *demoFolder) headerTrust(reference string) {
	d.t.Helper()
	const old = "  trustStore: {location: stores/client-truststore.jks, type: JKS, password: \"${file:secrets/client-truststore.password}\"}\n  # How soon"
	d.edit("sallyport.yaml", old, "  trustStore: "+reference+"\n  # How soon")
}

// vouched reports whether a call through a load balancer, with the client's certificate in the header, gets this status.
func (d *demoFolder) vouched(status int, balancer, client string) bool {
	return d.answers(status, balancer, d.Ports.LoadBalancer, "/payments/1", "X-WSO2-CLIENT-CERTIFICATE", base64.StdEncoding.EncodeToString(d.block("clients/"+client+".crt")))
}

func watchedHeaderTrust(t *testing.T) *watched {
	d := newDemo(t, fast...)
	d.headerTrust("{location: stores/header.jks, type: JKS, password: \"${file:secrets/client-truststore.password}\"}")
	other := d.newcomer()
	content := [2]string{
		d.trustStoreFile("client-truststore", d.certificate("ca.crt")),
		d.trustStoreFile("client-truststore", d.certificate("ca.crt"), other),
	}
	w := d.watch("stores/header.jks", content, func(v int) bool { return d.vouched(status(v), "loadbalancer", "newcomer") })
	w.serves = func() bool { return d.vouched(http.StatusOK, "loadbalancer", "gold") }
	return w
}

// watchedHeaderTrustPEM watches a PEM trust store, which is well-formed when cut between two certificates. The certificate
// that serves in both versions therefore stands last.
func watchedHeaderTrustPEM(t *testing.T) *watched {
	d := newDemo(t, fast...)
	d.headerTrust("{location: stores/header.pem, type: PEM}")
	other := d.newcomer()
	strangers := ""
	for i := range 4 {
		strangers += string(testpki.NewCA(t, fmt.Sprint("Stranger ", i)).CertPEM())
	}
	content := [2]string{strangers + d.read("ca.crt"), strangers + string(testpki.PEM(other)) + d.read("ca.crt")}
	w := d.watch("stores/header.pem", content, func(v int) bool { return d.vouched(status(v), "loadbalancer", "newcomer") })
	w.serves = func() bool { return d.vouched(http.StatusOK, "loadbalancer", "gold") }
	return w
}

func watchedBalancerTrust(t *testing.T) *watched {
	d := newDemo(t, fast...)
	other := testpki.NewCA(t, "Balancers")
	d.putClient(other, "newbalancer")
	content := [2]string{
		d.trustStoreFile("lb-truststore", d.certificate("clients/loadbalancer.crt")),
		d.trustStoreFile("lb-truststore", d.certificate("clients/loadbalancer.crt"), other.Cert),
	}
	w := d.watch("stores/lb-truststore.jks", content, func(v int) bool { return d.vouched(status(v), "newbalancer", "gold") })
	w.serves = func() bool { return d.vouched(http.StatusOK, "loadbalancer", "gold") }
	return w
}

// extraAPI is the configuration of an open API, for an API file or for sallyport.yaml.
func (d *demoFolder) extraAPI(name string) string {
	return fmt.Sprintf("  - {name: %s, version: 2.0.0, context: /%s, security: [none], upstream: {urls: [\"http://127.0.0.1:%d\"]}}\n", name, name, d.Ports.Backend)
}

func (d *demoFolder) offers(api string) bool {
	return d.answers(http.StatusOK, "", d.Ports.HTTPS, "/"+api+"/2.0.0/")
}

func (d *demoFolder) lacks(api string) bool {
	return d.answers(http.StatusNotFound, "", d.Ports.HTTPS, "/"+api+"/2.0.0/")
}

func watchedSettings(t *testing.T) *watched {
	d := newDemo(t, fast...)
	text := d.read("sallyport.yaml")
	with := strings.Replace(text, "apis:\n", "apis:\n"+d.extraAPI("extra"), 1)
	// Any part that is cut off leaves an invalid file.
	closing := "\nlimits: {headerCount: 200}\n"
	return d.watch("sallyport.yaml", [2]string{text + closing, with + closing}, func(v int) bool {
		if v == 0 {
			return d.lacks("extra")
		}
		return d.offers("extra")
	})
}

// apiFiles moves the demonstration's APIs to files in a folder.
func (d *demoFolder) apiFiles() {
	d.t.Helper()
	text := d.read("sallyport.yaml")
	start, end := strings.Index(text, "\napis:\n")+1, strings.Index(text, "\nstatus:")+1
	d.must(os.Mkdir(d.path("apis"), 0o755))
	d.write("apis/demo.yaml", text[start:end])
	d.swap("sallyport.yaml", text[:start]+"apis: [apis/*.yaml]\n"+text[end:])
}

func (d *demoFolder) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func watchedAPI(t *testing.T) *watched {
	d := newDemo(t, fast...)
	d.apiFiles()
	// This file is named by itself. Were it only one match of a pattern, its removal would not be an error: the pattern has
	// other matches, and an API would be gone.
	d.edit("sallyport.yaml", "apis: [apis/*.yaml]", "apis: [apis/*.yaml, more/extra.yaml]")
	d.must(os.Mkdir(d.path("more"), 0o755))
	content := [2]string{"apis:\n" + d.extraAPI("one"), "apis:\n" + d.extraAPI("two")}
	return d.watch("more/extra.yaml", content, func(v int) bool {
		names := []string{"one", "two"}
		return d.offers(names[v]) && d.lacks(names[1-v])
	})
}

func watchedJWKS(t *testing.T) *watched {
	d := newDemo(t, fast...)
	jwks := d.read("jwks.json")
	with, token := newIssuerKey(t, jwks, d.bearer("valid")[1][len("Bearer "):])
	w := d.watch("jwks.json", [2]string{jwks, with}, func(v int) bool {
		return d.answers(status(v), "", d.Ports.HTTPS, "/catalog/1", "Authorization", "Bearer "+token)
	})
	bearer := d.bearer("valid")
	w.serves = func() bool { return d.answers(http.StatusOK, "", d.Ports.HTTPS, "/catalog/1", bearer...) }
	return w
}

// watchedClient watches a client certificate that an API's configuration names.
func watchedClient(t *testing.T) *watched {
	d := newDemo(t, fast...)
	for _, name := range []string{"first", "second"} {
		d.putClient(d.demoCA(), name)
	}
	d.edit("sallyport.yaml", "apis:\n", fmt.Sprintf("apis:\n  - {name: extra, version: 2.0.0, context: /extra, security: [mutualssl], upstream: {urls: [\"http://127.0.0.1:%d\"]}, clientCertificates: [{alias: partner, certificate: partners/partner.crt, tier: Gold}]}\n", d.Ports.Backend))
	d.must(os.Mkdir(d.path("partners"), 0o755))
	content := [2]string{d.read("clients/first.crt"), d.read("clients/second.crt")}
	return d.watch("partners/partner.crt", content, func(v int) bool {
		names := []string{"first", "second"}
		return d.answers(http.StatusOK, names[v], d.Ports.HTTPS, "/extra/2.0.0/") &&
			d.answers(http.StatusUnauthorized, names[1-v], d.Ports.HTTPS, "/extra/2.0.0/")
	})
}

// TestChaosGlobs adds, changes and removes files that match the pattern of API files while calls are made.
func TestChaosGlobs(t *testing.T) {
	d := newDemo(t, fast...)
	d.apiFiles()
	p := d.quickstart()
	stop := d.load()
	for i := range scaled(2, 10) {
		name := fmt.Sprint("extra", i)
		d.write("apis/"+name+".yaml", "apis:\n"+d.extraAPI(name))
		eventually(t, "an added file is in force", func() bool { return d.offers(name) })
		d.must(os.Rename(d.path("apis/"+name+".yaml"), d.path("apis/renamed.yaml")))
		d.swap("apis/renamed.yaml", "apis:\n"+d.extraAPI(name+"b"))
		eventually(t, "a changed file is in force", func() bool { return d.offers(name+"b") && d.lacks(name) })
		d.must(os.Remove(d.path("apis/renamed.yaml")))
		eventually(t, "a removed file is out of force", func() bool { return d.lacks(name + "b") })
		// An editor's lock and a backup are not API files. A broken API file is reported, and the other APIs remain.
		d.write("apis/.#demo.yaml", "this is none")
		d.write("apis/demo.yaml~", "this is none")
		d.write("apis/broken.yaml", "apis: [")
		eventually(t, "a broken file is named", func() bool { return strings.Contains(p.ready(), "broken.yaml") })
		d.must(os.Remove(d.path("apis/broken.yaml")))
		eventually(t, "without it all is good", func() bool { return p.good() })
	}
	stop()
	p.stopClean()
}

// TestChaosKeyAndPassword replaces a key store and its password one after the other, in either order, while calls are made
// over new connections. The two come into force together, and no handshake fails in between. Held: security J 129.
func TestChaosKeyAndPassword(t *testing.T) {
	d := newDemo(t, fast...)
	p := d.quickstart()
	stop := d.load()
	serial := func(port int) *big.Int {
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err) // a broken handshake
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber
	}
	last := serial(d.Ports.HTTPS)
	for i := range scaled(4, 20) {
		password := fmt.Sprint("another-password-", i)
		content, next := d.keyStoreFile(password)
		changes := []func(){
			func() { d.swap("stores/gateway.jks", content) },
			func() { d.swap("secrets/gateway.password", password+"\n") },
		}
		failures := p.total("sallyport_reload_failures_total")
		changes[i%2]()
		eventually(t, "half of the change is told as broken", func() bool {
			if serial(d.Ports.HTTPS).Cmp(last) != 0 || serial(d.Ports.LoadBalancer).Cmp(last) != 0 {
				t.Fatal("half of the change is in force")
			}
			return p.total("sallyport_reload_failures_total") > failures
		})
		changes[1-i%2]()
		eventually(t, "the whole change is in force", func() bool {
			return serial(d.Ports.HTTPS).Cmp(next) == 0 && serial(d.Ports.LoadBalancer).Cmp(next) == 0 && p.good()
		})
		last = next
	}
	stop()
	if n := p.total("sallyport_connections_refused_total"); n != 0 {
		t.Errorf("%v handshakes failed", n)
	}
	p.stopClean()
	if p.stdout.contains("another-password") || p.stderr.contains("another-password") {
		t.Error("a password was shown")
	}
}
