package testredis

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/internal/testserver"
)

// A Cluster is three masters with a replica each, which take a second of silence for a death.
type Cluster struct {
	Addresses []string
	Servers   []*Server // in the same order

	t testing.TB
}

// StartCluster starts them, and waits until all know that the cluster is well.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	program := testserver.Tool(t, "redis-cli", "redis-tools")
	c := &Cluster{t: t}
	args := []string{"--cluster", "create"}
	for range 6 {
		server := start(t, Options{}, `cluster-enabled yes
cluster-port {port}
cluster-node-timeout 1000
cluster-replica-validity-factor 0
`)
		c.Servers = append(c.Servers, server)
		c.Addresses = append(c.Addresses, server.Address)
		args = append(args, server.Address+"@"+server.Do("CONFIG", "GET", "cluster-port")[len("cluster-port\n"):])
	}
	ctx, cancel := context.WithTimeout(t.Context(), testserver.Patience)
	defer cancel()
	args = append(args, "--cluster-replicas", "1", "--cluster-yes")
	output, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli --cluster create: %v\n%s", err, output)
	}
	c.WaitWhole()
	return c
}

// KillMaster kills the master of a slot, waits until its replica has the slot and the cluster is well again, and
// returns the one that was killed. Restart makes it the other's replica; WaitWhole before the slot's next failover.
func (c *Cluster) KillMaster(slot int) *Server {
	c.t.Helper()
	old := c.master(slot)
	old.Kill()
	c.waitForSuccessor(slot, old)
	return old
}

// Failover makes the replica of a slot's master the master, and waits until all know it.
func (c *Cluster) Failover(slot int) {
	c.t.Helper()
	old := c.master(slot)
	testserver.Eventually(c.t, "a failover begins", func() error {
		nodes, err := c.nodes(old)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.master != "" && n.master == nodes.owner(slot).id {
				replica, err := find(c.Servers, n.address)
				if err == nil {
					_, err = replica.do("CLUSTER", "FAILOVER")
				}
				return err
			}
		}
		return fmt.Errorf("%s has no replica", old.Address)
	})
	c.waitForSuccessor(slot, old)
}

// WaitWhole waits until every server knows all the others, each master has its replica, and all are well.
func (c *Cluster) WaitWhole() {
	c.t.Helper()
	testserver.Eventually(c.t, "the cluster is whole", func() error {
		for _, s := range c.Servers {
			nodes, err := c.nodes(s)
			if err != nil {
				return err
			}
			var replicated []string
			for _, n := range nodes {
				if n.unwell {
					return fmt.Errorf("%s sees %s as unwell", s.Address, n.address)
				}
				if n.master != "" && !slices.Contains(replicated, n.master) {
					replicated = append(replicated, n.master)
				}
			}
			if len(nodes) != len(c.Servers) || len(replicated) != len(c.Servers)/2 {
				return fmt.Errorf("%s knows %d servers, %d with a replica", s.Address, len(nodes), len(replicated))
			}
			info, err := s.do("INFO", "replication")
			if err != nil {
				return err
			}
			if r := fields(info, ":"); r["role"] == "slave" && r["master_link_status"] != "up" {
				return fmt.Errorf("replica %s has not reached its master", s.Address)
			}
			if err := well(s); err != nil {
				return err
			}
		}
		return nil
	})
}

// WaitReplicated waits until the replica of a slot's master has all that the master has written by now.
func (c *Cluster) WaitReplicated(slot int) {
	c.t.Helper()
	c.master(slot).waitReplicated()
}

// waitForSuccessor waits until every server that runs has another master for a slot.
func (c *Cluster) waitForSuccessor(slot int, old *Server) {
	c.t.Helper()
	testserver.Eventually(c.t, fmt.Sprintf("another master of slot %d", slot), func() error {
		running := 0
		for _, s := range c.Servers {
			if !s.process.Runs() {
				continue
			}
			running++
			nodes, err := c.nodes(s)
			if err != nil {
				return err
			}
			if owner := nodes.owner(slot).address; owner == "" || owner == old.Address {
				return fmt.Errorf("%s keeps to %q", s.Address, owner)
			}
			if err := well(s); err != nil {
				return err
			}
		}
		if running == 0 {
			return fmt.Errorf("no server runs")
		}
		return nil
	})
}

func well(s *Server) error {
	info, err := s.do("CLUSTER", "INFO")
	if err != nil {
		return err
	}
	if state := fields(info, ":")["cluster_state"]; state != "ok" {
		return fmt.Errorf("%s: cluster_state:%s", s.Address, state)
	}
	return nil
}

// master returns the master of a slot, when the servers that run agree on it.
func (c *Cluster) master(slot int) (m *Server) {
	c.t.Helper()
	testserver.Eventually(c.t, fmt.Sprintf("the master of slot %d", slot), func() error {
		m = nil
		for _, s := range c.Servers {
			if !s.process.Runs() {
				continue
			}
			nodes, err := c.nodes(s)
			if err != nil {
				return err
			}
			owner, err := find(c.Servers, nodes.owner(slot).address)
			if err != nil {
				return err
			}
			if m != nil && m != owner {
				return fmt.Errorf("%s or %s", m.Address, owner.Address)
			}
			m = owner
		}
		if m == nil {
			return fmt.Errorf("no server runs")
		}
		return nil
	})
	return m
}

// A node is what a server of a cluster knows of another one, or of itself.
type node struct {
	id, address string
	master      string   // a replica's master's id; of a master empty
	unwell      bool     // marked as failing, or not connected
	slots       [][2]int // first and last
}

type nodes []node

// owner returns the master of a slot, or a node without an address.
func (n nodes) owner(slot int) node {
	for _, node := range n {
		for _, s := range node.slots {
			if s[0] <= slot && slot <= s[1] {
				return node
			}
		}
	}
	return node{}
}

func (c *Cluster) nodes(s *Server) (nodes, error) {
	reply, err := s.do("CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	var all nodes
	for line := range strings.Lines(reply) {
		words := strings.Fields(line) // id, address@port, flags, master, ping, pong, epoch, link, slots
		if len(words) < 8 {
			return nil, fmt.Errorf("CLUSTER NODES of %s says %q", s.Address, line)
		}
		n := node{id: words[0], master: strings.Trim(words[3], "-")}
		n.address, _, _ = strings.Cut(words[1], "@")
		n.unwell = strings.Contains(words[2], "fail") || strings.Contains(words[2], "handshake") || words[7] != "connected"
		for _, w := range words[8:] {
			first, last, isRange := strings.Cut(w, "-")
			if !isRange {
				last = first
			}
			from, err1 := strconv.Atoi(first)
			to, err2 := strconv.Atoi(last)
			if err1 == nil && err2 == nil { // else a slot that moves
				n.slots = append(n.slots, [2]int{from, to})
			}
		}
		all = append(all, n)
	}
	return all, nil
}
