// Package testserver runs the servers that tests need, each a process of its own that ends with its test.
package testserver

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"sallyport/bench/port"
)

// Patience bounds each wait for a state, which takes a fraction of a second on an idle machine. On a busy one sentinels
// may believe that the clock was changed, and do nothing for half a minute each time ("TILT").
const Patience = 5 * time.Minute

// A Process is a program that ends with the test. What it says goes to the file output in its folder.
type Process struct {
	T       testing.TB
	Program string
	Dir     string              // in which it runs
	Args    []string            // Start may choose them
	Env     []string            // nil: that of the tests
	User    *syscall.Credential // whose process it is; nil: that of the user who runs the tests
	End     func()              // called before the program is killed at the end of the test; nil: nothing is

	cmd   *exec.Cmd
	ended chan struct{} // nil before the first start
}

// Start starts the program, and waits until answers returns nil. prepare, if not nil, chooses the arguments; it
// chooses them again, with other ports, if the program ends at once: another program may take a port between its
// choice and its use.
func (p *Process) Start(prepare func() []string, answers func() error) {
	p.T.Helper()
	first := p.ended == nil
	var err error
	for range 5 {
		if prepare != nil {
			p.Args = prepare()
		}
		p.launch()
		if first {
			first = false
			p.T.Cleanup(p.end)
		}
		if err = p.wait(answers); err == nil {
			return
		}
		p.Kill()
	}
	p.T.Fatalf("%s: %v\n%s", p.Program, err, p.output(30))
}

// launch starts the program from a thread that lasts as long as the program does: the death of the thread that started
// a program, and with it the death of the tests, ends the program.
func (p *Process) launch() {
	p.T.Helper()
	output, err := os.OpenFile(filepath.Join(p.Dir, "output"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		p.T.Fatal(err)
	}
	cmd := exec.Command(p.Program, p.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Dir, p.Env, output, output
	cmd.SysProcAttr = endWithTests()
	cmd.SysProcAttr.Credential = p.User
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
		p.T.Fatal(err)
	}
}

// wait waits until answers returns nil or the program ends.
func (p *Process) wait(answers func() error) error {
	deadline := time.Now().Add(Patience)
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

// Signal sends the program, which runs, a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.T.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.T.Errorf("%s: %v: %v", p.Program, s, err)
	}
}

// Kill ends the program, if it runs, and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails if it has ended
	<-p.ended
}

// Quit asks the program, if it runs, by a signal to end, and waits until it has. One that does not is killed, and fails
// the test.
func (p *Process) Quit(s syscall.Signal) {
	p.T.Helper()
	_ = p.cmd.Process.Signal(s) // fails if it has ended
	select {
	case <-p.ended:
	case <-time.After(Patience):
		p.T.Errorf("%s does not end by %v\n%s", p.Program, s, p.output(30))
		p.Kill()
	}
}

// Runs reports whether the program has not ended.
func (p *Process) Runs() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// ID is the number of the process.
func (p *Process) ID() int { return p.cmd.Process.Pid }

func (p *Process) end() {
	if p.End != nil {
		p.End()
	}
	p.Kill()
	if p.T.Failed() {
		p.T.Logf("%s %s:\n%s", filepath.Base(p.Program), p.Dir, p.output(10))
	}
}

// output returns the last lines of what the program has said.
func (p *Process) output(count int) string {
	data, err := os.ReadFile(filepath.Join(p.Dir, "output"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-count):], []byte("\n")))
}

// FreePort keeps a port of 127.0.0.1 for a server, which may be restarted, until the test ends: nobody else is lent it
// meanwhile. The system takes none of these for outgoing connections, so that no client that tries to reach a dead server
// can connect to itself.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		held, err := port.Hold(12_000 + rand.IntN(20_000))
		if err == nil {
			t.Cleanup(func() { held.Close() })
			return strconv.Itoa(held.Number())
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// Eventually waits until a state is reached. state returns what is still missing.
func Eventually(t testing.TB, what string, state func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience)
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

// Tool returns the path of a program, and skips the test without it, or fails it if CI=true. Besides in PATH, it looks
// for it in the folders, which may be patterns.
func Tool(t testing.TB, name, debianPackage string, folders ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, folder := range folders {
		found, err := filepath.Glob(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			return found[len(found)-1] // the newest, as a rule
		}
	}
	missing := fmt.Sprintf("%s is missing: install the package %s", name, debianPackage)
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// Write writes a file that nobody else may read.
func Write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
