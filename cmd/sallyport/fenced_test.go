package main_test

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"sallyport/certstore"
	"sallyport/internal/testpki"
)

// fencedAPI is an API file with one API, for partner alone. Each version of it has a resource of its own.
func (d *demoFolder) fencedAPI(version int) string {
	return fmt.Sprintf(`apis:
  - name: partners
    version: 2.0.0
    context: /partners
    defaultVersion: true
    security: [mutualssl]
    policy: Unlimited
    upstream: {urls: ["http://127.0.0.1:%d"], caFile: none}
    clientCertificates: [{alias: partner, certificate: ../partners/partner.crt, tier: Gold}]
    resources: [{path: /v%d, methods: [GET]}]
`, d.Ports.Backend, version)
}

// neighbour is an API file that is good.
func (d *demoFolder) neighbour(version int) string {
	return "apis:\n" + d.extraAPI(fmt.Sprint("neighbour", version))
}

// bed makes a demonstration whose APIs are in files, one of which is for partner.
func fencedBed(t *testing.T, edits ...string) *demoFolder {
	t.Helper()
	d := newDemo(t, edits...)
	d.apiFiles()
	d.putClient(d.demoCA(), "partner")
	d.putClient(d.demoCA(), "stranger")
	d.must(os.Mkdir(d.path("partners"), 0o755))
	d.write("partners/partner.crt", d.read("clients/partner.crt"))
	d.write("apis/partners.yaml", d.good(1))
	d.write("apis/neighbour.yaml", d.neighbour(0))
	return d
}

// good is fencedAPI over plain HTTP.
func (d *demoFolder) good(version int) string {
	return strings.Replace(d.fencedAPI(version), ", caFile: none", "", 1)
}

