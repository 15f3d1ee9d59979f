// Package backend is the one way to an API's servers: which of them is asked, on which connection, and what it answers.
//
// A Group is the servers of one environment of an API, with the counts that outlive a reload; the Registry keeps them.
// A Trip is one call's way to a server and back. Whoever carries the call drives the same Trip: a goroutine by Send and
// Next, which wait; a loop step by step, with connections that it keeps among its own. A Reader turns the bytes of an
// answer into events without I/O. HTTP/1.1 is spoken here; HTTP/2 by net/http's client, behind the same methods.
//
// What is removed from an answer's trailers, how long a head may be, how many interim answers there may be, when a call
// is sent a second time and what a failure is called is decided here, for every carrier and every kind of server.
package backend
