package testacme

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testserver"
)

// A Responder is `openssl ocsp`, which answers for certificates of a CA with Options.OCSP.
type Responder struct {
	URL string

	t    testing.TB
	port string
	dir  string
}

// NewResponder returns a Responder that does not answer before Start is called. The test is skipped without OpenSSL.
func NewResponder(t testing.TB) *Responder {
	testserver.Tool(t, "openssl", "openssl")
	port := testserver.FreePort(t)
	return &Responder{URL: "http://127.0.0.1:" + port, t: t, port: port, dir: t.TempDir()}
}

// Start says of certificates that they are good.
func (r *Responder) Start(ca *CA, leafs ...*x509.Certificate) {
	r.t.Helper()
	r.start(ca, "V", "", leafs)
}

// StartRevoking says of certificates that the CA has revoked them.
func (r *Responder) StartRevoking(ca *CA, leafs ...*x509.Certificate) {
	r.t.Helper()
	r.start(ca, "R", time.Now().UTC().Format(indexTime), leafs)
}

// indexTime is a time in openssl's index.
const indexTime = "060102150405Z"

func (r *Responder) start(ca *CA, status, revoked string, leafs []*x509.Certificate) {
	r.t.Helper()
	cert, key := ca.Issuer()
	testserver.Write(r.t, filepath.Join(r.dir, "ca.pem"), string(cert))
	testserver.Write(r.t, filepath.Join(r.dir, "key.pem"), string(key))
	index := ""
	for _, leaf := range leafs {
		serial := fmt.Sprintf("%X", leaf.SerialNumber)
		if len(serial)%2 == 1 {
			serial = "0" + serial
		}
		index += fmt.Sprintf("%s\t%s\t%s\t%s\tunknown\t/CN=%s\n", status, leaf.NotAfter.UTC().Format(indexTime), revoked, serial, serial)
	}
	testserver.Write(r.t, filepath.Join(r.dir, "index.txt"), index)
	p := testserver.Process{T: r.t, Program: testserver.Tool(r.t, "openssl", "openssl"), Dir: r.dir}
	p.Start(func() []string {
		return []string{"ocsp", "-port", r.port, "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "key.pem", "-nmin", "5"}
	}, func() error { // one who connects and says nothing would keep it busy
		if data, _ := os.ReadFile(filepath.Join(r.dir, "output")); !strings.Contains(string(data), "waiting for OCSP client") {
			return errors.New("it does not wait for anybody yet")
		}
		return nil
	})
}
