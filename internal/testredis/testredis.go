// Package testredis starts Redis for tests: servers, Sentinel sets and clusters, and what stands between them and a
// client.
//
//	server := testredis.Start(t, testredis.Options{TLS: true, User: "limiter", Password: "secret"})
//	client := redis.NewClient(&redis.Options{Addr: server.Address, TLSConfig: &tls.Config{RootCAs: server.Roots}, …})
//	server.Kill()
//	server.Restart()
//
// All of them are processes of their own on free ports of 127.0.0.1, which end with the test; none uses the port of a
// Redis that the system runs. A program that is missing skips the test, or fails it if CI=true.
package testredis

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

// LimiterRules are the ACL rules of a user who may do just what a limiter does.
const LimiterRules = "resetkeys ~sallyport:* resetchannels -@all" +
	" +eval +evalsha +script|load +script|exists +time +type +exists +del +unlink" +
	" +get +set +setex +psetex +getdel +incr +incrby +incrbyfloat +decr +decrby" +
	" +expire +pexpire +expireat +pexpireat +persist +ttl +pttl +expiretime +pexpiretime" +
	" +hget +hset +hsetnx +hmget +hmset +hgetall +hdel +hexists +hincrby +hincrbyfloat +hlen +hkeys +hvals" +
	" +zadd +zrem +zscore +zmscore +zincrby +zcard +zcount +zrange +zrangebyscore +zremrangebyscore +zremrangebyrank" +
	" +ping +hello +auth +select +quit +info +role +command +client|id +client|setname +client|getname" +
	" +cluster|info +cluster|slots +cluster|shards +cluster|nodes +cluster|myid +cluster|keyslot" +
	" +readonly +readwrite +asking"

// The user by whom Do is asked.
const (
	admin         = "testredis-admin"
	adminPassword = "testredis"
)

// Options are the settings of a server. Their zero value is a server without TLS, users and persistence.
type Options struct {
	TLS bool // no port without TLS; clients show no certificate

	// With a User nobody else may do anything, and the user only what Rules say. With a Password alone it is the default
	// user's, who may do everything.
	User, Password string
	Rules          string // ACL rules; empty: LimiterRules

	AppendOnly bool     // keep the data over Restart, every write at once if Args don't say otherwise
	Args       []string // more arguments of redis-server, such as "--maxmemory", "1mb"
}

// A Server is a running redis-server.
type Server struct {
	Address string         // 127.0.0.1 and a port
	CAFile  string         // with TLS: the file of the CA's certificate
	Roots   *x509.CertPool // with TLS: the CA

	t       testing.TB
	process testserver.Process
}

// Start starts a server and waits until it answers.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	return start(t, o, "")
}

// start adds lines to the server's configuration. {port} in them is a free port of its own.
func start(t testing.TB, o Options, lines string) *Server {
	t.Helper()
	program := testserver.Tool(t, "redis-server", "redis-server")
	dir := t.TempDir()
	s := &Server{t: t}
	if o.TLS {
		ca := testpki.NewCA(t, "Redis's CA")
		s.CAFile = filepath.Join(dir, "ca.pem")
		s.Roots = x509.NewCertPool()
		s.Roots.AddCert(ca.Cert)
		identity := ca.IssueServer("127.0.0.1", "localhost")
		testserver.Write(t, s.CAFile, string(testpki.PEM(ca.Cert)))
		testserver.Write(t, filepath.Join(dir, "server.pem"), string(identity.PEM()))
	}
	s.process = testserver.Process{T: t, Program: program, Dir: dir}
	s.process.Start(func() []string {
		port := testserver.FreePort(t)
		s.Address = net.JoinHostPort("127.0.0.1", port)
		config := o.config(dir, port) + strings.ReplaceAll(lines, "{port}", testserver.FreePort(t))
		testserver.Write(t, filepath.Join(dir, "redis.conf"), config)
		return append([]string{"redis.conf"}, o.Args...)
	}, s.ping)
	return s
}

func (o Options) config(dir, port string) string {
	var c strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&c, format+"\n", args...) }
	line("bind 127.0.0.1")
	line("dir %q", dir)
	line(`save ""`)
	line("enable-debug-command local")
	line("repl-diskless-sync-delay 0")                 // by default a replica waits 5 s for others
	line("loading-process-events-interval-bytes 1024") // by default a server that loads answers every 2 MB
	if o.TLS {
		line("port 0\ntls-port %s\ntls-auth-clients no", port)
		line("tls-cert-file server.pem\ntls-key-file server.pem\ntls-ca-cert-file ca.pem")
	} else {
		line("port %s", port)
	}
	if o.AppendOnly {
		line("appendonly yes\nappendfsync always")
	}
	line("user %s on >%s ~* &* +@all", admin, adminPassword)
	rules := o.Rules
	if rules == "" {
		rules = LimiterRules
	}
	switch {
	case o.User != "":
		line("user default off")
		line("user %s on >%s %s", o.User, o.Password, rules)
	case o.Password != "":
		line("user default on >%s ~* &* +@all", o.Password)
	}
	return c.String()
}

