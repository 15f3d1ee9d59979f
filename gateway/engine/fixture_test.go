//go:build linux

package engine_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/certstore"
	"sallyport/gateway/backend"
	"sallyport/gateway/decision"
	"sallyport/gateway/engine"
	"sallyport/gateway/wire"
	"sallyport/internal/testpki"
	"sallyport/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 2 * time.Minute // for what comes at once, if it comes at all
	never    = time.Hour       // timeouts that no test is to meet
	noLoops  = -1
)

// Places of a gate.
const (
	api     = "/api/1"     // the one API: open, and forwarded with what is left of the path
	guarded = "/guarded"   // below api: needs a token, see warden
	nowhere = "/nowhere/1" // no API: refused at once
)

// A setup is what a gate is made from. Its zero value with servers is an API that the engine carries with one loop.
type setup struct {
	servers  []*url.URL
	protocol backend.Protocol
	timeout  time.Duration // for the head of an answer; 0: never
	lull     time.Duration // in which nothing may pass in a stream; 0: the default
	maxBody  int64         // bytes; 0: any number
	version  uint16        // of TLS with clients; 0: plain
	loops    int           // 0: one; noLoops: none
	terms    func(*engine.Terms)
	observe  func(*decision.Exchange)
	now      func() time.Time
	log      slog.Handler // nil: an own logbook
}

// A gate is an Engine between real sockets.
type gate struct {
	journal
	warden
	logbook
	decider  *decision.Decider
	engine   *engine.Engine
	registry backend.Registry
	endpoint *decision.Endpoint
	listen   net.Listener
	server   *tls.Config // nil: plain
	client   *tls.Config
	serving  sync.WaitGroup
	once     sync.Once
}

func newGate(t testing.TB, s setup) *gate {
	t.Helper()
	g := &gate{endpoint: &decision.Endpoint{Address: "gate"}}
	g.warden.init()
	g.journal.then = s.observe
	if s.log == nil {
		s.log = &g.logbook
	}
	g.decider = decision.New(decision.Options{Log: slog.New(s.log), Observe: g.journal.observe, Now: s.now})
	g.attach(t, s)
	terms := engine.Terms{HeadTimeout: never, FirstCallTimeout: never, IdleTimeout: never, BodyGrace: time.Second, MaxHead: 64 << 10}
	if s.terms != nil {
		s.terms(&terms)
	}
	loops := max(s.loops, 0)
	if s.loops == 0 {
		loops = 1
	}
	var err error
	if g.engine, err = engine.New(g.decider, terms, loops); err != nil {
		t.Fatal(err)
	}
	if g.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.version != 0 {
		g.server = &tls.Config{Certificates: []tls.Certificate{ourCertificate()}, MaxVersion: s.version, MinVersion: s.version}
		g.client = &tls.Config{RootCAs: roots(), ServerName: "127.0.0.1", MaxVersion: s.version}
	}
	g.serving.Go(g.accept)
	t.Cleanup(func() { g.end(t) })
	return g
}

// attach puts a table with the one API into force.
func (g *gate) attach(t testing.TB, s setup) {
	t.Helper()
	if s.timeout == 0 {
		s.timeout = never
	}
	upstream := backend.Upstream{URLs: s.servers, Protocol: s.protocol, Timeout: s.timeout, StreamIdleTimeout: s.lull}
	if s.servers[0].Scheme == "https" {
		upstream.Roots, upstream.TLSDigest = roots(), [32]byte{1}
	}
	table, err := decision.NewTable(decision.Settings{Tokens: &g.warden}, []decision.Route{{
		API:       certstore.API{Name: "api", Version: "1"},
		Context:   "/api",
		Security:  policy.Security{Open: true},
		Audiences: []string{ourAudience},
		Resources: []decision.Resource{
			{Path: guarded, Security: policy.Security{Token: policy.Mandatory}},
			{Path: "/*", Security: policy.Security{Open: true}},
		},
		MaxBody:  s.maxBody,
		Upstream: upstream,
	}})
	if err != nil {
		t.Fatal(err)
	}
	table.Attach(&g.registry)
	listener := &decision.Listener{Name: "gate", Address: g.endpoint.Address}
	g.endpoint.SetSettings(listener)
	g.decider.Set(decision.Snapshot{
		Routes: table, Clients: &decision.Clients{}, Listeners: map[string]*decision.Listener{listener.Address: listener},
	})
}

func (g *gate) accept() {
	for {
		c, err := g.listen.Accept()
		if err != nil {
			return
		}
		peer, local := c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
		known := decision.NewConnection(g.endpoint, netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), local.Addr().Unmap())
		c = wire.NewSocket(c)
		g.serving.Go(func() {
			if g.server == nil {
				g.engine.Serve(c, known)
				return
			}
			over := tls.Server(wire.NewWire(c), g.server)
			if over.Handshake() != nil {
				c.Close()
				return
			}
			g.engine.Serve(over, g.decider.Learn(known, "", nil))
		})
	}
}

// quiet waits until no call is under way, and returns how many have finished.
func (g *gate) quiet(t testing.TB) int64 {
	t.Helper()
	within(t, "no call is under way", func() bool { return g.decider.UnderWay() == 0 })
	return g.finished.Load()
}

// end closes the gate at once. Whatever its calls have met, each of them has been observed once.
func (g *gate) end(t testing.TB) {
	t.Helper()
	g.once.Do(func() {
		g.warden.freeAll()
		g.listen.Close()
		g.engine.Close()
		done := make(chan struct{})
		go func() {
			g.engine.Wait()
			g.serving.Wait()
			close(done)
		}()
		await(t, "the end of the engine", done)
		g.registry.Close()
		if n := g.decider.UnderWay(); n != 0 {
			t.Errorf("%d more calls have begun than finished", n)
		}
		if n := g.twice.Load(); n > 0 {
			t.Errorf("%d calls have finished twice", n)
		}
	})
}

