//go:build linux

package process

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestOthersAreWhatIsNotOwn(t *testing.T) {
	at := func(second int, used, own time.Duration) CoreTime {
		return CoreTime{At: time.Unix(int64(second), 0), Used: used, Own: own}
	}
	for _, tt := range []struct {
		name          string
		before, after CoreTime
		want          float64
	}{
		{"nobody", at(0, time.Hour, time.Minute), at(10, time.Hour+9*time.Second, time.Minute+9*time.Second), 0},
		{"half a core", at(0, 0, 0), at(10, 8*time.Second, 3*time.Second), 0.5},
		{"two cores", at(5, 0, 0), at(6, 2*time.Second, 0), 2},
		{"less than own, by the tick", at(0, 0, 0), at(1, 90*time.Millisecond, 100*time.Millisecond), 0},
		{"no time", at(1, 0, 0), at(1, time.Second, 0), 0},
	} {
		if got := tt.after.Others(tt.before); got != tt.want {
			t.Errorf("%s: %g, want %g", tt.name, got, tt.want)
		}
	}
}

const stat = `cpu  111 222 333 444 555 666 777 888 0 0
cpu0 1 2 3 1000 1000 4 5 6 7 8
cpu1 10 20 30 1000 1000 40 50 60 70 80
cpu10 100 200 300 1000 1000 400 500 600 700 800
intr 1 2 3
`

func TestParseCoreTime(t *testing.T) {
	for _, tt := range []struct {
		cores      []int
		interrupts bool
		ticks      int // -1: an error
	}{
		{[]int{0}, true, 1 + 2 + 3 + 4 + 5 + 6},
		{[]int{0}, false, 1 + 2 + 3 + 6},
		{[]int{1, 10}, true, 210 + 2100},
		{[]int{1, 10}, false, 120 + 1200},
		{[]int{2}, true, -1},
		{[]int{1, 2}, true, -1},
	} {
		got, err := parseCoreTime([]byte(stat), tt.cores, tt.interrupts)
		if want := time.Duration(max(0, tt.ticks)) * clockTick; got != want || (err != nil) != (tt.ticks < 0) {
			t.Errorf("cores %v, interrupts %t: %v, %v, want %v", tt.cores, tt.interrupts, got, err, want)
		}
	}
}

func FuzzParseCoreTime(f *testing.F) {
	f.Add([]byte(stat))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseCoreTime(data, []int{0}, true)
		some, err2 := parseCoreTime(data, []int{0}, false)
		if some > all || some < 0 || (err == nil) != (err2 == nil) {
			t.Errorf("%v with interrupts, %v without; %v, %v", all, some, err, err2)
		}
	})
}

// A descendant counts as own; any other process counts as another's.
func TestMeterTellsOthersFromOwn(t *testing.T) {
	m := NewMeter(nil)
	before, err := m.Read()
	if err != nil {
		t.Fatal(err)
	}
	grown := func(figure func(CoreTime) float64) func() bool {
		return func() bool {
			now, err := m.Read()
			if err != nil {
				t.Fatal(err)
			}
			return figure(now) > 0.2
		}
	}

	child, err := Start(Options{}, "/bin/sh", "-c", "while :; do :; done")
	if err != nil {
		t.Fatal(err)
	}
	poll(t, grown(func(now CoreTime) float64 { return (now.Own - before.Own).Seconds() }))
	if err := child.Stop(); err != nil {
		t.Fatal(err)
	}

	// The shell ends at once, which leaves the loop without a parent in this process's family.
	out, err := exec.Command("/bin/sh", "-c", "while :; do :; done >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { orphan.Kill() })
	if before, err = m.Read(); err != nil {
		t.Fatal(err)
	}
	poll(t, grown(func(now CoreTime) float64 { return now.Others(before) * now.At.Sub(before.At).Seconds() }))
}

// The kernel's configuration says what to expect, where it is readable.
func TestInterruptsApart(t *testing.T) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("/boot/config-" + strings.TrimSpace(string(release)))
	if err != nil {
		if config, err = unzip("/proc/config.gz"); err != nil {
			t.Skip("no kernel configuration: ", err)
		}
	}
	want := strings.Contains(string(config), "\nCONFIG_IRQ_TIME_ACCOUNTING=y\n")
	if got := interruptsApart(); got != want {
		t.Errorf("%t, but the kernel's configuration says %t", got, want)
	}
}

func unzip(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return io.ReadAll(z)
}
