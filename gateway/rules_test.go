package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sallyport/certstore"
	"sallyport/gateway"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
)

// A rule is what is removed, bounded, counted or repeated. It holds in each cell: whatever carries the call, and whatever
// its backend speaks.
type rule struct {
	name string
	hold func(*testing.T, *cell)
}

// TestRules holds each rule in each cell.
func TestRules(t *testing.T) {
	for _, carrier := range []string{"loops", "goroutines", "http2"} {
		for _, h2c := range []bool{false, true} {
			t.Run(carrier+map[bool]string{false: " to HTTP/1.1", true: " to h2c"}[h2c], func(t *testing.T) {
				newCell(t, carrier, h2c).hold(t, slices.Concat(pathRules, fieldRules, headRules, trailerRules, countRules, boundRules, repeatRules, failureRules))
			})
		}
	}
}

func (c *cell) hold(t *testing.T, rules []rule) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			c.idle = map[*party][]caller{} // the last rule's are closed
			r.hold(t, c)
		})
	}
}

// A cell is a gateway whose clients have one carrier, and whose backends speak one protocol.
type cell struct {
	*fixture
	http2, h2c bool
	backend    *ruleBackend
	calls      int
	idle       map[*party][]caller
}

var (
	boundAPI = certstore.API{Name: "bound", Version: "1.0"}
	busyAPI  = certstore.API{Name: "busy", Version: "1.0"}
	lateAPI  = certstore.API{Name: "late", Version: "1.0"}
	downAPI  = certstore.API{Name: "down", Version: "1.0"}
	someAPI  = certstore.API{Name: "some", Version: "1.0"}
	twoAPI   = certstore.API{Name: "two", Version: "1.0"}
	baseAPI  = certstore.API{Name: "base", Version: "1.0"}
	slashAPI = certstore.API{Name: "slash", Version: "1.0"}
	keptAPI  = certstore.API{Name: "kept", Version: "1.0"}
	hopsAPI  = certstore.API{Name: "hops", Version: "1.0"}
)

// expiryHeader tells clients when their certificate ends.
const expiryHeader = "X-Cert-Ends"

// newCell has the fixture's APIs and: bound, whose bodies have up to 1000 bytes; busy, with two calls at once; late, which
// has no time to answer; down, whose backend is not there; some, of whose three backends one is there; two, with the
// backend's /first and /second; base and slash, with the backend's /base and /slash/; kept, which keeps the Host; hops,
// whose resources differ by method.
func newCell(t *testing.T, carrier string, h2c bool) *cell {
	t.Helper()
	c := &cell{http2: carrier == "http2", h2c: h2c, backend: newRuleBackend(t, h2c), idle: map[*party][]caller{}}
	c.fixture = newFixture(t, func(f *fixture, s *setup) {
		if drive := gateway.Carriers[carrier]; drive != nil {
			drive(&s.config)
		}
		s.settings.ExpiryHeader = expiryHeader
		s.settings.Tokens = routedVerifier{s.settings.Tokens} // of which one token can have a panic
		at, nobody := c.backend.url(), "http://"+closedAddress(t)
		upstream := func(urls ...string) backend.Upstream {
			u := f.upstream(t, urls...)
			if h2c {
				u.Protocol = backend.H2C
			}
			return u
		}
		for i := range s.routes {
			s.routes[i].Upstream = upstream(at)
		}
		s.routes[4].Upstream.SandboxURLs = f.upstream(t, at+"/sandbox").URLs
		add := func(api certstore.API, u backend.Upstream) *decision.Route {
			s.routes = append(s.routes, decision.Route{API: api, Context: "/" + api.Name, Security: open, Upstream: u})
			return &s.routes[len(s.routes)-1]
		}
		add(boundAPI, upstream(at)).MaxBody = 1000
		busy := add(busyAPI, upstream(at))
		busy.Security, busy.MaxBody, busy.Upstream.MaxCalls = byCertificate, 1000, 2
		busy.Upstream.SandboxURLs = f.upstream(t, at+"/sandbox").URLs
		add(lateAPI, upstream(at)).Upstream.Timeout = time.Millisecond
		add(downAPI, upstream(nobody))
		add(someAPI, upstream(nobody, at, nobody))
		add(twoAPI, upstream(at+"/first", at+"/second"))
		add(baseAPI, upstream(at+"/base"))
		add(slashAPI, upstream(at+"/slash/"))
		add(keptAPI, upstream(at)).Upstream.PreserveHost = true
		hops := add(hopsAPI, upstream(at))
		hops.Security, hops.Resources = byCertificate, []decision.Resource{
			{Path: "/{id}", Methods: []string{"GET", "OPTIONS", "TRACE", "LINK"}, Security: byCertificate},
			{Path: "/{id}", Methods: []string{"PUT"}, Security: open},
			{Path: "/*", Methods: []string{"POST"}, Security: byCertificate, Scopes: []string{"none has it"}},
			{Path: "/{id}/below", Methods: []string{"DELETE"}, Security: byCertificate},
		}
		s.clients = append(s.clients, client(hopsAPI, "a3", f.a3, "Zero"), client(hopsAPI, "a4", f.a4, "Unlimited"), client(busyAPI, "a4", f.a4, "Unlimited"), sandbox(client(busyAPI, "s1", f.s1, "Unlimited")))
	})
	return c
}

