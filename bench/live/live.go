// Package live keeps calls and streams of many certificates going through a gateway, and notes how each fared.
package live

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// A Carrier is how a connection is used.
type Carrier string

// The carriers.
const (
	KeepAlive   Carrier = "keep-alive"   // one HTTP/1.1 call after another
	HTTP2       Carrier = "HTTP/2"       // one call after another, each a stream
	WebSocket   Carrier = "WebSocket"    // a message of the backend each beat, which is answered
	Events      Carrier = "event stream" // an event of the backend each beat
	HTTP2Events Carrier = "event stream, HTTP/2"
	Fresh       Carrier = "new connection" // for each call another
)

// Carriers are those that keep their connection open.
var Carriers = []Carrier{KeepAlive, HTTP2, WebSocket, Events, HTTP2Events}

// Calls reports whether a carrier makes calls; others have one stream.
func (c Carrier) Calls() bool { return c == KeepAlive || c == HTTP2 || c == Fresh }

// Config says where connections go to. Address, Path and TLS are required.
type Config struct {
	Address  string // host:port of the gateway
	Path     string // of the API, behind which there is a Backend
	TLS      *tls.Config
	Pace     time.Duration // between a connection's calls; 0: 100 ms
	Again    time.Duration // within which, at a random moment, a connection that has ended is opened again; 0: a second
	Patience time.Duration // for an answer, and for what a stream has to say; 0: 10 s
}

// A Client is a certificate and what its calls are known by at the Backend.
type Client struct {
	Name     string
	Identity tls.Certificate
	Carrier  Carrier
	Pace     time.Duration // 0: the Config's
}

// A Period is a time in which a connection fared the same way.
type Period struct {
	Served   bool
	Text     string    // how it fared, if it was not served
	Sent     time.Time // of the first call in it
	Began    time.Time // when the first answer arrived, or the stream broke
	LastSent time.Time // of the last call, or when the stream's last message arrived
	Count    int       // of answers or messages
}

// maxPeriods bounds what is kept of one connection. What it has been through after them is not kept.
const maxPeriods = 1000

// A Connection is one that is kept open, and opened again whenever it ends.
type Connection struct {
	Client

	config *Config
	mu     sync.Mutex
	past   []Period
	slow   time.Duration
}

// Periods returns how the connection has fared since it was first served.
func (c *Connection) Periods() []Period {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Period(nil), c.past...)
}

// Slowest returns the longest time of a call that was served.
func (c *Connection) Slowest() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slow
}

// note takes what a call or a stream that was begun at sent has come to now.
func (c *Connection) note(sent time.Time, err error) {
	now := time.Now()
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.slow = max(c.slow, now.Sub(sent))
	}
	if n := len(c.past); n > 0 && c.past[n-1].Text == text {
		c.past[n-1].LastSent = sent
		c.past[n-1].Count++
	} else if n < maxPeriods {
		c.past = append(c.past, Period{Served: err == nil, Text: text, Sent: sent, Began: now, LastSent: sent, Count: 1})
	}
}

// A Crowd is many connections.
type Crowd struct {
	Connections []*Connection

	stop  context.CancelFunc
	group sync.WaitGroup
}

// opening is how many connections are opened at once.
const opening = 16

// Open opens a connection for each of clients and returns when all have been served, or with the first error. Close
// must be called in both cases.
func Open(ctx context.Context, config Config, clients []Client) (*Crowd, error) {
	setDefault(&config.Pace, 100*time.Millisecond)
	setDefault(&config.Again, time.Second)
	setDefault(&config.Patience, 10*time.Second)
	ctx, stop := context.WithCancel(ctx)
	crowd := &Crowd{stop: stop}
	places := make(chan struct{}, opening)
	opened := make(chan error, len(clients))
	for _, client := range clients {
		setDefault(&client.Pace, config.Pace)
		c := &Connection{Client: client, config: &config}
		crowd.Connections = append(crowd.Connections, c)
		crowd.group.Go(func() { c.run(ctx, places, opened) })
	}
	for range clients {
		if err := <-opened; err != nil {
			return crowd, err
		}
	}
	return crowd, nil
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

// Close closes all connections.
func (c *Crowd) Close() {
	c.stop()
	c.group.Wait()
}

// A carriage is an open connection, used in one way.
type carriage interface {
	// turn makes a call, or waits for the next message. After an error other than a *Refused it has ended.
	turn() error
	close()
}

// A Refused is an answer with another status than 200.
type Refused struct{ Status int }

func (r *Refused) Error() string { return fmt.Sprintf("status %d", r.Status) }

// run keeps the connection going until ctx ends. It waits for its place among those that are opened at once, and tells
// whether it was served.
func (c *Connection) run(ctx context.Context, places chan struct{}, opened chan<- error) {
	select {
	case places <- struct{}{}:
	case <-ctx.Done():
		opened <- ctx.Err()
		return
	}
	open, err := c.open(ctx)
	if err == nil {
		if err = open.turn(); err != nil {
			open.close()
		}
	}
	<-places
	if err != nil {
		opened <- fmt.Errorf("%s, %s: %w", c.Name, c.Carrier, err)
		return
	}
	c.note(time.Now(), nil)
	opened <- nil
	wait := rand.N(c.Pace) // so that not all call at once
	for {
		if !pause(ctx, wait) {
			break
		}
		sent := time.Now()
		if open == nil {
			open, err = c.open(ctx)
		}
		if err == nil {
			if err = open.turn(); !c.Carrier.Calls() {
				sent = time.Now() // of a message
			}
		}
		if ctx.Err() != nil {
			break
		}
		c.note(sent, err)
		wait = c.next(sent, err)
		if refused := (*Refused)(nil); open != nil && (c.Carrier == Fresh || err != nil && !errors.As(err, &refused)) {
			open.close()
			open = nil
		}
		err = nil
	}
	if open != nil {
		open.close()
	}
}

// next is how long a connection rests after what err says.
func (c *Connection) next(sent time.Time, err error) time.Duration {
	switch {
	case !c.Carrier.Calls() && err == nil:
		return 0
	case err == nil, c.Carrier.Calls() && errors.As(err, new(*Refused)):
		return max(c.Pace-time.Since(sent), 0)
	}
	return c.config.Again/2 + rand.N(c.config.Again/2) // not all at once
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
