package testdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sallyport/internal/testserver"
)

// Kill ends the server by SIGKILL, all its processes at once, and waits for their end.
func (s *Server) Kill() {
	s.t.Helper()
	if !s.process.Runs() {
		return
	}
	others := s.hold() // so that the first starts no more, and does not see them die
	signal(others, syscall.SIGKILL)
	testserver.Eventually(s.t, "a killed server ends", func() error {
		all, err := list()
		if err != nil {
			return err
		}
		for _, id := range others {
			if p, ok := all[id]; ok && !p.dead() {
				return fmt.Errorf("process %d runs", id)
			}
		}
		return nil
	})
	s.process.Kill()
}

// Stop has the server end its sessions and write its data, and waits for its end.
func (s *Server) Stop() {
	s.t.Helper()
	s.process.Quit(s.kind.gentle())
}

// Restart starts the server once more, on the same port and with the same data, and waits until it answers. One that
// runs is killed before.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.process.Start(nil, s.ping)
}

// Pause stops the server, all its processes, by SIGSTOP: connections are still made, and nothing is answered.
func (s *Server) Pause() {
	s.t.Helper()
	signal(s.hold(), syscall.SIGSTOP)
}

// Resume lets the server go on after Pause.
func (s *Server) Resume() {
	s.t.Helper()
	signal(s.hold(), syscall.SIGCONT)
	s.process.Signal(syscall.SIGCONT)
}

// LimitConnections has the server refuse further connections to a database, or to MariaDB as its user, when there are n
// of them. Those that there are stay; a negative n takes the limit away.
func (s *Server) LimitConnections(t testing.TB, d Database, n int) {
	t.Helper()
	for _, statement := range s.kind.limitConnections(d, n) {
		s.Exec(t, s.kind.admin().Name, statement)
	}
}

// TakeConnections makes connections to a database as its user until the server has none left, and keeps them until
// giveBack is called or the test ends. What others give up meanwhile is free again; the administrator always gets one.
func (s *Server) TakeConnections(t testing.TB, d Database) (giveBack func()) {
	t.Helper()
	pool := s.Open(t, d)
	var taken []*sql.Conn
	giveBack = sync.OnceFunc(func() {
		for _, c := range taken {
			c.Close()
		}
	})
	t.Cleanup(giveBack)
	ctx, cancel := context.WithTimeout(context.Background(), testserver.Patience)
	defer cancel()
	for {
		c, err := pool.Conn(ctx)
		if s.kind.full(err) {
			return giveBack
		}
		if err != nil {
			t.Fatalf("taking connection %d: %v", len(taken)+1, err)
		}
		taken = append(taken, c)
	}
}

// DropConnections ends all sessions but the administrator's.
func (s *Server) DropConnections(t testing.TB) {
	t.Helper()
	err := s.do(s.kind.admin(), func(ctx context.Context, pool *sql.DB) error { return s.kind.dropConnections(ctx, pool) })
	if err != nil {
		t.Errorf("dropping connections: %v", err)
	}
}

// SetReadOnly has the server refuse what writes, the administrator's statements excepted, or take it again. Sessions that
// there are already may learn of it a moment later than new ones, and MariaDB forgets it with Restart.
func (s *Server) SetReadOnly(t testing.TB, on bool) {
	t.Helper()
	for _, statement := range s.kind.setReadOnly(on) {
		s.Exec(t, s.kind.admin().Name, statement)
	}
	testserver.Eventually(t, "a server is read-only or not", func() error {
		is, err := s.kind.isReadOnly(s)
		if err == nil && is != on {
			err = fmt.Errorf("read-only: %v", is)
		}
		return err
	})
}

// A process is what ps says of one.
type process struct {
	parent int
	state  string
}

func (p process) dead() bool    { return strings.HasPrefix(p.state, "Z") }
func (p process) stopped() bool { return strings.HasPrefix(p.state, "T") }

// list returns all processes of the machine by their numbers.
func list() (map[int]process, error) {
	output, err := exec.Command("ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	all := map[int]process{}
	for line := range strings.Lines(string(output)) {
		words := strings.Fields(line)
		if len(words) != 3 {
			return nil, fmt.Errorf("ps says %q", line)
		}
		id, err1 := strconv.Atoi(words[0])
		parent, err2 := strconv.Atoi(words[1])
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("ps says %q: %w", line, err)
		}
		all[id] = process{parent, words[2]}
	}
	return all, nil
}

// hold stops the process that was started, if it has not stopped, and returns those that it has started.
func (s *Server) hold() (others []int) {
	s.t.Helper()
	s.process.Signal(syscall.SIGSTOP)
	first := s.process.ID()
	testserver.Eventually(s.t, "a server stops", func() error {
		all, err := list()
		if err != nil {
			return err
		}
		if !all[first].stopped() {
			return fmt.Errorf("process %d is in state %q", first, all[first].state)
		}
		others = nil
		for id, p := range all {
			if p.parent == first && !p.dead() {
				others = append(others, id)
			}
		}
		return nil
	})
	return others
}

func signal(processes []int, s syscall.Signal) {
	for _, id := range processes {
		_ = syscall.Kill(id, s) // it may have ended
	}
}
