// Package wire moves bytes over sockets, in two ways: a goroutine waits for them, or a loop takes what is there.
//
// A connection is in one of two states, and changes between them at any time between two messages or within one:
//
//	waiting    a goroutine owns it: Read and Write wait, as those of any net.Conn do, and Go's poller watches the socket.
//	detached   a loop owns it: the socket has left Go's poller for the loop's (Detach), Fill and WriteNow never wait,
//	           and Read and Write of everybody else fail. Attach gives it back to Go's poller, Release closes it.
//
// In both states Close and Sever may be called by anyone: a detached socket is shut down, and the loop, to which epoll
// reports that, closes the descriptor. So a descriptor number is never used after it has become another connection's.
//
// Under TLS a connection has a Wire between crypto/tls and its socket. While detached the Wire feeds crypto/tls with
// what the loop has read, reports "nothing yet" as a temporary error at the end of it, and keeps what crypto/tls writes
// for the loop to send. TLSCanWait verifies at run time that crypto/tls bears that.
package wire
