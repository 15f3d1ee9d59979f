//go:build linux

package process

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for a state before it fails.
const patience = 2 * time.Minute

// poll waits until f holds.
func poll(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v", patience)
		}
	}
}

func TestUsageCountsDescendants(t *testing.T) {
	// The shell waits, its child works.
	p, err := Start(Options{}, "/bin/sh", "-c", "while :; do :; done & wait")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range slices.Backward(family(p.ID())) {
			if child, err := os.FindProcess(pid); err == nil {
				child.Kill()
			}
		}
		<-p.Ended()
	})
	poll(t, func() bool { return len(family(p.ID())) == 2 })
	alone, err := cpu(p.ID())
	if err != nil {
		t.Fatal(err)
	}
	poll(t, func() bool {
		all, err := p.CPU()
		if err != nil {
			t.Fatal(err)
		}
		return all > alone+100*time.Millisecond
	})
	if got, err := cpu(p.ID()); err != nil || got > alone+50*time.Millisecond {
		t.Errorf("the shell itself used %v, %v", got-alone, err)
	}
	if n, err := p.Memory(); err != nil || n < 100<<10 || n > 100<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestOwnCPUGrowsWithWork(t *testing.T) {
	before := OwnCPU()
	poll(t, func() bool { return OwnCPU() > before+10*time.Millisecond })
}

func TestProgramsRunOnTheirCores(t *testing.T) {
	cores := Cores()
	if len(cores) == 0 {
		t.Fatal("no cores")
	}
	last := cores[len(cores)-1:]
	var out bytes.Buffer
	p, err := Start(Options{Cores: last, Output: &out, Env: []string{"WORD=here"}, Dir: "/"},
		"/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status; echo $WORD $PWD")
	if err != nil {
		t.Fatal(err)
	}
	<-p.Ended()
	words := strings.Fields(out.String())
	if len(words) != 4 || words[2] != "here" || words[3] != "/" {
		t.Fatalf("it says %q", out.String())
	}
	if got, err := parseCores(words[1]); err != nil || !slices.Equal(got, last) {
		t.Errorf("it ran on %s, want %v", words[1], last)
	}
	if !slices.Equal(Cores(), cores) {
		t.Errorf("this process runs on %v, before on %v", Cores(), cores)
	}
	if err := p.Stop(); err == nil {
		t.Error("Stop doesn't tell that it had ended")
	}
}

func TestStop(t *testing.T) {
	p, err := Start(Options{}, "/bin/sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := Start(Options{}, "/no/such/program"); err == nil {
		t.Error("a program that isn't there is started")
	}
}

func TestParseCores(t *testing.T) {
	for s, want := range map[string][]int{
		"0":       {0},
		"0-2,5":   {0, 1, 2, 5},
		"":        nil,
		"x":       nil,
		"3-1":     nil,
		"-1":      nil,
		"0-99999": nil,
	} {
		got, err := parseCores(s)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	if pid, parent, err := parseStat([]byte("12 (na) me) S 1 12 12")); pid != 12 || parent != 1 || err != nil {
		t.Errorf("%d %d %v", pid, parent, err)
	}
	for _, s := range []string{"", "12", "12 (x)", "12 (x) S", "x (x) S 1", "12 (x) S y"} {
		if _, _, err := parseStat([]byte(s)); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