// Do sends a command on a connection of its own, as a user who may do everything, and returns the reply: the elements
// of an array one a line, null as an empty string. An error fails the test, but does not end it: any goroutine may
// call Do.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	reply, err := s.do(args...)
	if err != nil {
		s.t.Errorf("redis %s: %s: %v", s.Address, strings.Join(args, " "), err)
	}
	return reply
}

func (s *Server) do(args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.Address, testserver.Patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(testserver.Patience)); err != nil {
		return "", err
	}
	if s.Roots != nil {
		conn = tls.Client(conn, &tls.Config{RootCAs: s.Roots, ServerName: "127.0.0.1"})
	}
	return ask(conn, []string{"AUTH", admin, adminPassword}, args)
}

func (s *Server) ping() error {
	_, err := s.do("PING")
	return err
}

// Kill ends the server by SIGKILL, and waits for its end.
func (s *Server) Kill() {
	s.t.Helper()
	s.process.Kill()
}

// Pause stops the server by SIGSTOP: connections are still made, and nothing is answered.
func (s *Server) Pause() {
	s.t.Helper()
	s.process.Signal(syscall.SIGSTOP)
}

// Resume lets the server go on after Pause.
func (s *Server) Resume() {
	s.t.Helper()
	s.process.Signal(syscall.SIGCONT)
}

// Restart starts the server once more, on the same port and with the same data, and waits until it answers. One that
// runs is killed before.
func (s *Server) Restart() {
	s.t.Helper()
	s.process.Kill()
	s.process.Start(nil, s.ping)
}

// RestartLoading restarts the server, which has AppendOnly, with so much data that it loads it until FinishLoading, for
// half a minute at most, and refuses everything meanwhile. It waits until it does.
func (s *Server) RestartLoading() {
	s.t.Helper()
	s.Do("DEBUG", "POPULATE", "10000", "testredis", "1024")
	s.Do("BGREWRITEAOF")
	testserver.Eventually(s.t, "the data is written", func() error { return s.persists("aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0") })
	s.process.Kill()
	args := s.process.Args
	s.process.Args = append(slices.Clone(args), "--key-load-delay", "3000") // microseconds
	s.process.Start(nil, func() error {
		if err := s.ping(); err == nil || !strings.Contains(err.Error(), "LOADING") {
			return fmt.Errorf("it does not load: %w", err)
		}
		return nil
	})
	s.process.Args = args
}

// FinishLoading lets the server load the rest at once, and waits until it answers.
func (s *Server) FinishLoading() {
	s.t.Helper()
	s.Do("CONFIG", "SET", "key-load-delay", "0")
	testserver.Eventually(s.t, "all is loaded", s.ping)
}

// DenySaving has the server, which has no data on disk, try to save in vain: from then on it refuses to write.
func (s *Server) DenySaving() {
	s.t.Helper()
	if err := os.Mkdir(filepath.Join(s.process.Dir, "dump.rdb"), 0o700); err != nil { // no file can take its place
		s.t.Fatal(err)
	}
	s.Do("CONFIG", "SET", "save", "3600 1")
	s.Do("BGSAVE")
	testserver.Eventually(s.t, "saving fails", func() error { return s.persists("rdb_last_bgsave_status:err") })
}

// AllowSaving takes DenySaving back.
func (s *Server) AllowSaving() {
	s.t.Helper()
	s.Do("CONFIG", "SET", "save", "")
}

// WaitWritten waits until the operating system has all of the append-only file, so that Kill loses nothing.
func (s *Server) WaitWritten() {
	s.t.Helper()
	testserver.Eventually(s.t, "the append-only file is written", func() error { return s.persists("aof_buffer_length:0") })
}

// persists returns an error unless what the server says of its persistence has these lines.
func (s *Server) persists(lines ...string) error {
	info, err := s.do("INFO", "persistence")
	if err != nil {
		return err
	}
	for _, line := range lines {
		if name, want, _ := strings.Cut(line, ":"); fields(info, ":")[name] != want {
			return fmt.Errorf("%s is %s, not %s", name, fields(info, ":")[name], want)
		}
	}
	return nil
}

// waitReplicated waits until the server's replicas, one at least, have all that it has written by now.
func (s *Server) waitReplicated() {
	s.t.Helper()
	written := -1
	testserver.Eventually(s.t, "all is replicated", func() error {
		info, err := s.do("INFO", "replication")
		if err != nil {
			return err
		}
		f := fields(info, ":")
		if written < 0 {
			if written, err = strconv.Atoi(f["master_repl_offset"]); err != nil {
				return err
			}
		}
		if f["connected_slaves"] == "0" {
			return fmt.Errorf("%s has no replica", s.Address)
		}
		for name, replica := range f {
			if !strings.HasPrefix(name, "slave") { // slave0:ip=…,port=…,state=online,offset=…,lag=…
				continue
			}
			_, offset, _ := strings.Cut(replica, "offset=")
			offset, _, _ = strings.Cut(offset, ",")
			if has, err := strconv.Atoi(offset); err == nil && has < written {
				return fmt.Errorf("%s is behind %d", replica, written)
			}
		}
		return nil
	})
}

// fields reads lines of names and values, such as "cluster_state:ok".
func fields(text, separator string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), separator); ok {
			m[name] = value
		}
	}
	return m
}
