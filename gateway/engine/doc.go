// Package engine carries calls of HTTP/1.1 clients: one goroutine for a call, or one loop for many connections.
//
// A client's connection is with a goroutine or with a loop:
//
//	goroutine   owns it from accept on, reads the head of its first call, carries that call, waiting as long as it takes,
//	            and then offers the connection to a loop (Engine.park). Without loops it carries all calls.
//	loop        owns it between calls and while a call can go on at once. A loop never waits: what would have to wait
//	            (a key for a token, a dial, a body that is still arriving, an answer that comes in pieces, HTTP/2 to the
//	            server, a tunnel) goes to a goroutine with all its state (loop.goOn), and the connection comes back.
//
// A call is a decision.Exchange, the request that was read, and a backend.Trip. Loop and goroutine drive the same Trip,
// so a call may change hands between any two of its steps. A connection to a server is idle in its Server's pool, which
// goroutines use, or in the ring of one loop (loop.backends), in whose epoll set it is.
//
// Whoever owns a connection closes it. Engine.Close, a drain and a watch that breaks a call off only shut the socket
// down or set a deadline; the owner then finds it ended.
package engine
