package gateway

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
)

// A backendConn tells whether somebody waits for the backend's next byte. The transport does so on each idle connection,
// unless it still has bytes that came behind the last answer: those it would take for the answer to whichever call is
// next to use the connection, if that came before it looked.
type backendConn struct {
	net.Conn
	mu      sync.Mutex
	change  sync.Cond
	waiting int // readers
	closed  bool
}

func (c *backendConn) Read(p []byte) (int, error) {
	c.note(1)
	n, err := c.Conn.Read(p)
	c.note(-1)
	return n, err
}

func (c *backendConn) note(n int) {
	c.mu.Lock()
	c.waiting += n
	c.mu.Unlock()
	if n > 0 {
		c.change.Broadcast()
	}
}

// Close closes the connection.
func (c *backendConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.change.Broadcast()
	return c.Conn.Close()
}

// CloseWrite ends our side of an upgraded connection.
func (c *backendConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// settle waits until the transport has looked at what came behind the last answer: then it waits for more, or has closed
// the connection. It takes no longer than for the transport to get there.
func (c *backendConn) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting == 0 && !c.closed {
		c.change.Wait()
	}
}

func dialBackend(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &backendConn{Conn: conn}
		c.change.L = &c.mu
		return c, nil
	}
}

// onSettledConn is the request as it goes out on a connection that was used before only when that has settled.
func onSettledConn(out *http.Request) *http.Request {
	return out.WithContext(httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		conn := i.Conn
		if overTLS, ok := conn.(interface{ NetConn() net.Conn }); ok {
			conn = overTLS.NetConn()
		}
		if c, ok := conn.(*backendConn); ok && i.Reused {
			c.settle()
		}
	}}))
}
