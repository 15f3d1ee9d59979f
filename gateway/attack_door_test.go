package gateway_test

import (
	"fmt"
	"testing"
)

// TestBareLinesAtTheDoor: where a load balancer is believed, no line feed or carriage return alone shows a second header,
// on a new connection and on one that has carried calls. Held: security L 156.
func TestBareLinesAtTheDoor(t *testing.T) {
	f := newDoorFixture(t)
	good, other := escapedPEM(f.a4), escapedPEM(f.a1)
	const certificate = "X-WSO2-CLIENT-CERTIFICATE: "
	for _, listener := range []string{behindLB, byAddr, byCert} {
		f.allowed(t, func() answer { return f.dialThrough(t, listener).get(t, "/pay/1.0/x", "opt.test", certificate+good) })
		for _, between := range []string{"\n", "\r", "\n ", "\n\t", "\r\r", "\x0b", "\x0c", "\x00", "\x85\n", "\n\n"} {
			for name, lines := range map[string]string{
				"a certificate in a value":         "X: y" + between + certificate + good + "\r\n",
				"a certificate behind another":     certificate + other + between + certificate + good + "\r\n",
				"an identity behind a certificate": certificate + good + between + "X-Sallyport-Client: root\r\n",
				"a certificate in a cookie":        "X: y\r\nCookie: a" + between + certificate + good + "\r\n",
				"a certificate that is cut":        certificate + between + good + "\r\n",
			} {
				for _, used := range []bool{false, true} {
					c := f.dialThrough(t, listener)
					for range 3 {
						if used {
							f.allowed(t, func() answer { return c.get(t, "/pay/1.0/x", "opt.test", certificate+good) })
						}
					}
					f.denied(t, 400, "400", func() answer {
						if _, err := fmt.Fprintf(c, "GET /pay/1.0/x HTTP/1.1\r\nHost: opt.test\r\n%s\r\n", lines); err != nil {
							t.Fatal(err)
						}
						return c.receive(t, "GET")
					})
					if !c.ended() {
						t.Errorf("%s, %s behind %q: the connection goes on", listener, name, between)
					}
				}
			}
		}
	}
}
