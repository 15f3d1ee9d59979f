package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/fileset"
	"sallyport/internal/testdb"
)

// inCluster has a quickstart's folder take its stores, profiles and APIs from the store, with the calls going to the
// backend of another one. They lie in the folder "source" then, from where they may be pushed.
func (d *demoFolder) inCluster(name, labels, store string, backend *demoFolder) {
	d.t.Helper()
	must := func(err error) {
		d.t.Helper()
		if err != nil {
			d.t.Fatal(err)
		}
	}
	for _, dir := range []string{"source/stores", "source/secrets"} {
		must(os.MkdirAll(d.path(dir), 0o700))
		must(copyFolder(d.path(dir), d.path(filepath.Base(dir))))
	}
	must(os.Remove(d.path("source/secrets/ca.key"))) // no gateway's
	must(os.Rename(d.path("listenerprofiles.xml"), d.path("source/listenerprofiles.xml")))
	main, apis, _ := strings.Cut(d.read("sallyport.yaml"), "\napis:\n")
	apis, rest, _ := strings.Cut(apis, "\n# /healthz")
	port := func(d *demoFolder) string { return fmt.Sprintf("http://127.0.0.1:%d", d.Ports.Backend) }
	d.write("source/apis.yaml", "apis:\n"+strings.ReplaceAll(apis, port(d), port(backend)))
	main = fmt.Sprintf("gateway: {name: %s, labels: [%s], config: {folder: cluster, keyFile: secrets/cluster.key}}\n", name, labels) +
		strings.NewReplacer("store: sqlite:sallyport.db", "store: "+store, "location: stores/", "location: cluster/stores/",
			"filePath: listenerprofiles.xml", "filePath: cluster/listenerprofiles.xml").Replace(main)
	d.swap("sallyport.yaml", main+"\napis: [cluster/apis.yaml]\n# /healthz"+rest)
}

// api is one more entry of source/apis.yaml.
func (d *demoFolder) api(name, more string) string {
	return fmt.Sprintf("\n  - {name: %s, version: 1.0.0, context: /%s, upstream: {urls: [\"http://127.0.0.1:%d\"]}, %s}\n",
		name, name, d.Ports.Backend, more)
}

// serves reports whether a gateway has in force the version with that number and no trouble, by what the store says.
func (d *demoFolder) serves(node string, version int) bool {
	got, trouble := d.inForce(node)
	return got == version && trouble == ""
}

func (d *demoFolder) inForce(node string) (version int, trouble string) {
	d.t.Helper()
	var list struct {
		Versions []struct {
			Version int
			Current bool
		}
		Nodes []struct {
			Node    string
			Version int
			Trouble string
		}
	}
	if err := json.Unmarshal([]byte(d.mustRun("config", "versions", "-o", "json")), &list); err != nil {
		d.t.Fatal(err)
	}
	for i, v := range list.Versions {
		if v.Current != (i == 0) {
			d.t.Errorf("version %d is current: %t", v.Version, v.Current)
		}
	}
	for _, n := range list.Nodes {
		if n.Node == node {
			return n.Version, n.Trouble
		}
	}
	return 0, "unknown"
}

