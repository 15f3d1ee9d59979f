package listenerprofiles

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A server answers each connection with what its handshake showed.
type server struct {
	set      atomic.Pointer[Set]
	listener net.Listener
	done     sync.WaitGroup
}

// serve listens on address the way that the gateway does: by Find in GetConfigForClient.
func serve(t *testing.T, address string, set *Set) *server {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Skipf("no %s here: %v", address, err)
	}
	s := &server{listener: l}
	s.set.Store(set)
	s.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.done.Go(func() { answer(c, netip.MustParseAddrPort(c.LocalAddr().String()).Addr(), s.set.Load) })
		}
	})
	t.Cleanup(func() { l.Close(); s.done.Wait() })
	return s
}

// accept is the server's side of a connection, before its handshake: as the gateway does it. After it, profile returns who serves.
func accept(c net.Conn, local netip.Addr, set func() *Set) (conn *tls.Conn, profile func() *Profile) {
	var chosen *Profile
	conn = tls.Server(c, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen = set().Find(local, NormalizeName(hello.ServerName))
		return chosen.TLS, nil
	}})
	return conn, func() *Profile { return chosen }
}

// answer serves one connection. An answer in which the client's chain is not trusted says so: the gateway judges it anew
// for each call, by the trust store of the profile and the chain of the connection.
func answer(c net.Conn, local netip.Addr, set func() *Set) {
	defer c.Close()
	conn, profile := accept(c, local, set)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if conn.HandshakeContext(ctx) != nil {
		return
	}
	state := conn.ConnectionState()
	client := "nobody"
	if len(state.PeerCertificates) > 0 {
		client = state.PeerCertificates[0].Subject.CommonName
	}
	distrust := ""
	if p := profile(); len(state.PeerCertificates) > 0 {
		if _, err := p.Trust.Verify(state.PeerCertificates, nil, p.TLS.Time()); err != nil {
			distrust = "; not trusted"
		}
	}
	fmt.Fprintf(conn, "%s; %s; resumed %v%s", profile().Name, client, state.DidResume, distrust)
	conn.Close()
}

// call returns what the server said and the connection's state.
func (s *server) call(cfg *tls.Config) (string, tls.ConnectionState, error) {
	c, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		return "", tls.ConnectionState{}, err
	}
	return ask(c, cfg)
}

// callInMemory calls set at 127.0.0.1 without a network, as synctest demands it.
func callInMemory(set func() *Set, cfg *tls.Config) (string, tls.ConnectionState, error) {
	client, server := newPipe()
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() { answer(server, netip.MustParseAddr("127.0.0.1"), set) })
	return ask(client, cfg)
}

// ask is the client's side of one connection.
func ask(c net.Conn, cfg *tls.Config) (string, tls.ConnectionState, error) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	conn := tls.Client(c, cfg)
	if err := conn.Handshake(); err != nil {
		return "", tls.ConnectionState{}, err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), conn.ConnectionState(), err
}

func (f *fixture) clientConfig(name string, certificate *party) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(f.ca.cert)
	// The server's certificates don't carry the profiles' names: VerifyConnection checks the chain alone.
	cfg := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
		return err
	}
	if certificate != nil {
		// By GetClientCertificate and not by Certificates: sent even if the server's list of CAs doesn't name its issuer.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c := certificate.tls()
			return &c, nil
		}
	}
	return cfg
}

