package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/bench/backend"
	"sallyport/bench/load"
	"sallyport/bench/pki"
)

// built is the folder with the sallyport program, built once.
var built string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "sallybench-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	built = folder
	if out, err := exec.Command("go", "build", "-o", folder, "sallyport/cmd/sallyport").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// locate finds the kind's program or skips the test.
func locate(t *testing.T, k Kind) Program {
	t.Helper()
	path := ""
	if k.Sallyport() {
		path = filepath.Join(built, "sallyport")
	}
	p, err := k.Locate(path)
	if err != nil {
		if os.Getenv("CI") == "true" && k.Name != caddy.Name { // which scripts/need does not install
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return p
}

func serveBackend(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- backend.New().Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// Every installed program accepts its configuration and answers the calls of all scenarios.
func TestTheRealProgramsServe(t *testing.T) {
	for _, k := range append(slices.Clone(Kinds), Baseline) {
		for _, accessLog := range []bool{false, true} {
			t.Run(k.Name+map[bool]string{true: " with access log"}[accessLog], func(t *testing.T) {
				p := locate(t, k)
				set, err := pki.Make(t.TempDir(), 2)
				if err != nil {
					t.Fatal(err)
				}
				addresses, err := Addresses(3)
				if err != nil {
					t.Fatal(err)
				}
				s := Site{
					Folder:    filepath.Join(t.TempDir(), k.Name),
					PKI:       set,
					Backend:   serveBackend(t),
					HTTPS:     addresses[0],
					HTTP:      addresses[1],
					Status:    addresses[2],
					Workers:   1,
					AccessLog: accessLog,
				}
				if err := p.Configure(s); err != nil {
					t.Fatal(err)
				}
				g, err := p.Start(context.Background(), s, nil)
				if err != nil {
					t.Fatal(err)
				}
				tokens, err := set.Issuers[1].Tokens(1)
				if err != nil {
					t.Fatal(err)
				}
				_, httpsPort, _ := net.SplitHostPort(s.HTTPS)
				_, httpPort, _ := net.SplitHostPort(s.HTTP)
				https := "https://localhost:" + httpsPort
				inHeader := load.CertificateHeaders("X-WSO2-CLIENT-CERTIFICATE", set.Identities)
				bearer := []load.Header{{Name: "Authorization", Value: "Bearer " + tokens[0]}}
				trust := &tls.Config{RootCAs: set.Roots}
				for name, c := range map[string]load.Config{
					"mTLS":    {URL: https + "/bench/1k", Identities: set.Identities},
					"HTTP/2":  {URL: https + "/bench/1k", Identities: set.Identities, HTTP2: true},
					"resumed": {URL: https + "/bench/1k", Identities: set.Identities, Workload: load.Resumed},
					"header":  {URL: "http://localhost:" + httpPort + "/bench/1k", Headers: inHeader},
					"token":   {URL: https + "/token/1k", Identities: set.Identities, Headers: bearer},
				} {
					c.TLS, c.Duration, c.Connections = trust, 1, 2
					status, body, err := load.Probe(context.Background(), c)
					if err != nil || status != 200 || string(body) != string(backend.Body(1<<10)) {
						t.Errorf("%s: %d, %d bytes, %v\n%s", name, status, len(body), err, g.said())
					}
				}
				bare := load.Config{URL: https + "/bench/1k", TLS: trust, Duration: 1}
				if status, _, err := load.Probe(context.Background(), bare); err == nil && status == 200 {
					t.Error("a call without a certificate is answered")
				}
				if k.Sallyport() {
					values, err := g.Metrics(context.Background(), "sallyport_calls_total", "go_memstats_mallocs_total")
					if err != nil || values[0] != 5 || values[1] == 0 {
						t.Errorf("metrics: %v, %v; five calls were answered", values, err)
					}
				}
				if err := g.Stop(); err != nil {
					t.Error(err)
				}
				if v := p.Version(); v == "" || strings.ContainsAny(v, "\n") || v == "unknown" {
					t.Errorf("version %q", v)
				}
				if accessLog && !logged(t, s.Folder) {
					t.Error("nothing in the access log")
				}
			})
		}
	}
}

// logged reports whether a call is in the access log, which HAProxy writes to its output.
func logged(t *testing.T, folder string) bool {
	t.Helper()
	for _, name := range []string{"access.log", "output.log"} {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err == nil && strings.Contains(string(data), "/bench/1k") {
			return true
		}
	}
	return false
}

func TestABadConfigurationIsTold(t *testing.T) {
	for _, k := range Kinds {
		t.Run(k.Name, func(t *testing.T) {
			p := locate(t, k)
			set := &pki.Set{Folder: "/no/such/folder"}
			err := p.Configure(Site{
				Folder:  t.TempDir(),
				PKI:     set,
				Backend: "127.0.0.1:1",
				HTTPS:   "127.0.0.1:2",
				HTTP:    "127.0.0.1:3",
				Status:  "127.0.0.1:4",
				Workers: 1,
			})
			if err == nil || !strings.Contains(err.Error(), "finds fault") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAskVersion(t *testing.T) {
	folder := t.TempDir()
	script := func(name, text string) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for path, want := range map[string]string{
		filepath.Join(built, "sallyport"):        "",
		script("other", "echo other 1.0"):        "no version of sallyport",
		script("silent", ":"):                    "no version of sallyport",
		script("failing", "echo no >&2; exit 3"): "exit status 3: \"no\"",
	} {
		p, err := Baseline.Locate(path)
		if err != nil {
			t.Fatal(err)
		}
		version, err := p.AskVersion()
		switch {
		case want == "" && (err != nil || version == "" || version != p.Version()):
			t.Errorf("%s: %q, %v", path, version, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || p.Version() != "unknown"):
			t.Errorf("%s: %q, %v, want %q", path, version, err, want)
		}
	}
}

func TestFind(t *testing.T) {
	for _, k := range Kinds {
		if got, err := Find(k.Name); err != nil || got.Name != k.Name {
			t.Errorf("%s: %v, %v", k.Name, got.Name, err)
		}
	}
	if _, err := Find("other"); err == nil || !strings.Contains(err.Error(), "haproxy") {
		t.Errorf("%v", err)
	}
	if _, err := nginx.Locate("/no/such/program"); err == nil {
		t.Error("a program that isn't there is found")
	}
}