// TestClusterConfiguration has two gateways with other labels share their files by PostgreSQL, while clients call them.
func TestClusterConfiguration(t *testing.T) {
	server := testdb.Postgres(t, testdb.Options{})
	db := server.New(t)
	a, b := newDemo(t), newDemo(t)
	for _, d := range []*demoFolder{a, b} {
		d.write("database.secret", db.Password)
		name, labels := "gw1", "eu, test"
		if d == b {
			name, labels = "gw2", "us"
		}
		d.inCluster(name, labels, fmt.Sprintf(`{url: "%s", password: "${file:database.secret}"}`, db.URL), a)
	}
	a.edit("sallyport.yaml", "\nkeyManagers:\n", "\nkeyManagers:\n  - {name: second, type: default, issuer: second, jwks: jwks.json}\n")
	a.mustRun("config", "key")
	b.write("secrets/cluster.key", a.read("secrets/cluster.key"))
	version := 0
	expect := func(want int, words string, args ...string) {
		t.Helper()
		code, stdout, stderr := a.run(args...)
		if code != want || !strings.Contains(stdout+stderr, words) {
			t.Errorf("sallyport %s: exit code %d, want %d with %q\n%s%s", strings.Join(args, " "), code, want, words, stdout, stderr)
		}
	}
	push := func(args ...string) {
		t.Helper()
		version++
		expect(0, fmt.Sprintf("version %d: ", version), append([]string{"config"}, args...)...)
	}
	expect(1, "the store has no configuration yet", "serve")
	expect(0, "the store has no configuration yet", "config", "versions")
	push("push", "source")

	var backend atomic.Int64
	a.serveBackend(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { backend.Add(1) }))
	p, q := a.serveAlone(), b.serveAlone()
	var answers atomic.Int64
	stop, all := make(chan struct{}), sync.WaitGroup{}
	for i, d := range []*demoFolder{a, a, b, b} {
		c := d.client("", dialects[i%2+2])
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := c.call("/hello/1.0.0/x")
				if err != nil || r.status != http.StatusOK {
					t.Errorf("a call is lost: %d, %v", r.status, err)
					return
				}
				answers.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	status := func(d *demoFolder, path string) int { return d.client("", dialects[2]).get(t, path).status }
	both := func(version int) {
		t.Helper()
		eventually(t, fmt.Sprintf("both gateways have version %d in force", version), func() bool {
			return a.serves("gw1", version) && a.serves("gw2", version)
		})
	}
	both(1)

	apis := a.read("source/apis.yaml")
	keyStore, serial := a.keyStoreFile(a.password("gateway"))
	a.write("source/stores/gateway.jks", keyStore)
	a.write("source/apis.yaml", apis+a.api("extra", "security: [none]")+a.api("us-only", "labels: [us], listeners: [nowhere], security: [none]"))
	expect(0, "version 2: ", "config", "push", "source") // gw1 does not look for another's listener
	version++
	eventually(t, "gw1 has version 2 in force", func() bool { return a.serves("gw1", 2) })
	eventually(t, "gw2 says why not", func() bool {
		v, trouble := a.inForce("gw2")
		return v == 1 && strings.Contains(trouble, `there is no listener "nowhere"`)
	})
	a.write("source/apis.yaml", apis+a.api("extra", "security: [none]")+a.api("us-only", "labels: [us], security: [none]"))
	push("push", "source")
	both(3)
	for path, want := range map[string][2]int{"/extra/1.0.0/x": {200, 200}, "/us-only/1.0.0/x": {404, 200}} {
		if got := [2]int{status(a, path), status(b, path)}; got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	for _, d := range []*demoFolder{a, b} {
		c := d.client("", dialects[2])
		res, err := c.http.Get(fmt.Sprintf("https://localhost:%d/hello/1.0.0/x", c.port))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.TLS.PeerCertificates[0].SerialNumber; got.Cmp(serial) != 0 {
			t.Errorf("the certificate %x is shown, want %x", got, serial)
		}
		answers.Add(1)
	}
	answers.Add(3) // of status
	expect(1, "us-only:1.0.0 is not served here, and its calls are answered 404: its labels (us, at cluster/apis.yaml:",
		"explain", "--api", "us-only:1.0.0")
	expect(0, "Not served here, since the labels of this gateway are eu, test:\n  us-only:1.0.0  us\n", "validate")
	expect(0, "registered gold", "cert", "add", "--api", "us-only:1.0.0", "--alias", "gold", "--tier", "Gold", "clients/gold.crt")
	if out := a.mustRun("validate"); strings.Contains(out, "us-only:1.0.0 (") {
		t.Errorf("a registration for another gateway's API is a warning:\n%s", out)
	}

	for file, bad := range map[string][2]string{
		"apis.yaml":            {"security: [none]", "security: [nothing]"},
		"listenerprofiles.xml": {"optional</SSLVerifyClient>", "perhaps</SSLVerifyClient>"},
		"stores/gateway.jks":   {"\xfe\xed\xfe\xed", "\xfe\xed\xfe\xee"},
	} {
		good := a.read("source/" + file)
		a.edit("source/"+file, bad[0], bad[1])
		expect(2, "source/"+file, "config", "push", "source")
		if file != "stores/gateway.jks" {
			expect(2, "source/"+file+":", "config", "push", "source")
		}
		a.write("source/"+file, good)
	}

	// What is good on one and bad on the other: only the first has that key manager.
	a.edit("source/apis.yaml", "name: extra,", "name: another,")
	a.write("source/apis.yaml", a.read("source/apis.yaml")+a.api("tokens", "security: [oauth2], keyManagers: [second]"))
	push("push", "source")
	eventually(t, "gw1 has it in force", func() bool { return a.serves("gw1", 4) })
	eventually(t, "gw2 says why not", func() bool {
		v, trouble := a.inForce("gw2")
		return v == 3 && strings.Contains(trouble, `there is no key manager "second"`)
	})
	if status(b, "/extra/1.0.0/x") != 200 {
		t.Error("what was in force on gw2 is not any more")
	}
	answers.Add(1)
	push("rollback")
	both(5)

	// Somebody who may write to the store, and lacks the key.
	server.Exec(t, db.Name, `INSERT INTO SALLYPORT_CONFIG SELECT 6, CREATED_AT, CREATED_BY, DIGEST, KEY_ID, 0 FROM SALLYPORT_CONFIG WHERE VERSION = 4;
		INSERT INTO SALLYPORT_CONFIG_FILE SELECT 6, PATH, CONTENT FROM SALLYPORT_CONFIG_FILE WHERE VERSION = 4`)
	version++
	for _, node := range []string{"gw1", "gw2"} {
		eventually(t, node+" refuses it", func() bool {
			v, trouble := a.inForce(node)
			return v == 5 && strings.Contains(trouble, "version 6 of the configuration: its digest does not fit its files")
		})
	}
	eventually(t, "a metric says so", func() bool {
		return p.metric(`sallyport_reload_good{what="configuration in the store"}`) == "0"
	})
	push("rollback", "1")
	both(7)
	expect(1, "the store has no version 99", "config", "rollback", "99")

	// A new key: first where it decrypts, then where it encrypts.
	a.mustRun("config", "key", "new.key")
	keys := a.read("new.key") + a.read("secrets/cluster.key")
	for _, d := range []*demoFolder{a, b} {
		d.swap("secrets/cluster.key", keys)
	}
	push("rekey")
	both(8)
	for _, d := range []*demoFolder{a, b} {
		d.swap("secrets/cluster.key", a.read("new.key"))
	}
	expect(2, "which keyFile", "config", "rollback") // its key is gone
	push("push", "source")
	eventually(t, "gw1 has the last version in force", func() bool { return a.serves("gw1", 9) })

	close(stop)
	all.Wait()
	if backend.Load() != answers.Load() || answers.Load() < 100 {
		t.Errorf("the backend had %d calls, of which %d were answered", backend.Load(), answers.Load())
	}
	t.Logf("%d calls", answers.Load())
	p.stop()
	q.stop()
}

// TestPushedKeysAreEncrypted looks into the database for what was pushed.
func TestPushedKeysAreEncrypted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	d := newDemo(t)
	d.inCluster("gw1", "eu", "sqlite:cluster.db", d)
	d.write("source/clients.pem", d.read("clients/gold.crt")+d.read("clients/gold.key"))
	code, _, stderr := d.run("config", "push", "source")
	if code != 2 || !strings.Contains(stderr, "secrets/cluster.key: no such file") {
		t.Errorf("without its key: exit code %d, %s", code, stderr)
	}
	with := d.read("sallyport.yaml")
	d.edit("sallyport.yaml", ", keyFile: secrets/cluster.key", "")
	code, _, stderr = d.run("config", "push", "source")
	if code != 2 || !strings.Contains(stderr, "it may hold a secret") || !strings.Contains(stderr, "sallyport config key") {
		t.Errorf("without a key: exit code %d, %s", code, stderr)
	}
	d.swap("sallyport.yaml", with)
	d.mustRun("config", "key")
	if info, err := os.Stat(d.path("secrets/cluster.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info, err)
	}
	if err := os.Chmod(d.path("secrets/cluster.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := d.run("config", "push", "source"); code != 2 || !strings.Contains(stderr, "chmod 600") {
		t.Errorf("a key that others may read: exit code %d, %s", code, stderr)
	}
	if err := os.Chmod(d.path("secrets/cluster.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.mustRun("config", "push", "source")
	d.mustRun("config", "push", "source")

	var database []byte
	files, err := filepath.Glob(d.path("cluster.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		database = append(database, data...)
	}
	if !bytes.Contains(database, []byte("age-encryption.org/v1")) || !bytes.Contains(database, []byte("clients.pem")) {
		t.Error("the database does not hold what was pushed")
	}
	lines := strings.Split(d.read("clients/gold.key"), "\n")
	secrets := []string{lines[1], string(d.block("clients/gold.key"))[:32], d.read("source/secrets/gateway.password"), "PRIVATE KEY", "AGE-SECRET-KEY"}
	jks := d.read("stores/gateway.jks")
	for at := 0; at+48 < len(jks); at += 48 {
		secrets = append(secrets, jks[at:at+48])
	}
	for i, secret := range secrets {
		if bytes.Contains(database, []byte(strings.TrimSpace(secret))) {
			t.Errorf("the database holds secret %d in plain", i)
		}
	}
	temporary, err := filepath.Glob(filepath.Join(os.TempDir(), "sallyport-check-*"))
	if err != nil || len(temporary) > 0 {
		t.Errorf("checks have left %q, %v", temporary, err)
	}
}

// TestStartWithABadVersion starts a gateway for which the current version is bad, as others don't find it.
func TestStartWithABadVersion(t *testing.T) {
	d := newDemo(t)
	d.inCluster("gw1", "eu", "sqlite:cluster.db", d)
	d.mustRun("config", "key")
	d.mustRun("config", "push", "source")
	d.serveBackend(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	p := d.serveAlone()
	eventually(t, "version 1 is in force", func() bool { return d.serves("gw1", 1) })
	p.stop()

	other := strings.Replace(d.read("sallyport.yaml"), "\nkeyManagers:\n", "\nkeyManagers:\n  - {name: second, type: default, issuer: second, jwks: jwks.json}\n", 1)
	d.write("other.yaml", other)
	d.write("source/apis.yaml", d.read("source/apis.yaml")+d.api("tokens", "security: [oauth2], keyManagers: [second]"))
	for range 2 {
		d.mustRun("config", "push", "source", "-c", "other.yaml")
	}
	for range 2 {
		p = start(t, d.Demo, "serve", "-c", d.ConfigFile)
		eventually(t, "the gateway is ready", func() bool { return strings.HasPrefix(p.ready(), "ready") })
		if r := d.client("", dialects[2]).get(t, "/hello/1.0.0/x"); r.status != http.StatusOK {
			t.Errorf("a call is answered %d", r.status)
		}
		eventually(t, "the store learns why", func() bool {
			version, trouble := d.inForce("gw1")
			return version == 1 && strings.Contains(trouble, `there is no key manager "second"`)
		})
		if !p.stderr.contains("the last one that was serves on") {
			t.Error("the log does not say so")
		}
		p.signal(syscall.SIGKILL)
		p.wait()
	}
	if err := os.RemoveAll(d.path("cluster.versions")); err != nil { // as on a new node
		t.Fatal(err)
	}
	if code, _, stderr := d.run("serve"); code != 2 || !strings.Contains(stderr, "there is no key manager") {
		t.Errorf("without a version that was in force: exit code %d\n%s", code, stderr)
	}
	d.mustRun("config", "rollback", "1", "-c", "other.yaml")
	p = d.serveAlone()
	eventually(t, "version 4 is in force", func() bool { return d.serves("gw1", 4) })
	p.stop()
}

// TestKilledWhileTakingUp kills a gateway at random moments around those at which it takes up new versions. What is in the
// folder is always whole, and the next gateway starts with it.
func TestKilledWhileTakingUp(t *testing.T) {
	d := newDemo(t)
	d.inCluster("gw1", "eu", "sqlite:cluster.db", d)
	d.mustRun("config", "key")
	d.mustRun("config", "push", "source")
	folder := fileset.Folder(d.path("cluster"))
	apis := d.read("source/apis.yaml")
	whole := 0
	for round := range scaled(4, 30) {
		p := start(t, d.Demo, "serve", "-c", d.ConfigFile)
		if round%2 == 0 {
			p.becomesReady()
		}
		for i := range 30 {
			d.write(fmt.Sprintf("source/extra%d.yaml", i), fmt.Sprintf("# %d\n", round)+strings.Repeat("#\n", 1000*rand.IntN(20)))
		}
		d.write("source/apis.yaml", fmt.Sprintf("# round %d\n", round)+apis)
		d.mustRun("config", "push", "source")
		eventually(t, "the version begins to be written", func() bool {
			begun, _ := filepath.Glob(d.path(fmt.Sprintf("cluster.versions/%d-*", round+2)))
			return len(begun) > 0
		})
		time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		p.wait()
		held, err := folder.Holds()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if held.Number == round+2 {
			whole++
		}
	}
	t.Logf("%d of %d were killed when the new version was there", whole, scaled(4, 30))
	p := d.serveAlone()
	eventually(t, "the last version is in force", func() bool { return d.serves("gw1", scaled(4, 30)+1) })
	if entries, err := os.ReadDir(d.path("cluster.versions")); err != nil || len(entries) > 5 {
		t.Errorf("%d entries are left, %v", len(entries), err)
	}
	p.stop()
}
