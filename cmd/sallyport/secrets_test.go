package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
)

// canary stands for a password in the wrong place.
const canary = "CANARY-7f3d9a"

// TestSecrets provokes every kind of output: refusals, logs, reloads that fail because of a secret, metrics, readiness,
// explanations, validation. None contains a password, private key or token.
func TestSecrets(t *testing.T) {
	t.Parallel()
	d := newDemo(t, slow...)
	d.edit("sallyport.yaml", "level: info", "level: debug")
	// Nobody answers there, so that whatever is said of a Redis is said.
	const redis = `redis: {addresses: ["127.0.0.1:1"], username: gateway, password: "` + canary + `"}`
	d.edit("sallyport.yaml", "\nstore: ", "\nrateLimit: {"+redis+"}\nstore: ")
	p := d.quickstart()
	var said []string

	for _, how := range dialects {
		for _, certificate := range []string{"gold", "rogue", "loadbalancer", ""} {
			c := d.client(certificate, how)
			for _, token := range []string{"valid", "expired", "forged"} {
				bearer := d.bearer(token)
				for _, path := range []string{"/orders/42", "/payments/42", "/catalog/42", "/nowhere/42", "/orders/%2e%2e/42"} {
					r := c.get(t, path+"?access_token="+url.QueryEscape(bearer[1]), bearer[0], bearer[1], "X-WSO2-CLIENT-CERTIFICATE", canary)
					if r.status != http.StatusOK { // a 200 is the backend's echo
						said = append(said, string(r.body), fmt.Sprint(r.header))
					}
				}
				c.get(t, "/orders/42", bearer[0], bearer[1]+canary, "Cookie", canary)
				c.get(t, "/orders/42", bearer[0], bearer[1], bearer[0], "Basic "+canary)
			}
		}
	}

	names := []string{"--api", "orders:1.0.0"}
	for _, token := range []string{"valid", "expired", "forged"} {
		for _, format := range []string{"text", "json"} {
			_, out, errs := d.run(append([]string{"explain", "-o", format, "--cert", "clients/rogue.crt", "--token", "tokens/" + token + ".jwt"}, names...)...)
			said = append(said, out, errs)
		}
	}
	// Files of the wrong kind.
	for _, args := range [][]string{
		{"cert", "add", "--alias", "x", "--tier", "Gold", "clients/gold.key"},
		{"cert", "add", "--alias", "x", "--tier", "Gold", "secrets/gateway.password"},
		{"explain", "--cert", "clients/gold.key"},
		{"explain", "--cert", "secrets/gateway.password"},
		{"explain", "--token", "secrets/gateway.password"},
		{"explain", "--token", "clients/gold.key"},
	} {
		_, out, errs := d.run(append(args, names...)...)
		said = append(said, out, errs)
	}

	settings, profiles := d.read("sallyport.yaml"), d.read("listenerprofiles.xml")
	const reference, element = `password: "${file:secrets/gateway.password}"`, "<Password>${file:secrets/gateway.password}</Password>"
	for _, broken := range []struct{ file, old, new string }{
		{"secrets/gateway.password", d.read("secrets/gateway.password"), canary + "\n"},
		{"secrets/client-truststore.password", d.read("secrets/client-truststore.password"), canary + "\n" + canary},
		{"sallyport.yaml", reference, "password: " + canary},
		{"sallyport.yaml", reference, "password: [" + canary + "]"},
		{"sallyport.yaml", reference, "password: {" + canary + ": " + canary + "}"},
		{"sallyport.yaml", reference, `password: "${` + canary + `}"`},
		{"sallyport.yaml", reference, `password: "${file:secrets/gateway.password"`},
		{"sallyport.yaml", reference, reference + ", " + reference},
		{"sallyport.yaml", "store: sqlite:sallyport.db", "store: postgres://sallyport:" + canary + "@localhost/db?sslmode=require"},
		{"sallyport.yaml", "store: sqlite:sallyport.db", `store: {url: "mysql://sallyport:` + canary + `@localhost/db", password: ` + canary + "}"},
		{"sallyport.yaml", "store: sqlite:sallyport.db", `store: {url: "mysql://sallyport@localhost", password: ` + canary + ", " + canary + "}"},
		{"sallyport.yaml", redis, `redis: "redis://:` + canary + `/@127.0.0.1:1"`},
		{"sallyport.yaml", redis, `redis: "redis://` + canary + `:99999"`},
		{"sallyport.yaml", redis, `redis: "redis://` + canary + `@127.0.0.1:1"`},
		{"sallyport.yaml", redis, "redis: redis://:" + canary + ", " + canary + "@127.0.0.1:1"},
		{"sallyport.yaml", redis, `redis: "redis://:${env:` + canary + `}@127.0.0.1:1"`},
		{"sallyport.yaml", redis, `redis: {addresses: ["redis://:` + canary + `@127.0.0.1:1"]}`},
		{"sallyport.yaml", redis, `redis: {addresses: ["127.0.0.1:1"], password: ` + canary + ", " + canary + "}"},
		{"sallyport.yaml", "jwks: jwks.json", "jwks: https://sallyport:" + canary + "@localhost/jwks"},
		{"listenerprofiles.xml", element, "<Password>" + canary + "</Password>"},
		{"listenerprofiles.xml", element, "<Password>" + canary + "</Password><Password>" + canary + "</Password>"},
		{"listenerprofiles.xml", element, "<Password>" + canary + "<b/></Password>"},
		{"listenerprofiles.xml", element, "<Password>" + canary},
		{"listenerprofiles.xml", element, "<Password>${" + canary + "}</Password>"},
	} {
		good := d.read(broken.file)
		bad := strings.Replace(good, broken.old, broken.new, 1)
		if bad == good {
			t.Fatalf("%s does not contain %s", broken.file, broken.old)
		}
		d.write(broken.file, bad)
		failures := p.total("sallyport_reload_failures_total")
		p.signal(syscall.SIGHUP)
		eventually(t, broken.file+" is refused with "+broken.new, func() bool {
			return p.total("sallyport_reload_failures_total") > failures
		})
		for _, args := range [][]string{
			{"validate"},
			{"validate", "-o", "json"},
			append([]string{"explain"}, names...),
			{"serve"},
			{"cert", "add", "--api", "orders:1.0.0", "--alias", "x", "--tier", "Gold", "clients/unregistered.crt"},
		} {
			code, out, errs := d.run(args...)
			said = append(said, out, errs)
			// Registering a certificate needs no keystore; it is undone.
			if args[0] == "cert" && code == 0 {
				d.mustRun("cert", "remove", "--api", "orders:1.0.0", "--alias", "x")
			} else if code != 2 {
				t.Errorf("%v with %s: exit code %d\n%s", args, broken.new, code, errs)
			}
		}
		_, readiness := p.status("/readyz")
		said = append(said, readiness)
		d.write(broken.file, good)
		p.signal(syscall.SIGHUP)
		eventually(t, broken.file+" is good again", func() bool { return strings.HasPrefix(p.ready(), "ready\nlimits: ") })
	}
	// Another password is told of as one that waits for the next start.
	d.edit("sallyport.yaml", redis, strings.ReplaceAll(redis, canary, canary+"-2"))
	p.signal(syscall.SIGHUP)
	eventually(t, "the log says that another password waits for the next start", func() bool {
		return count(p.stderr.String(), "takes effect with the next start only", "keys=rateLimit") == 1
	})
	d.write("sallyport.yaml", settings)
	if d.read("sallyport.yaml") != settings || d.read("listenerprofiles.xml") != profiles {
		t.Error("the files are not as they were")
	}

	_, metrics := p.status("/metrics")
	p.stop()
	for _, text := range append(said, metrics, p.stdout.String(), p.stderr.String()) {
		noSecrets(t, d.Demo, "the program", text)
		if strings.Contains(text, canary) {
			t.Errorf("a secret that was written into the wrong place is shown:\n%s", excerpt(text, canary))
		}
	}
	if !p.stdout.contains("reason=no_such_api") || !p.stderr.contains("level=ERROR") {
		t.Error("the logs hold less than was provoked")
	}
}

// excerpt is the line of text that holds part.
func excerpt(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}
