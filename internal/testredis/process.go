package testredis

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds each wait for a state, which takes a fraction of a second on an idle machine.
const patience = time.Minute

// A process is a program that ends with the test. What it says goes to the file output in its folder.
type process struct {
	t       testing.TB
	program string
	dir     string
	args    []string

	cmd   *exec.Cmd
	ended chan struct{} // nil before the first start
}

// start starts the program, and waits until answers returns nil. prepare, if not nil, chooses the arguments; it
// chooses them again, with other ports, if the program ends at once: another program may take a port between its
// choice and its use.
func (p *process) start(prepare func() []string, answers func() error) {
	p.t.Helper()
	first := p.ended == nil
	var err error
	for range 5 {
		if prepare != nil {
			p.args = prepare()
		}
		p.launch()
		if first {
			first = false
			p.t.Cleanup(p.end)
		}
		if err = p.wait(answers); err == nil {
			return
		}
		p.kill()
	}
	p.t.Fatalf("%s: %v\n%s", p.program, err, p.output(30))
}

// launch starts the program from a thread that lasts as long as the program does: the death of the thread that started
// a program, and with it the death of the tests, ends the program.
func (p *process) launch() {
	p.t.Helper()
	output, err := os.OpenFile(filepath.Join(p.dir, "output"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(p.program, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, output, output
	cmd.SysProcAttr = endWithTests()
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		defer output.Close()
		runtime.LockOSThread() // and never unlock it
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed, as a rule
		}
	}()
	p.cmd, p.ended = cmd, ended
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
}

// wait waits until answers returns nil or the program ends.
func (p *process) wait(answers func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := answers()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not answer: %w", err)
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it has ended: %v", p.cmd.ProcessState)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Errorf("%s: %v: %v", p.program, s, err)
	}
}

// kill ends the program, if it runs, and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails if it has ended
	<-p.ended
}

// runs reports whether the program has not ended.
func (p *process) runs() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) end() {
	p.kill()
	if p.t.Failed() {
		p.t.Logf("%s %s:\n%s", filepath.Base(p.program), p.dir, p.output(10))
	}
}

// output returns the last lines of what the program has said.
func (p *process) output(count int) string {
	data, err := os.ReadFile(filepath.Join(p.dir, "output"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-count):], []byte("\n")))
}

// freePort returns a port of 127.0.0.1 on which nothing listens. The system takes none of these for outgoing
// connections, so that it stays free over Restart, and no client that tries to reach a dead server can connect to
// itself.
func freePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(12_000 + rand.IntN(20_000))
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// eventually waits until a state is reached. state returns what is still missing.
func eventually(t testing.TB, what string, state func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := state()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// packages are the Debian packages of the programs.
var packages = map[string]string{
	"redis-server":   "redis-server",
	"redis-sentinel": "redis-sentinel",
	"redis-cli":      "redis-tools",
}

// tool returns the path of a program, and skips the test without it, or fails it if CI=true.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing := fmt.Sprintf("%s is missing: install the package %s", name, packages[name])
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return path
}

// fields reads lines of names and values, such as "cluster_state:ok".
func fields(text, separator string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), separator); ok {
			m[name] = value
		}
	}
	return m
}
