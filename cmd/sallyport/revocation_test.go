package main_test

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testserver"
)

const authoritySettings = `
[ca]
default_ca = here
[here]
dir = .
new_certs_dir = .
database = index.txt
serial = serial
crlnumber = crlnumber
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 1
policy = any
unique_subject = no
[any]
commonName = supplied
[list]
authorityKeyIdentifier = keyid:always
[delta]
authorityKeyIdentifier = keyid:always
deltaCRL = critical, ASN1:INTEGER:0x01
`

const (
	authorityExtensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
	clientExtensions    = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\nauthorityKeyIdentifier=keyid\n"
)

// An authority is `openssl ca` in a folder, with a responder of `openssl ocsp` once it responds.
type authority struct {
	t         *testing.T
	dir       string
	responder string // its port
}

// newAuthority makes a folder of a CA that has neither certificate nor key yet.
func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), responder: testserver.FreePort(t)}
	for name, content := range map[string]string{"openssl.cnf": authoritySettings, "index.txt": "", "serial": "1000\n", "crlnumber": "01\n"} {
		testserver.Write(t, a.path(name), content)
	}
	return a
}

// newRoot is an authority that has signed itself.
func newRoot(t *testing.T, name string) *authority {
	t.Helper()
	a := newAuthority(t)
	a.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN="+name,
		"-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", "ca.key", "-out", "ca.pem")
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) read(name string) string {
	a.t.Helper()
	data, err := os.ReadFile(a.path(name))
	if err != nil {
		a.t.Fatal(err)
	}
	return string(data)
}

