package main_test

import (
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestFileModes: whatever the umask, only the owner can read files that hold secrets or describe callers, and only the
// owner can change any file. Held: security K 145.
func TestFileModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "qs")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `umask 0 && exec sallyport quickstart --dir "$0" --port-offset "$1"`, dir, strconv.Itoa(freeOffset(t)))
	var out transcript
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "the demonstration is ready", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("%v\n%s", err, &out)
		default:
		}
		return out.contains("sallyport: ready")
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	kept := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, mode := strings.TrimPrefix(path, dir), info.Mode().Perm()
		secret := strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".jwt") || strings.Contains(name, ".db") || strings.HasPrefix(name, "/secrets") || strings.HasPrefix(name, "/stores/")
		switch {
		case info.IsDir() && mode != 0o700:
			t.Errorf("folder %s/ has mode %o", name, mode)
		case secret && !info.IsDir():
			kept++
			if mode != 0o600 {
				t.Errorf("%s has mode %o", name, mode)
			}
		case mode&0o022 != 0:
			t.Errorf("others may write %s: mode %o", name, mode)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if kept < 10 {
		t.Errorf("only %d files with secrets were found", kept)
	}
}

// TestLeastPrivilege serves as nobody, without any capability, on a file system that is read-only but for the
// configuration's own folder. Held: security K 145.
func TestLeastPrivilege(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give all of it up")
	}
	unshare, setpriv := tool(t, "unshare"), tool(t, "setpriv")
	d := newDemo(t)
	d.serveBackend(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for dir := d.Dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		d.must(os.Chmod(dir, 0o755)) // the user "nobody" has to reach the folder
	}
	d.must(filepath.WalkDir(d.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, 65534, 65534)
	}))
	program, err := exec.LookPath("sallyport")
	if err != nil {
		t.Fatal(err)
	}
	const script = `set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro /
if touch "$(dirname "$1")/anything" 2>/dev/null; then echo 'the file system can be written'; exit 1; fi
exec "$2" --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$3" serve -c "$4"`
	cmd := exec.Command(unshare, "--mount", "sh", "-c", script, "sh", d.Dir, setpriv, program, d.ConfigFile)
	p := startCommand(t, filepath.Dir(d.Dir), d.Demo, cmd)
	p.becomesReady()
	if status, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status"); err != nil || !strings.Contains(string(status), "CapEff:\t0000000000000000") || !strings.Contains(string(status), "Uid:\t65534\t") {
		t.Errorf("it serves as another, or with capabilities: %v\n%s", err, status)
	}
	d.client("gold", dialects[0]).get(t, "/orders/1")
	p.stop()
}
