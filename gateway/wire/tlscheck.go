package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"sallyport/internal/contain"
)

// TLSCanWait verifies once a process that crypto/tls does what loops need and no document promises: a Read continues
// after it has found nothing, even within a record, and writes are complete when Write returns.
var TLSCanWait = sync.OnceValue(tryTLS)

var errTLS = errors.New("crypto/tls does not go on with a read that has found nothing")

func tryTLS() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if err := tryVersion(version, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}); err != nil {
			return err
		}
	}
	return nil
}

func tryVersion(version uint16, certificate tls.Certificate) error {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	_ = a.SetDeadline(time.Now().Add(10 * time.Second))
	_ = b.SetDeadline(time.Now().Add(10 * time.Second))
	near, far := NewWire(a), NewWire(b)
	server := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: version, SessionTicketsDisabled: true})
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, MaxVersion: version}) // of ourselves, for a moment
	shaken := make(chan error, 1)
	go func() {
		shaken <- contain.Do("a handshake with ourselves", client.Handshake)
	}()
	if err := errors.Join(server.Handshake(), <-shaken); err != nil {
		return fmt.Errorf("a handshake with ourselves: %w", err)
	}
	const text = "what was sent"
	far.queue(nil)
	if _, err := client.Write([]byte(text)); err != nil {
		return err
	}
	sealed := far.taken()
	near.dry = true
	var p [64]byte
	for i := range sealed { // byte by byte, and nothing in between
		for range 2 {
			if n, err := server.Read(p[:]); n != 0 || err != error(errDry{}) {
				return errTLS
			}
		}
		near.fed = sealed[i : i+1]
	}
	n, err := server.Read(p[:])
	if err != nil || string(p[:n]) != text {
		return errTLS
	}
	near.queue(nil)
	if _, err := server.Write([]byte(text)); err != nil {
		return errTLS
	}
	far.fed, far.dry = near.taken(), true
	if n, err := client.Read(p[:]); err != nil || string(p[:n]) != text {
		return errTLS
	}
	return nil
}
