package testredis

import (
	"bufio"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Kind is what is wrong with a fake. All but Silent and Loading answer as they should what does not write, which is
// how a connection begins.
type Kind int

const (
	Silent        Kind = iota // takes connections and commands, and never answers
	Garbage                   // answers what is no RESP
	ResetMidReply             // resets the connection in the middle of a reply
	Loading                   // reads its data from disk, and refuses everything until then
	OOM                       // is full
	ReadOnly                  // is a replica
)

// The errors are those of Redis 7.0.
var refusals = map[Kind]string{
	Loading:  "-LOADING Redis is loading the dataset in memory\r\n",
	OOM:      "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
	ReadOnly: "-READONLY You can't write against a read only replica.\r\n",
}

// Fake starts a server that stands in for a bad Redis, without TLS, and returns its address.
func Fake(t testing.TB, kind Kind) string {
	t.Helper()
	return serve(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			raw, err := readReply(r)
			if err != nil {
				return
			}
			if !kind.answer(conn, raw) {
				return
			}
		}
	})
}

// answer answers a command, and reports whether the connection lives on.
func (k Kind) answer(conn net.Conn, raw []byte) bool {
	args, err := texts(raw)
	if err != nil || len(args) == 0 {
		return false
	}
	reply, ok := harmless(args)
	switch {
	case k == Silent:
		return true
	case ok && k != Loading:
	case k == Garbage:
		reply = "HTTP/1.1 400 Bad Request\r\n\r\n\x00\xff"
	case k == ResetMidReply:
		_, _ = conn.Write([]byte("$100\r\nthe first of a hundred bytes")) // the client may have gone
		_ = conn.(*net.TCPConn).SetLinger(0)
		return false
	default:
		reply = refusals[k]
	}
	_, err = conn.Write([]byte(reply))
	return err == nil
}

// harmless returns the reply to a command that does not write.
func harmless(args []string) (reply string, ok bool) {
	switch name := strings.ToUpper(args[0]); name {
	case "HELLO":
		if len(args) > 1 && args[1] == "3" {
			return "%2\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n", true
		}
		return "*4\r\n+server\r\n+redis\r\n+proto\r\n:2\r\n", true
	case "PING":
		return "+PONG\r\n", true
	case "AUTH", "SELECT", "CLIENT", "QUIT":
		return "+OK\r\n", true
	case "GET":
		return "$-1\r\n", true
	case "TIME":
		now := time.Now()
		seconds, micros := fmt.Sprint(now.Unix()), fmt.Sprint(now.Nanosecond()/1000)
		return string(command([]string{seconds, micros})), true
	case "SCRIPT":
		if len(args) == 3 && strings.EqualFold(args[1], "LOAD") {
			sum := sha1.Sum([]byte(args[2])) // by which Redis names scripts
			return "+" + hex.EncodeToString(sum[:]) + "\r\n", true
		}
	}
	return "", false
}

// serve handles each connection to a new listener in a goroutine. At the end of the test it closes them all, and waits.
func serve(t testing.TB, handle func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	open, closed := map[net.Conn]bool{}, false
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if open[conn] = true; closed {
				conn.Close()
			}
			mu.Unlock()
			running.Go(func() {
				handle(conn)
				conn.Close()
				mu.Lock()
				defer mu.Unlock()
				delete(open, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		closed = true
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String()
}
