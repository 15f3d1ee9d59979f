package trust_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/trust"
)

// A specimen is what a client shows, what the trust store holds, and how each judge finds it.
type specimen struct {
	name  string
	chain [][]byte // as DER: the client's certificate, and what comes with it
	store [][]byte // likewise

	ours          trust.Cause // "": good
	openssl, java bool        // good
	why           string      // not all three say the same
}

// TestJudgesLikeOthers: OpenSSL and Java are the oracles. Whatever they and Judge find differently has its reason here.
func TestJudgesLikeOthers(t *testing.T) {
	openssl, java := lookTool(t, "openssl"), lookTool(t, "java")
	base := t.TempDir()
	all := specimens(t)
	var folders []string
	for n, s := range all {
		folder := filepath.Join(base, strconv.Itoa(n))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, ders := range map[string][][]byte{"chain.pem": s.chain, "store.pem": s.store} {
			if err := os.WriteFile(filepath.Join(folder, name), pemOf(ders), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		folders = append(folders, folder)
	}
	listed := startJava(t, java, folders)
	var numbers []int
	for _, folder := range folders {
		numbers = append(numbers, verify(t, openssl, folder))
	}
	byJava, differing := listed(), 0
	for n, s := range all {
		ours, number := judge(t, s), numbers[n]
		t.Logf("%s: here %q, OpenSSL %d, Java %s", s.name, ours, number, byJava[n])
		if ours != s.ours {
			t.Errorf("%s: %q, want %q", s.name, ours, s.ours)
		}
		if (number == 0) != s.openssl {
			t.Errorf("%s: good for OpenSSL: %t", s.name, !s.openssl)
		}
		if (byJava[n] == "good") != s.java {
			t.Errorf("%s: good for Java: %t", s.name, !s.java)
		}
		alike := s.openssl == (s.ours == "") && s.java == s.openssl
		if alike != (s.why == "") {
			t.Errorf("%s: a difference has a reason, and nothing else has: %q", s.name, s.why)
		}
		if !alike {
			differing++
		}
	}
	t.Logf("%d specimens, %d of which are judged differently", len(all), differing)
}

// judge is Judge of what the handshake hands on.
func judge(t *testing.T, s specimen) trust.Cause {
	t.Helper()
	anchors, err := trust.Open(pemOf(s.store), keystore.Ref{Location: "store.pem", Type: "PEM"})
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	var chain []*x509.Certificate
	for _, der := range s.chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return trust.CauseOf(trust.Unreadable(err)) // so crypto/tls ends the handshake
		}
		chain = append(chain, cert)
	}
	_, err = judgeBy(chain, anchors, false, trust.None, time.Now())
	if err != nil && trust.CauseOf(err) == "" {
		t.Errorf("%s: an error without a cause: %v", s.name, err)
	}
	return trust.CauseOf(err)
}

var verifyError = regexp.MustCompile(`(?m)^error (\d+) at \d+ depth lookup`)

// verify returns the number of the first error of openssl verify, or 0. It gets what a server has: the chain as it was
// shown, and a trust store.
func verify(t *testing.T, openssl, folder string) int {
	t.Helper()
	chain := filepath.Join(folder, "chain.pem")
	cmd := exec.CommandContext(t.Context(), openssl, "verify", "-purpose", "sslclient", "-CAfile", filepath.Join(folder, "store.pem"), "-untrusted", chain, chain)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return 0
	}
	found := verifyError.FindSubmatch(out)
	if found == nil {
		t.Errorf("openssl: %v\n%s", err, out)
		return -1
	}
	number, _ := strconv.Atoi(string(found[1]))
	return number
}

// startJava starts Java once for all folders. The function waits for its verdicts.
func startJava(t *testing.T, java string, folders []string) func() []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), java, append([]string{
		"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Duser.language=en", "testdata/Judge.java",
	}, folders...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		t.Helper()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("java: %v\n%s", err, &errs)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != len(folders) {
			t.Fatalf("Java judges %d of %d", len(lines), len(folders))
		}
		return lines
	}
}

// lookTool finds a tool, or skips the test; in CI the test fails.
func lookTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%v: scripts/need installs it", err)
	}
	if err != nil {
		t.Skipf("%v: scripts/need installs it", err)
	}
	return path
}

func pemOf(ders [][]byte) []byte {
	var out bytes.Buffer
	for _, der := range ders {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Buffer takes all
	}
	return out.Bytes()
}