// TestChaosAPIFile breaks one API file in many ways between good ones while calls are made: what it was serves on, for
// those and to the extent that it did, its neighbour changes, each break is told and counted once, and no call fails.
// Held: faults R3.
func TestChaosAPIFile(t *testing.T) {
	d := fencedBed(t, fast...)
	p := d.quickstart()
	stop := d.load()
	const file = "apis/partners.yaml"
	what := fmt.Sprintf(`what="API file %s"`, d.path(file))
	serves := func(version int, certificate string) bool {
		return d.answers(map[string]int{"partner": http.StatusOK, "stranger": http.StatusUnauthorized, "": http.StatusUnauthorized}[certificate],
			certificate, d.Ports.HTTPS, fmt.Sprintf("/partners/v%d", version))
	}
	isAsItWas := func(version int) bool {
		return serves(version, "partner") && serves(version, "stranger") && serves(version, "") &&
			d.answers(http.StatusForbidden, "partner", d.Ports.HTTPS, fmt.Sprintf("/partners/v%d", version+1))
	}
	write := func(change func(string) string) func(string) {
		return func(next string) { d.swap(file, change(next)) }
	}
	replace := func(old, with string) func(string) {
		return write(func(next string) string {
			if !strings.Contains(next, old) {
				t.Fatalf("there is no %q", old)
			}
			return strings.Replace(next, old, with, 1)
		})
	}
	expired := testpki.SelfSigned(t, testpki.Leaf{CommonName: "x"})
	d.write("partners/two.crt", string(testpki.PEM(expired.Cert, expired.Cert)))
	breaks := []struct {
		name  string
		harm  func(next string) // from a good content that is not in force
		place string            // part of what is said of it
	}{
		{"no YAML", write(func(string) string { return "apis: [" }), file + ":1:7: "},
		{"cut off", write(func(s string) string { return s[:len(s)-20] }), file + ":"},
		{"empty", write(func(string) string { return "" }), file + ":"},
		{"no APIs", write(func(string) string { return "api: []\n" }), file + ":1:1: unknown key"},
		{"open, with a key that is none", replace("security: [mutualssl]", "security: [none]\n    sekurity: [none]"), file + ":7:5: unknown key"},
		{"no such tier", replace("tier: Gold", "tier: Platinum"), file + ":9:87: there is no tier"},
		{"no such certificate", replace("partner.crt", "nobody.crt"), file + ":9:56: certificate"},
		{"two certificates", replace("partner.crt", "two.crt"), file + ":9:"},
		{"one alias twice", replace("clientCertificates: [", "clientCertificates: [{alias: partner, certificate: ../clients/gold.crt, tier: Gold}, "), file + ":9:"},
		{"roots that are none", replace("]}", "], sandboxUrls: [\"https://127.0.0.1:1\"], caFile: nowhere.pem}"), file + ":8:"},
		{"a listener that is none", replace("defaultVersion: true", "listeners: [nowhere]"), file + ":5:17: there is no listener"},
		{"another's name", replace("name: partners\n    version: 2.0.0", "name: orders\n    version: 1.0.0\n    hosts: [x.test]"), file + ":2:5: API orders:"},
		{"another's place", replace("context: /partners", "context: /orders"), file + ":2:5: API partners:2.0.0, and orders:1.0.0 at "},
		{"another's, open", write(func(string) string {
			return "apis:\n  - {name: orders, version: 1.0.0, context: /orders, security: [none], upstream: {urls: [\"http://127.0.0.1:1\"]}}\n"
		}), file + ":2:5: API orders:1.0.0, and orders:1.0.0 at "},
		{"deep", write(func(string) string { return "apis: " + strings.Repeat("[", 100_000) }), file + ":"},
		{"large", write(func(string) string { return strings.Repeat("# endless\n", 1<<19) }), "API file " + d.path(file)},
		{"a control character", replace("/partners", "/partners\x1b[2J"), file + ":4:"},
		{"a pipe", func(string) {
			d.must(os.Remove(d.path(file)))
			d.must(syscall.Mkfifo(d.path(file), 0o600))
		}, "not a regular file"},
		{"a folder", func(string) { d.must(os.Remove(d.path(file))); d.must(os.Mkdir(d.path(file), 0o700)) }, "not a regular file"},
		{"a link to nothing", func(string) { d.must(os.RemoveAll(d.path(file))); d.must(os.Symlink("nowhere", d.path(file))) }, "no such file"},
	}
	for i, b := range breaks {
		version := i + 1
		eventually(t, "the file is in force", func() bool { return p.good() && isAsItWas(version) })
		failures := p.total("sallyport_reload_failures_total", what)
		b.harm(d.good(version + 1))
		d.swap("apis/neighbour.yaml", d.neighbour(version))
		eventually(t, b.name+": it is counted and named with its place", func() bool {
			return p.total("sallyport_reload_failures_total", what) == failures+1 && strings.Contains(p.ready(), b.place) &&
				strings.Contains(p.ready(), "API file "+d.path(file)+": the last change was refused, the one before it serves on: ")
		})
		eventually(t, b.name+": its neighbour has changed", func() bool { return d.offers(fmt.Sprint("neighbour", version)) })
		if !isAsItWas(version) {
			t.Errorf("%s: what it was does not serve on as it did", b.name)
		}
		if r := d.client("gold", dialects[3]).get(t, "/orders/42"); r.status != http.StatusOK {
			t.Errorf("%s: orders: %d", b.name, r.status)
		}
		if n := p.total("sallyport_reload_failures_total", what); n != failures+1 {
			t.Errorf("%s: counted %v times", b.name, n-failures)
		}
		d.must(os.RemoveAll(d.path(file)))
		d.swap(file, d.good(version+1))
	}
	eventually(t, "the last one is in force", func() bool { return p.good() && isAsItWas(len(breaks)+1) })
	if n := p.total("sallyport_reload_failures_total", `what="configuration"`); n != 0 {
		t.Errorf("the whole configuration was refused %v times", n)
	}
	d.must(os.Remove(d.path(file)))
	eventually(t, "its API is gone with the file", func() bool {
		return p.good() && d.answers(http.StatusNotFound, "partner", d.Ports.HTTPS, "/partners/v1")
	})
	stop()
	p.stopClean()
}

