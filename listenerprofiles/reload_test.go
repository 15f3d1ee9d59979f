package listenerprofiles

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/listenerprofiles/keystore"
)

// leafSeen returns the subject of the certificate that set shows to a client of name.
func leafSeen(f *fixture, set func() *Set, name string) (string, error) {
	_, state, err := callInMemory(set, f.clientConfig(name, f.client))
	if err != nil {
		return "", err
	}
	return state.PeerCertificates[0].Subject.CommonName, nil
}

// J129: certificate first and key five seconds later, or the key first: the old pair serves in between, which is told once, and
// the new one is swapped in whole. No handshake fails.
func TestPairIsSwitchedTogether(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1 verify=require")
	old, next := f.server.pem(t), f.second.pem(t)
	oldCert, nextCert := certPEM(f.server), certPEM(f.second)
	for name, between := range map[string][]byte{
		"certificate first": append(bytes.Clone(nextCert), old[len(oldCert):]...),
		"key first":         append(bytes.Clone(oldCert), next[len(nextCert):]...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := startWatch(t, f, func(c *Config) { c.StoreReadInterval, c.Settle = time.Second, 0 })
				expect := func(seconds int, want string) {
					t.Helper()
					for range seconds * 4 {
						if got, err := leafSeen(f, w.last.Load, ""); err != nil || got != want {
							t.Errorf("%q, %v, want %q", got, err, want)
						}
						time.Sleep(time.Second / 4)
					}
				}
				expect(1, "server")
				w.disk.write("server.pem", between)
				expect(5, "server")
				w.disk.write("server.pem", next)
				time.Sleep(2 * time.Second)
				expect(1, "second")
				w.after(t, 0, 2, 1)
			})
		})
	}
}

// J130: a key store that cannot serve is refused while the old one serves on, and told once; mended, it comes into force. The same
// at a start is an error.
func TestBadKeyStoreIsRefusedAndOldOneServes(t *testing.T) {
	f := newFixture(t)
	jks, err := os.ReadFile("keystore/testdata/keys.jks")
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile("keystore/testdata/trust.jks")
	if err != nil {
		t.Fatal(err)
	}
	between := func(from, until time.Duration) []byte {
		return issue(t, "new", f.ca, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(until) }).pem(t)
	}
	_, justKey := pem.Decode(f.server.pem(t))
	tests := []struct {
		name   string
		change func()
		is     error
		words  string
	}{
		{"wrong password", func() { f.write(t, "password", []byte("wrong")) }, keystore.ErrPassword, "key store"},
		{"no password", func() { f.write(t, "password", nil) }, nil, "password: "},
		{"JKS without key", func() { f.write(t, "server.jks", other) }, keystore.ErrNoEntry, "server.jks"},
		{"PEM without key", func() { f.write(t, "server.jks", certPEM(f.server)) }, keystore.ErrNoEntry, "server.jks"},
		{"PEM without certificate", func() { f.write(t, "server.jks", justKey) }, nil, "server.jks"},
		{"expired", func() { f.write(t, "server.jks", between(-2*time.Hour, -time.Hour)) }, keystore.ErrExpired, "server.jks"},
		{"cut short", func() { f.write(t, "server.jks", jks[:len(jks)/2]) }, keystore.ErrFormat, "server.jks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.write(t, "server.jks", jks)
			f.write(t, "password", []byte("changeit\n"))
			f.write(t, "keypassword", []byte("keypass\n"))
			f.write(t, "listenerprofiles.xml", []byte(`<parameter name="SSLProfiles"><profile><bindAddress>127.0.0.1</bindAddress>
				<KeyStore><Location>server.jks</Location><Password>${file:password}</Password><KeyPassword>${file:keypassword}</KeyPassword></KeyStore>
				<TrustStore><Location>trust.pem</Location></TrustStore></profile></parameter>`))
			cfg := f.config()
			cfg.Settle = time.Microsecond
			first, err := Load(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			var told []error
			w := NewWatcher(cfg, first, func(*Set) {}, func(err error) { told = append(told, err) })
			shown := func() *x509.Certificate {
				t.Helper()
				c := f.clientConfig("", nil)
				c.VerifyConnection = nil
				_, state, err := callInMemory(w.last.Load, c)
				if err != nil {
					t.Fatal(err)
				}
				return state.PeerCertificates[0]
			}
			before := shown()

			tt.change()
			for range 3 {
				if err := w.Reload(); err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.words) && tt.name != "wrong password" {
					t.Errorf("%v, want %v", err, tt.is)
				}
			}
			if len(told) != 1 || w.last.Load() != first || !shown().Equal(before) {
				t.Errorf("told %v, or the old one does not serve", told)
			}
			if set, err := Load(cfg, nil); set != nil || err == nil {
				t.Errorf("good for a start: %v", err)
			}

			f.write(t, "password", []byte("changeit\n"))
			f.write(t, "server.jks", f.second.pem(t))
			f.xml(t, "127.0.0.1 key=server.jks")
			if err := w.Reload(); err != nil || !shown().Equal(f.second.cert) || len(told) != 1 {
				t.Errorf("mended: %v", err)
			}
		})
	}
}

// A generation is files that belong together: server key, trust store and word. Each is its own sign of it.
type generation struct {
	files   map[string][]byte
	require bool
}

