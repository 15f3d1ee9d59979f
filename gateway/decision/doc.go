// Package decision says what becomes of a call. A call is one Exchange that walks through the stages screen, identify,
// match, authorize, limit and dispatch; each fills its own part and reads only the parts above it. It does no I/O: the
// stages read snapshots that never change, and whoever carries the call does what they decide.
//
// It also says what of a request goes on to the server and what of an answer to the client, so that no carrier has a
// rule of its own. It exports more names than other rooms because it holds the vocabulary of all of them: what a
// snapshot is made of (Listener, Table, Route, Resource, Clients), what a call is (Exchange, Connection), and how it
// ends (Refusal, Reason). And it is longer, since the answer of each refusal stands in it, a field a line, and what
// explain tells of each stage; no stage has more than 250 lines.
package decision
