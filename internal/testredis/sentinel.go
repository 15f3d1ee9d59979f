package testredis

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/testserver"
)

// master is the name under which sentinels watch a master.
const master = "sallyport"

// A Sentinel is a master and a replica, watched by three sentinels that take a second of silence for a death.
type Sentinel struct {
	Addresses []string  // of the sentinels
	Master    string    // the name that they are asked for
	Servers   []*Server // the master and the replica, whichever is which

	t         testing.TB
	sentinels []*Server
}

// StartSentinel starts them, and waits until all know each other.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	program := testserver.Tool(t, "redis-sentinel", "redis-sentinel")
	s := &Sentinel{Master: master, Servers: []*Server{Start(t, Options{}), Start(t, Options{})}, t: t}
	host, port, _ := net.SplitHostPort(s.Servers[0].Address)
	s.Servers[1].Do("REPLICAOF", host, port)
	for range 3 {
		sentinel := startSentinel(t, program, host, port)
		s.sentinels = append(s.sentinels, sentinel)
		s.Addresses = append(s.Addresses, sentinel.Address)
	}
	testserver.Eventually(t, "a set of sentinels comes up", func() error { return s.whole() })
	return s
}

func startSentinel(t testing.TB, program, host, port string) *Server {
	t.Helper()
	s := &Server{t: t, process: testserver.Process{T: t, Program: program, Dir: t.TempDir()}}
	s.process.Start(func() []string {
		own := testserver.FreePort(t)
		s.Address = net.JoinHostPort("127.0.0.1", own)
		testserver.Write(t, filepath.Join(s.process.Dir, "sentinel.conf"), strings.Join([]string{
			"bind 127.0.0.1",
			"port " + own,
			fmt.Sprintf("dir %q", s.process.Dir),
			fmt.Sprintf("user %s on >%s ~* &* +@all", admin, adminPassword),
			fmt.Sprintf("sentinel monitor %s %s %s 2", master, host, port),
			"sentinel down-after-milliseconds " + master + " 1000",
			"sentinel failover-timeout " + master + " 2000",
			"",
		}, "\n"))
		return []string{"sentinel.conf"}
	}, s.ping)
	// By default a sentinel looks around every ten seconds, says every two that it is there, connects to a new master up
	// to a second late, and does nothing for half a minute after a busy machine has held it up for two seconds. No
	// replica may become the master that has been silent for five pings or three looks.
	s.Do("SENTINEL", "DEBUG", "info-period", "500", "publish-period", "200", "ping-period", "400", "tilt-trigger", "60000")
	return s
}

// KillMaster kills the master, waits until the replica is the master in its place for all sentinels, and returns the
// one that was killed. Restart makes it the other's replica; WaitWhole before the next failover, which needs one.
func (s *Sentinel) KillMaster() *Server {
	s.t.Helper()
	old := s.master()
	old.Kill()
	s.waitForSuccessor(old)
	return old
}

// Failover has the sentinels make the replica the master, and waits until all of them say so.
func (s *Sentinel) Failover() {
	s.t.Helper()
	old := s.master()
	testserver.Eventually(s.t, "a failover", func() error {
		m, err := masterSeenBy(s.sentinels[0])
		if err != nil || m["ip"]+":"+m["port"] != old.Address {
			return err
		}
		if !strings.Contains(m["flags"], "failover_in_progress") { // it may have been given up
			_, err = s.sentinels[0].do("SENTINEL", "FAILOVER", s.Master)
		}
		return errors.Join(errors.New("it goes on"), err)
	})
	s.waitForSuccessor(old)
}

// WaitWhole waits until every sentinel knows the master, its replica and the other sentinels, and all are well.
func (s *Sentinel) WaitWhole() {
	s.t.Helper()
	testserver.Eventually(s.t, "the set of sentinels is whole again", s.whole)
}

// WaitReplicated waits until the replica has all that the master has written by now.
func (s *Sentinel) WaitReplicated() {
	s.t.Helper()
	s.master().waitReplicated()
}

func (s *Sentinel) waitForSuccessor(old *Server) {
	s.t.Helper()
	testserver.Eventually(s.t, "another master", func() error {
		for _, sentinel := range s.sentinels {
			now, err := s.masterOf(sentinel)
			if err != nil {
				return err
			}
			if now == old {
				return fmt.Errorf("sentinel %s keeps to %s", sentinel.Address, old.Address)
			}
			role, err := now.do("ROLE")
			if err != nil {
				return err
			}
			if !strings.HasPrefix(role, "master\n") {
				return fmt.Errorf("%s is %q", now.Address, role)
			}
		}
		return nil
	})
}

func (s *Sentinel) master() (m *Server) {
	s.t.Helper()
	testserver.Eventually(s.t, "the master's address", func() (err error) {
		m, err = s.masterOf(s.sentinels[0])
		return err
	})
	return m
}

func (s *Sentinel) masterOf(sentinel *Server) (*Server, error) {
	reply, err := sentinel.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.Master)
	if err != nil {
		return nil, err
	}
	return find(s.Servers, strings.Replace(reply, "\n", ":", 1))
}

func (s *Sentinel) whole() error {
	for _, sentinel := range s.sentinels {
		m, err := masterSeenBy(sentinel)
		if err != nil {
			return err
		}
		if m["flags"] != "master" || m["num-slaves"] != "1" || m["num-other-sentinels"] != "2" {
			return fmt.Errorf("sentinel %s sees a master %q, %s replicas, %s other sentinels", sentinel.Address,
				m["flags"], m["num-slaves"], m["num-other-sentinels"])
		}
		if _, err := sentinel.do("SENTINEL", "CKQUORUM", s.Master); err != nil {
			return err
		}
		replicas, err := sentinel.do("SENTINEL", "REPLICAS", s.Master)
		if err != nil {
			return err
		}
		if !strings.Contains(replicas, "\nflags\nslave\n") || !strings.Contains(replicas, "\nrole-reported\nslave\n") {
			return fmt.Errorf("sentinel %s sees a replica that is not well", sentinel.Address)
		}
		now, err := s.masterOf(sentinel)
		if err != nil {
			return err
		}
		if err := s.replicated(now); err != nil {
			return err
		}
	}
	return nil
}

// masterSeenBy returns what a sentinel knows of the master.
func masterSeenBy(sentinel *Server) (map[string]string, error) {
	reply, err := sentinel.do("SENTINEL", "MASTER", master)
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for words := strings.Split(reply, "\n"); len(words) > 1; words = words[2:] {
		m[words[0]] = words[1]
	}
	return m, nil
}

// replicated returns an error unless a server is the master and the other one its replica, with all of its data.
func (s *Sentinel) replicated(master *Server) error {
	for _, server := range s.Servers {
		role, err := server.do("ROLE")
		if err != nil {
			return err
		}
		want := "master\n"
		if server != master {
			want = "slave\n" + strings.Replace(master.Address, ":", "\n", 1) + "\nconnected\n"
		}
		if !strings.HasPrefix(role, want) {
			return fmt.Errorf("%s is %q, want %q", server.Address, role, want)
		}
	}
	return nil
}

// find returns the server with an address.
func find(servers []*Server, address string) (*Server, error) {
	for _, s := range servers {
		if s.Address == address {
			return s, nil
		}
	}
	return nil, errors.New(address + " is none of ours")
}
