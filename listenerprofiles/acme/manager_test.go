package acme_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/internal/testacme"
	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
	"sallyport/listenerprofiles/acme"
)

// A node answers validations from the Book of a Manager, as a gateway does.
type node struct {
	*acme.Manager
	stop func()
}

// ports are where the nodes of a test answer.
type ports struct{ http, tls string }

func freePorts(t testing.TB) ports {
	return ports{testserver.FreePort(t), testserver.FreePort(t)}
}

// start runs a Manager with a folder until the test ends, or stop is called.
func start(t testing.TB, ca *testacme.CA, folder string, change ...func(*acme.Options)) *node {
	t.Helper()
	options := acme.Options{
		Settings: acme.Settings{Directory: ca.Directory, Email: "ops@example.com", Folder: folder, HTTP: true, TLSALPN: true},
		Roots:    ca.Roots,
		Log:      slog.New(slog.NewTextHandler(output{t}, nil)),
		Open:     func(context.Context) (certmagic.Storage, io.Closer, error) { return acme.Files(folder), nil, nil },
	}
	for _, c := range change {
		c(&options)
	}
	m := acme.New(options)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	n := &node{Manager: m, stop: func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, m.Close()); err != nil {
			t.Error(err)
		}
	}}
	t.Cleanup(n.stop)
	return n
}

type output struct{ testing.TB }

func (o output) Write(p []byte) (int, error) {
	if !strings.Contains(string(p), "level=DEBUG") {
		o.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// answer serves validations at ports, by whichever node is asked.
func answer(t testing.TB, at ports, book func() *node) {
	t.Helper()
	plain := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		b := book().Book()
		token, ok := b.Token(host, r.URL.Path)
		if ok {
			if _, known := b.HTTP(host, token); !known {
				b.Refresh(r.Context())
			}
			if body, known := b.HTTP(host, token); known {
				_, _ = io.WriteString(w, body)
				return
			}
		}
		http.NotFound(w, r)
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:"+at.http)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = plain.Serve(listener) }()
	secure, err := tls.Listen("tcp", "127.0.0.1:"+at.tls, &tls.Config{
		NextProtos: []string{"acme-tls/1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert := book().Book().Certificate(h.Context(), h.ServerName); cert != nil {
				return cert, nil
			}
			return nil, errors.New("nothing is pending")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := secure.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = c.(*tls.Conn).Handshake()
				c.Close()
			}()
		}
	}()
	t.Cleanup(func() { plain.Close(); secure.Close() })
}

// wait waits until there is a certificate that is as wanted.
func wait(t testing.TB, n *node, name, kind string, wanted func(*x509.Certificate) error) *x509.Certificate {
	t.Helper()
	var leaf *x509.Certificate
	testserver.Eventually(t, fmt.Sprintf("a certificate (%s) for %s", kind, name), func() error {
		c := n.Certificate(name, kind)
		if c.Pair == nil {
			return fmt.Errorf("none: %w", c.Trouble)
		}
		leaf = c.Pair.Leaf
		return wanted(leaf)
	})
	return leaf
}

func anyOne(*x509.Certificate) error { return nil }

func otherThan(old *x509.Certificate) func(*x509.Certificate) error {
	return func(now *x509.Certificate) error {
		if now.Equal(old) {
			return errors.New("still the old one")
		}
		return nil
	}
}

// TestIssue: several names, both kinds of keys, an external account, half the nonces refused; the next start asks for
// nothing.
func TestIssue(t *testing.T) {
	t.Parallel()
	at := freePorts(t)
	ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls, RejectNonces: 50, External: true})
	folder := filepath.Join(t.TempDir(), "acme")
	external := func(o *acme.Options) { o.KeyID, o.HMAC = testacme.KeyID, testacme.HMAC }
	var n *node
	answer(t, at, func() *node { return n })
	n = start(t, ca, folder, external)
	wishes := []acme.Wish{{"a.test", []string{acme.ECDSA, acme.RSA}}, {"b.test", []string{acme.ECDSA}}}
	n.Want(wishes)
	roots := ca.Trust()
	check := func() {
		for _, w := range wishes {
			for _, kind := range w.Kinds {
				leaf := wait(t, n, w.Name, kind, anyOne)
				_, isRSA := leaf.PublicKey.(*rsa.PublicKey)
				_, isECDSA := leaf.PublicKey.(*ecdsa.PublicKey)
				if isRSA != (kind == acme.RSA) || isECDSA != (kind == acme.ECDSA) {
					t.Errorf("%s: %s is a %T", w.Name, kind, leaf.PublicKey)
				}
				between := x509.NewCertPool()
				for _, der := range n.Certificate(w.Name, kind).Pair.Certificate[1:] {
					if c, err := x509.ParseCertificate(der); err == nil {
						between.AddCert(c)
					}
				}
				if _, err := leaf.Verify(x509.VerifyOptions{DNSName: w.Name, Roots: roots, Intermediates: between}); err != nil {
					t.Error(err)
				}
			}
		}
	}
	check()
	if ca.Orders() != 3 || ca.Issued() != 3 || ca.Accounts() != 1 {
		t.Errorf("%d orders, %d certificates, %d accounts", ca.Orders(), ca.Issued(), ca.Accounts())
	}
	n.stop()

	ca.Process.Kill()
	n = start(t, ca, folder, external)
	if c := n.Certificate("a.test", acme.RSA); c.Pair == nil {
		t.Errorf("not there at once: %v", c.Trouble)
	}
	n.Want(wishes)
	check()
	if ca.Orders() != 3 {
		t.Errorf("%d orders after a start with everything there", ca.Orders())
	}
	private(t, folder)
}

