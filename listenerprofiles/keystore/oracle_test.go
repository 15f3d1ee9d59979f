package keystore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// A java is an installed JDK.
type java struct {
	program string
	version int
}

// javas returns the JDKs of this machine, the newest last.
func javas(t *testing.T) []java {
	t.Helper()
	programs, _ := filepath.Glob("/usr/lib/jvm/*/bin/javac") // with it, java runs a source file
	if program, err := exec.LookPath("javac"); err == nil {
		programs = append(programs, program)
	}
	var found []java
	for _, program := range programs {
		program, err := filepath.EvalSymlinks(program)
		if err != nil {
			continue
		}
		home := filepath.Dir(filepath.Dir(program))
		release, _ := os.ReadFile(filepath.Join(home, "release"))
		version := regexp.MustCompile(`JAVA_VERSION="(\d+)`).FindSubmatch(release)
		j := java{program: filepath.Join(home, "bin", "java")}
		if version == nil {
			continue
		}
		j.version, _ = strconv.Atoi(string(version[1]))
		if j.version >= 17 && !slices.Contains(found, j) {
			found = append(found, j)
		}
	}
	if len(found) == 0 {
		lacking(t, errors.New("no JDK from 17 up"))
	}
	slices.SortFunc(found, func(a, b java) int { return a.version - b.version })
	return found
}

// lacking skips the test for want of a tool, or fails it in CI.
func lacking(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%v: scripts/need installs it", err)
	}
	t.Skipf("%v: scripts/need installs it", err)
}

// bouncyCastle is where Debian has it.
const bouncyCastle = "/usr/share/java/bcprov.jar"

// run starts the helper program, which makes stores or lists them.
func (j java) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, j.program, append([]string{
		"-Xmx256m", "-XX:+UseSerialGC", "-Duser.language=en", "-cp", bouncyCastle,
		"--add-exports", "java.base/sun.security.tools.keytool=ALL-UNNAMED", "testdata/Oracle.java",
	}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("java %d: %w\n%s", j.version, err, &errs)
	}
	return out.Bytes(), nil
}

// A madeStore is a store, and how it differs from what Java finds.
type madeStore struct {
	file, password, keyPassword string
	plainKey                    bool // its key is not sealed: Java lists none, and it is served here
	correct                     bool // Java takes its password for another
	since                       int  // the first Java that opens it
}

// a listing is what is in a store: whether it opens, and lines of alias, kind and digests of the chain.
type listing struct {
	opens   bool
	why     string
	entries []string
	keys    map[string]string // by alias, what becomes of its key
}

// Java is the oracle: what it finds in stores by all their writers is what is found here.
func TestStoresLikeJava(t *testing.T) {
	jdks := javas(t)
	if _, err := os.Stat(bouncyCastle); err != nil {
		lacking(t, err)
	}
	newest := jdks[len(jdks)-1]
	dir := t.TempDir()
	in := makeInputs(t, filepath.Join(dir, "in"))

	var manifests []string
	makers := make(chan error, len(jdks))
	for _, j := range jdks {
		out := filepath.Join(dir, fmt.Sprint("java", j.version))
		if err := os.Mkdir(out, 0o700); err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, filepath.Join(out, "manifest"))
		if j == newest {
			continue // makes its own when it lists
		}
		go func() {
			_, err := j.run(t.Context(), "make", in.dir, out)
			makers <- err
		}()
	}
	w := &workshop{t: t, in: in, dir: filepath.Join(dir, "others")}
	w.makeAll()
	manifests = append(manifests, w.manifest())
	for range len(jdks) - 1 {
		if err := <-makers; err != nil {
			t.Fatal(err)
		}
	}
	out, err := newest.run(t.Context(), append([]string{
		"make", in.dir, filepath.Join(dir, fmt.Sprint("java", newest.version)), "list",
	}, manifests...)...)
	if err != nil {
		t.Fatal(err)
	}
	want := parseListings(t, out)
	stores := w.stores
	for _, manifest := range manifests[:len(jdks)] {
		stores = append(stores, readManifest(t, manifest)...)
	}
	refused := 0
	for _, store := range stores {
		java, ok := want[store.file]
		if !ok {
			t.Errorf("Java tells nothing of %s", store.file)
			continue
		}
		if !java.opens {
			refused++
		}
		if store.since <= newest.version && !store.correct {
			compare(t, store, java)
		}
	}
	for _, name := range []string{"wso2carbon.p12", "wso2carbon.jks"} {
		checkWSO2Carbon(t, filepath.Join(filepath.Dir(manifests[0]), name))
	}
	t.Logf("%d stores, %d of them refused by Java %d", len(stores), refused, newest.version)
	if len(stores) < 100 || refused < 10 {
		t.Error("too few to mean anything")
	}
}

// checkWSO2Carbon looks into a store like the one that WSO2 ships: a key and 141 trusted certificates, one of them with
// a negative serial number.
func checkWSO2Carbon(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(data, Ref{Location: file, Password: "wso2carbon"})
	if err != nil {
		t.Error(err)
		return
	}
	if pairs, err := s.KeyPairs("wso2carbon", time.Now()); err != nil || len(pairs) != 1 {
		t.Errorf("%s: %d keys, %v", file, len(pairs), err)
	}
	if certs, err := s.Trusted(); err != nil || len(certs) != 140 {
		t.Errorf("%s: %d trusted certificates, %v", file, len(certs), err)
	}
	if skipped := s.Skipped(); len(skipped) != 1 || skipped[0].Alias != "negative" {
		t.Errorf("%s: skipped %v", file, skipped)
	}
}

