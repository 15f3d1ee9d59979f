package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/bench/port"
	"sallyport/cmd/sallyport/internal/quickstart"
)

// patience is how long a test waits for a state before it fails. No test passes or fails by how long something takes.
const patience = 5 * time.Minute

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %s in vain: %s", patience, what)
		case <-tick.C:
		}
	}
}

// template is a quickstart's folder that tests copy, since making its keys is slow.
var template = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.Getenv("SALLYPORT_TEST_FOLDER"), "template")
	if out, err := exec.Command("demo", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("making a demonstration: %w: %s", err, out)
	}
	return dir, nil
})

// copyFolder copies a folder with the rights of its files.
func copyFolder(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.MkdirAll(target, info.Mode().Perm()|0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, info.Mode().Perm())
	})
}

// A demoFolder is a quickstart's folder of one test, with ports of its own.
type demoFolder struct {
	*quickstart.Demo
	t      *testing.T
	offset int
	room   chan struct{} // one slot for each call of load under way
}

// longDrain keeps a drain from ending before the test does, however slow the machine is.
const longDrain = "drainTimeout: 1h"

// newDemo makes a folder and changes its sallyport.yaml by the edits: old, new, old, new. longDrain is set, and backends
// have an hour to begin an answer.
func newDemo(t *testing.T, edits ...string) *demoFolder {
	t.Helper()
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "qs")
	if err := copyFolder(dir, from); err != nil {
		t.Fatal(err)
	}
	d := &demoFolder{t: t, offset: freeOffset(t)}
	if d.Demo, err = quickstart.Make(t.Context(), quickstart.Options{Dir: dir, PortOffset: d.offset}, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil { // the folder is the program's
		t.Fatal(err)
	}
	backend := fmt.Sprintf(`upstream: {urls: ["http://127.0.0.1:%d"]`, d.Ports.Backend)
	d.swap("sallyport.yaml", strings.ReplaceAll(d.read("sallyport.yaml"), backend+"}", backend+", timeout: 1h}"))
	d.edit("sallyport.yaml", append([]string{"drainTimeout: 30s", longDrain}, edits...)...)
	return d
}

// freeOffset finds a port offset at which every port of a quickstart is free, and keeps these ports until the test ends.
func freeOffset(t *testing.T) int {
	t.Helper()
	for range 100 {
		offset := 8000 + rand.IntN(15000) // below the ephemeral ports
		ports, err := quickstart.PortsAt(offset)
		if err != nil {
			t.Fatal(err)
		}
		if holdAll(t, ports.HTTPS, ports.LoadBalancer, ports.Status, ports.Backend, ports.Issuer) {
			return offset
		}
	}
	t.Fatal("no port offset is free")
	return 0
}

