package main_test

import (
	"fmt"
	"os/exec"
	"testing"
)

// TestFewDescriptors: where the system allows few open files, as it does nearly everywhere, that is no warning unless
// somebody has asked for more.
func TestFewDescriptors(t *testing.T) {
	for settings, level := range map[string]string{"": "INFO", "\nlimits: {connections: 19000}": "WARN"} {
		t.Run(level, func(t *testing.T) {
			d := newDemo(t, "\nstatus:", settings+"\nstatus:")
			command := fmt.Sprintf("ulimit -n 1024 && exec sallyport quickstart --dir '%s' --port-offset %d", d.Dir, d.offset)
			p := startCommand(t, d.Dir, d.Demo, exec.Command("bash", "-c", command))
			p.waitFor("sallyport: ready\n")
			const says = "fewer connections than limits.connections are accepted"
			if n := count(p.stderr.String(), "level="+level, says, "accepted=480"); n != 1 {
				t.Errorf("%d lines at level %s:\n%s", n, level, p.stderr)
			}
			p.stop()
		})
	}
}