// An ask is a request. Its zero value is a GET of an open API.
type ask struct {
	method   string // "": GET
	api      string // "": pub
	who      *party
	fields   []string // "Name: value"
	body     string
	chunked  bool // the length of the body is not stated
	trailers []string
}

// A told is what a client was answered.
type told struct {
	interims []told
	status   int
	header   http.Header
	body     string
	trailer  http.Header
	err      error // it did not come to its end
}

// An outcome is a call as all who had to do with it saw it.
type outcome struct {
	told
	got  []*received
	seen seen
}

// A caller is a client's connection, for one call at a time.
type caller interface {
	send(q ask, target string) error
	// receive calls began when a part of the answer's body has come.
	receive(method string, began func()) told
	Close() error
}

// take returns a connection of that client. Before it is used a first time, it and one to the backend have carried calls,
// so that loops, which leave first calls to goroutines, have a part.
func (c *cell) take(t *testing.T, who *party) caller {
	t.Helper()
	if idle := c.idle[who]; len(idle) > 0 {
		c.idle[who] = idle[:len(idle)-1]
		return idle[len(idle)-1]
	}
	var conn caller
	if c.http2 {
		conn = &http2Caller{framed: c.dialHTTP2(t, who, "opt.test")}
	} else {
		conn = &http1Caller{c.dial(t, who, "opt.test")}
	}
	for range 3 {
		if err := conn.send(ask{}, "/pub/1.0/warm"); err != nil {
			t.Fatal(err)
		}
		if a := conn.receive("GET", nil); a.status != 200 {
			t.Fatalf("status %d, %v", a.status, a.err)
		}
	}
	return conn
}

// give gives a connection back after a call.
func (c *cell) give(who *party, conn caller, a told) {
	if a.err != nil || a.header.Get("Connection") == "close" {
		conn.Close()
		return
	}
	c.idle[who] = append(c.idle[who], conn)
}

// target is a new target on an API, and what the backend is asked for then.
func (c *cell) target(api string) (target, path string) {
	c.calls++
	if api == "" {
		api = "pub"
	}
	path = fmt.Sprint("/r", c.calls)
	return "/" + api + "/1.0" + path, path
}

// do makes a call that the backend answers with a.
func (c *cell) do(t *testing.T, q ask, a reply) outcome {
	t.Helper()
	return c.script(t, q, func(*received) reply { return a })
}

// script makes a call that the backend answers by a script.
func (c *cell) script(t *testing.T, q ask, script func(*received) reply) outcome {
	t.Helper()
	target, path := c.target(q.api)
	c.handle(path, script)
	conn := c.take(t, q.who)
	if err := conn.send(q, target); err != nil {
		t.Fatal(err)
	}
	o := outcome{told: conn.receive(q.verb(), nil)}
	c.give(q.who, conn, o.told)
	o.got = c.received(path)
	if id := o.header.Get("X-Request-Id"); id != "" {
		o.seen = c.fixture.seen(t, id) // of a head that is too long there is no path
	} else {
		o.seen = c.observed(t, target)
	}
	return o
}

// places are what paths begin with on the backends of all APIs.
var places = []string{"", "/sandbox", "/first", "/second", "/base", "/slash"}

// handle gives a path an answer, wherever it leads to.
func (c *cell) handle(path string, script func(*received) reply) {
	for _, at := range places {
		c.backend.handle(at+path, script)
	}
}

// received are the requests for a path, wherever it led to.
func (c *cell) received(path string) (all []*received) {
	for _, at := range places {
		all = append(all, c.backend.received(at+path)...)
	}
	return all
}

func (c *cell) observed(t *testing.T, target string) seen {
	t.Helper()
	return c.lastSeen(t, target+" is observed", func(s seen) bool { return s.Path == target })
}

func (q ask) verb() string {
	if q.method == "" {
		return http.MethodGet
	}
	return q.method
}

