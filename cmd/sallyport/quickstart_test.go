package main_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/internal/quickstart"
)

// TestQuickstart follows a new user: it starts the program in an empty folder, types what it prints, stops and restarts
// it, and serves the folder without the demo backend.
func TestQuickstart(t *testing.T) {
	needCurl(t)
	offset := freeOffset(t)
	ports, err := quickstart.PortsAt(offset)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	args := []string{"quickstart", "--port-offset", strconv.Itoa(offset)}
	dir := filepath.Join(home, quickstart.DefaultDir)
	demo := &quickstart.Demo{Dir: dir, ConfigFile: filepath.Join(dir, "sallyport.yaml"), Ports: ports}

	first := startIn(t, home, demo, args...)
	first.waitFor("sallyport: ready\n")
	guide := before(first.stdout.String(), "sallyport: ready\n")
	if !strings.Contains(guide, "Quickstart in sallyport-quickstart (made).") {
		t.Errorf("the guide of a new folder:\n%s", guide)
	}
	paste(t, home, guide, "")
	first.stop()

	key, err := os.ReadFile(filepath.Join(demo.Dir, "clients", "gold.key"))
	if err != nil {
		t.Fatal(err)
	}
	second := startIn(t, home, demo, args...)
	second.waitFor("sallyport: ready\n")
	guide = before(second.stdout.String(), "sallyport: ready\n")
	if !strings.Contains(guide, "used again") {
		t.Errorf("the guide of a folder that was there:\n%s", guide)
	}
	if again, err := os.ReadFile(filepath.Join(demo.Dir, "clients", "gold.key")); err != nil || string(again) != string(key) {
		t.Errorf("gold has another key than before (%v)", err)
	}
	// The guide says that each command works like this, too.
	paste(t, home, guide, " --http1.1 --tls-max 1.2")
	second.stop()

	code, out, _ := run(t, home, "validate", "-c", demo.ConfigFile)
	_, open, _ := strings.Cut(out, "Needs no credential:\n")
	open, _, _ = strings.Cut(open, "\n\n")
	if code != 0 || !strings.HasPrefix(open, "  hello:1.0.0 ") || strings.Count(open, ":1.0.0") != 1 {
		t.Errorf("validate: exit code %d\n%s", code, out)
	}

	third := startIn(t, home, demo, "serve", "-c", demo.ConfigFile)
	d := &demoFolder{Demo: demo, t: t, offset: offset}
	eventually(t, "serve is ready", func() bool { return third.ready() != "" })
	for _, how := range dialects {
		r := d.client("gold", how).get(t, "/orders/42")
		if code := r.code(t); r.status != http.StatusBadGateway || code != "101503" {
			t.Errorf("%s without a backend: %d, code %s", how, r.status, code)
		}
	}
	if r := d.client("rogue", dialect{tls.VersionTLS13, true}).get(t, "/orders/42"); r.status != http.StatusUnauthorized {
		t.Errorf("rogue without a backend: %d", r.status)
	}
	third.stop()
}

// paste types what the guide says into a shell that starts in home: the way to the folder, and then each command, with
// more arguments for curl. The last status of each must be the one that the guide names.
func paste(t *testing.T, home, guide, more string) {
	t.Helper()
	enter := toType.FindStringSubmatch(guide)
	commands := toPaste.FindAllStringSubmatch(guide, -1)
	if enter == nil || len(commands) != 12 {
		t.Fatalf("the guide has %q and %d commands, want the way to the folder and 12:\n%s", enter, len(commands), guide)
	}
	for _, c := range commands {
		want, shows, line := c[1], c[2], c[3]
		typed := enter[1] + "\n" + strings.Replace(line, "curl", "curl"+more, 1)
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", typed)
		cmd.Dir = home
		out, err := cmd.Output()
		statuses := statusLine.FindAllSubmatch(out, -1)
		if err != nil || len(statuses) == 0 {
			t.Errorf("%s: %s: %v\n%s", shows, line, err, out)
			continue
		}
		if got := string(statuses[len(statuses)-1][1]); got != want {
			t.Errorf("%s: %s: status %s, want %s\n%s", shows, line, got, want, out)
		}
	}
}

var (
	toType  = regexp.MustCompile(`(?m)^  (cd .+)$`)
	toPaste = regexp.MustCompile(`(?m)^# ([0-9]{3})  (.+)\n(curl .+)$`)
)

var statusLine = regexp.MustCompile(`(?m)^HTTP/[0-9.]+ ([0-9]{3})`)

func before(s, sep string) string {
	s, _, _ = strings.Cut(s, sep)
	return s
}

// needCurl skips the test without curl; where nothing may be skipped it fails.
func needCurl(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("curl is missing")
	}
	t.Skip("curl is missing: the commands of the quickstart are not tried")
}

// TestQuickstartTwice: a folder is for one quickstart. Another one on the same ports is told which others are free.
func TestQuickstartTwice(t *testing.T) {
	d := newDemo(t)
	first := d.quickstart()
	taken := fmt.Sprint(d.offset)
	code, _, stderr := d.run("quickstart", "--dir", d.Dir, "--port-offset", taken)
	if code != 2 || !strings.Contains(stderr, "a quickstart runs in "+d.Dir+" already") {
		t.Errorf("in the same folder: exit code %d\n%s", code, stderr)
	}
	code, _, stderr = d.run("quickstart", "--dir", filepath.Join(t.TempDir(), "other"), "--port-offset", taken)
	advice := regexp.MustCompile(`something else has this port: stop it, or try other ports with --port-offset (-?\d+)\n`)
	m := advice.FindStringSubmatch(stderr)
	if code != 2 || m == nil || m[1] == taken {
		t.Errorf("on the same ports: exit code %d\n%s", code, stderr)
	}
	if strings.Contains(stderr, "goroutine") {
		t.Errorf("it panicked:\n%s", stderr)
	}
	first.stop()
}
