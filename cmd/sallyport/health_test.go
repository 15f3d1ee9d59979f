package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestHealth asks stand-ins for a gateway: it is ready only if it says so itself.
func TestHealth(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		code   int
		says   string
	}{
		"ready":             {200, "ready\n", exitDone, "ready"},
		"ready, with news":  {200, "ready\nstore: the last change was refused\n", exitDone, "ready"},
		"not ready":         {503, "not ready\n", exitFailed, "not ready"},
		"another program":   {200, "It works!\n", exitFailed, "200 OK: this is not the answer of a gateway"},
		"says nothing":      {200, "", exitFailed, "200 OK: this is not the answer of a gateway"},
		"a gateway's fault": {500, "ready\n", exitFailed, "500 Internal Server Error: this is not the answer of a gateway"},
		"sends us away":     {302, "ready\n", exitFailed, "302 Found: this is not the answer of a gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			address := standIn(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "/healthz")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			})
			file := statusFile(t, address)
			code, out := runHealth(t, "-c", file)
			if want := "http://" + address + "/readyz: " + c.says + "\n"; code != c.code || out != want {
				t.Errorf("exit code %d, %q; want %d, %q", code, out, c.code, want)
			}
			code, out = runHealth(t, "-c", file, "-o", "json")
			var h health
			if err := json.Unmarshal([]byte(out), &h); err != nil || code != c.code || h.Ready != (code == exitDone) || h.Says[0] != c.says {
				t.Errorf("exit code %d, %v: %s", code, err, out)
			}
			if lines := strings.Split(strings.TrimSpace(c.body), "\n"); h.Ready && !slices.Equal(h.Says, lines) {
				t.Errorf("the answer was %q, and JSON says %q", lines, h.Says)
			}
		})
	}
}

// TestHealthOfAllAddresses: a listener on every address is asked on this machine's own.
func TestHealthOfAllAddresses(t *testing.T) {
	for _, host := range []string{"0.0.0.0", "[::]", ""} {
		_, port, err := net.SplitHostPort(standIn(t, host+":0", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ready\n") }))
		if err != nil {
			t.Fatal(err)
		}
		if code, out := runHealth(t, "-c", statusFile(t, host+":"+port)); code != exitDone {
			t.Errorf("%q: exit code %d: %s", host, code, out)
		}
	}
}

// TestHealthWaitsForNobody: a gateway that doesn't answer isn't ready.
func TestHealthWaitsForNobody(t *testing.T) {
	asked := make(chan struct{})
	address := standIn(t, "127.0.0.1:0", func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		<-asked
		cancel()
	}()
	if h := askHealth(ctx, address); h.Ready || !strings.HasPrefix(h.Says[0], "no answer: ") {
		t.Errorf("%+v", h)
	}
}

// standIn serves every path on address, and returns the one that it got.
func standIn(t *testing.T, address string, serve http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip(err) // there may be no IPv6
	}
	server := httptest.NewUnstartedServer(serve)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return listener.Addr().String()
}

// statusFile writes a configuration that serve would refuse, with an address under status.
func statusFile(t *testing.T, address string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sallyport.yaml")
	text := fmt.Sprintf("listeners: [{name: https, keyStore: {location: nowhere.jks}}]\nnonsense: true\nstatus: {address: %q}\n", address)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func runHealth(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(append([]string{"health"}, args...), &stdout, &stderr)
	if stderr.Len() > 0 {
		t.Errorf("standard error: %s", &stderr)
	}
	return code, stdout.String()
}
