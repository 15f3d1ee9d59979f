// Package process runs programs on cores of their own and reads what they use of the machine.
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

// Options say how a program runs. The zero Options run it on all cores, in the current folder, silently.
type Options struct {
	Cores  []int     // it may run on; nil: all that this process may
	Dir    string    // its current folder
	Env    []string  // beside this process's
	Output io.Writer // takes what it says
}

// A Process is a program that was started. Stop must be called, also if it ends by itself.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // how, once ended is closed
}

// Start starts a program. It is told to end when this process ends.
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

// ID is the process id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the program to end and, after ten seconds, ends it. It returns an error if the program ended before, or had to
// be ended.
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
