// Package redis runs the Redis server that gateways count their limits in.
package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"sallyport/bench/port"
	"sallyport/bench/process"
)

// Debian is the package that has the server.
const Debian = "redis-server"

const program = "redis-server"

// Locate returns the path of the server, or an error that says how to get it.
func Locate() (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: apt-get install %s", err, Debian)
	}
	return path, nil
}

// A Server is a running one, with nothing but loopback to listen on and nothing on disk but its log.
type Server struct {
	*process.Process
	Address string
	output  *os.File
	held    *port.Held
}

// startWait is how long a server may take to answer. One that ends is not waited for.
const startWait = time.Minute

// Start starts a server on the given cores, with its log in an existing folder, and waits until it answers.
func Start(ctx context.Context, folder string, cores []int) (*Server, error) {
	path, err := Locate()
	if err != nil {
		return nil, err
	}
	held, err := port.Hold(0)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	output, err := os.Create(filepath.Join(folder, "redis.log"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("redis: %w", err), held.Close())
	}
	running, err := process.Start(process.Options{Cores: cores, Dir: folder, Output: output}, path,
		"--port", fmt.Sprint(held.Number()), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, errors.Join(err, output.Close(), held.Close())
	}
	s := &Server{running, held.Address(), output, held}
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("redis: %w: its output is in %s", err, output.Name()), s.Stop())
	}
	return s, nil
}

// Stop stops the server and waits for its end.
func (s *Server) Stop() error { return errors.Join(s.Process.Stop(), s.output.Close(), s.held.Close()) }

// await returns when the server answers.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		err := ping(ctx, s.Address)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer at %s: %w", s.Address, err)
		case <-s.Ended():
			return errors.New("it ended at its start")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ping asks the server at address for a sign of life.
func ping(ctx context.Context, address string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return err
	}
	answer := make([]byte, len("+PONG\r\n"))
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if string(answer) != "+PONG\r\n" {
		return fmt.Errorf("answer %q to PING", answer)
	}
	return nil
}