// one is the request that the backend was sent, once and whole, when the answer was 200.
func (o outcome) one(t *testing.T) *received {
	t.Helper()
	if o.status != 200 || o.err != nil || len(o.got) != 1 {
		t.Fatalf("status %d, %.200q, %v; the backend was asked %d times", o.status, o.body, o.err, len(o.got))
	}
	return o.got[0]
}

// refused checks that the call was refused so, and that the backend has got no such request whole.
func (o outcome) refused(t *testing.T, status int, code, reason string) {
	t.Helper()
	if o.err != nil {
		t.Errorf("the refusal broke off: %v", o.err)
	}
	answer{status: o.status, header: o.header, body: o.told.body}.refused(t, status, code)
	if o.seen.Reason != reason || o.seen.Status != status || o.seen.Out != int64(len(o.told.body)) {
		t.Errorf("observed %+v", o.seen)
	}
}

// unheard checks that the backend got nothing of the call.
func (o outcome) unheard(t *testing.T) {
	t.Helper()
	if len(o.got) > 0 {
		t.Errorf("the backend got %+v", o.got[0])
	}
}

type http1Caller struct{ *raw }

func (c *http1Caller) send(q ask, target string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: opt.test\r\n", q.verb(), target)
	for _, line := range q.fields {
		b.WriteString(line + "\r\n")
	}
	switch {
	case q.chunked:
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(q.body), q.body)
		for _, line := range q.trailers {
			b.WriteString(line + "\r\n")
		}
		b.WriteString("\r\n")
	case q.body != "":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(q.body), q.body)
	default:
		b.WriteString("\r\n")
	}
	_, err := io.WriteString(c, b.String())
	return err
}

func (c *http1Caller) receive(method string, began func()) (a told) {
	for {
		res, err := http.ReadResponse(c.reader, &http.Request{Method: method})
		if err != nil {
			a.err = err
			return a
		}
		if res.StatusCode < 200 && res.StatusCode != 101 {
			a.interims = append(a.interims, told{status: res.StatusCode, header: res.Header})
			continue
		}
		a.status, a.header = res.StatusCode, res.Header
		if res.Close {
			a.header.Set("Connection", "close")
		}
		p := make([]byte, 4096)
		for a.err == nil {
			var n int
			n, a.err = res.Body.Read(p)
			a.body += string(p[:n])
			if n > 0 && began != nil {
				began()
				began = nil
			}
		}
		if a.err == io.EOF {
			a.err = nil
		}
		a.trailer = res.Trailer
		return a
	}
}

type http2Caller struct {
	*framed
	asked uint32 // the stream of the call
}

func (c *http2Caller) send(q ask, target string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	fields := []string{":method", q.verb(), ":scheme", "https", ":authority", "opt.test", ":path", target}
	if q.body != "" && !q.chunked {
		fields = append(fields, "content-length", strconv.Itoa(len(q.body)))
	}
	c.asked = c.stream
	c.stream += 2
	err := c.write(c.asked, q.body == "" && !q.chunked, append(fields, pairs(q.fields)...))
	if err != nil || q.body == "" && !q.chunked {
		return err
	}
	if err := c.framer.WriteData(c.asked, len(q.trailers) == 0, []byte(q.body)); err != nil || len(q.trailers) == 0 {
		return err
	}
	return c.write(c.asked, true, pairs(q.trailers))
}

// pairs are lines as names in lower case, each with its value behind it.
func pairs(lines []string) (list []string) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		list = append(list, strings.ToLower(name), value)
	}
	return list
}

func (c *http2Caller) receive(_ string, began func()) (a told) {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			a.err = err
			return a
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = c.framer.WriteSettingsAck() // the next read tells
			}
		case *http2.GoAwayFrame:
			a.err = errors.New("GOAWAY")
			return a
		case *http2.MetaHeadersFrame:
			if frame.StreamID != c.asked {
				continue
			}
			header := http.Header{}
			for _, f := range frame.RegularFields() {
				header.Add(f.Name, f.Value)
			}
			switch status, _ := strconv.Atoi(frame.PseudoValue("status")); {
			case status == 0:
				a.trailer = header
			case status < 200:
				a.interims = append(a.interims, told{status: status, header: header})
			default:
				a.status, a.header = status, header
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			if frame.StreamID != c.asked {
				continue
			}
			if a.body += string(frame.Data()); a.body != "" && began != nil {
				began()
				began = nil
			}
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			if frame.StreamID == c.asked {
				if a.status == 0 || frame.ErrCode != http2.ErrCodeNo {
					a.err = fmt.Errorf("the stream was reset: %v", frame.ErrCode)
				}
				return a
			}
		}
		if ended {
			return a
		}
	}
}
