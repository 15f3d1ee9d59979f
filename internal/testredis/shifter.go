package testredis

import (
	"bufio"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// A Shifter stands between clients and a server without TLS. It gives requests the replies of others, as a connection
// does whose client took up with it again after it had not waited for a reply (CVE-2025-29923).
type Shifter struct {
	Address string

	mode atomic.Int32
}

const (
	straight int32 = iota
	shift
	withhold
)

// NewShifter starts a proxy to an address. It shifts nothing yet.
func NewShifter(t testing.TB, address string) *Shifter {
	t.Helper()
	s := &Shifter{}
	s.Address = serve(t, func(client net.Conn) {
		server, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		requests := make(chan struct{})
		go func() {
			defer close(requests)
			_, _ = io.Copy(server, client) // ends with either of them
			server.Close()
		}()
		s.replies(client, server)
		client.Close()
		server.Close()
		<-requests
	})
	return s
}

// Shift has every later request on each connection get, without delay, the reply of the request before. The first one
// of a connection has none before it, and gets its own.
func (s *Shifter) Shift() { s.mode.Store(shift) }

// Withhold has the next reply on each connection wait for the next request, which gets it, and so on. Only a client
// that does not close the connection for want of that first reply sees the others.
func (s *Shifter) Withhold() { s.mode.Store(withhold) }

// Mend shifts no more connections. Those that are shifted stay so.
func (s *Shifter) Mend() { s.mode.Store(straight) }

// replies passes replies on until the client or the server is gone.
func (s *Shifter) replies(client io.Writer, server io.Reader) {
	r := bufio.NewReader(server)
	var before []byte // the reply of the request before; if shifted, not sent yet
	shifted := false
	for {
		reply, err := readReply(r)
		if err != nil {
			return
		}
		send := reply
		switch mode := s.mode.Load(); {
		case shifted, mode == shift && before != nil:
			send, shifted = before, true
		case mode == withhold:
			send, shifted = nil, true
		}
		before = reply
		if _, err := client.Write(send); err != nil {
			return
		}
	}
}
