package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestBadInputs runs testdata/bad, transcripts of commands that go wrong, in each of which a person has to find the cause
// and the next step. Each step begins in its own copy of a quickstart folder:
//
//	# what is wrong
//	% a command that makes it so
//	$ a command, and what it prints on standard output and standard error
//	exit code N
//
// The modes of files and the lowest ports count, also for root. -update writes what is printed.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"openssl", "sqlite3"} {
		tool(t, name)
	}
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "cert-") {
				t.Parallel() // they wait for locks, and need no port
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			steps := stepsOf(string(text))
			if len(steps) < 12 {
				t.Errorf("%d steps, want a dozen", len(steps))
			}
			for _, s := range steps {
				got.WriteString(s.run(t, from))
			}
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != string(text) {
				want := stepsOf(string(text))
				for i, s := range stepsOf(got.String()) {
					if i < len(want) && s.whole != want[i].whole {
						t.Errorf("got:\n%s\nwant:\n%s", s.whole, want[i].whole)
					}
				}
			}
		})
	}
}

// A step is one part of a transcript.
type step struct {
	head    string // its first lines, up to the command
	prepare []string
	command string
	whole   string
}

func stepsOf(text string) (steps []step) {
	for _, part := range strings.Split(text, "\n# ") {
		var s step
		s.whole = "# " + strings.TrimPrefix(part, "# ")
		for line := range strings.Lines(s.whole) {
			s.head += line
			line = strings.TrimSuffix(line, "\n")
			if command, ok := strings.CutPrefix(line, "% "); ok {
				s.prepare = append(s.prepare, command)
			}
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				s.command = command
				break
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// run returns the step with what its command prints.
func (s step) run(t *testing.T, from string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "demo")
	if err := copyFolder(dir, from); err != nil {
		t.Fatal(err)
	}
	for _, line := range s.prepare {
		cmd := exec.CommandContext(t.Context(), "bash", "-ec", line)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	// A command that goes wrong ends by itself; one that does not is ended, and its exit code tells.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := withoutRights(t, "bash", "-c", s.command)
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", s.command, err)
	}
	secrets, err := secretsOf(from)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range secrets {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s shows what %s holds", s.command, name)
		}
	}
	said := strings.ReplaceAll(out.String(), dir, "DIR")
	for pattern, what := range varying {
		said = pattern.ReplaceAllString(said, what)
	}
	if said != "" && !strings.HasSuffix(said, "\n") {
		said += "(no new line)\n"
	}
	return fmt.Sprintf("%s%sexit code %d\n\n", s.head, said, cmd.ProcessState.ExitCode())
}

// varying is what differs from run to run.
var varying = map[*regexp.Regexp]string{
	regexp.MustCompile(`"time":"[^"]*"`):                   `"time":"…"`,
	regexp.MustCompile(`time=\S+`):                         `time=…`,
	regexp.MustCompile(`\b[0-9a-f]{64}\b`):                 `SHA256…`,
	regexp.MustCompile(`\b20\d\d-\d\d-\d\d(T[0-9:.]+Z?)?`): `DATE`,
	regexp.MustCompile(`making-\d+`):                       `making-N`,
	regexp.MustCompile(`process \d+`):                      `process N`,
	// Said where the system allows few open files.
	regexp.MustCompile(`.*fewer connections than limits\.connections.*\n`): ``,
}