// holdAll keeps all of the ports until the test ends, or none of them.
func holdAll(t *testing.T, numbers ...int) bool {
	t.Helper()
	var all []*port.Held
	giveUp := func() {
		for _, h := range all {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, n := range numbers {
		h, err := port.Hold(n)
		if err != nil {
			giveUp()
			return false
		}
		all = append(all, h)
	}
	t.Cleanup(giveUp)
	return true
}

// freePort keeps a port until the test ends, for a server to listen on.
func freePort(t *testing.T) int {
	t.Helper()
	h, err := port.Hold(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h.Number()
}

func (d *demoFolder) path(name string) string { return filepath.Join(d.Dir, filepath.FromSlash(name)) }

func (d *demoFolder) read(name string) string {
	d.t.Helper()
	data, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(data)
}

// write replaces a file in place.
func (d *demoFolder) write(name, content string) {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// swap replaces a file by renaming another one over it.
func (d *demoFolder) swap(name, content string) {
	d.t.Helper()
	d.write(name+".new", content)
	if err := os.Rename(d.path(name+".new"), d.path(name)); err != nil {
		d.t.Fatal(err)
	}
}

// edit replaces the first of each old text of a file, which must be there, by the new one.
func (d *demoFolder) edit(name string, edits ...string) {
	d.t.Helper()
	text := d.read(name)
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			d.t.Fatalf("%s does not contain %q", name, edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	if len(edits) > 0 {
		d.swap(name, text)
	}
}

// quickstart runs the folder with its backend and its issuer until the test ends.
func (d *demoFolder) quickstart() *process {
	d.t.Helper()
	p := start(d.t, d.Demo, "quickstart", "--dir", d.Dir, "--port-offset", fmt.Sprint(d.offset))
	p.waitFor("sallyport: ready\n")
	return p
}

// run runs the program and returns its exit code and output, which must not hold a secret.
func (d *demoFolder) run(args ...string) (code int, stdout, stderr string) {
	d.t.Helper()
	code, stdout, stderr = run(d.t, d.Dir, args...)
	noSecrets(d.t, d.Demo, strings.Join(args, " "), stdout+stderr)
	return code, stdout, stderr
}

// run runs the program in a folder.
func run(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sallyport", args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// mustRun runs the program, which must succeed.
func (d *demoFolder) mustRun(args ...string) (stdout string) {
	d.t.Helper()
	code, stdout, stderr := d.run(args...)
	if code != 0 {
		d.t.Fatalf("sallyport %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// A process is a running sallyport.
type process struct {
	t              *testing.T
	demo           *quickstart.Demo
	cmd            *exec.Cmd
	stdout, stderr *transcript
	ended          chan struct{} // closed when the process has ended
	err            error         // the result of Wait; read it after ended is closed
}

// start runs the program in the folder above the demonstration. At the end of the test it is killed if it still runs, and
// its output is searched for secrets.
func start(t *testing.T, demo *quickstart.Demo, args ...string) *process {
	t.Helper()
	return startIn(t, filepath.Dir(demo.Dir), demo, args...)
}

func startIn(t *testing.T, dir string, demo *quickstart.Demo, args ...string) *process {
	t.Helper()
	return startCommand(t, dir, demo, exec.Command("sallyport", args...))
}

// startCommand is for a command that becomes sallyport.
func startCommand(t *testing.T, dir string, demo *quickstart.Demo, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, demo: demo, cmd: cmd, stdout: new(transcript), stderr: new(transcript), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		select {
		case <-p.ended:
		default:
			p.cmd.Process.Kill()
			<-p.ended
		}
		if t.Failed() {
			t.Logf("%s\nstderr of it:\n%s", p.cmd, p.stderr)
		}
		if strings.Contains(p.stderr.String(), "DATA RACE") {
			t.Errorf("the race detector found something:\n%s", p.stderr)
		}
		noSecrets(t, p.demo, "the process", p.stdout.String()+p.stderr.String())
	})
	return p
}

// waitFor waits until the process has printed text, or fails if it ends before.
func (p *process) waitFor(text string) {
	p.t.Helper()
	eventually(p.t, "standard output holds "+text, func() bool {
		if p.stdout.contains(text) {
			return true
		}
		select {
		case <-p.ended:
			p.t.Fatalf("%s: %v\n%s%s", p.cmd, p.err, p.stdout, p.stderr)
		default:
		}
		return false
	})
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the end and returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("%s has not ended", p.cmd)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the process as an operator would.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		p.t.Errorf("after SIGTERM the exit code is %d\n%s", code, p.stderr)
	}
}

// status asks the status listener; status is 0 if it does not answer.
func (p *process) status(path string) (status int, body string) {
	res, err := plainClient.Get(fmt.Sprintf("http://127.0.0.1:%d%s", p.demo.Ports.Status, path))
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, ""
	}
	noSecrets(p.t, p.demo, path, string(data))
	return res.StatusCode, string(data)
}

var plainClient = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// metric is the value of a series, as /metrics writes it; "" if there is none.
func (p *process) metric(series string) string {
	_, body := p.status("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// ready is what /readyz says while calls are welcome.
func (p *process) ready() string {
	status, body := p.status("/readyz")
	if status != http.StatusOK {
		return ""
	}
	return body
}

// good reports whether all is well by /readyz, which then tells of nothing but server certificates.
func (p *process) good() bool {
	first, rest, _ := strings.Cut(p.ready(), "\n")
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "certificate of ") {
			return false
		}
	}
	return first == "ready"
}

// A transcript keeps what a process writes.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func (t *transcript) contains(s string) bool { return strings.Contains(t.String(), s) }

// noSecrets fails if text contains a password, key or token of the demonstration.
func noSecrets(t *testing.T, demo *quickstart.Demo, where, text string) {
	t.Helper()
	secrets, err := secretsOf(demo.Dir)
	if err != nil {
		t.Error(err)
		return
	}
	for name, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows what %s holds", where, name)
		}
	}
}

var secretsCache sync.Map // by folder

// secretsOf returns the texts that must not appear in output, by file name. They are read once for each folder: what a test
// writes over these files later is not secret.
func secretsOf(dir string) (map[string]string, error) {
	if found, ok := secretsCache.Load(dir); ok {
		return found.(map[string]string), nil
	}
	found := map[string]string{}
	for _, pattern := range []string{"secrets/*", "clients/*.key", "tokens/*"} {
		files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			name := filepath.Base(file)
			lines := strings.Split(strings.TrimSpace(string(data)), "\n")
			switch {
			case strings.HasSuffix(name, ".key"):
				found[name] = lines[len(lines)-2] // the end of the base64: the beginning is the same for all
			case strings.HasSuffix(name, ".jwt"):
				found[name] = lines[0][strings.LastIndexByte(lines[0], '.')+1:] // without the signature it is worth nothing
			default:
				found[name] = lines[0]
			}
		}
	}
	if len(found) < 14 {
		return nil, fmt.Errorf("only %d secrets in %s", len(found), dir)
	}
	secretsCache.Store(dir, found)
	return found, nil
}