// private fails if anybody else can read what is in a folder.
func private(t testing.TB, folder string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		if strings.Contains(path, "pending/") && !d.IsDir() || strings.Contains(path, "challenges/") && !d.IsDir() {
			t.Errorf("%s is left", path)
		}
		files++
		return nil
	})
	if err != nil || files < 5 {
		t.Errorf("%d files, %v", files, err)
	}
}

// TestEitherChallenge: where one way of validation doesn't reach the gateway, the other one is taken.
func TestEitherChallenge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		reach  func(ports) testacme.Options
		change func(*acme.Options)
	}{
		{"TLS-ALPN-01 alone reaches it", func(p ports) testacme.Options { return testacme.Options{TLSPort: p.tls} }, nil},
		{"HTTP-01 alone reaches it", func(p ports) testacme.Options { return testacme.Options{HTTPPort: p.http} }, nil},
		{"HTTP-01 alone is wanted", func(p ports) testacme.Options { return testacme.Options{HTTPPort: p.http, TLSPort: p.tls} }, func(o *acme.Options) { o.TLSALPN = false }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at := freePorts(t)
			ca := testacme.Start(t, c.reach(at))
			var n *node
			answer(t, at, func() *node { return n })
			if c.change == nil {
				c.change = func(*acme.Options) {}
			}
			n = start(t, ca, t.TempDir(), c.change)
			n.Want([]acme.Wish{{"a.test", []string{acme.ECDSA}}})
			wait(t, n, "a.test", acme.ECDSA, anyOne)
			if ca.Issued() != 1 {
				t.Errorf("%d certificates", ca.Issued())
			}
		})
	}
}

// TestRenew: a certificate is renewed before it ends, and the CA is asked no more often than that.
func TestRenew(t *testing.T) {
	t.Parallel()
	at := freePorts(t)
	ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls, Validity: 30 * time.Second})
	var n *node
	answer(t, at, func() *node { return n })
	changed := make(chan struct{}, 100)
	n = start(t, ca, t.TempDir(), func(o *acme.Options) { o.Changed = func() { changed <- struct{}{} } })
	n.Want([]acme.Wish{{"a.test", []string{acme.ECDSA}}})
	first := wait(t, n, "a.test", acme.ECDSA, anyOne)
	second := wait(t, n, "a.test", acme.ECDSA, otherThan(first))
	if !second.NotAfter.After(first.NotAfter) {
		t.Errorf("the second ends %s, the first %s", second.NotAfter, first.NotAfter)
	}
	if first.PublicKey.(*ecdsa.PublicKey).Equal(second.PublicKey) {
		t.Error("the key is the old one")
	}
	if len(changed) != 2 {
		t.Errorf("%d changes were told", len(changed))
	}
	if ca.Orders() > 3 { // the next one may be due already
		t.Errorf("%d orders", ca.Orders())
	}
}

func sameAs(other *x509.Certificate) func(*x509.Certificate) error {
	return func(now *x509.Certificate) error {
		if !now.Equal(other) {
			return errors.New("another one")
		}
		return nil
	}
}

func logTo(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(output{t}, nil)) }

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// otherKey is a key that belongs to no certificate here, in PEM.
func otherKey(t testing.TB) []byte {
	t.Helper()
	return testpki.NewCA(t, "other").KeyPEM()
}
