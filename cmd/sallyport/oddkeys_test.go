package main_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestOddCertificatesByTLS: what becomes of certificates that Go reads badly or not at all, shown by OpenSSL's client at a
// listener that only asks for one: it sends none (900902), it is judged (900901), or the handshake ends.
func TestOddCertificatesByTLS(t *testing.T) {
	openssl := tool(t, "openssl")
	d := newDemo(t)
	p := d.quickstart()
	outcome := regexp.MustCompile(`"code":"(\d+)"|alert (decode error)`)
	for _, c := range []struct {
		name, in12, in13 string
		key              []string
	}{
		{"ed448", "900902", "900902", []string{"-newkey", "ed448"}},
		{"rsa-pss", "900902", "900902", []string{"-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"}},
		{"p224", "900901", "900902", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-224"}},
		{"brainpool", "decode error", "900902", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"}},
		{"secp256k1", "decode error", "900902", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"}},
		{"negative", "decode error", "decode error", []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-set_serial", "-7"}},
	} {
		key, cert := d.path("clients/"+c.name+".key"), d.path("clients/"+c.name+".crt")
		d.output(exec.Command(openssl, append([]string{"req", "-x509", "-nodes", "-subj", "/CN=odd", "-keyout", key, "-out", cert}, c.key...)...))
		for version, want := range map[string]string{"-tls1_2": c.in12, "-tls1_3": c.in13} {
			cmd := exec.CommandContext(t.Context(), openssl, "s_client", version, "-CAfile", d.path("ca.crt"), "-servername", "localhost",
				"-connect", fmt.Sprintf("localhost:%d", d.Ports.HTTPS), "-cert", cert, "-key", key, "-ign_eof")
			cmd.Stdin = strings.NewReader("GET /payments/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			out, _ := cmd.CombinedOutput() // it exits with 1 where the handshake ends
			found := outcome.FindSubmatch(out)
			if found == nil || string(found[1])+string(found[2]) != want {
				t.Errorf("%s, %s: %q, want %s\n%s", c.name, version, found, want, out)
			}
		}
	}
	eventually(t, "the access log says of each call without a certificate that none came", func() bool {
		const says = `certificate_problem="the handshake asked for a certificate and got none`
		return count(p.stdout.String(), "reason=missing_credentials", says) == 7
	})
	// Whoever looks for the reason finds it in the log and the metrics, and the kinds on the page.
	if n := p.number(`sallyport_handshakes_refused_total{reason="certificate_unparseable"}`); n < 4 {
		t.Errorf("%v handshakes are counted as ended by a certificate that can't be parsed, want 4", n)
	}
	for _, cause := range []string{"negative serial number", "unsupported elliptic curve"} {
		eventually(t, "the log names the "+cause, func() bool {
			return count(p.stderr.String(), `msg="TLS handshake refused"`, "reason=certificate_unparseable", cause) > 0
		})
	}
	page := readDocument(t, "docs/security.md")
	_, said, _ := strings.Cut(page, "\nBy TLS, ")
	said, _, _ = strings.Cut(said, "\n")
	for _, what := range []string{"Ed448", "RSA-PSS", "P-224", "Brainpool", "secp256k1", "cannot read ends the handshake"} {
		if !strings.Contains(said, what) {
			t.Errorf("docs/security.md does not say what becomes of such certificates, %s: %s", what, said)
		}
	}
	p.stop()
}