func TestHandshakes(t *testing.T) {
	f := newFixture(t)
	stranger := issue(t, "stranger", f.other)
	selfSigned := issue(t, "client", nil)
	expired := issue(t, "expired", f.ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	serverOnly := issue(t, "server only", f.ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	listed := issue(t, "listed", nil)
	f.write(t, "trust.pem", certPEM(f.ca, listed))
	set := f.load(t,
		"127.0.0.1 name=open.test verify=none",
		"127.0.0.1 name=opt.test",
		"127.0.0.1 name=mtls.test verify=require",
		"127.0.0.1 name=*.wild.test",
		"127.0.0.1 name=hard.wild.test verify=require",
		"127.0.0.1 verify=require",
		"0.0.0.0 verify=none trust=-",
	)
	server1 := serve(t, "127.0.0.1", set)
	server2 := serve(t, "127.0.0.2", set)
	tests := []struct {
		server *server
		name   string
		client *party
		want   string // "" means that the handshake fails
	}{
		{server1, "open.test", nil, "profile 127.0.0.1 open.test; nobody"},
		{server1, "open.test", f.client, "profile 127.0.0.1 open.test; nobody"},
		{server1, "opt.test", nil, "profile 127.0.0.1 opt.test; nobody"},
		{server1, "opt.test", f.client, "profile 127.0.0.1 opt.test; client"},
		// A bad certificate does not end an optional handshake: the token may still decide.
		{server1, "opt.test", stranger, "profile 127.0.0.1 opt.test; stranger"},
		{server1, "opt.test", selfSigned, "profile 127.0.0.1 opt.test; client"},
		{server1, "opt.test", expired, "profile 127.0.0.1 opt.test; expired"},
		{server1, "mtls.test", f.client, "profile 127.0.0.1 mtls.test; client"},
		{server1, "MTLS.Test", f.client, "profile 127.0.0.1 mtls.test; client"},
		{server1, "mtls.test", listed, "profile 127.0.0.1 mtls.test; listed"},
		{server1, "mtls.test", nil, ""},
		{server1, "mtls.test", stranger, ""},
		{server1, "mtls.test", selfSigned, ""},
		{server1, "mtls.test", expired, ""},
		{server1, "mtls.test", serverOnly, ""},
		{server1, "a.wild.test", nil, "profile 127.0.0.1 *.wild.test; nobody"},
		{server1, "hard.wild.test", nil, ""},
		{server1, "hard.wild.test", f.client, "profile 127.0.0.1 hard.wild.test; client"},
		{server1, "unknown.test", nil, ""},
		{server1, "unknown.test", f.client, "profile 127.0.0.1; client"},
		{server1, "", nil, ""},
		{server1, "", f.client, "profile 127.0.0.1; client"},
		{server2, "mtls.test", nil, "profile 0.0.0.0; nobody"},
		{server2, "", nil, "profile 0.0.0.0; nobody"},
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range tests {
			who := "nobody"
			if tt.client != nil {
				who = tt.client.cert.Subject.CommonName
			}
			t.Run(fmt.Sprintf("%s %q %s", tls.VersionName(version), tt.name, who), func(t *testing.T) {
				cfg := f.clientConfig(tt.name, tt.client)
				cfg.MinVersion, cfg.MaxVersion = version, version
				got, state, err := tt.server.call(cfg)
				if tt.want == "" {
					if got != "" || err == nil {
						t.Fatalf("let in: %q", got)
					}
					return
				}
				if err != nil || !strings.HasPrefix(got, tt.want+";") || state.Version != version {
					t.Errorf("%q, %v, want %q", got, err, tt.want)
				}
			})
		}
	}
}

func TestProtocolsAndCiphersAreHonoured(t *testing.T) {
	f := newFixture(t)
	rsa := issueFor(t, "rsa", newRSA(t), f.ca)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "rsa.pem", rsa.pem(t))
	f.write(t, "ed.pem", issueFor(t, "ed", key, f.ca).pem(t))
	set := f.load(t,
		"127.0.0.1 name=only13.test <HttpsProtocols>TLSv1.3</HttpsProtocols>",
		"127.0.0.1 name=only12.test key=rsa.pem <HttpsProtocols>TLSv1.2</HttpsProtocols>",
		"127.0.0.1 name=list.test key=rsa.pem <PreferredCiphers>TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384</PreferredCiphers>",
		"127.0.0.1 name=ed.test key=ed.pem",
		"127.0.0.1 key=rsa.pem",
	)
	s := serve(t, "127.0.0.1", set)
	tests := []struct {
		name     string
		min, max uint16
		ciphers  []uint16
		version  uint16 // 0: the handshake fails
		cipher   uint16 // 0: any
	}{
		{"only13.test", tls.VersionTLS12, tls.VersionTLS13, nil, tls.VersionTLS13, 0},
		{"only13.test", tls.VersionTLS12, tls.VersionTLS12, nil, 0, 0},
		{"only12.test", tls.VersionTLS12, tls.VersionTLS13, nil, tls.VersionTLS12, 0},
		{"only12.test", tls.VersionTLS13, tls.VersionTLS13, nil, 0, 0},
		{"list.test", tls.VersionTLS12, tls.VersionTLS12, nil, tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
		{"list.test", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, 0, 0},
		{"list.test", tls.VersionTLS12, tls.VersionTLS13, nil, tls.VersionTLS13, 0},
		{"ed.test", tls.VersionTLS12, tls.VersionTLS12, nil, tls.VersionTLS12, 0},
		{"", tls.VersionTLS12, tls.VersionTLS13, nil, tls.VersionTLS13, 0},
		{"", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}, tls.VersionTLS12, 0},
		// C44: nothing old.
		{"", tls.VersionTLS10, tls.VersionTLS11, nil, 0, 0},
		{"", tls.VersionTLS12, tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA}, 0, 0},
	}
	for _, tt := range tests {
		cfg := f.clientConfig(tt.name, nil)
		cfg.MinVersion, cfg.MaxVersion, cfg.CipherSuites = tt.min, tt.max, tt.ciphers
		_, state, err := s.call(cfg)
		if (err == nil) != (tt.version != 0) || state.Version != tt.version || tt.cipher != 0 && state.CipherSuite != tt.cipher {
			t.Errorf("%q %s-%s: %s %s, %v", tt.name, tls.VersionName(tt.min), tls.VersionName(tt.max), tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite), err)
		}
		if err == nil && tt.version == tls.VersionTLS13 && state.CurveID != tls.X25519MLKEM768 {
			t.Errorf("%q: curve %v", tt.name, state.CurveID)
		}
	}
	for _, protocol := range []string{"h2", "http/1.1"} {
		cfg := f.clientConfig("", nil)
		cfg.NextProtos = []string{protocol}
		if _, state, err := s.call(cfg); err != nil || state.NegotiatedProtocol != protocol {
			t.Errorf("%s: %q, %v", protocol, state.NegotiatedProtocol, err)
		}
	}
}

