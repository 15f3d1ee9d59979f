package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// programVariable names the environment variable with the path of the sallyport program to measure.
const programVariable = "SALLYPORT"

// TestMain makes the test binary act as the program when it is called "sallybench", so that scripts, and the program
// itself, can run it as a process.
func TestMain(m *testing.M) { testscript.Main(withProgram{m}, map[string]func(){"sallybench": main}) }

// withProgram builds a sallyport program once and runs the tests with it.
type withProgram struct{ *testing.M }

func (m withProgram) Run() int {
	folder, err := os.MkdirTemp("", "sallybench-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	program := filepath.Join(folder, "sallyport")
	if out, err := exec.Command("go", "build", "-o", program, "sallyport/cmd/sallyport").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	os.Setenv(programVariable, program)
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=10") // otherwise each program sleeps for a second when it exits
	}
	return m.M.Run()
}

// TestScripts runs testdata/script. It adds to testscript's commands
//
//	exits CODE COMMAND ARG...      runs a command that ends with that code
//	busy                           keeps all cores busy until the script ends
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv(programVariable, os.Getenv(programVariable))
			env.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "busy": busy},
		Condition: func(condition string) (bool, error) {
			if condition != "root" {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			return os.Geteuid() == 0, nil
		},
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
}

func busy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: busy")
	}
	for range runtime.NumCPU() {
		cmd := exec.Command("/bin/sh", "-c", "while :; do :; done")
		ts.Check(cmd.Start())
		ts.Defer(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
}

// runLoad runs sallybench load for a moment.
func runLoad(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	args = append([]string{"load", "--duration", "200ms", "--warmup", "0s", "--connections", "2"}, args...)
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestLoadTellsHowAServerAnswered(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
	}))
	defer s.Close()
	code, stdout, stderr := runLoad("--rate", "100", s.URL)
	if code != 0 || !strings.HasPrefix(stdout, "20 calls in ") || !strings.Contains(stdout, "p99.9 ") {
		t.Errorf("code %d\n%s\n%s", code, stdout, stderr)
	}
}

func TestLoadTellsFailures(t *testing.T) {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, n.Add(1)) // a different body each time
	}))
	defer s.Close()
	code, _, stderr := runLoad("--connections", "1", s.URL)
	if code != exitFailed || !strings.Contains(stderr, "calls failed: ") || !strings.Contains(stderr, "wrong body") {
		t.Errorf("code %d\n%s", code, stderr)
	}
	if code, _, stderr = runLoad("--connections", "1", "--any-body", s.URL); code != exitDone {
		t.Errorf("--any-body: code %d\n%s", code, stderr)
	}
	code, _, stderr = runLoad("--status", "404", s.URL)
	if code != exitFailed || !strings.Contains(stderr, "the first call: status 200") {
		t.Errorf("--status: code %d\n%s", code, stderr)
	}
}

func TestOvershootNeedsRedis(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var out, errs bytes.Buffer
	code := run([]string{"overshoot"}, &out, &errs)
	if code != exitUsage || !strings.Contains(errs.String(), "redis-server") ||
		!strings.Contains(errs.String(), "apt-get install redis-server") {
		t.Errorf("code %d\n%s", code, errs.String())
	}
}

func TestAScenarioThatNeedsRedisIsLeftOutUnlessItIsNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var out, errs bytes.Buffer
	code := run([]string{"compare", "--peer", "none", "--scenario", "redis-limit"}, &out, &errs)
	if code != exitUsage || !strings.Contains(errs.String(), "apt-get install redis-server, or let --install get it") {
		t.Errorf("named: code %d\n%s", code, errs.String())
	}
	errs.Reset()
	run([]string{"compare", "--peer", "none", "--sallyport", "/no/such/program"}, &out, &errs)
	if !strings.Contains(errs.String(), "redis-server is not installed, and the scenario redis-limit left out") ||
		!strings.Contains(errs.String(), "/no/such/program") {
		t.Errorf("not named: %s", errs.String())
	}
}
