package main_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testredis"
)

// TestCluster follows who tries scripts/cluster: it starts two gateways, Redis and NGINX, types the commands that it
// prints, and stops them all.
func TestCluster(t *testing.T) {
	for _, name := range []string{"nginx", "redis-server", "redis-cli", "openssl"} {
		tool(t, name)
	}
	needCurl(t)
	program, err := exec.LookPath("sallyport")
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("../../scripts/cluster")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "cluster")
	cluster := func(verb string) (string, error) {
		cmd := exec.Command(script, verb, dir)
		cmd.Env = append(os.Environ(), "SALLYPORT="+program)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() { _, _ = cluster("stop") })

	guide, err := cluster("start")
	if err != nil {
		t.Fatalf("start: %v\n%s", err, guide)
	}
	if out, err := cluster("status"); err != nil || strings.Count(out, " runs: pid ") != 4 {
		t.Errorf("status: %v\n%s", err, out)
	}
	if out, err := cluster("start"); err == nil || !strings.Contains(out, "runs already") {
		t.Errorf("a second start: %v\n%s", err, out)
	}
	typed := regexp.MustCompile(`(?m)^(?:  cd|curl) .+$`).FindAllString(guide, -1)
	cmd := exec.Command("sh", "-ec", strings.Join(typed, "\n"))
	began := time.Now()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", typed, err, out)
	}
	passed, most := strings.Count(string(out), "200\n"), 3+int(time.Since(began).Seconds()/20)
	refused := strings.Count(string(out), "429\n")
	if !strings.HasPrefix(string(out), "200\n200\n200\n") || passed > most || passed+refused != 5 {
		t.Errorf("trial's calls: %d pass, %d are refused, want 3 to %d of 5 to pass:\n%s", passed, refused, most, out)
	}
	if !strings.Contains(string(out), `"X-Sallyport-Client":["gold"]`) {
		t.Errorf("gold's certificate gets lost on the way through NGINX:\n%s", out)
	}

	var pids []string
	for _, name := range []string{"redis", "gateway1", "gateway2", "nginx"} {
		b, err := os.ReadFile(filepath.Join(dir, name+".pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, _, _ := strings.Cut(string(b), "\n")
		pids = append(pids, pid)
	}
	if out, err := cluster("stop"); err != nil || strings.Count(out, " has ended") != 4 {
		t.Errorf("stop: %v\n%s", err, out)
	}
	for _, pid := range pids {
		state, _ := exec.Command("ps", "-o", "stat=", "-p", pid).Output()
		if s := strings.TrimSpace(string(state)); s != "" && s[0] != 'Z' {
			t.Errorf("process %s still runs: %s", pid, s)
		}
	}
	if out, err := cluster("status"); err == nil || strings.Count(out, "does not run") != 4 {
		t.Errorf("status after the stop: %v\n%s", err, out)
	}
}

// TestAlertRules: the metrics that deploy/alerts.yml asks for are those of a gateway that shares its limits.
func TestAlertRules(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`sallyport_[a-z_]+`).FindAllString(string(rules), -1)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) < 10 {
		t.Fatalf("the rules name %q", names)
	}
	redis := testredis.Start(t, testredis.Options{})
	d := newDemo(t)
	good := d.read("sallyport.yaml") + sharing(redis, "")
	d.swap("sallyport.yaml", good)
	p := d.quickstart()
	d.client("gold", dialects[0]).get(t, "/orders/1")
	d.client("rogue", dialects[0]).get(t, "/orders/1")                       // is refused
	d.swap("sallyport.yaml", good+"\nnonsense: true\n")                      // a change is refused
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS)) // and a handshake fails
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("no TLS\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, name := range names {
		if name == "sallyport_panics_total" { // there is none before there was one
			if page, err := os.ReadFile("../../docs/operating.md"); err != nil || !strings.Contains(string(page), "`"+name+"`") {
				t.Errorf("%s is no metric that docs/operating.md knows", name)
			}
			continue
		}
		eventually(t, "the metric "+name, func() bool {
			status, body := p.status("/metrics")
			return status == http.StatusOK && strings.Contains(body, "# TYPE "+name+" ")
		})
	}
	p.stop()
}
