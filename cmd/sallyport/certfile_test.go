package main_test

import (
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

// advised is a command that cert add advises.
var advised = regexp.MustCompile(`: ((?:openssl|keytool|iconv) [^;\n]*)`)

// TestAdviceWorks gives cert add what is no certificate alone, runs the command that it advises, and has what comes of it
// registered: the client's certificate, and no other.
func TestAdviceWorks(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"openssl", "keytool", "iconv", "bash"} {
		tool(t, program)
	}
	d := newDemo(t)
	root := testpki.NewCA(t, "advice")
	client := root.IssueCA("issuing").Issue(testpki.Leaf{CommonName: "client"})
	const password = "for the test"
	d.write("client.crt.pem", string(client.CertPEM()))
	d.write("client.key.pem", string(client.KeyPEM()))
	d.write("above.pem", string(testpki.PEM(client.Chain()[1], root.Cert)))
	d.write("stores/a client's.jks", string(client.JKS(password)))
	d.write("chain.pem", string(testpki.PEM(client.Chain()...)))
	d.write("chain.der", string(client.Cert.Raw)+string(client.Chain()[1].Raw))
	d.write("both.pem", string(client.PEM()))
	d.write("before.pem", string(client.KeyPEM())+string(client.CertPEM()))
	d.write("text.pem", string(client.CertPEM())+"end of mail\n")
	d.write("other.pem", string(pem.EncodeToMemory(&pem.Block{Type: "X509 CERTIFICATE", Bytes: client.Cert.Raw})))
	make := `
		openssl pkcs12 -export -in client.crt.pem -inkey client.key.pem -certfile above.pem -name gateway -passout 'pass:for the test' -out client.p12
		openssl pkcs12 -export -legacy -in client.crt.pem -inkey client.key.pem -certfile above.pem -passout 'pass:for the test' -out legacy.p12
		keytool -importkeystore -srckeystore client.p12 -srcstorepass 'for the test' -destkeystore client.jceks -deststoretype JCEKS -deststorepass 'for the test'
		keytool -importkeystore -srckeystore client.p12 -srcstorepass 'for the test' -destkeystore java.p12 -deststorepass 'for the test'
		keytool -importcert -noprompt -alias gateway -file client.crt.pem -keystore alone.p12 -storepass 'for the test'
		openssl crl2pkcs7 -nocrl -certfile chain.pem -out chain.p7b
		openssl crl2pkcs7 -nocrl -certfile chain.pem -outform DER -out chain.p7
		openssl x509 -in client.crt.pem -trustout -out trusted.pem
		openssl x509 -in client.crt.pem -outform DER | openssl base64 -out client.b64
		openssl x509 -in client.crt.pem -outform DER | openssl base64 -A -out line.b64
		iconv -f ASCII -t UTF-16 client.crt.pem > utf16.pem`
	cmd := exec.CommandContext(t.Context(), "bash", "-ec", make)
	cmd.Dir = d.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := certstore.Fingerprint(client.Cert)
	for _, file := range []string{
		"client.p12", "legacy.p12", "java.p12", "alone.p12", "stores/a client's.jks", "client.jceks", "chain.pem", "chain.der", "both.pem", "text.pem",
		"other.pem", "trusted.pem", "chain.p7b", "chain.p7", "client.b64", "line.b64", "utf16.pem",
	} {
		t.Run(file, func(t *testing.T) {
			code, _, said := run(t, d.Dir, "cert", "add", "--api", "payments:1.0.0", "--alias", "advised", "--tier", "Gold", file)
			found := advised.FindStringSubmatch(said)
			if code != 2 || found == nil {
				t.Fatalf("exit code %d, without a command: %s", code, said)
			}
			// Whoever types it fills in the alias, and the password where it is asked for, and knows if there is no key.
			command := strings.ReplaceAll(found[1], "ALIAS", testpki.Alias)
			if file == "alone.p12" {
				command = strings.Replace(command, " -clcerts", "", 1)
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", command)
			cmd.Dir, cmd.Stdin = d.Dir, strings.NewReader(password+"\n")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal is asked instead
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
			stdout := d.mustRun("cert", "add", "--api", "payments:1.0.0", "--alias", "advised", "--tier", "Gold", d.path("client.crt"))
			if !strings.Contains(stdout, hex.EncodeToString(want[:])) {
				t.Errorf("%s: another certificate is registered: %s", command, stdout)
			}
			d.mustRun("cert", "remove", "--api", "payments:1.0.0", "--alias", "advised")
			if err := os.Remove(d.path("client.crt")); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestFilesWithoutAWay: what cannot be registered whatever one does is called so, with --force as without.
func TestFilesWithoutAWay(t *testing.T) {
	tool(t, "openssl")
	d := newDemo(t)
	make := `
		openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a -keyout a.key -out a.csr
		openssl req -in a.csr -outform DER -out a.csr.der
		openssl req -in a.csr -newhdr -out a.new.csr
		openssl pkey -in a.key -outform DER -out a.key.der
		openssl pkey -in a.key -aes256 -passout pass:secret -out a.sealed.key
		openssl ec -in a.key -outform DER -out a.sec1.der
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:brainpoolP256r1 -nodes -subj /CN=a -keyout b.key -out b.crt
		openssl x509 -in b.crt -outform DER -out b.der
		openssl req -x509 -key a.key -subj /CN=a -set_serial -7 -out negative.crt`
	cmd := exec.CommandContext(t.Context(), "bash", "-ec", make)
	cmd.Dir = d.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const (
		request = "it is a certificate request: have a CA sign it, and register the certificate that it gives back"
		key     = "it is a private key, which stays with the client: register its certificate"
		curve   = "certificate cannot be read: unsupported elliptic curve; what cannot be read is refused at every door and not registered, not even with --force: have a new certificate made without that"
	)
	for file, want := range map[string]string{
		"a.csr": request, "a.csr.der": request, "a.new.csr": request,
		"a.key": key, "a.key.der": key, "a.sealed.key": key, "a.sec1.der": key, "b.key": key,
		"b.crt": curve, "b.der": curve, "negative.crt": strings.Replace(curve, "unsupported elliptic curve", "negative serial number", 1),
	} {
		for _, force := range []string{"--force=false", "--force"} {
			code, stdout, stderr := d.run("cert", "add", force, "--api", "payments:1.0.0", "--alias", "a", "--tier", "Gold", file)
			if code != 2 || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, "openssl") {
				t.Errorf("%s %s: exit code %d, %s%s", file, force, code, stdout, stderr)
			}
		}
	}
}

// TestRefusedRegistrations: cert add refuses what is not one certificate without a key, and an alias that is none, is taken,
// or whose certificate the API has. It says why, stores nothing, and repeats nothing of a key. Held: security C 45.
func TestRefusedRegistrations(t *testing.T) {
	t.Parallel()
	d := newDemo(t)
	ca := testpki.NewCA(t, "registrar")
	one, two := ca.Issue(testpki.Leaf{CommonName: "one"}), ca.Issue(testpki.Leaf{CommonName: "two"})
	d.write("one.crt", string(one.CertPEM()))
	d.write("two.crt", string(two.CertPEM()))
	d.mustRun("cert", "add", "--api", "payments:1.0.0", "--alias", "one", "--tier", "Gold", "one.crt")
	key := string(two.KeyPEM())
	for name, content := range map[string]string{
		"two certificates": string(one.CertPEM()) + string(two.CertPEM()),
		"with a key":       string(two.CertPEM()) + key,
		"behind a key":     key + string(two.CertPEM()),
		"a key":            key,
		"10 MiB":           strings.Repeat(string(two.CertPEM()), 10<<20/len(two.CertPEM())),
		"10 MiB of zeros":  strings.Repeat("\x00", 10<<20),
		"empty":            "",
		"cut":              string(two.CertPEM()[:200]),
	} {
		d.write(name+".pem", content)
	}
	before := d.mustRun("cert", "list", "-o", "json")
	secret := strings.Split(key, "\n")[1][:20]
	for _, c := range []struct {
		alias, file, why string
		code             int
	}{
		{"new", "two certificates.pem", "certificates", 2},
		{"new", "with a key.pem", "key", 2},
		{"new", "behind a key.pem", "key", 2},
		{"new", "a key.pem", "key", 2},
		{"new", "10 MiB.pem", "10 MiB.pem", 2},
		{"new", "10 MiB of zeros.pem", "10 MiB of zeros.pem", 2},
		{"new", "empty.pem", "empty", 2},
		{"new", "cut.pem", "cut.pem", 2},
		{"../../x", "two.crt", "alias", 2},
		{strings.Repeat("a", 46), "two.crt", "alias", 2},
		{"line\nbreak", "two.crt", "alias", 2},
		{"", "two.crt", "--alias", 2},
		{"one", "two.crt", "take another alias", 1},
		{"new", "one.crt", "each certificate once", 1},
	} {
		code, stdout, stderr := run(t, d.Dir, "cert", "add", "--api", "payments:1.0.0", "--alias", c.alias, "--tier", "Gold", c.file)
		if said := stdout + stderr; code != c.code || !strings.Contains(said, c.why) || len(said) > 2000 {
			t.Errorf("%q of %s: %d: %.300s", c.alias, c.file, code, said)
		} else if strings.Contains(said, secret) {
			t.Errorf("%s: the key is told: %s", c.file, said)
		}
		if now := d.mustRun("cert", "list", "-o", "json"); now != before {
			t.Fatalf("%q of %s has changed what is registered: %s", c.alias, c.file, now)
		}
	}
}
