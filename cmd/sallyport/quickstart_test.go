package main_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/internal/quickstart"
)

// TestQuickstart follows a new user: it starts the program in an empty folder, pastes every command that it prints, stops
// and restarts it, and serves the folder without the demo backend.
func TestQuickstart(t *testing.T) {
	needCurl(t)
	offset := freeOffset(t)
	home := t.TempDir()
	t.Chdir(home) // the commands are relative to where the program was started
	args := []string{"quickstart", "--port-offset", strconv.Itoa(offset)}

	demo := &quickstart.Demo{Dir: filepath.Join(home, quickstart.DefaultDir)}
	first := startIn(t, home, demo, args...)
	first.waitFor("sallyport: ready\n")
	made, err := quickstart.Make(t.Context(), quickstart.Options{PortOffset: offset}, nil)
	if err != nil {
		t.Fatal(err)
	}
	demo, first.demo = made, made
	guide := before(first.stdout.String(), "sallyport: ready\n")
	if !strings.Contains(guide, "Quickstart in sallyport-quickstart (made).") {
		t.Errorf("the guide of a new folder:\n%s", guide)
	}
	paste(t, made.Commands(), guide, "")
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
	paste(t, made.Commands(), guide, " --http1.1 --tls-max 1.2")
	second.stop()

	code, out, _ := run(t, home, "validate", "-c", made.ConfigFile)
	if _, open, found := strings.Cut(out, "Needs no credential:\n"); code != 0 || !found || strings.Fields(open)[0] != "hello:1.0.0" || strings.Count(open, ":1.0.0") != 1 {
		t.Errorf("validate: exit code %d\n%s", code, out)
	}

	third := startIn(t, home, demo, "serve", "-c", made.ConfigFile)
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

// paste runs the commands through a shell, with more arguments for curl, and compares the statuses.
func paste(t *testing.T, commands []quickstart.Command, guide, more string) {
	t.Helper()
	for _, c := range commands {
		if !strings.Contains(guide, c.Line+"\n") {
			t.Errorf("the guide lacks the line %s", c.Line)
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(c.Line, "curl", "curl -sS"+more, 1))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", c.Line, err, out)
			continue
		}
		var got []int
		for _, line := range statusLine.FindAllSubmatch(out, -1) {
			status, err := strconv.Atoi(string(line[1]))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, status)
		}
		if !slices.Equal(got, c.Status) {
			t.Errorf("%s: %s: status %v, want %v\n%s", c.Shows, c.Line, got, c.Status, out)
		}
	}
}

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

// TestQuickstartPortTaken: the error for a port in use names the flag that helps.
func TestQuickstartPortTaken(t *testing.T) {
	d := newDemo(t)
	first := d.quickstart()
	code, _, stderr := d.run("quickstart", "--dir", d.Dir, "--port-offset", fmt.Sprint(d.offset))
	if code != 2 || !strings.Contains(stderr, "--port-offset") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	if strings.Contains(stderr, "goroutine") {
		t.Errorf("it panicked:\n%s", stderr)
	}
	first.stop()
}