func (a *authority) openssl(args ...string) {
	a.t.Helper()
	cmd := exec.Command(tool(a.t, "openssl"), args...)
	cmd.Dir = a.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// issue makes NAME.key and NAME.pem.
func (a *authority) issue(name, extensions string, args ...string) {
	a.t.Helper()
	testserver.Write(a.t, a.path(name+".ext"), extensions)
	a.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN="+name, "-keyout", name+".key", "-out", name+".csr")
	a.openssl(append([]string{"ca", "-batch", "-notext", "-config", "openssl.cnf", "-in", name + ".csr", "-extfile", name + ".ext", "-out", name + ".pem"}, args...)...)
}

// issueAuthority is an authority below it.
func (a *authority) issueAuthority(name, extensions string) *authority {
	a.t.Helper()
	a.issue(name, authorityExtensions+extensions)
	below := newAuthority(a.t)
	testserver.Write(a.t, below.path("ca.pem"), a.read(name+".pem"))
	testserver.Write(a.t, below.path("ca.key"), a.read(name+".key"))
	return below
}

func (a *authority) revoke(name string) {
	a.t.Helper()
	a.openssl("ca", "-config", "openssl.cnf", "-revoke", name+".pem", "-crl_reason", "keyCompromise")
}

// list makes a CRL; extensions are list or delta.
func (a *authority) list(extensions string, args ...string) string {
	a.t.Helper()
	a.openssl(append([]string{"ca", "-config", "openssl.cnf", "-gencrl", "-crlexts", extensions, "-out", "out.crl"}, args...)...)
	return a.read("out.crl")
}

// respond starts the OCSP responder, which reads the index whenever it has changed.
func (a *authority) respond() {
	a.t.Helper()
	p := testserver.Process{T: a.t, Program: tool(a.t, "openssl"), Dir: a.dir}
	p.Start(func() []string {
		return []string{"ocsp", "-port", a.responder, "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key", "-nmin", "60"}
	}, func() error { // whoever connects and says nothing keeps it busy
		if data, _ := os.ReadFile(a.path("output")); !strings.Contains(string(data), "waiting for OCSP client") {
			return fmt.Errorf("it does not wait for anybody yet")
		}
		return nil
	})
}

// A publisher is where a root and an intermediate of openssl publish: a folder, and an address whose answers can be
// changed, by path.
type publisher struct {
	*demoFolder
	server      *httptest.Server
	root, inter *authority
	leaves      string // extensions of the intermediate's leaves

	mu     sync.Mutex
	answer map[string]http.HandlerFunc
}

// newPublisher has the demonstration trust the root, and register the intermediate for its APIs, which admits what it has
// issued. Certificates are looked up by `revocation`, in which ADDRESS is the address and FILES the folder.
func newPublisher(t *testing.T, edits ...string) *publisher {
	t.Helper()
	p := &publisher{demoFolder: newDemo(t, edits...), answer: map[string]http.HandlerFunc{}}
	p.server = httptest.NewServer(http.HandlerFunc(p.serveList))
	t.Cleanup(func() { p.server.CloseClientConnections(); p.server.Close() })
	if err := os.Mkdir(p.path("lists"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.root = newRoot(t, "Acme Root")
	p.inter = p.root.issueAuthority("Acme Clients", p.names("root.crl", p.root))
	p.leaves = clientExtensions + p.names("inter.crl", p.inter)
	p.write("clients/inter.crt", p.inter.read("ca.pem"))
	p.write("clients/root.crt", p.root.read("ca.pem"))
	p.writeTrustStore([]*x509.Certificate{p.certificate("clients/root.crt")})
	for _, security := range []string{"    security: [mutualssl, oauth2]\n", "    security: [mutualssl]\n"} {
		p.edit("sallyport.yaml", security, security+"    clientCertificates: [{alias: acme, certificate: clients/inter.crt, tier: Unlimited}]\n")
	}
	p.edit("sallyport.yaml", "\nmutualSSL:\n", "\nmutualSSL:\n  enableCertificateChainValidation: true\n")
	p.publish()
	return p
}

// lookUp has certificates of both doors looked up.
func (p *publisher) lookUp(revocation string) {
	p.t.Helper()
	revocation = strings.NewReplacer("ADDRESS", p.server.URL, "FILES", "lists").Replace(revocation)
	p.edit("sallyport.yaml",
		"    # WSO2's listener profiles", "    revocation: "+revocation+"\n    # WSO2's listener profiles",
		"\nmutualSSL:\n", "\nmutualSSL:\n  revocation: "+revocation+"\n")
}

// names are the extensions that say where an authority tells what it has revoked.
func (p *publisher) names(list string, by *authority) string {
	return fmt.Sprintf("crlDistributionPoints=URI:%s/%s\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:%s\n", p.server.URL, list, by.responder)
}

func (p *publisher) serveList(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	answer := p.answer[r.URL.Path]
	p.mu.Unlock()
	if answer == nil {
		http.ServeFile(w, r, p.path("lists"+r.URL.Path))
		return
	}
	answer(w, r)
}

func (p *publisher) answers(path string, answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer[path] = answer
}

// publish writes new lists of both, complete ones.
func (p *publisher) publish() {
	p.t.Helper()
	p.swap("lists/root.crl", p.root.list("list"))
	p.swap("lists/inter.crl", p.inter.list("list"))
}

// client writes a certificate of the intermediate among the demonstration's clients; it is shown with the intermediate.
func (p *publisher) issueClient(name, extensions string, args ...string) {
	p.t.Helper()
	p.inter.issue(name, extensions, args...)
	p.write("clients/"+name+".crt", p.inter.read(name+".pem")+p.inter.read("ca.pem"))
	p.write("clients/"+name+".key", p.inter.read(name+".key"))
}

// doors are all ways in of a certificate: a connection of each dialect, and two to each balancer.
func (d *demoFolder) doors(t *testing.T, certificate string, balancers ...balancer) (all []door, direct []*client) {
	t.Helper()
	for _, how := range dialects {
		c := d.client(certificate, how)
		direct = append(direct, c)
		all = append(all, door{"handshake, " + how.String(), c.call})
	}
	pair := d.pair(certificate)
	for _, b := range balancers {
		for _, how := range dialects {
			all = append(all, b.as(t, pair, how))
		}
	}
	return all, direct
}

// want makes a call at each door and compares its verdict.
func want(t *testing.T, what string, doors []door, verdict string) {
	t.Helper()
	for _, at := range doors {
		if got := at.verdict(t, "/payments/1"); got != verdict {
			t.Errorf("%s, %s: %s, want %s", what, at.name, got, verdict)
		}
	}
}

// TestOpenSSLRevokes has a CA of openssl revoke a certificate, and then the intermediate above it, and tell by each kind of
// source. The next call after it is known is refused on every open connection, over TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2,
// and behind NGINX and HAProxy; others go on until it is their issuer's turn. Held: security A 4, C 30, 43; R15.
func TestOpenSSLRevokes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		revocation string
		publish    func(*publisher) // what the intermediate has revoked
		ocsp       bool
	}{
		"CRL files":           {revocation: "{crl: [FILES/root.crl, FILES/inter.crl]}"},
		"CRL addresses":       {revocation: "{crl: [ADDRESS/root.crl, ADDRESS/inter.crl], refresh: 1s}"},
		"distribution points": {revocation: "{crlDistributionPoints: true, refresh: 1s}"},
		"OCSP":                {revocation: "{ocsp: true, refresh: 1s}", publish: func(*publisher) {}, ocsp: true},
		"a delta CRL": {
			revocation: "{crl: [FILES/root.crl, FILES/inter.crl, ADDRESS/delta.crl], refresh: 1s}",
			publish:    func(p *publisher) { p.swap("lists/delta.crl", p.inter.list("delta")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPublisher(t, fast...)
			p.issueClient("lost", p.leaves)
			p.issueClient("kept", p.leaves)
			if tt.publish == nil {
				tt.publish = (*publisher).publish
			}
			tt.publish(p)
			if tt.ocsp {
				p.inter.respond()
				p.root.respond()
			}
			p.lookUp(tt.revocation)
			p.quickstart()
			balancers := []balancer{p.nginx(), p.haproxy()}
			lost, open := p.doors(t, "lost", balancers...)
			kept, others := p.doors(t, "kept", balancers...)
			for _, at := range append(lost, kept...) {
				eventually(t, "the sources have been asked: "+at.name, func() bool { return at.verdict(t, "/payments/1") == "acme" })
			}

			p.inter.revoke("lost")
			tt.publish(p)
			eventually(t, "a certificate is known to be revoked", func() bool { return lost[0].verdict(t, "/payments/1") == "900901" })
			want(t, "revoked", lost, "900901")
			want(t, "not revoked", kept, "acme")
			if r := lost[4].get(t, "/orders/1", p.bearer("valid")...); r.status != http.StatusOK {
				t.Errorf("a revoked certificate beside a good token: status %d", r.status)
			}

			p.root.revoke("Acme Clients")
			p.swap("lists/root.crl", p.root.list("list"))
			eventually(t, "the intermediate is known to be revoked", func() bool { return kept[0].verdict(t, "/payments/1") == "900901" })
			want(t, "of a revoked intermediate", kept, "900901")
			for i, c := range append(open, others...) {
				if n := c.dials.Load(); n != 1 {
					t.Errorf("connection %d is the %dth", i, n)
				}
			}
		})
	}
}

// TestFaultsOfCRLAddresses gives each client a distribution point with a fault. Hard failing answers 503 with Retry-After
// at every door and lets tokens in; soft failing takes the certificate for good. What is mended is taken up. Held: security
// C 43.
func TestFaultsOfCRLAddresses(t *testing.T) {
	t.Parallel()
	const endless = 80 << 20 // bytes after which the gateway has to have had enough
	for _, fail := range []string{"hard", "soft"} {
		t.Run(fail, func(t *testing.T) {
			p := newPublisher(t, fast...)
			good := p.inter.list("list")
			impostor := newRoot(t, "Acme Clients")
			elsewhere, err := url.Parse(p.server.URL)
			if err != nil {
				t.Fatal(err)
			}
			elsewhere.Host = "localhost:" + elsewhere.Port()
			text := func(s string) http.HandlerFunc {
				return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) }
			}
			redirect := func(to string) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to+"/inter.crl", http.StatusFound) }
			}
			var sent atomic.Int64
			enough := make(chan struct{})
			var once sync.Once
			sources := map[string]struct {
				answer http.HandlerFunc
				good   bool
			}{
				"sound":           {text(good), true},
				"redirected-here": {redirect(p.server.URL), true},
				"silent":          {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false},
				"trickled": {func(w http.ResponseWriter, r *http.Request) {
					for i := range len(good) {
						select {
						case <-r.Context().Done():
							return
						case <-time.After(200 * time.Millisecond):
						}
						fmt.Fprint(w, good[i:i+1])
						_ = http.NewResponseController(w).Flush()
					}
				}, false},
				"wrong-content":   {text("<html>Sign in to the network</html>"), false},
				"nothing":         {http.NotFound, false},
				"stale":           {text(p.inter.list("list", "-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z")), false},
				"of-a-namesake":   {text(impostor.list("list")), false},
				"redirected-away": {redirect(elsewhere.String()), false},
				"huge": {func(w http.ResponseWriter, _ *http.Request) {
					block := make([]byte, 64<<10)
					for {
						n, err := w.Write(block)
						if sent.Add(int64(n)); err != nil {
							once.Do(func() { close(enough) })
							return
						}
					}
				}, false},
			}
			for name, s := range sources {
				p.answers("/of/"+name, s.answer)
				p.issueClient(name, clientExtensions+p.names("of/"+name, p.inter))
			}
			p.lookUp("{crlDistributionPoints: true, refresh: 1s, fail: " + fail + "}")
			gateway := p.quickstart()
			balancers := []balancer{p.nginx(), p.haproxy()}
			for name, s := range sources {
				doors, _ := p.doors(t, name, balancers...)
				if s.good {
					eventually(t, name+" is asked", func() bool { return doors[0].verdict(t, "/payments/1") == "acme" })
				}
				verdict := "503"
				if s.good || fail == "soft" {
					verdict = "acme"
				}
				want(t, name, doors, verdict)
				for _, at := range doors {
					r := at.get(t, "/payments/1")
					if after := r.header.Get("Retry-After"); (verdict == "503") != (r.status == http.StatusServiceUnavailable && after != "") {
						t.Errorf("%s, %s: status %d with Retry-After %q", name, at.name, r.status, after)
					}
					by := "token"
					if verdict == "acme" {
						by = "acme"
					}
					if got := at.verdict(t, "/orders/1", p.bearer("valid")...); got != by {
						t.Errorf("%s, %s: with a token it is %s, want %s", name, at.name, got, by)
					}
				}
			}
			select {
			case <-enough:
			case <-time.After(patience):
				t.Error("an endless list is read without an end")
			}
			if n := sent.Load(); n > 2*endless {
				t.Errorf("%d bytes of an endless list were taken", n)
			}
			for _, name := range []string{"wrong-content", "of-a-namesake"} {
				if !gateway.stderr.contains(p.server.URL + "/of/" + name) {
					t.Errorf("the log does not name the source of %s", name)
				}
			}
			p.answers("/of/wrong-content", text(good))
			mended, _ := p.doors(t, "wrong-content")
			eventually(t, "the source is read again", func() bool { return mended[0].verdict(t, "/payments/1") == "acme" })
		})
	}
}

