package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/gateway"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
)

// slowly writes data in steps of a tenth of a second, which end at each of cuts.
func (d *disk) slowly(name string, data []byte, cuts []int) {
	for _, cut := range append(cuts, len(data)) {
		d.write(name, data[:cut])
		time.Sleep(100 * time.Millisecond)
	}
}

// everyKiB returns where to cut data of n bytes.
func everyKiB(n int) (cuts []int) {
	for cut := 0; cut < n; cut += 1 << 10 {
		cuts = append(cuts, cut)
	}
	return cuts
}

// J128: files that are written slowly in place are looked at in the middle of it, and count when they are whole: one
// interval and two seconds after at most. Of what they were in between nothing is told.
func TestSlowWritesInPlace(t *testing.T) {
	var many []*party
	var between []int // exactly between two certificates, where a PEM file is well-formed
	for range 30 {
		between = append(between, len(certPEM(many...)))
		many = append(many, issue(t, "CA", nil, isCA))
	}
	long := []byte(profilesXML("127.0.0.1 verify=require") + "<!--" + strings.Repeat(" comment", 500) + "-->")
	second := thePKI().second
	tests := []struct {
		name, file string
		data       []byte
		cuts       []int
	}{
		{"trust store, certificate by certificate", "trust.pem", certPEM(many...), between},
		{"trust store, a KiB at a time", "trust.pem", certPEM(many...), everyKiB(len(certPEM(many...)))},
		{"file", "listenerprofiles.xml", long, everyKiB(len(long))},
		{"key store", "server.pem", second.pem(), []int{0, len(certPEM(second)), len(certPEM(second)) + 40}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBed(t, func(b *bed, cfg *Options) {
					cfg.settle = 0
					s := b.spec.Load()
					s.Period, s.Listeners[0].FileReadInterval = time.Second, time.Second
				})
				b.disk.slowly(tt.file, tt.data, tt.cuts)
				b.after(t, 3*time.Second, https, 1, 0)
				p := b.set().Profiles()[0]
				switch tt.file {
				case "trust.pem":
					if got := len(p.Trust.Certificates()); got != len(many) {
						t.Errorf("%d certificates of %d", got, len(many))
					}
				case "server.pem":
					if !p.Leafs[0].Equal(second.cert) {
						t.Error("not the new key")
					}
				default:
					if p.VerifyClient != listenerprofiles.Require {
						t.Error("not the new file")
					}
				}
			})
		})
	}
}

// Files that don't rest are waited for again and again, and count when they do. Others need not wait for them for ever.
func TestFilesThatDoNotRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(b *bed, cfg *Options) {
			cfg.settle = 0
			s := b.spec.Load()
			other := s.Listeners[0]
			other.Name, other.Address = "other", "127.0.0.1:8244"
			other.TLS = &listenerprofiles.Options{Listener: "other", Own: listenerprofiles.Settings{
				KeyStore: keystore.Ref{Location: "/bed/second.pem"}, TrustStore: keystore.Ref{Location: "/bed/other.pem"},
			}}
			s.Listeners = append(s.Listeners, other)
		})
		began := time.Now()
		for n := 0; time.Since(began) < time.Minute; n++ {
			data := certPEM(b.ca)
			if n%2 == 0 {
				data = bytes.Repeat([]byte{'x'}, n) // broken, each time in another way
			}
			if n == 100 {
				b.disk.write("second.pem", b.server.pem())
			}
			b.disk.write("trust.pem", data)
			time.Sleep(150 * time.Millisecond)
		}
		b.after(t, 0, https, 0, 0)
		b.counts(t, profilesOf("other"), 1, 0)
		b.disk.write("trust.pem", certPEM(b.other))
		b.after(t, 12*time.Second, https, 1, 0)

		// The file is due in ten minutes only; once it did not rest, it is looked at with the stores.
		time.Sleep(10*time.Minute - time.Since(began)%(10*time.Minute) - time.Second)
		for n := range 30 {
			b.disk.write("listenerprofiles.xml", []byte(profilesXML("127.0.0.1")[:100+n]))
			time.Sleep(150 * time.Millisecond)
		}
		b.disk.write("listenerprofiles.xml", []byte(profilesXML("127.0.0.1 verify=require")))
		b.after(t, 12*time.Second, https, 2, 0)
	})
}

