// Package sandbox runs a measurement in a network namespace that carries no other traffic.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"sallyport/bench/process"
)

// variable is set inside the sandbox, to a description of its network.
const variable = "SALLYBENCH_INSIDE"

const (
	namespaced = "a network namespace of its own, reno"
	shared     = "the machine's own network"
)

// Inside returns the network that Run has started this process in, or "" outside.
func Inside() string { return os.Getenv(variable) }

// Run runs this program again with these arguments on these cores (nil: all). With namespace, it runs in a new network
// namespace, which takes root on Linux; without root it stays on the machine's loopback. Run returns the exit code. It
// passes SIGTERM and the end of ctx on to the program, and waits for it.
func Run(ctx context.Context, args []string, cores []int, namespace bool) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("sandbox: %w", err)
	}
	if namespace {
		if err := process.StartOn(nil, separate(exec.Command("/bin/true"))); err != nil {
			namespace = false
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), variable+"="+shared)
	if namespace {
		cmd.Env = append(os.Environ(), variable+"="+namespaced)
		cmd = separate(cmd)
	}
	// The terminal sends an interrupt to both processes. The inner one cleans up, and this one waits for it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := process.StartOn(cores, cmd); err != nil {
		return 0, fmt.Errorf("sandbox: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM {
				cmd.Process.Signal(s)
			}
		case <-ctx.Done():
			cmd.Process.Signal(syscall.SIGTERM)
			ctx = context.Background()
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(1, exit.ExitCode()), nil
			}
			return 0, err
		}
	}
}