var (
	authority      = sync.OnceValue(func() *testpki.Identity { return testpki.NewCA(testpki.Panic, "engine tests") })
	ourCertificate = sync.OnceValue(func() tls.Certificate { return authority().IssueServer("127.0.0.1").TLS() })
	roots          = sync.OnceValue(func() *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AddCert(authority().Cert)
		return pool
	})
)

// A journal is what was observed of calls.
type journal struct {
	then func(*decision.Exchange) // asked after the journal

	finished atomic.Int64
	twice    atomic.Int64 // calls that had finished before
	cut      atomic.Int64 // whose answer was broken off

	mu      sync.Mutex
	ids     map[string]bool
	reasons map[decision.Reason]int
	carried map[*decision.Exchange]int // how many calls it has been, for it is used again
}

func (j *journal) observe(x *decision.Exchange) {
	j.note(x)
	if j.then != nil {
		j.then(x)
	}
}

func (j *journal) note(x *decision.Exchange) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ids == nil {
		j.ids, j.reasons, j.carried = map[string]bool{}, map[decision.Reason]int{}, map[*decision.Exchange]int{}
	}
	if j.ids[x.ID] {
		j.twice.Add(1)
	}
	j.ids[strings.Clone(x.ID)] = true
	j.carried[x]++
	var refusal *decision.Refusal
	switch {
	case errors.As(x.Err, &refusal):
		j.reasons[refusal.Reason]++
	case x.Err != nil:
		j.cut.Add(1)
	}
	j.finished.Add(1)
}

// refused is how many calls have finished for that reason.
func (j *journal) refused(r decision.Reason) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.reasons[r]
}

// A logbook is a slog.Handler that counts panics.
type logbook struct {
	panics  atomic.Int64
	panicky bool // it panics itself
}

func (*logbook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logbook) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *logbook) WithGroup(string) slog.Handler          { return l }
func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "panicked") {
		l.panics.Add(1)
	}
	if l.panicky {
		panic("in the log")
	}
	return nil
}

// A caller is a client's connection.
type caller struct {
	net.Conn
	read *bufio.Reader
	tcp  *net.TCPConn
}

func newCaller(c net.Conn, tcp *net.TCPConn) *caller {
	return &caller{Conn: c, read: bufio.NewReader(c), tcp: tcp}
}

func (c *caller) Read(p []byte) (int, error) { return c.read.Read(p) }

// call connects to the gate.
func (g *gate) call(t testing.TB) *caller {
	t.Helper()
	return g.callBy(t, &net.Dialer{})
}

func (g *gate) callBy(t testing.TB, d *net.Dialer) *caller {
	t.Helper()
	c, err := d.Dial("tcp", g.listen.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	tcp := c.(*net.TCPConn)
	if g.client != nil {
		c = tls.Client(c, g.client)
	}
	t.Cleanup(func() { c.Close() })
	return newCaller(c, tcp)
}

func (c *caller) say(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		t.Fatal(err)
	}
}

// get is a request for that path of the API, tagged with it.
func get(path string) string { return request("GET", path, "", "") }

// request is a request for that path of the API, tagged with it. Fields are whole lines.
func request(method, path, fields, body string) string {
	return method + " " + api + path + " HTTP/1.1\r\nHost: a\r\nX-Tag: " + path + "\r\n" + fields + "\r\n" + body
}

// refusedRequest is refused with 404.
const refusedRequest = "GET " + nowhere + " HTTP/1.1\r\nHost: a\r\n\r\n"

// A reply is what a caller hears, with its body.
type reply struct {
	status  int
	header  http.Header
	body    string
	trailer http.Header
	last    bool // the answer ends the connection
}

// hearHead reads the head of an answer; its body is still to come.
func (c *caller) hearHead(method string) (*http.Response, error) {
	return http.ReadResponse(c.read, &http.Request{Method: method})
}

func (c *caller) hear(method string) (reply, error) {
	res, err := c.hearHead(method)
	if err != nil {
		return reply{}, err
	}
	body, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(body), res.Trailer, res.Close}, err
}

// ask returns the body of the answer, whose status has to be 200.
func (c *caller) ask(t testing.TB, path string) string {
	t.Helper()
	c.say(t, get(path))
	r, err := c.hear("GET")
	if err != nil || r.status != 200 {
		t.Fatalf("%s: answered %d %q, %v", path, r.status, r.body, err)
	}
	return r.body
}

// settling is how many calls settle makes.
const settling = 3

// settle asks until the connection, and one to the server, are with the loop.
func (c *caller) settle(t testing.TB) {
	t.Helper()
	for range settling {
		c.ask(t, "/settle")
	}
}

// expect hears an answer to a GET with that status, and that body unless it is "".
func (c *caller) expect(t testing.TB, status int, body string) reply {
	t.Helper()
	r, err := c.hear("GET")
	if err != nil || r.status != status || body != "" && r.body != body {
		t.Errorf("answered %d %q, %v, want %d %q", r.status, r.body, err, status, body)
	}
	return r
}

// ended fails unless the connection ends without another byte.
func (c *caller) ended(t testing.TB) {
	t.Helper()
	var one [1]byte
	n, err := c.Read(one[:])
	if timeout := net.Error(nil); n > 0 || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the connection has not ended: %d bytes, %v", n, err)
	}
}

// within waits for a state.
func within(t testing.TB, what string, state func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !state() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// await waits for what a channel brings, or for its end.
func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
	}
	return v
}
