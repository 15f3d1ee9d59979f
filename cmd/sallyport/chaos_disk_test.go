package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sallyport/internal/testpki"
)

// under runs sallyport under strace, which makes system calls fail as inject says, and reports its exit code, what it
// printed, and whether any failed.
func (d *demoFolder) under(inject []string, args ...string) (code int, output string, failed bool) {
	d.t.Helper()
	trace := d.path("trace")
	cmd := exec.CommandContext(d.t.Context(), tool(d.t, "strace"), append(append([]string{"-f", "-o", trace, "-e"}, inject...), append([]string{"sallyport"}, args...)...)...)
	cmd.Dir = d.Dir
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	seen, err := os.ReadFile(trace)
	if err != nil || strings.Contains(string(out), "ptrace") {
		d.t.Skipf("nothing can be traced here: %v\n%s", err, out)
	}
	return cmd.ProcessState.ExitCode(), string(out), bytes.Contains(seen, []byte("(INJECTED)"))
}

// newCertificate writes a self-signed certificate, and returns the command that registers it.
func (d *demoFolder) newCertificate(alias string) (add []string) {
	d.t.Helper()
	d.write(alias+".crt", string(testpki.SelfSigned(d.t, testpki.Leaf{CommonName: alias}).CertPEM()))
	return []string{"cert", "add", "--api", "payments:1.0.0", "--alias", alias, "--tier", "Gold", alias + ".crt"}
}

// TestChaosDisk has a disk fail, or be full, while a certificate is registered in SQLite: what is acknowledged is stored, and
// the store can be read and written afterwards. Only the first sync of the journal is certain to be the change's own: what
// goes from there to the database later may fail, and stays in the journal. Held: fault R11, R10 in part.
func TestChaosDisk(t *testing.T) {
	tool(t, "strace")
	for _, fault := range []struct {
		name, inject string
		journal      bool // it happens to the journal alone
		moments      int
	}{
		{"a sync fails", "inject=fsync,fdatasync:error=EIO:when=%d", true, 3},
		{"all syncs fail", "inject=fsync,fdatasync:error=EIO:when=%d+", true, 2},
		{"the disk is full", "inject=pwrite64:error=ENOSPC:when=%d+", false, 4},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			d := newDemo(t)
			for n := 1; n <= fault.moments; n++ {
				alias := fmt.Sprint("new", n)
				add, inject := d.newCertificate(alias), []string{fmt.Sprintf(fault.inject, n)}
				if fault.journal {
					inject = append(inject, "-P", d.path("sallyport.db-wal"))
				}
				code, output, failed := d.under(inject, add...)
				_, list, _ := d.run("cert", "list")
				stored := strings.Contains(list, alias)
				switch {
				case code == 0 && !stored:
					t.Errorf("acknowledged, and not there: %s", output)
				case n == 1 && (!failed || code != 1 || strings.Contains(output, "registered ")):
					t.Errorf("failed %v, exit code %d: %s", failed, code, output)
				}
				if !stored { // the disk is well again
					d.mustRun(add...)
				}
			}
		})
	}
}

// TestChaosDiskFull fills the disk of a gateway's store and access log: it serves on, registrations are refused with an
// error, and when there is room again both work, without a restart. Held: fault R10.
func TestChaosDiskFull(t *testing.T) {
	for _, name := range []string{"unshare", "nsenter"} {
		tool(t, name)
	}
	d := newDemo(t, fast...)
	disk := d.path("disk")
	d.must(os.Mkdir(disk, 0o700))
	d.edit("sallyport.yaml", "store: sqlite:sallyport.db", "store: sqlite:disk/sallyport.db", "access: stdout", "access: disk/access.log")
	d.serveBackend(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	mount := fmt.Sprintf("mount -t tmpfs -o size=2m tmpfs %s", disk)
	if out, err := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", mount).CombinedOutput(); err != nil {
		t.Skipf("nothing can be mounted here: %v: %s", err, out)
	}
	p := startCommand(t, d.Dir, d.Demo, exec.Command("unshare", "-m", "sh", "-c", mount+" && exec sallyport serve"))
	p.becomesReady()
	inside := func(program string, args ...string) (code int, output string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "nsenter", append([]string{"-t", fmt.Sprint(p.cmd.Process.Pid), "-m", program}, args...)...)
		cmd.Dir = d.Dir
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	sallyport, err := exec.LookPath("sallyport")
	if err != nil {
		t.Fatal(err)
	}
	in := fmt.Sprintf("cd %s && exec %s ", d.Dir, sallyport)
	register := func(name string) (code int, output string) {
		t.Helper()
		return inside("sh", "-c", in+fmt.Sprintf("cert add --api orders:1.0.0 --alias %s --tier Gold clients/%s.crt", name, name))
	}
	if code, out := register("gold"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	eventually(t, "the registration is in force", func() bool { return d.answers(http.StatusOK, "gold", d.Ports.HTTPS, "/orders/1") })
	stop := d.load()
	inside("dd", "if=/dev/zero", "of="+disk+"/fill", "bs=4k")
	eventually(t, "lines of the access log are lost, and counted", func() bool { return p.number("sallyport_access_log_lines_lost_total") > 0 })
	if code, out := register("bronze"); code != 1 || strings.Contains(out, "registered bronze") {
		t.Errorf("on a full disk: %d: %s", code, out)
	}
	if status, _ := p.status("/healthz"); status != http.StatusOK {
		t.Errorf("healthz: %d", status)
	}
	if code, out := inside("rm", disk+"/fill"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	if code, out := register("bronze"); code != 0 {
		t.Errorf("when there is room: %d: %s", code, out)
	}
	eventually(t, "another registration is in force", func() bool { return d.answers(http.StatusOK, "bronze", d.Ports.HTTPS, "/orders/1") })
	stop()
	eventually(t, "the access log goes on", func() bool {
		_, text := inside("tail", "-n", "20", disk+"/access.log")
		return strings.Contains(text, "alias=bronze") || strings.Contains(text, `"alias":"bronze"`)
	})
	p.stop()
}