// TestStartWithBadAPIFiles: a start serves what is good. Where a bad file says that its API is, the answer is 503, and
// validate refuses the configuration; once the file is mended its API is served.
func TestStartWithBadAPIFiles(t *testing.T) {
	d := fencedBed(t, fast...)
	const file = "apis/partners.yaml"
	bad := strings.Replace(d.good(1), "tier: Gold", "tier: Platinum", 1)
	d.write(file, bad)
	p := d.quickstart()
	fenced := func(path, certificate string) {
		t.Helper()
		for _, how := range dialects {
			r := d.client(certificate, how).get(t, path)
			if r.status != http.StatusServiceUnavailable || r.code(t) != "503" || r.header.Get("Retry-After") == "" {
				t.Errorf("%s over %s: %d %s", path, how, r.status, r.body)
			}
		}
	}
	is := func(status int, certificate, path string) {
		t.Helper()
		if !d.answers(status, certificate, d.Ports.HTTPS, path) {
			t.Errorf("%s as %q is not %d", path, certificate, status)
		}
	}
	for _, path := range []string{"/partners/2.0.0/v1", "/partners/v1", "/partners", "/p%61rtners/2.0.0"} {
		fenced(path, "partner")
	}
	is(http.StatusNotFound, "partner", "/partnersx/v1")
	is(http.StatusOK, "gold", "/orders/42")
	is(http.StatusOK, "", "/neighbour0/2.0.0/")
	const place = file + ":9:87: there is no tier "
	if ready := p.ready(); !strings.Contains(ready, "API file "+d.path(file)+": it is not good, and nothing of it serves: ") || !strings.Contains(ready, place) {
		t.Errorf("/readyz: %s", ready)
	}
	if n := p.total("sallyport_reload_failures_total", fmt.Sprintf(`what="API file %s"`, d.path(file))); n != 1 {
		t.Errorf("counted %v times", n)
	}
	if n := p.total("sallyport_refusals_total", `reason="api_fenced"`); n == 0 {
		t.Error("refusals are not counted")
	}
	if code, stdout, stderr := d.run("validate", "-c", d.ConfigFile); code != 2 || !strings.Contains(stdout+stderr, place) {
		t.Errorf("validate: %d\n%s%s", code, stdout, stderr)
	}
	d.swap(file, d.good(1))
	eventually(t, "the mended file is in force", func() bool {
		return p.good() && d.answers(http.StatusOK, "partner", d.Ports.HTTPS, "/partners/v1") && d.answers(http.StatusUnauthorized, "stranger", d.Ports.HTTPS, "/partners/v1")
	})
	p.stop()

	// What can't be read claims nothing, and two files that are good and claim one API are both bad.
	d.write(file, "apis: [")
	d.write("apis/attacker.yaml", "apis:\n  - {name: orders, version: 1.0.0, context: /orders, security: [none], upstream: {urls: [\"http://127.0.0.1:1\"]}}\n")
	p = d.quickstart()
	is(http.StatusNotFound, "partner", "/partners/v1")
	fenced("/orders/42", "gold")
	fenced("/orders/42", "")
	is(http.StatusOK, "", "/neighbour0/2.0.0/")
	d.must(os.Remove(d.path("apis/attacker.yaml")))
	eventually(t, "the rightful one is in force", func() bool {
		return d.answers(http.StatusOK, "gold", d.Ports.HTTPS, "/orders/42") && d.answers(http.StatusUnauthorized, "", d.Ports.HTTPS, "/orders/42")
	})
	p.stop()

	// A start of which nothing is left is refused.
	d.write("apis/demo.yaml", "apis: {}")
	d.write("apis/neighbour.yaml", "apis: 1")
	if code, _, stderr := d.run("serve", "-c", d.ConfigFile); code != 2 || !strings.Contains(stderr, "demo.yaml") || !strings.Contains(stderr, "neighbour.yaml") {
		t.Errorf("serve: %d\n%s", code, stderr)
	}
}

// TestCommandsDoWithoutABadAPIFile: what ends rights and what explains works while an API file is not good, and names it.
// What must know all registrations is refused.
func TestCommandsDoWithoutABadAPIFile(t *testing.T) {
	d := fencedBed(t)
	mustRun := func(want int, command ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := d.run(append(command, "-c", d.ConfigFile)...)
		if code != want {
			t.Errorf("%v: %d\n%s%s", command, code, stdout, stderr)
		}
		return stdout, stderr
	}
	of := []string{"--api", "orders:1.0.0", "--alias", "stranger"}
	register := append([]string{"cert", "add", d.path("clients/stranger.crt"), "--tier", "Gold"}, of...)
	mustRun(0, register...)
	const file = "apis/partners.yaml"
	d.write(file, strings.Replace(d.good(1), "tier: Gold", "tier: Platinum", 1))
	const place = file + ":9:87: there is no tier "
	sum := certstore.Fingerprint(d.certificate("clients/stranger.crt"))
	fingerprint := hex.EncodeToString(sum[:])
	for _, command := range [][]string{
		{"cert", "list"},
		append([]string{"cert", "show"}, of...),
		append([]string{"cert", "export"}, of...),
		{"cert", "deny", "add", "--fingerprint", fingerprint},
		{"cert", "deny", "list"},
		{"cert", "deny", "remove", "--fingerprint", fingerprint},
		append([]string{"cert", "remove"}, of...),
		{"certificates"},
		{"explain", "--api", "orders:1.0.0", "--cert", d.path("clients/gold.crt"), "--path", "/42"},
	} {
		if _, stderr := mustRun(0, command...); !strings.Contains(stderr, place) {
			t.Errorf("%v does not name it: %s", command, stderr)
		}
	}
	for _, command := range [][]string{register, {"validate"}, {"explain", "--api", "partners:2.0.0"}} {
		if stdout, stderr := mustRun(2, command...); !strings.Contains(stdout+stderr, place) {
			t.Errorf("%v does not name it: %s", command, stderr)
		}
	}

	// Two good files that claim one API are both bad.
	d.write(file, d.good(1))
	d.write("apis/second.yaml", d.good(2))
	if _, stderr := mustRun(1, "explain", "--api", "partners:2.0.0"); !strings.Contains(stderr, "apis/second.yaml") {
		t.Errorf("explain: %s", stderr)
	}
}