// Tickets belong to a profile and its generation: anywhere else they lead to a full handshake, and never to somebody let in.
func TestTicketsBelongToOneProfile(t *testing.T) {
	f := newFixture(t)
	stranger := issue(t, "stranger", f.other)
	profiles := []string{"127.0.0.1 name=opt.test", "127.0.0.1 name=mtls.test verify=require", "127.0.0.1 name=other.test verify=require trust=other.pem", "127.0.0.1 verify=require"}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			f.write(t, "trust.pem", certPEM(f.ca))
			set := f.load(t, profiles...)
			s := serve(t, "127.0.0.1", set)
			// A cache that hands every ticket to every name, as an attacker would.
			cache := &oneTicket{}
			call := func(name string, client *party) (string, error) {
				cfg := f.clientConfig(name, client)
				cfg.MinVersion, cfg.MaxVersion = version, version
				cfg.ClientSessionCache = cache
				got, _, err := s.call(cfg)
				return got, err
			}
			expect := func(name string, client *party, want string) {
				t.Helper()
				if got, err := call(name, client); got != want || (err == nil) != (want != "") {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
			expect("opt.test", nil, "profile 127.0.0.1 opt.test; nobody; resumed false")
			expect("opt.test", nil, "profile 127.0.0.1 opt.test; nobody; resumed true")
			expect("mtls.test", nil, "") // A1

			cache.forget()
			expect("other.test", stranger, "profile 127.0.0.1 other.test; stranger; resumed false")
			expect("other.test", stranger, "profile 127.0.0.1 other.test; stranger; resumed true")
			expect("mtls.test", nil, "") // A2

			cache.forget()
			expect("mtls.test", f.client, "profile 127.0.0.1 mtls.test; client; resumed false")
			expect("mtls.test", f.client, "profile 127.0.0.1 mtls.test; client; resumed true")

			// A reload that changes another profile leaves the tickets good.
			f.write(t, "other.pem", certPEM(f.other, issue(t, "Third", nil, isCA)))
			next, err := Load(f.config(), set)
			if err != nil {
				t.Fatal(err)
			}
			s.set.Store(next)
			expect("mtls.test", f.client, "profile 127.0.0.1 mtls.test; client; resumed true")

			// One that adds a CA begins a generation: a full handshake, and no error.
			f.write(t, "trust.pem", certPEM(f.ca, f.other))
			if next, err = Load(f.config(), next); err != nil {
				t.Fatal(err)
			}
			s.set.Store(next)
			expect("mtls.test", f.client, "profile 127.0.0.1 mtls.test; client; resumed false")

			// A3: the client's CA is removed, and its ticket with it.
			f.write(t, "trust.pem", certPEM(f.other))
			if next, err = Load(f.config(), next); err != nil {
				t.Fatal(err)
			}
			s.set.Store(next)
			expect("mtls.test", f.client, "")
		})
	}
}

// A trusted chain is judged again when a session is resumed: here its CA expires in between.
func TestResumptionIsJudgedAgain(t *testing.T) {
	f := newFixture(t)
	end := time.Now().Add(24 * time.Hour)
	shortly := issue(t, "Shortly", nil, isCA, func(c *x509.Certificate) { c.NotAfter = end })
	client := issue(t, "client", shortly)
	f.write(t, "trust.pem", certPEM(shortly))
	f.xml(t, "127.0.0.1 verify=require")
	var ahead atomic.Int64
	cfg := f.config()
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	set, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, "127.0.0.1", set)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ahead.Store(0)
		c := f.clientConfig("", client)
		c.MinVersion, c.MaxVersion, c.ClientSessionCache = version, version, &oneTicket{}
		for i, want := range []string{"resumed false", "resumed true"} {
			if got, _, err := s.call(c); err != nil || !strings.HasSuffix(got, want) {
				t.Fatalf("%s, call %d: %q, %v", tls.VersionName(version), i, got, err)
			}
		}
		ahead.Store(int64(25 * time.Hour))
		if got, _, err := s.call(c); err == nil {
			t.Errorf("%s: let in after the CA's end: %q", tls.VersionName(version), got)
		}
	}
}

// oneTicket keeps the newest session, whoever it was with, or once it is frozen the one that it has.
type oneTicket struct {
	mu     sync.Mutex
	state  *tls.ClientSessionState
	frozen bool
}

func (o *oneTicket) Get(string) (*tls.ClientSessionState, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state, o.state != nil
}

func (o *oneTicket) Put(_ string, state *tls.ClientSessionState) {
	if state == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.frozen {
		o.state = state
	}
}

func (o *oneTicket) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = nil
}
