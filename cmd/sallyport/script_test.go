package main_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport/internal/testpki"
)

var update = flag.Bool("update", false, "write what the program prints into the scripts that compare it")

// TestScripts runs testdata/script, which is also a manual by example. Each script starts in its own copy of a quickstart
// folder. Besides testscript's commands there are:
//
//	exits CODE COMMAND ARG...      runs a command that ends with that code, shows no secret of the folder, and ends no
//	                               message with ": invalid"
//	edit FILE OLD NEW              replaces the first OLD; \n stands for a new line
//	der FILE OUT                   turns a PEM certificate into DER
//	chain                          makes root, inter, leaf, revoked and other .crt, and root.crl and inter.crl
//	truststore OUT PASSWORD FILE...  makes a JKS trust store of any number of certificates; PASSWORD may be file:FILE
func TestScripts(t *testing.T) {
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Cd = filepath.Join(env.WorkDir, "demo")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return copyFolder(env.Cd, from)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "edit": edit, "der": der, "chain": chain, "truststore": truststore,
		},
		Condition: func(condition string) (bool, error) {
			if condition != "installed" {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			_, err := os.Stat("/etc/sallyport/sallyport.yaml")
			return err == nil, nil
		},
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	secrets, err := secretsOf(filepath.Join(ts.Getenv("WORK"), "demo"))
	ts.Check(err)
	said := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	for line := range strings.Lines(said) {
		if strings.HasSuffix(strings.TrimSpace(line), ": invalid") {
			ts.Fatalf("a message ends with a word that says nothing: %s", line)
		}
	}
	for name, secret := range secrets {
		if strings.Contains(said, secret) {
			ts.Fatalf("it shows what %s holds", name)
		}
	}
}

func edit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: edit FILE OLD NEW")
	}
	lines := strings.NewReplacer(`\n`, "\n")
	text, old, new := ts.ReadFile(args[0]), lines.Replace(args[1]), lines.Replace(args[2])
	if !strings.Contains(text, old) {
		ts.Fatalf("%s does not contain %q", args[0], old)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, old, new, 1)), 0o600))
}

// chain makes a small PKI: leaf.crt and revoked.crt are of an intermediate, which stands behind them.
func chain(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: chain")
	}
	root := testpki.NewCA(testpki.Panic, "Chain Root", signsLists)
	inter := root.IssueCA("Chain Inter", signsLists)
	acme := func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "acme.test", Path: "/pay"}} }
	leaf := inter.Issue(testpki.Leaf{CommonName: "leaf", Change: acme})
	revoked := inter.Issue(testpki.Leaf{CommonName: "revoked", Change: acme})
	for name, data := range map[string][]byte{
		"root.crt": root.CertPEM(), "inter.crt": inter.CertPEM(), "other.crt": inter.Issue(testpki.Leaf{CommonName: "other"}).CertPEM(),
		"leaf.crt": testpki.PEM(leaf.Cert, inter.Cert), "revoked.crt": testpki.PEM(revoked.Cert, inter.Cert),
		"root.crl":  listBy(testpki.Panic, root, 1, time.Now().Add(time.Hour)),
		"inter.crl": listBy(testpki.Panic, inter, 1, time.Now().Add(time.Hour), revoked.Cert),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o600))
	}
}

func der(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: der FILE OUT")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), certificateDER(ts, args[0]), 0o600))
}

func certificateDER(ts *testscript.TestScript, file string) []byte {
	block, _ := pem.Decode([]byte(ts.ReadFile(file)))
	if block == nil || block.Type != "CERTIFICATE" {
		ts.Fatalf("%s holds no certificate", file)
	}
	return block.Bytes
}

func truststore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: truststore OUT PASSWORD FILE...")
	}
	var certificates []*x509.Certificate
	for _, file := range args[2:] {
		certificate, err := x509.ParseCertificate(certificateDER(ts, file))
		ts.Check(err)
		certificates = append(certificates, certificate)
	}
	password := args[1]
	if file, ok := strings.CutPrefix(password, "file:"); ok {
		password = strings.TrimSpace(ts.ReadFile(file))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), testpki.TrustJKS(testpki.Panic, password, certificates...), 0o600))
}