func makeGenerations(t *testing.T, f *fixture, n int) (all []generation) {
	t.Helper()
	for i := range n {
		g := generation{files: map[string][]byte{}, require: i%2 == 0}
		word := "verify=optional"
		if g.require {
			word = "verify=require"
		}
		// The name of the trust store changes as well, so that file and store are bound to each other.
		trust := fmt.Sprintf("trust%d.pem", i)
		g.files["listenerprofiles.xml"] = []byte(profilesXML(fmt.Sprintf("127.0.0.1 name=g%d.test trust=%s %s", i, trust, word), "127.0.0.1 trust="+trust+" "+word))
		g.files["server.pem"] = issue(t, fmt.Sprint(i), f.ca).pem(t)
		// The client's CA is trusted by every generation, beside the one that is its sign.
		g.files[trust] = certPEM(f.ca, issue(t, fmt.Sprint(i), nil, isCA))
		all = append(all, g)
	}
	return all
}

// J131: files change all the time and between one read and the next. Whatever set is swapped in has key, trust and word of
// one generation, and each of many handshakes meanwhile sees those of one generation.
func TestEachSetIsOfOneGeneration(t *testing.T) {
	f := newFixture(t)
	generations := makeGenerations(t, f, 8) // more than changes between two reads of one file
	d := &disk{files: map[string][]byte{"trust.pem": certPEM(f.ca)}}
	for _, g := range generations {
		for name, data := range g.files {
			if strings.HasPrefix(name, "trust") {
				d.files[name] = data
			}
		}
	}
	current := 0
	advance := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		current++
		maps.Copy(d.files, generations[current%len(generations)].files)
	}
	advance()
	random := rand.New(rand.NewPCG(3, 4))
	busy := false
	cfg := f.config()
	cfg.Settle = time.Microsecond
	cfg.ReadFile = func(path string) ([]byte, error) {
		data, err := d.read(path)
		if busy && random.IntN(4) == 0 {
			advance() // between this read and the next
		}
		return data, err
	}
	first, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	var serving atomic.Pointer[Set]
	serving.Store(first)
	var swaps atomic.Int64
	w := NewWatcher(cfg, first, func(s *Set) { swaps.Add(1); serving.Store(s) }, func(err error) { t.Error(err) })

	stop := make(chan struct{})
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(stop)
	for range 3 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var asked []string
				c := f.clientConfig("", nil)
				c.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					asked = namesOf(t, r.AcceptableCAs)
					return new(tls.Certificate), nil
				}
				key := ""
				c.VerifyConnection = func(s tls.ConnectionState) error {
					key = s.PeerCertificates[0].Subject.CommonName
					return nil
				}
				_, _, err := callInMemory(serving.Load, c)
				if len(asked) != 2 || asked[1] != key || (err != nil) != (strings.Trim(key, "0246") == "") {
					t.Errorf("key of %s, trust of %v, %v", key, asked, err)
				}
			}
		})
	}
	busy = true
	for swaps.Load() < 100 {
		_ = w.Reload()
		set := serving.Load()
		for _, p := range set.Profiles()[:2] {
			g := p.Leafs[0].Subject.CommonName
			trust := p.Trust.Certificates()[1].Subject.CommonName
			if trust != g || p.TrustStore.Location != f.path("trust"+g+".pem") || (p.VerifyClient == Require) != (strings.Trim(g, "0246") == "") ||
				p.ServerName != "" && p.ServerName != "g"+g+".test" {
				t.Fatalf("key of %s, trust of %s, %+v", g, trust, p.Settings)
			}
		}
	}
}

// J132: a file is replaced after each read of it. What was checked is what serves.
func TestFileReplacedAfterEachRead(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	const n = 8
	var servers, clients [n]*party
	var keys, trusts [n][]byte
	for i := range n {
		servers[i], clients[i] = issue(t, fmt.Sprint(i), f.ca), issue(t, fmt.Sprint(i), nil, isCA)
		keys[i], trusts[i] = servers[i].pem(t), certPEM(clients[i])
	}
	reads := 0
	cfg := f.config()
	last := map[string]int{} // which content was read last
	cfg.ReadFile = func(path string) ([]byte, error) {
		reads++
		i := reads % n
		switch {
		case strings.HasSuffix(path, "server.pem"):
			last["key"] = i
			return keys[i], nil
		case strings.HasSuffix(path, "trust.pem"):
			last["trust"] = i
			return trusts[i], nil
		}
		return os.ReadFile(path)
	}
	var set *Set
	for range 1000 {
		var err error
		if set, err = Load(cfg, set); err != nil {
			t.Fatal(err)
		}
		for _, p := range set.Profiles() {
			server, client := servers[last["key"]].cert, clients[last["trust"]].cert
			if !p.Leafs[0].Equal(server) || !bytes.Equal(p.TLS.Certificates[0].Certificate[0], server.Raw) {
				t.Fatalf("serves %s, read was %s", p.Leafs[0].Subject, server.Subject)
			}
			if !p.Trust.Certificates()[0].Equal(client) || !p.TLS.ClientCAs.Equal(p.Trust.Pool()) {
				t.Fatalf("trusts %s, read was %s", p.Trust.Certificates()[0].Subject, client.Subject)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) { // and a Watcher waits for better times
		read := cfg.ReadFile
		cfg.ReadFile = func(path string) ([]byte, error) {
			data, err := read(path)
			return append(bytes.Clone(data), bytes.Repeat([]byte{'\n'}, reads)...), err // never the same again
		}
		w := NewWatcher(cfg, set, func(*Set) { t.Error("swapped") }, func(err error) { t.Error(err) })
		for range 10 {
			if err := w.Reload(); !errors.Is(err, errRestless) {
				t.Error(err)
			}
		}
	})
}