func compare(t *testing.T, store madeStore, java listing) {
	t.Helper()
	name := filepath.Join(filepath.Base(filepath.Dir(store.file)), filepath.Base(store.file))
	data, err := os.ReadFile(store.file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(data, Ref{Location: name, Password: store.password, KeyPassword: store.keyPassword})
	if (err == nil) != java.opens {
		t.Errorf("%s: opens for Java: %v (%s), here: %v", name, java.opens, java.why, err)
		return
	}
	if err != nil {
		return
	}
	var got []string
	for _, e := range s.Entries() {
		var chain []string
		for _, der := range e.Chain {
			chain = append(chain, fmt.Sprintf("%x", sha256.Sum256(der))[:16])
		}
		if e.Kind == PrivateKey && store.plainKey {
			continue
		}
		got = append(got, strings.Join([]string{e.Alias, string(e.Kind), strings.Join(chain, ",")}, "\t"))
		if e.Kind != PrivateKey || e.Err != nil || len(e.Chain) == 0 {
			continue
		}
		pairs, err := s.KeyPairs(Aliases(e.Alias), time.Now())
		switch opens := java.keys[e.Alias] == "opens"; {
		case opens == (err == nil):
		case opens && strings.Contains(err.Error(), "can't be used here"):
		default:
			t.Errorf("%s: key %q: %s for Java, here: %v, %v", name, e.Alias, java.keys[e.Alias], pairs, err)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, java.entries) {
		t.Errorf("%s: for Java\n%s\nhere\n%s", name, strings.Join(java.entries, "\n"), strings.Join(got, "\n"))
	}
}

func parseListings(t *testing.T, out []byte) map[string]listing {
	t.Helper()
	all := map[string]listing{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f := strings.Split(lines.Text(), "\t")
		switch f[0] {
		case "store":
			all[f[1]] = listing{opens: f[2] == "yes", why: f[3], keys: map[string]string{}}
		case "entry":
			l := all[f[1]]
			l.entries = append(l.entries, strings.Join(f[2:5], "\t"))
			l.keys[f[2]] = f[5]
			slices.Sort(l.entries)
			all[f[1]] = l
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func readManifest(t *testing.T, file string) (stores []madeStore) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		stores = append(stores, madeStore{file: f[0], password: f[1], keyPassword: f[2]})
	}
	return stores
}

// inputs are the keys and certificates that stores are made of, in memory and in a folder.
type inputs struct {
	dir               string
	ec, rsa, ed       *testpki.Identity
	cas               []*testpki.Identity
	negative          []byte
	openssl, certutil string
	pk12util          string
}

func makeInputs(t *testing.T, dir string) *inputs {
	t.Helper()
	in := &inputs{dir: dir}
	for program, path := range map[string]*string{"openssl": &in.openssl, "certutil": &in.certutil, "pk12util": &in.pk12util} {
		var err error
		if *path, err = exec.LookPath(program); err != nil {
			lacking(t, err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 141 {
		in.cas = append(in.cas, testpki.NewCA(t, fmt.Sprint("CA ", n)))
		write(fmt.Sprintf("ca%d.der", n), in.cas[n].Cert.Raw)
	}
	in.negative = testpki.NewCA(t, "negative").NegativeSerial()
	write("negative.der", in.negative)
	root := testpki.NewCA(t, "root")
	issuing := root.IssueCA("middle").IssueCA("issuing")
	in.ec = issuing.IssueServer("gateway.test")
	in.rsa = issuing.Issue(testpki.Leaf{CommonName: "rsa.test", Key: testpki.NewRSA(t, 2048)})
	in.ed = issuing.Issue(testpki.Leaf{CommonName: "ed.test", Key: testpki.NewEd25519(t)})
	for name, id := range map[string]*testpki.Identity{"ec": in.ec, "rsa": in.rsa, "ed": in.ed} {
		write(name+".p8", pemBody(t, id.KeyPEM()))
		write(name+".pem", id.PEM())
		write(name+".key.pem", id.KeyPEM())
		write(name+".crt.pem", id.CertPEM())
		chain := append(id.Chain(), root.Cert)
		write(name+".above.pem", testpki.PEM(chain[1:]...))
		for n, cert := range chain {
			write(fmt.Sprintf("%s.%d.der", name, n), cert.Raw)
		}
	}
	write("ca0.crt.pem", in.cas[0].CertPEM())
	for name, args := range map[string][]string{
		"brainpool": {"ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"},
		"ed448":     {"ed448"},
		"p224":      {"ec", "-pkeyopt", "ec_paramgen_curve:P-224"},
	} {
		openssl(t, in.openssl, append([]string{
			"req", "-x509", "-nodes", "-days", "36500", "-subj", "/CN=" + name,
			"-keyout", filepath.Join(dir, name+".key.pem"), "-out", filepath.Join(dir, name+".crt.pem"), "-newkey",
		}, args...)...)
		openssl(t, in.openssl, "x509", "-in", filepath.Join(dir, name+".crt.pem"), "-outform", "DER", "-out", filepath.Join(dir, name+".0.der"))
	}
	return in
}
