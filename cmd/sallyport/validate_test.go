package main_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// TestValidateRefusesWhatServeWould: what can't be written to, or listened on, is found before serve finds it.
func TestValidateRefusesWhatServeWould(t *testing.T) {
	for _, c := range []struct {
		name  string
		edits []string
		code  int
		says  string
		serve string // what serve says; it exits with 1 or 2
	}{
		{
			"an access log in no folder",
			[]string{"access: stdout", "access: nowhere/access.log"},
			2,
			"/nowhere: no such file or directory: make its folder", "make its folder, and give it to the user that serves",
		},
		{
			"an access log in a closed folder",
			[]string{"access: stdout", "access: closed/access.log"},
			2,
			"/closed: permission denied: make its folder", "make its folder, and give it to the user that serves",
		},
		{
			"a closed access log",
			[]string{"access: stdout", "access: open/closed.log"},
			2,
			"access.log: permission denied: make its folder, and give it", "make its folder, and give it to the user that serves",
		},
		{
			"a store in a closed folder",
			[]string{"sqlite:sallyport.db", "sqlite:closed/sallyport.db"},
			2,
			"/closed: permission denied: give its file and folder to the user that serves", "store: ",
		},
		{
			"a privileged port",
			[]string{"listeners:", "listeners:\n  - {name: low, address: 127.0.0.1:443}"},
			0,
			"listener low: 127.0.0.1:443 can't be listened on here: ", "CAP_NET_BIND_SERVICE",
		},
		{
			"another machine's address",
			[]string{"listeners:", "listeners:\n  - {name: far, address: 192.0.2.1:8443}"},
			0,
			"listener far: 192.0.2.1:8443 can't be listened on here: ", "this machine has no such address",
		},
		{
			"a host without an address",
			[]string{"listeners:", "listeners:\n  - {name: lost, address: \"nowhere.onion:8443\"}"},
			0,
			"listener lost: nowhere.onion:8443 can't be listened on here: ", "or a host that its resolver knows",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.serve == "CAP_NET_BIND_SERVICE" && !privileged(t, 443) {
				t.Skip("here everybody may listen on port 443")
			}
			d := newDemo(t, c.edits...)
			for _, folder := range []string{"closed", "open"} {
				if err := os.Mkdir(filepath.Join(d.Dir, folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(d.Dir, "open", "closed.log"), nil, 0o400); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(d.Dir, "closed"), 0o500); err != nil {
				t.Fatal(err)
			}
			code, out := runWithoutRights(t, "validate", "-c", d.ConfigFile)
			if says := strings.Replace(c.says, "access.log", "closed.log", 1); code != c.code || !strings.Contains(out, says) {
				t.Errorf("validate: exit code %d, want %d and %q:\n%s", code, c.code, says, out)
			}
			code, out = runWithoutRights(t, "serve", "-c", d.ConfigFile)
			if code != 1 && code != 2 || !strings.Contains(out, c.serve) {
				t.Errorf("serve: exit code %d, want 1 or 2 and %q:\n%s", code, c.serve, out)
			}
		})
	}
}

// runWithoutRights runs the program as a user for whom the modes of files and the lowest ports count.
func runWithoutRights(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	args = withoutRights(t, append([]string{"sallyport"}, args...)...)
	var both bytes.Buffer
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), both.String()
}

// withoutRights returns a command that runs args without root's rights to ignore modes and to take the lowest ports.
func withoutRights(t *testing.T, args ...string) []string {
	t.Helper()
	if os.Getuid() != 0 {
		return args
	}
	if runtime.GOOS != "linux" {
		t.Skip("root may write and listen everywhere")
	}
	return append([]string{"setpriv", "--bounding-set=-dac_override,-dac_read_search,-net_bind_service", "--"}, args...)
}

// privileged reports whether port takes a right.
func privileged(t *testing.T, port int) bool {
	t.Helper()
	if runtime.GOOS != "linux" {
		return true
	}
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return true
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(data)))
	return err != nil || port < first
}