// How long looks wait: not at all for what they know, for the pause when there is news, and about two seconds at most.
func TestHowLongLooksWait(t *testing.T) {
	for _, tt := range []struct{ settle, rested, restless time.Duration }{
		{0, 200 * time.Millisecond, 2 * time.Second},
		{300 * time.Millisecond, 300 * time.Millisecond, 1800 * time.Millisecond},
		{5 * time.Second, 5 * time.Second, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			changing := false
			b := startBed(t, func(b *bed, cfg *Options) {
				cfg.settle, b.spec.Load().Period = tt.settle, time.Hour
				cfg.readFile = func(path string) ([]byte, error) {
					data, err := b.disk.read(path)
					if changing && strings.HasSuffix(path, "trust.pem") {
						n++
						data = append(bytes.Clone(data), bytes.Repeat([]byte{'\n'}, n)...)
					}
					return data, err
				}
			})
			reload := func(what string, want time.Duration, good bool) {
				t.Helper()
				began := time.Now()
				if err := b.Reload(t.Context()); (err == nil) != good {
					t.Errorf("%s: %v", what, err)
				}
				if got := time.Since(began); got != want {
					t.Errorf("%s: waited %v, want %v", what, got, want)
				}
			}
			reload("nothing changed", 0, true)
			b.disk.write("trust.pem", certPEM(b.other))
			reload("changed", tt.rested, true)
			reload("nothing changed", 0, true)
			b.disk.write("trust.pem", nil)
			reload("broken", tt.rested, false)
			reload("broken and told", 0, false)
			b.disk.write("trust.pem", certPEM(b.other))
			reload("mended", tt.rested, true)
			b.after(t, 0, https, 2, 2)

			changing = true
			reload("never the same", tt.restless, false)
			reload("never the same", tt.restless, false)
			b.after(t, 0, https, 2, 2)
			changing = false
			reload("as it was", 0, true)

			// What becomes in the wait what it was before is no news.
			b.disk.write("trust.pem", nil)
			go func() { time.Sleep(time.Millisecond); b.disk.write("trust.pem", certPEM(b.other)) }()
			reload("as it was, after all", tt.rested, true)
			b.after(t, 0, https, 2, 2)
		})
	}
}

// Whoever ends Run need not wait for files, and nor does whoever waits in Reload.
func TestWaitEndsWithRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, func(b *bed, cfg *Options) { cfg.settle, b.spec.Load().Period = time.Hour, time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- b.Run(ctx) }()
		b.disk.write("trust.pem", certPEM(b.other))
		time.Sleep(2 * time.Second) // it waits
		go func() {
			if b.Reload(t.Context()) == nil {
				t.Error("a Reload that was cut short says that all is well")
			}
			ended <- nil
		}()
		synctest.Wait()
		began := time.Now()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if got := time.Since(began); got != 0 {
			t.Errorf("it took %v", got)
		}
		b.counts(t, https, 0, 0)
		if err := b.Reload(t.Context()); err == nil {
			t.Error("a Loop that has ended says that all is well")
		}
	})
}

// J129: certificate first and key five seconds later, or the key first: the old pair serves in between, which is told
// once, and the new one is swapped in whole. No handshake fails.
func TestPairIsSwitchedTogether(t *testing.T) {
	p := thePKI()
	old, next := p.server.pem(), p.second.pem()
	oldCert, nextCert := certPEM(p.server), certPEM(p.second)
	for name, between := range map[string][]byte{
		"certificate first": append(bytes.Clone(nextCert), old[len(oldCert):]...),
		"key first":         append(bytes.Clone(oldCert), next[len(nextCert):]...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBed(t, func(b *bed, cfg *Options) {
					cfg.settle, b.spec.Load().Period = 0, time.Second
					b.disk.write("listenerprofiles.xml", []byte(profilesXML("127.0.0.1 verify=require")))
				})
				expect := func(seconds int, want string) {
					t.Helper()
					for range seconds * 4 {
						s, err := b.handshake(b.set, b.clientTLS("", b.client))
						if err != nil || s.PeerCertificates[0].Subject.CommonName != want {
							t.Errorf("%v, %v, want %q", s.PeerCertificates, err, want)
						}
						time.Sleep(time.Second / 4)
					}
				}
				expect(1, "server")
				b.disk.write("server.pem", between)
				expect(5, "server")
				b.disk.write("server.pem", next)
				time.Sleep(2 * time.Second)
				expect(1, "second")
				b.after(t, 0, https, 1, 1)
			})
		})
	}
}

