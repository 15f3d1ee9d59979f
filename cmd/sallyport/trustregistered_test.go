package main_test

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"testing"

	"sallyport/internal/testpki"
)

// TestSelfSignedBesideARunningGateway registers a self-signed certificate that no trust store has, at a listener that asks
// for certificates and at one that demands them. Its registration and the word of trustRegistered are in force for open
// connections as for new ones. Its subject and serial number with another key are nobody's.
func TestSelfSignedBesideARunningGateway(t *testing.T) {
	d := newDemo(t, fast...)
	own := testpki.SelfSigned(t, testpki.Leaf{CommonName: "own"})
	twin := testpki.SelfSigned(t, testpki.Leaf{CommonName: "own", Change: func(c *x509.Certificate) { c.SerialNumber = own.Cert.SerialNumber }})
	for name, id := range map[string]*testpki.Identity{"own": own, "twin": twin} {
		d.write("clients/"+name+".crt", string(id.CertPEM()))
		d.write("clients/"+name+".key", string(id.KeyPEM()))
	}
	p := d.quickstart()

	// meets waits until the calls of a new connection with the certificate have that status; 0: the handshake fails.
	meets := func(certificate string, how dialect, status int) *client {
		t.Helper()
		var c *client
		eventually(t, fmt.Sprintf("%s, %s: %d", certificate, how, status), func() bool {
			c = d.client(certificate, how)
			r, err := c.call("/payments/1")
			if err == nil && r.status == status {
				return true
			}
			c.http.CloseIdleConnections()
			return err != nil && status == 0
		})
		return c
	}
	registration := []string{"--api", "payments:1.0.0", "--alias", "own"}
	const word, none = "mutualSSL:\n", "mutualSSL:\n  trustRegistered: none\n"

	stranger := http.StatusUnauthorized // what becomes of one
	for _, demand := range []string{"optional", "require"} {
		if demand == "require" {
			d.edit("listenerprofiles.xml", "<SSLVerifyClient>optional", "<SSLVerifyClient>require")
			stranger = 0
		}
		for _, how := range dialects {
			meets("own", how, stranger)
		}
		code, _, stderr := d.run(append([]string{"cert", "add", "--tier", "Gold", "clients/own.crt"}, registration...)...)
		if code != 0 || stderr != "" {
			t.Fatalf("cert add: exit code %d, %s", code, stderr)
		}
		var open []*client
		for _, how := range dialects {
			open = append(open, meets("own", how, http.StatusOK))
			meets("twin", how, stranger)
			meets("rogue", how, stranger) // gold's subject and serial number
			meets("gold", how, http.StatusOK)
		}
		become := func(why string, status int) {
			t.Helper()
			for i, c := range open {
				before := c.dials.Load()
				eventually(t, fmt.Sprintf("%s, %s: %d on an open connection", why, dialects[i], status), func() bool {
					return c.get(t, "/payments/1").status == status
				})
				if n := c.dials.Load() - before; n != 0 {
					t.Errorf("%s, %s, %s: %d other connections", demand, why, dialects[i], n)
				}
			}
		}
		if r := open[0].get(t, "/orders/1"); r.status != http.StatusUnauthorized {
			t.Errorf("%s: registered for payments, it may call orders: %d", demand, r.status)
		}

		d.edit("sallyport.yaml", word, none)
		become("trustRegistered: none", http.StatusUnauthorized)
		meets("own", dialects[3], stranger)
		d.edit("sallyport.yaml", none, word)
		for i, how := range dialects {
			open[i] = meets("own", how, http.StatusOK)
		}
		d.mustRun(append([]string{"cert", "remove"}, registration...)...)
		become("removed", http.StatusUnauthorized)
		for _, how := range dialects {
			meets("own", how, stranger)
			meets("twin", how, stranger)
		}
	}
	p.stop()
}