// TestCertificateRevocationVerifier changes the element of a profile under a running gateway, and sees what each of its
// children does.
func TestCertificateRevocationVerifier(t *testing.T) {
	t.Parallel()
	p := newPublisher(t, fast...)
	for _, name := range []string{"lost", "kept"} {
		p.issueClient(name, p.leaves)
	}
	p.issueClient("ended", p.leaves, "-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
	p.inter.revoke("lost")
	p.publish()
	p.inter.respond()
	p.root.respond()
	p.quickstart()
	profiles := p.read("listenerprofiles.xml")
	set := func(children string) {
		t.Helper()
		element := ""
		if children != "" {
			element = "<CertificateRevocationVerifier>" + children + "</CertificateRevocationVerifier>"
		}
		p.swap("listenerprofiles.xml", strings.Replace(profiles, "</SSLVerifyClient>", "</SSLVerifyClient>"+element, 1))
	}
	becomes := func(what, certificate, verdict string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s: %s is %s", what, certificate, verdict), func() bool {
			doors, _ := p.doors(t, certificate)
			for _, at := range doors {
				if at.verdict(t, "/payments/1") != verdict {
					return false
				}
			}
			return true
		})
	}
	const sizes = "<CacheSize>1024</CacheSize><CacheDelay>2</CacheDelay>"
	becomes("without the element", "lost", "acme")
	set("<Enable>true</Enable>" + sizes)
	becomes("Enable true", "lost", "900901")
	becomes("Enable true", "kept", "acme")
	set("<Enable>false</Enable>" + sizes)
	becomes("Enable false", "lost", "acme")

	p.root.revoke("Acme Clients")
	p.swap("lists/root.crl", p.root.list("list"))
	set("<Enable>true</Enable>" + sizes + "<FullChainValidation>true</FullChainValidation>")
	becomes("FullChainValidation true", "kept", "900901")
	set("<Enable>true</Enable>" + sizes + "<FullChainValidation>false</FullChainValidation>")
	becomes("FullChainValidation false", "kept", "acme")
	becomes("FullChainValidation false", "lost", "900901")

	for _, tt := range []struct{ children, says string }{
		{"<Enable>true</Enable>" + sizes + "<FullChainValidation>false</FullChainValidation><ExpiryValidation>false</ExpiryValidation>", "expired certificates are never admitted"},
		{"<Enable>true</Enable><CacheSize>7</CacheSize><CacheDelay>2</CacheDelay><FullChainValidation>false</FullChainValidation>", "10000 answers are remembered"},
		{"<Enable>true</Enable><CacheSize>1024</CacheSize><CacheDelay>9999</CacheDelay><FullChainValidation>false</FullChainValidation>", "it is 5 minutes"},
	} {
		set(tt.children)
		if code, stdout, stderr := p.run("validate", "-c", p.ConfigFile); code != 0 || !strings.Contains(stdout+stderr, tt.says) {
			t.Errorf("%s: exit code %d, %s%s", tt.children, code, stdout, stderr)
		}
		becomes(tt.says, "ended", "900901")
		becomes(tt.says, "kept", "acme")
		becomes(tt.says, "lost", "900901")
	}
	for _, bad := range []string{
		"<Enable>yes</Enable>" + sizes, "<Enable>true</Enable><CacheDelay>2</CacheDelay>", "<Enable>true</Enable><CacheSize>1024</CacheSize>",
		"<Enable>true</Enable>" + sizes + "<Hard>true</Hard>",
	} {
		set(bad)
		if code, _, stderr := p.run("validate", "-c", p.ConfigFile); code != 2 || !strings.Contains(stderr, "CertificateRevocationVerifier") {
			t.Errorf("%s: exit code %d, %s", bad, code, stderr)
		}
	}
	becomes("a bad element changes nothing", "lost", "900901")
}