// J130: a key store that cannot serve is refused while the old one serves on, and told once; mended, it comes into
// force. The same at a start is an error.
func TestBadKeyStoreIsRefusedAndOldOneServes(t *testing.T) {
	p := thePKI()
	jks, err := os.ReadFile("../../listenerprofiles/keystore/testdata/keys.jks")
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile("../../listenerprofiles/keystore/testdata/trust.jks")
	if err != nil {
		t.Fatal(err)
	}
	expired := issue(t, "new", p.ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }).pem()
	_, justKey := pem.Decode(p.server.pem())
	tests := []struct {
		name, file string
		data       []byte
		is         error
		words      string
	}{
		{"wrong password", "password", []byte("wrong"), keystore.ErrPassword, "server.jks"},
		{"no password", "password", nil, nil, "password: "},
		{"JKS without key", "server.jks", other, keystore.ErrNoEntry, "server.jks"},
		{"PEM without key", "server.jks", certPEM(p.server), keystore.ErrNoEntry, "server.jks"},
		{"PEM without certificate", "server.jks", justKey, nil, "server.jks"},
		{"expired", "server.jks", expired, keystore.ErrExpired, "server.jks"},
		{"cut short", "server.jks", jks[:len(jks)/2], keystore.ErrFormat, "server.jks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := startBed(t, func(b *bed, cfg *Options) {
				b.spec.Load().Period = time.Hour
				b.disk.copyFrom(map[string][]byte{
					"server.jks": jks, "password": []byte("changeit\n"), "keypassword": []byte("keypass\n"),
					"listenerprofiles.xml": []byte(`<parameter name="SSLProfiles"><profile><bindAddress>127.0.0.1</bindAddress>
				<KeyStore><Location>server.jks</Location><Password>${file:password}</Password><KeyPassword>${file:keypassword}</KeyPassword></KeyStore>
				<TrustStore><Location>trust.pem</Location></TrustStore></profile></parameter>`),
				})
			})
			shown := func() *x509.Certificate {
				t.Helper()
				c := b.clientTLS("", nil)
				c.VerifyConnection = func(tls.ConnectionState) error { return nil }
				s, err := b.handshake(b.set, c)
				if err != nil {
					t.Fatal(err)
				}
				return s.PeerCertificates[0]
			}
			before, serving := shown(), b.set()
			b.disk.write(tt.file, tt.data)
			for range 3 {
				b.mark(https)
			}
			eventually(t, "it is told", func() bool { return b.state(https).Broken != nil })
			b.counts(t, https, 0, 1)
			for range 3 { // and to each who asks
				if err := b.Reload(t.Context()); err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.words) {
					t.Errorf("%v, want %v", err, tt.is)
				}
			}
			b.counts(t, https, 0, 4)
			if b.set() != serving || !shown().Equal(before) {
				t.Error("the old one does not serve")
			}
			if _, err := Open(t.Context(), b.cfg); err == nil {
				t.Error("good for a start")
			}

			b.disk.copyFrom(map[string][]byte{
				"password": []byte("changeit\n"), "server.jks": b.second.pem(), "listenerprofiles.xml": []byte(profilesXML("127.0.0.1 key=server.jks")),
			})
			if err := b.Reload(t.Context()); err != nil || !shown().Equal(b.second.cert) {
				t.Errorf("mended: %v", err)
			}
			b.counts(t, https, 1, 4)
		})
	}
}

