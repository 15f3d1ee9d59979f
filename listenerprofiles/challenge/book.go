// Package challenge keeps the answers to a CA's validations of names while these are pending: HTTP-01 (RFC 8555 section
// 8.3) and TLS-ALPN-01 (RFC 8737).
//
// Whoever orders a certificate opens an answer before it tells the CA to look, and closes it when the CA has looked. The
// data side asks the Book, and gives nothing for a name or a token that is not pending.
package challenge

import (
	"cmp"
	"context"
	"crypto/tls"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// PathPrefix is where a CA asks for an HTTP-01 answer; the token follows.
const PathPrefix = "/.well-known/acme-challenge/"

// maxToken is the length of a token that is looked for. RFC 8555 asks for 128 bits at least, which are 22 characters.
const maxToken = 256

// An Answer is what one validation of a name is answered with.
type Answer struct {
	Name             string           // the DNS name, lower case
	Token            string           // of HTTP-01; "" for TLS-ALPN-01
	KeyAuthorization string           // the body that answers HTTP-01
	Certificate      *tls.Certificate // that answers TLS-ALPN-01; nil for HTTP-01
}

func (a Answer) same(b Answer) bool { return a.Name == b.Name && a.Token == b.Token }

// A Book has the answers that are pending on this node, and of other nodes what it saw last. It is used by many
// goroutines.
type Book struct {
	fetch func(context.Context) ([]Answer, error) // what is pending on any node; nil: there is only this one

	names   atomic.Pointer[map[string]bool]
	mine    atomic.Pointer[[]Answer]
	others  atomic.Pointer[sighted]
	writing sync.Mutex // of mine

	turn  chan struct{} // held by whoever fetches
	begun atomic.Int64  // fetches
	seen  atomic.Int64  // the last of them that has succeeded
	last  time.Time     // when one ended; belongs to the holder of turn
}

// sighted is what was pending on any node at a time.
type sighted struct {
	list []Answer
	at   time.Time
}

// seenLife is for how long what was seen is taken to be pending. Later it is looked at again, since it may be over.
const seenLife = time.Minute

// pending returns what was seen, unless that is too long ago.
func (s *sighted) pending() []Answer {
	if time.Since(s.at) > seenLife {
		return nil
	}
	return s.list
}

// NewBook returns an empty Book. fetch returns what is pending on any node; nil: there is only this one.
func NewBook(fetch func(context.Context) ([]Answer, error)) *Book {
	b := &Book{fetch: fetch, turn: make(chan struct{}, 1)}
	b.names.Store(&map[string]bool{})
	b.mine.Store(&[]Answer{})
	b.others.Store(&sighted{})
	return b
}

// SetNames says for which names certificates are ordered. Others have no answer.
func (b *Book) SetNames(names []string) {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	b.names.Store(&set)
}

// Open makes an answer pending on this node.
func (b *Book) Open(a Answer) {
	b.write(func(list []Answer) []Answer { return append(list, a) }, a)
}

// Close ends what Open began.
func (b *Book) Close(a Answer) {
	b.write(func(list []Answer) []Answer { return list }, a)
	others := b.others.Load() // a look has found it, too
	rest := slices.DeleteFunc(slices.Clone(others.list), a.same)
	b.others.CompareAndSwap(others, &sighted{rest, others.at})
}

// write replaces mine by what change makes of a copy without a.
func (b *Book) write(change func([]Answer) []Answer, a Answer) {
	b.writing.Lock()
	defer b.writing.Unlock()
	var rest []Answer
	for _, one := range *b.mine.Load() {
		if !one.same(a) {
			rest = append(rest, one)
		}
	}
	rest = change(rest)
	b.mine.Store(&rest)
}

// Token returns the token that a path asks for at a host, if an answer to it may be pending: the path is that of
// HTTP-01, its token is well-formed, and a certificate for the host is ordered by this gateway. The host is lower case
// and has no port. A nil Book has none.
func (b *Book) Token(host, path string) (token string, ok bool) {
	if b == nil {
		return "", false
	}
	token, ok = strings.CutPrefix(path, PathPrefix)
	if !ok || token == "" || len(token) > maxToken || !(*b.names.Load())[host] {
		return "", false
	}
	for i := range len(token) {
		if c := token[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return "", false
		}
	}
	return token, true
}

// HTTP returns the body that answers HTTP-01 at a host, if it is known to be pending.
func (b *Book) HTTP(host, token string) (body string, ok bool) {
	wanted := Answer{Name: host, Token: token}
	body = cmp.Or(find(*b.mine.Load(), wanted).KeyAuthorization, find(b.others.Load().pending(), wanted).KeyAuthorization)
	return body, body != ""
}

// Certificate returns the certificate that answers TLS-ALPN-01 for a server name, nil if none is pending. If it isn't this
// node that has one, it looks what other nodes have now: the last one that they had may be of another order.
func (b *Book) Certificate(ctx context.Context, serverName string) *tls.Certificate {
	if !(*b.names.Load())[serverName] {
		return nil
	}
	wanted := Answer{Name: serverName}
	if a := find(*b.mine.Load(), wanted); a.Certificate != nil {
		return a.Certificate
	}
	b.Refresh(ctx)
	return find(b.others.Load().pending(), wanted).Certificate
}

func find(list []Answer, wanted Answer) Answer {
	for _, a := range list {
		if a.same(wanted) {
			return a
		}
	}
	return Answer{}
}

// refreshPause is the time between two fetches. Strangers can cause fetches, and cause no more than that.
const refreshPause = 100 * time.Millisecond

// Refresh looks what is pending on other nodes, and returns when a look that began after the call has succeeded, its own
// has failed, or ctx ends. Many calls at once share one look, and looks are at least 100 ms apart. What a stranger has
// begun and gives up is no look of others.
func (b *Book) Refresh(ctx context.Context) {
	if b.fetch == nil {
		return
	}
	before := b.begun.Load()
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-b.turn }()
	if b.seen.Load() > before {
		return
	}
	select {
	case <-time.After(time.Until(b.last.Add(refreshPause))):
	case <-ctx.Done():
		return
	}
	mine := b.begun.Add(1)
	defer func() { b.last = time.Now() }()
	if list, err := b.fetch(ctx); err == nil {
		b.others.Store(&sighted{list, time.Now()})
		b.seen.Store(mine)
	}
}
