// Package process runs programs on chosen cores and reads their CPU time and memory.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Options configure a program. With the zero Options it runs on all cores, in the current folder, and its output is
// discarded.
type Options struct {
	Cores  []int     // nil: those of this process
	Dir    string    // the current folder
	Env    []string  // in addition to this process's
	Output io.Writer // of stdout and stderr
}

// A Process is a started program. Stop must be called, even if the program ends by itself.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the program has ended
	err   error         // of Wait; valid once ended is closed
}

// Start starts a program, which gets SIGTERM when this process ends.
func Start(o Options, program string, args ...string) (*Process, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.Dir, o.Output, o.Output
	cmd.Env = append(os.Environ(), o.Env...)
	if err := StartOn(o.Cores, cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	go func() { // Stop waits for it
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// ID returns the process id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Ended returns a channel that is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Stop sends SIGTERM and, after ten seconds, SIGKILL. It returns an error if the program had already ended or had to be
// killed.
func (p *Process) Stop() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended by itself: %v", p.cmd.Path, p.err)
	default:
	}
	err := p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(10 * time.Second):
	}
	err = errors.Join(err, p.cmd.Process.Kill())
	<-p.ended
	return errors.Join(fmt.Errorf("%s didn't end when it was asked to", p.cmd.Path), err)
}
