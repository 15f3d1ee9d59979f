//go:build linux

package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTerminal: a person at a terminal reads text in colour, unless they don't want colour.
func TestTerminal(t *testing.T) {
	for _, c := range []struct {
		setting string
		want    *regexp.Regexp
	}{
		{"TERM=xterm", regexp.MustCompile(`^\d\d:\d\d:\d\d \x1b\[32mINFO\x1b\[0m  listening  listener=https .*tls=true\r\n$`)},
		{"NO_COLOR=1", regexp.MustCompile(`^\d\d:\d\d:\d\d INFO  listening  listener=https .*tls=true\r\n$`)},
	} {
		t.Run(c.setting, func(t *testing.T) {
			d := newDemo(t, "format: text, ", "")
			master, slave := terminal(t)
			cmd := exec.Command("sallyport", "serve", "-c", d.ConfigFile)
			cmd.Env = append(os.Environ(), "NO_COLOR=", "TERM=xterm", c.setting)
			cmd.Stderr = slave
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			slave.Close()
			defer func() {
				cmd.Process.Kill()
				cmd.Wait()
			}()
			read := ""
			for lines := bufio.NewReader(master); ; {
				line, err := lines.ReadString('\n')
				if read += line; c.want.MatchString(line) {
					return
				}
				if err != nil {
					t.Fatalf("no line like %s (%v) in:\n%s", c.want, err, read)
				}
			}
		})
	}
}

// terminal returns both ends of a new pseudoterminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}