// generations are files that belong together: server key, trust store and word. Each is its own sign of it.
func generations(t *testing.T, p pki, n int) (all []map[string][]byte) {
	t.Helper()
	for i := range n {
		word := "verify=optional"
		if i%2 == 0 {
			word = "verify=require"
		}
		// The name of the trust store changes as well, so that file and store are bound to each other.
		trust := fmt.Sprintf("trust%d.pem", i)
		all = append(all, map[string][]byte{
			"listenerprofiles.xml": []byte(profilesXML(fmt.Sprintf("127.0.0.1 name=g.test trust=%s %s", trust, word), "127.0.0.1 trust="+trust+" "+word)),
			"server.pem":           issue(t, fmt.Sprint(i), p.ca).pem(),
			// The client's CA is trusted by every generation, beside the one that is its sign.
			trust: certPEM(p.ca, issue(t, fmt.Sprint(i), nil, isCA)),
		})
	}
	return all
}

// J131: files change all the time and between one read and the next. Whatever set comes into force has key, trust and
// word of one generation, and each of many handshakes meanwhile sees those of one generation.
func TestEachSetIsOfOneGeneration(t *testing.T) {
	all := generations(t, thePKI(), 8) // more than changes between two reads of one file
	var busy atomic.Bool
	current := 0
	random := rand.New(rand.NewPCG(3, 4))
	var serving atomic.Pointer[listenerprofiles.Set]
	var swaps atomic.Int64
	b := startBed(t, func(b *bed, cfg *Options) {
		b.spec.Load().Period = time.Hour
		for _, g := range all {
			for name, data := range g {
				if strings.HasPrefix(name, "trust") {
					b.disk.write(name, data)
				}
			}
		}
		b.disk.copyFrom(all[0])
		cfg.readFile = func(path string) ([]byte, error) {
			data, err := b.disk.read(path)
			if busy.Load() && random.IntN(4) == 0 { // between this read and the next
				current++
				b.disk.copyFrom(all[current%len(all)])
			}
			return data, err
		}
		cfg.Set = func(p gateway.Parts) error {
			swaps.Add(1)
			serving.Store(p.Listeners[0].Profiles)
			return nil
		}
	})

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
				c := b.clientTLS("", nil)
				c.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					asked = namesOf(r.AcceptableCAs)
					return new(tls.Certificate), nil
				}
				key := ""
				c.VerifyConnection = func(s tls.ConnectionState) error {
					key = s.PeerCertificates[0].Subject.CommonName
					return nil
				}
				_, err := b.handshake(serving.Load, c)
				if len(asked) != 2 || asked[1] != key || (err != nil) != (strings.Trim(key, "0246") == "") {
					t.Errorf("key of %s, trust of %v, %v", key, asked, err)
				}
			}
		})
	}
	busy.Store(true)
	for swaps.Load() < 100 {
		_ = b.Reload(t.Context())
		for _, p := range serving.Load().Profiles()[:2] {
			g := p.Leafs[0].Subject.CommonName
			trust := p.Trust.Certificates()[1].Subject.CommonName
			if trust != g || p.TrustStore.Location != "/bed/trust"+g+".pem" || (p.VerifyClient == listenerprofiles.Require) != (strings.Trim(g, "0246") == "") {
				t.Fatalf("key of %s, trust of %s, %+v", g, trust, p.Settings)
			}
		}
	}
	busy.Store(false)
	b.counts(t, https, int(swaps.Load())-1, 0)
}

func namesOf(subjects [][]byte) (names []string) {
	for _, raw := range subjects {
		// Subjects of tests are a common name alone, which stands at their end.
		for i := len(raw) - 1; i >= 0; i-- {
			if int(raw[i]) == len(raw)-1-i && i > 0 {
				names = append(names, string(raw[i+1:]))
				break
			}
		}
	}
	return names
}

// What is never the same again is neither swapped nor told.
func TestNeverTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		var changing atomic.Bool
		b := startBed(t, func(b *bed, cfg *Options) {
			cfg.readFile = func(path string) ([]byte, error) {
				data, err := b.disk.read(path)
				if changing.Load() {
					reads++
					data = append(bytes.Clone(data), bytes.Repeat([]byte{'\n'}, reads)...)
				}
				return data, err
			}
			cfg.settle, b.spec.Load().Period = 0, time.Hour
		})
		changing.Store(true)
		for range 10 {
			if err := b.Reload(t.Context()); !errors.Is(err, errRestless) {
				t.Error(err)
			}
		}
		b.counts(t, https, 0, 0)
	})
}
