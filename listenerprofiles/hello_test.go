package listenerprofiles

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// A cutter changes how its client's first message, the ClientHello, is cut into TLS records and writes.
type cutter struct {
	net.Conn
	cut  func(record []byte) [][]byte // what to write for the first record; nil means the record
	size int                          // of what was written until the server's first answer, as the client had it
	done bool
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.done {
		return c.Conn.Write(b)
	}
	pieces := [][]byte{b}
	if c.cut != nil && c.size == 0 {
		pieces = c.cut(b)
	}
	c.size += len(b)
	for _, p := range pieces {
		if _, err := c.Conn.Write(p); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (c *cutter) Read(b []byte) (int, error) {
	c.done = true
	return c.Conn.Read(b)
}

// twoRecords cuts a record after n bytes of its content (RFC 8446 section 5.1 allows it).
func twoRecords(n int) func([]byte) [][]byte {
	return func(b []byte) [][]byte {
		record := func(content []byte) []byte {
			return append(binary.BigEndian.AppendUint16(append([]byte(nil), b[:3]...), uint16(len(content))), content...)
		}
		return [][]byte{record(b[5 : 5+n]), record(b[5+n:])}
	}
}

// singleBytes writes each byte by itself; with TCP_NODELAY, which is Go's default, each is a segment.
func singleBytes(b []byte) (pieces [][]byte) {
	for i := range b {
		pieces = append(pieces, b[i:i+1])
	}
	return pieces
}

// B18: however a ClientHello is cut, it leads to the profile of its name, and a certificate is asked for there.
func TestCutClientHello(t *testing.T) {
	f := newFixture(t)
	s := serve(t, "127.0.0.1", f.load(t,
		"127.0.0.1 name=open.test verify=none", "127.0.0.1 name=opt.test", "127.0.0.1 name=mtls.test verify=require", "127.0.0.1 verify=require"))
	cuts := map[string]func([]byte) [][]byte{"single bytes": singleBytes, "single bytes in two records": func(b []byte) [][]byte {
		records := twoRecords(40)(b)
		return append(singleBytes(records[0]), singleBytes(records[1])...)
	}}
	for _, n := range []int{1, 5, 40, 100} {
		cuts[fmt.Sprintf("two records, %d bytes", n)] = twoRecords(n)
		cuts[fmt.Sprintf("two records in one segment, %d bytes", n)] = func(b []byte) [][]byte {
			records := twoRecords(n)(b)
			return [][]byte{append(records[0], records[1]...)}
		}
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) { everyProfile(t, f, s, cut, nil, 0) })
	}
}

// B19: a ClientHello of 16 KiB, in one record and in more, leads to the profile of its name.
func TestBigClientHello(t *testing.T) {
	f := newFixture(t)
	s := serve(t, "127.0.0.1", f.load(t,
		"127.0.0.1 name=open.test verify=none", "127.0.0.1 name=opt.test", "127.0.0.1 name=mtls.test verify=require", "127.0.0.1 verify=require"))
	for _, size := range []int{12 << 10, 16 << 10, 17 << 10, 40 << 10} {
		var filler []string
		for n := size; n > 0; n -= 200 {
			filler = append(filler, fmt.Sprintf("%0199d", n))
		}
		t.Run(fmt.Sprint(size), func(t *testing.T) { everyProfile(t, f, s, nil, append(filler, "http/1.1"), size) })
	}

	// The big ticket: it holds the client's certificate.
	heavy := issue(t, "heavy", f.ca, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, 17<<10)}}
	})
	for _, version := range bothVersions {
		cfg := f.clientConfig("mtls.test", heavy)
		cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, &oneTicket{}
		for _, resumed := range []bool{false, true} {
			conn := dial(t, s, nil)
			got, state, err := ask(conn, cfg)
			if err != nil || got != fmt.Sprintf("profile 127.0.0.1 mtls.test; heavy; resumed %v", resumed) {
				t.Fatalf("%s: %q, %v", tls.VersionName(version), got, err)
			}
			if resumed && conn.size < 16<<10 {
				t.Errorf("%s: a ClientHello of %d bytes", tls.VersionName(version), conn.size)
			}
			if version == tls.VersionTLS13 && state.CurveID != tls.X25519MLKEM768 {
				t.Errorf("curve %v", state.CurveID)
			}
		}
	}
}

func dial(t *testing.T, s *server, cut func([]byte) [][]byte) *cutter {
	t.Helper()
	c, err := net.DialTimeout("tcp", s.listener.Addr().String(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return &cutter{Conn: c, cut: cut}
}

// everyProfile calls open.test, opt.test, mtls.test and an unknown name, with and without a certificate.
func everyProfile(t *testing.T, f *fixture, s *server, cut func([]byte) [][]byte, protocols []string, size int) {
	t.Helper()
	tests := []struct {
		name   string
		client *party
		asked  bool
		want   string // "" means that the handshake fails
	}{
		{"open.test", f.client, false, "profile 127.0.0.1 open.test; nobody;"},
		{"opt.test", nil, true, "profile 127.0.0.1 opt.test; nobody;"},
		{"opt.test", f.client, true, "profile 127.0.0.1 opt.test; client;"},
		{"mtls.test", nil, true, ""},
		{"mtls.test", f.client, true, "profile 127.0.0.1 mtls.test; client;"},
		{"unknown.test", nil, true, ""},
		{"unknown.test", f.client, true, "profile 127.0.0.1; client;"},
	}
	for _, version := range bothVersions {
		for _, tt := range tests {
			cfg := f.clientConfig(tt.name, nil)
			cfg.MinVersion, cfg.MaxVersion, cfg.NextProtos = version, version, protocols
			asked := false
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				if tt.client == nil {
					return new(tls.Certificate), nil
				}
				c := tt.client.tls()
				return &c, nil
			}
			conn := dial(t, s, cut)
			got, _, err := ask(conn, cfg)
			if asked != tt.asked || (err == nil) != (tt.want != "") || (got == "") != (tt.want == "") || !strings.HasPrefix(got, tt.want) || conn.size < size {
				t.Errorf("%s %q: %q, asked for a certificate: %v, %v, want %q; a ClientHello of %d bytes", tls.VersionName(version), tt.name, got, asked, err, tt.want, conn.size)
			}
		}
	}
}
