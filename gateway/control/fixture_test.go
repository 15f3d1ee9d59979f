package control

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"sallyport/gateway"
	"sallyport/gateway/decision"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/keystore"
	"sallyport/policy/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A party is a certificate and its key.
type party struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial atomic.Int64

// issue makes a certificate of cn, under by, or self-signed. Its times are far around both the real clock and
// synctest's.
func issue(t testing.TB, cn string, by *party, change ...func(*x509.Certificate)) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: cn}, BasicConstraintsValid: true,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	for _, f := range change {
		f(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &party{cert, key}
}

func isCA(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

// pem is a key store of type PEM.
func (p *party) pem() []byte {
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		panic(err)
	}
	return append(certPEM(p), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
}

// certPEM is a trust store of type PEM.
func certPEM(parties ...*party) []byte {
	var b bytes.Buffer
	for _, p := range parties {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
	}
	return b.Bytes()
}

// profilesXML is a listenerprofiles.xml; each profile is "address [name=N] [verify=V] [key=K] [trust=T]".
func profilesXML(profiles ...string) string {
	var b strings.Builder
	b.WriteString("<parameter name=\"SSLProfiles\">\n")
	for _, p := range profiles {
		words := strings.Fields(p)
		has := map[string]string{"key": "server.pem", "trust": "trust.pem", "verify": "optional"}
		for _, w := range words[1:] {
			name, value, _ := strings.Cut(w, "=")
			has[name] = value
		}
		name := ""
		if has["name"] != "" {
			name = "<ServerName>" + has["name"] + "</ServerName>"
		}
		fmt.Fprintf(&b, "<profile><bindAddress>%s</bindAddress>%s<KeyStore><Location>%s</Location></KeyStore><TrustStore><Location>%s</Location></TrustStore><SSLVerifyClient>%s</SSLVerifyClient></profile>\n",
			words[0], name, has["key"], has["trust"], has["verify"])
	}
	b.WriteString("</parameter>\n")
	return b.String()
}

// A disk is files in memory, for tests whose clock is not real.
type disk struct {
	mu    sync.Mutex
	files map[string][]byte // by base name
}

func (d *disk) read(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data, ok := d.files[filepath.Base(path)]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return data, nil
}

func (d *disk) write(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[name] = data
}

func (d *disk) remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
}

// A pki is what the disks of tests are filled with: keys take a moment to make.
type pki struct{ ca, other, client, server, second *party }

var thePKI = sync.OnceValue(func() pki {
	t := &testing.T{}
	p := pki{ca: issue(t, "CA", nil, isCA), other: issue(t, "Other", nil, isCA)}
	p.client, p.server, p.second = issue(t, "client", p.ca), issue(t, "server", p.ca), issue(t, "second", p.ca)
	return p
})

// A bed is a Loop over a disk, and what it told. It has one TLS listener, "https", with profiles, and no store.
type bed struct {
	pki
	*Loop
	disk *disk
	spec atomic.Pointer[Spec]
	log  *logBook

	mu    sync.Mutex
	parts []gateway.Parts    // that were put into force
	told  map[string][]error // by source, nil: in force
	fails error              // of the gateway's Set
}

const https = "profiles of listener https"

// newSpec is the configuration of a bed whose files lie in dir.
func newSpec(dir string) *Spec {
	tiers, err := ratelimit.NewTiers(nil)
	if err != nil {
		panic(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	return &Spec{
		Place: Place{File: "sallyport.yaml"}, Digest: sha256.Sum256(nil), Period: 10 * time.Second, Tiers: tiers,
		Listeners: []Listener{{
			Place: Place{"sallyport.yaml", 2, 5}, Listener: decision.Listener{Name: "https", Address: "127.0.0.1:8243"}, FileReadInterval: 10 * time.Minute,
			TLS: &listenerprofiles.Options{
				Listener: "https", FilePath: at("listenerprofiles.xml"),
				Own: listenerprofiles.Settings{KeyStore: keystore.Ref{Location: at("server.pem")}, TrustStore: keystore.Ref{Location: at("trust.pem")}},
			},
		}},
	}
}

// change makes another configuration of the one there is.
func (b *bed) change(change func(*Spec)) {
	next := *b.spec.Load()
	next.Listeners = append([]Listener(nil), next.Listeners...)
	next.Digest = sha256.Sum256(next.Digest[:])
	change(&next)
	b.spec.Store(&next)
}

// newBed opens a Loop over a disk in memory. Files are believed after a microsecond unless the test says otherwise.
func newBed(t testing.TB, change func(*bed, *Options)) *bed {
	t.Helper()
	b := &bed{pki: thePKI(), log: &logBook{}, told: map[string][]error{}}
	b.disk = &disk{files: map[string][]byte{
		"listenerprofiles.xml": []byte(profilesXML("10.0.0.1")), "server.pem": b.server.pem(), "second.pem": b.second.pem(),
		"trust.pem": certPEM(b.ca), "other.pem": certPEM(b.other),
	}}
	b.spec.Store(newSpec("/bed"))
	cfg := Options{
		Load: func() (*Spec, error) { return b.spec.Load(), nil },
		Set: func(p gateway.Parts) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.fails == nil {
				b.parts = append(b.parts, p)
			}
			return b.fails
		},
		Told: func(source string, err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.told[source] = append(b.told[source], err)
		},
		Log: slog.New(slog.NewTextHandler(b.log, nil)), noEvents: true, readFile: b.disk.read, settle: time.Microsecond,
	}
	if change != nil {
		change(b, &cfg)
	}
	loop, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Loop = loop
	return b
}

// startBed runs a bed. In a synctest bubble its looks are a millisecond before the whole seconds that tests count from
// then on, so that what they find has settled.
func startBed(t testing.TB, change func(*bed, *Options)) *bed {
	t.Helper()
	b := newBed(t, change)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	time.Sleep(time.Millisecond)
	return b
}

// after lets d pass and demands that so many changes of a source came into force, and so many were refused.
func (b *bed) after(t testing.TB, d time.Duration, source string, good, refused int) {
	t.Helper()
	time.Sleep(d) // the bubble's clock
	synctest.Wait()
	b.counts(t, source, good, refused)
}

func (b *bed) counts(t testing.TB, source string, good, refused int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, err := range b.told[source] {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if n := len(b.told[source]) - len(errs); n != good || len(errs) != refused {
		t.Errorf("%s: %d came into force and %d were refused, want %d and %d: %v", source, n, len(errs), good, refused, errs)
	}
}

// set is what serves at the listener.
func (b *bed) set() *listenerprofiles.Set { return b.InForce().sets["https"] }

func (b *bed) state(source string) State {
	for _, s := range b.State() {
		if s.Name == source {
			return s
		}
	}
	return State{}
}

// A logBook is a log that tests read.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// handshake is one connection of a client to a set, at 127.0.0.1.
func (p pki) handshake(set func() *listenerprofiles.Set, cfg *tls.Config) (tls.ConnectionState, error) {
	near, far := net.Pipe()
	var server sync.WaitGroup
	defer server.Wait()
	server.Go(func() {
		defer far.Close()
		conn := tls.Server(far, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return set().Find(netip.MustParseAddr("127.0.0.1"), hello.ServerName).TLS, nil
		}})
		if conn.Handshake() == nil {
			_, _ = conn.Write([]byte("served")) // or the client has gone
			_ = conn.Close()
		}
	})
	defer near.Close()
	cfg = cfg.Clone()
	cfg.InsecureSkipVerify = true // the certificates carry no names; VerifyConnection checks the chain
	if cfg.VerifyConnection == nil {
		roots := x509.NewCertPool()
		roots.AddCert(p.ca.cert)
		cfg.VerifyConnection = func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
			return err
		}
	}
	conn := tls.Client(near, cfg)
	if err := conn.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	_, err := io.ReadAll(conn)
	return conn.ConnectionState(), err
}

func (p pki) clientTLS(name string, who *party) *tls.Config {
	cfg := &tls.Config{ServerName: name}
	if who != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{who.cert.Raw}, PrivateKey: who.key}, nil
		}
	}
	return cfg
}

func (d *disk) copyFrom(files map[string][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.files, files)
}
