//go:build linux

package http1_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/gateway/http1"
)

// A keeper is a Handler that sends all calls on, but for those to /no, and counts what it is told.
type keeper struct {
	upstreams []*http1.Upstream
	timeout   time.Duration
	judge     func(*http1.Call)                 // told of each call
	request   func(*http1.Call)                 // before the backend's head
	response  func(*http1.Call)                 // before the client's
	finish    func(*http1.Call)                 // at its end
	stream    func(*http1.Call)                 //
	begun     sync.Map                          // *http1.Call → true, while it is under way
	judged    atomic.Int64                      // calls
	finished  atomic.Int64                      // of them
	failed    [http1.BrokenOff + 1]atomic.Int64 // by fault
	panics    atomic.Int64
	twice     atomic.Int64 // ends of calls that had ended
}

func (k *keeper) Judge(c *http1.Call) http1.Verdict {
	if _, again := k.begun.LoadOrStore(c, true); !again {
		k.judged.Add(1)
	}
	if k.judge != nil {
		k.judge(c)
	}
	if c.Problem != nil || c.Request.Target == "/no" {
		return http1.Refuse
	}
	c.Upstreams, c.Timeout = k.upstreams, k.timeout
	return http1.Forward
}
func (k *keeper) Wait(context.Context, *http1.Call) {}
func (k *keeper) AppendRequest(b []byte, c *http1.Call) []byte {
	if k.request != nil {
		k.request(c)
	}
	b = append(b, c.Request.Method+" "+c.Request.Target+" HTTP/1.1\r\nHost: backend\r\n"...)
	for _, v := range c.Request.Values("X-Tag") {
		b = append(b, "X-Tag: "+v+"\r\n"...)
	}
	return b
}

func (k *keeper) AppendResponse(b []byte, c *http1.Call) ([]byte, error) {
	if k.response != nil {
		k.response(c)
	}
	b = fmt.Appendf(b, "HTTP/1.1 %d %s\r\n", c.Response.Status, c.Response.Reason)
	for _, v := range c.Response.Values("X-Tag") {
		b = append(b, "X-Tag: "+v+"\r\n"...)
	}
	return b, nil
}
func (k *keeper) KeepTrailer(*http1.Call, string, bool) bool { return true }
func (k *keeper) Stream(c *http1.Call) {
	if k.stream != nil {
		k.stream(c)
	}
}
func (k *keeper) Failed(_ *http1.Call, f http1.Fault, _ error) { k.failed[f].Add(1) }
func (k *keeper) AppendRefusal(b []byte, c *http1.Call) []byte {
	c.Status = 403
	b = append(b, "HTTP/1.1 403 No\r\n"...)
	if c.Last {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "Content-Length: 2\r\n\r\nno"...)
}

func (k *keeper) Finish(c *http1.Call) {
	if k.finish != nil {
		k.finish(c)
	}
	if _, was := k.begun.LoadAndDelete(c); !was {
		k.twice.Add(1)
	}
	k.finished.Add(1)
}
func (k *keeper) Left(*http1.Call)                  {}
func (k *keeper) Panicked(*http1.Call, any, []byte) { k.panics.Add(1) }

// A gate is an Engine between real sockets.
type gate struct {
	*keeper
	engine  *http1.Engine
	address string
	client  *tls.Config // nil: plain
	serving sync.WaitGroup
	listen  net.Listener
	once    sync.Once
}

func newGate(t testing.TB, k *keeper, tlsVersion uint16, change func(*http1.Config)) *gate {
	t.Helper()
	cfg := http1.Config{
		Handler: k, HeadTimeout: 20 * time.Second, IdleTimeout: 60 * time.Second, BodyGrace: time.Second, MaxHead: 64 << 10, Loops: 1,
		AppendID: func(b []byte) []byte { return append(b, "id"...) }, Elsewhere: func(c net.Conn, _ any) { c.Close() },
	}
	if k.timeout == 0 {
		k.timeout = 20 * time.Second
	}
	if change != nil {
		change(&cfg)
	}
	e, err := http1.NewEngine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{keeper: k, engine: e, address: l.Addr().String(), listen: l}
	var server *tls.Config
	if tlsVersion != 0 {
		server = &tls.Config{Certificates: []tls.Certificate{ourCertificate()}, MaxVersion: tlsVersion, MinVersion: tlsVersion}
		g.client = &tls.Config{InsecureSkipVerify: true, MaxVersion: tlsVersion}
	}
	g.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c = http1.NewSocket(c)
			g.serving.Go(func() {
				if server == nil {
					e.Serve(c, nil)
					return
				}
				over := tls.Server(http1.NewWire(c), server)
				if over.Handshake() != nil {
					c.Close()
					return
				}
				e.Serve(over, nil)
			})
		}
	})
	t.Cleanup(func() { g.end(t) })
	return g
}

// end closes the gate at once.
func (g *gate) end(t testing.TB) {
	g.once.Do(func() {
		g.listen.Close()
		g.engine.Close()
		done := make(chan struct{})
		go func() {
			g.engine.Wait()
			g.serving.Wait()
			close(done)
		}()
		select {
		case <-done:
			for _, u := range g.upstreams {
				u.Close()
			}
			if j, f := g.judged.Load(), g.finished.Load(); j != f || g.twice.Load() > 0 {
				t.Errorf("%d calls were judged, %d have finished, %d of them twice", j, f, g.twice.Load())
			}
		case <-time.After(15 * time.Second):
			t.Errorf("the engine has not ended")
		}
	})
}

var ourCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// A caller is a client's connection.
type caller struct {
	net.Conn
	*bufio.Reader
}

func (c *caller) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func (g *gate) call(t testing.TB) *caller {
	t.Helper()
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	if g.client != nil {
		c = tls.Client(c, g.client)
	}
	t.Cleanup(func() { c.Close() })
	return &caller{c, bufio.NewReader(c)}
}

func (c *caller) say(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		t.Fatal(err)
	}
}

func (c *caller) hear(method string) (int, string, http.Header, error) {
	res, err := http.ReadResponse(c.Reader, &http.Request{Method: method})
	if err != nil {
		return 0, "", nil, err
	}
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), res.Header, err
}

func (c *caller) ask(t testing.TB, target string) string {
	t.Helper()
	c.say(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\nX-Tag: "+target+"\r\n\r\n")
	_, body, _, err := c.hear("GET")
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	return body
}

// ask until the connection is the loop's, and its answers come from there.
func (c *caller) settle(t testing.TB) {
	t.Helper()
	for range 3 {
		c.ask(t, "/settle")
	}
}

// newSource is a backend that does with each connection what it is told.
func newSource(t testing.TB, serve func(net.Conn)) *http1.Upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return &http1.Upstream{Name: "http://source", Authority: "source", Address: l.Addr().String()}
}

// echo answers each request with its target and body.
func echo(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		text := req.URL.Path + string(body)
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Tag: %s\r\nContent-Length: %d\r\n\r\n%s", req.Header.Get("X-Tag"), len(text), text); err != nil {
			return
		}
	}
}

// speak reads requests and has each answered, until there is none or answer says that it was the last.
func speak(c net.Conn, answer func(*http.Request) (more bool)) {
	r := bufio.NewReader(c)
	for {
		if req, err := http.ReadRequest(r); err != nil || !answer(req) {
			return
		}
	}
}

func within(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// TestEarlyAnswerToAStuckUpload: a backend that answers before the end of the request, and reads no more, holds nobody up.
func TestEarlyAnswerToAStuckUpload(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first=%v", first), func(t *testing.T) {
			stuck := make(chan struct{})
			k := &keeper{upstreams: []*http1.Upstream{newSource(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if req.Method == "POST" {
						break
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
				<-stuck
				_, _ = io.WriteString(c, "HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
				<-t.Context().Done() // open, and not read
			})}}
			g := newGate(t, k, 0, nil)
			c := g.call(t)
			if !first {
				c.settle(t)
			}
			before := k.finished.Load()
			c.say(t, "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
			var sent atomic.Int64
			var sending sync.WaitGroup
			defer sending.Wait()
			defer c.Conn.Close()
			sending.Go(func() {
				some := make([]byte, 64<<10)
				for {
					n, err := c.Conn.Write(some)
					if sent.Add(int64(n)); err != nil {
						return
					}
				}
			})
			// Until nobody takes anything any more: what fills all buffers, and then the same for many looks.
			last, same := int64(-1), 0
			within(t, "the upload is stuck", func() bool {
				if now := sent.Load(); now != last || now == 0 {
					last, same = now, 0
				}
				same++
				return same > 200
			})
			close(stuck)
			if status, _, _, err := c.hear("POST"); status != 413 {
				t.Fatal(status, err)
			}
			within(t, "the call ends", func() bool { return k.finished.Load() > before })
		})
	}
}

// TestPanicInFinish: a panic at the end of one call is not the end of all others.
func TestPanicInFinish(t *testing.T) {
	for _, at := range []string{"goroutine", "loop", "refusal"} {
		t.Run(at, func(t *testing.T) {
			if os.Getenv("BREAK_FINISH") == at {
				k := &keeper{upstreams: []*http1.Upstream{newSource(t, echo)}}
				k.finish = func(c *http1.Call) {
					if tag, _ := c.Request.First("X-Tag"); tag == "/panic" {
						k.begun.Delete(c)
						k.finished.Add(1)
						panic("in Finish")
					}
				}
				g := newGate(t, k, 0, nil)
				c := g.call(t)
				if at != "goroutine" {
					c.settle(t)
				}
				target := "/panic"
				if at == "refusal" {
					target = "/no"
				}
				c.say(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\nX-Tag: /panic\r\n\r\n")
				_, _, _, _ = c.hear("GET") // however that ends
				if got := g.call(t).ask(t, "/other"); got != "/other" {
					t.Errorf("%q", got)
				}
				return
			}
			test := exec.Command(os.Args[0], "-test.run=^TestPanicInFinish$/^"+at+"$", "-test.timeout=60s")
			test.Env = append(os.Environ(), "BREAK_FINISH="+at)
			if out, err := test.CombinedOutput(); err != nil {
				t.Errorf("the process has ended: %v\n%.400s", err, out)
			}
		})
	}
}

// TestPanicDuringUpload: what a call lends to its upload is not lent to others before that has ended.
func TestPanicDuringUpload(t *testing.T) {
	k := &keeper{upstreams: []*http1.Upstream{newSource(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = io.Copy(io.Discard, r)
	})}}
	k.response = func(*http1.Call) { panic("in AppendResponse") }
	g := newGate(t, k, 0, nil)
	var all sync.WaitGroup
	for range 20 {
		c := g.call(t)
		c.say(t, "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
		all.Go(func() {
			for range 2000 {
				if _, err := io.WriteString(c.Conn, "5\r\nhello\r\n"); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	within(t, "all calls end", func() bool { return k.finished.Load() == 20 })
}

// TestContinueAfterTheAnswer: a client that was answered is not told to go on.
func TestContinueAfterTheAnswer(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const answer = "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"
	early := make(chan struct{}, 1000)
	k := &keeper{upstreams: []*http1.Upstream{newSource(t, func(c net.Conn) {
		_, _ = io.WriteString(c, answer)
		early <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
	})}}
	// The answer is there when the engine looks for it, as if the engine had been held up after it had sent the head.
	k.request = func(*http1.Call) { <-early }
	g := newGate(t, k, 0, nil)
	for range 20 {
		c := g.call(t)
		c.say(t, "POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
		all, _ := io.ReadAll(c)
		if i := strings.Index(string(all), "403 No"); i >= 0 && strings.Contains(string(all[i:]), "100 Continue") {
			t.Fatalf("%q", all)
		}
		c.Conn.Close()
	}
}

// hold keeps a loop busy until release, as calls that come together do.
type hold struct {
	held    chan struct{}
	release chan struct{}
}

func newHold() *hold { return &hold{make(chan struct{}), make(chan struct{})} }

func (h *hold) judge(c *http1.Call) {
	if tag, _ := c.Request.First("X-Tag"); tag == "/hold" {
		close(h.held)
		<-h.release
	}
}

// occupy returns when the loop is busy with a call of c, which the release refuses.
func (h *hold) occupy(t testing.TB, c *caller) {
	t.Helper()
	c.say(t, "GET /no HTTP/1.1\r\nHost: a\r\nX-Tag: /hold\r\n\r\n")
	<-h.held
}

// TestWordsOfAnIdleBackend: what a backend says while it has no call is nobody's answer.
func TestWordsOfAnIdleBackend(t *testing.T) {
	for _, clients := range []int{2, 200} {
		t.Run(fmt.Sprintf("clients=%d", clients), func(t *testing.T) {
			const stale = "HTTP/1.1 408 Too late\r\nX-Tag: stale\r\nContent-Length: 5\r\nConnection: close\r\n\r\nstale"
			var mu sync.Mutex
			var conns []net.Conn
			var arrived atomic.Int64
			parallel := make(chan struct{})
			k := &keeper{upstreams: []*http1.Upstream{newSource(t, func(c net.Conn) {
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
				arrived.Add(1)
				<-parallel // so that each client has a backend of its own
				echo(c)
			})}}
			h := newHold()
			k.judge = h.judge
			g := newGate(t, k, 0, nil)
			holder := g.call(t)
			list := make([]*caller, clients)
			for i := range list {
				list[i] = g.call(t)
				list[i].say(t, "GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
			}
			within(t, "all backends are there", func() bool { return arrived.Load() == int64(clients) })
			close(parallel)
			for _, c := range list {
				if _, _, _, err := c.hear("GET"); err != nil {
					t.Fatal(err)
				}
			}
			holder.settle(t)
			// All at once, so that the loop has all backends.
			arrive := func(target string) {
				for _, c := range list {
					c.say(t, "GET "+target+" HTTP/1.1\r\nHost: a\r\nX-Tag: "+target+"\r\n\r\n")
				}
			}
			for range 3 {
				arrive("/two")
				for _, c := range list {
					if _, _, _, err := c.hear("GET"); err != nil {
						t.Fatal(err)
					}
				}
			}
			h.occupy(t, holder)
			arrive("/three")
			mu.Lock()
			for _, c := range conns {
				_, _ = io.WriteString(c, stale)
			}
			mu.Unlock()
			close(h.release)
			wrong := 0
			for _, c := range list {
				if _, body, _, err := c.hear("GET"); err == nil && body == "stale" {
					wrong++
				}
			}
			if wrong > 0 {
				t.Errorf("%d of %d calls were answered with what had come before they were sent", wrong, clients)
			}
		})
	}
}

// TestCallWithTheClientsEnd: a client that ends its half together with its last call is answered, and then let go.
func TestCallWithTheClientsEnd(t *testing.T) {
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			k := &keeper{upstreams: []*http1.Upstream{newSource(t, echo)}}
			h := newHold()
			k.judge = h.judge
			g := newGate(t, k, version, nil)
			holder, c := g.call(t), g.call(t)
			holder.settle(t)
			c.settle(t)
			h.occupy(t, holder)
			c.say(t, "GET /no HTTP/1.1\r\nHost: a\r\n\r\n")
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			if over, ok := c.Conn.(*tls.Conn); ok {
				_ = over.NetConn().(*net.TCPConn).CloseWrite()
			}
			close(h.release)
			if _, body, _, err := c.hear("GET"); err != nil || body != "no" {
				t.Fatal(body, err)
			}
			_ = c.Conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // IdleTimeout is a minute
			if _, err := c.ReadByte(); err != io.EOF {
				t.Errorf("the connection is kept: %v", err)
			}
		})
	}
}

// TestCloseWithAPartOfAHead: Close ends connections whatever state they are in.
func TestCloseWithAPartOfAHead(t *testing.T) {
	k := &keeper{upstreams: []*http1.Upstream{newSource(t, echo)}}
	g := newGate(t, k, 0, func(cfg *http1.Config) { cfg.HeadTimeout = time.Minute })
	c := g.call(t)
	c.settle(t)
	c.say(t, "GET /half HTTP/1.1\r\nHo")
	g.call(t).settle(t) // by now the loop has seen the half
	g.end(t)
}

// TestClientThatTakesNothing: the rate holds for what a loop could not send at once, too.
func TestClientThatTakesNothing(t *testing.T) {
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			big := strings.Repeat("b", 48<<10)
			k := &keeper{upstreams: []*http1.Upstream{newSource(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(big), big); err != nil {
						return
					}
				}
			})}}
			g := newGate(t, k, version, func(cfg *http1.Config) { cfg.BodyRate, cfg.BodyGrace = 1<<20, 300*time.Millisecond })
			c := g.call(t)
			c.settle(t)
			c.say(t, strings.Repeat("GET /big HTTP/1.1\r\nHost: a\r\n\r\n", 1000)) // 48 MB of answers
			within(t, "the call of a client that takes nothing fails", func() bool { return k.failed[http1.ClientGone].Load()+k.failed[http1.BrokenOff].Load() > 0 })
		})
	}
}

// TestOneClientAmongOthers: a client that asks without end what is refused at once leaves the loop to others, too.
func TestOneClientAmongOthers(t *testing.T) {
	k := &keeper{upstreams: []*http1.Upstream{newSource(t, echo)}}
	var floods, asked, waited atomic.Int64
	k.judge = func(c *http1.Call) {
		if tag, _ := c.Request.First("X-Tag"); tag == "/no" {
			waited.Store(max(waited.Load(), floods.Load()-asked.Load()))
		} else if c.Request.Target == "/no" {
			floods.Add(1)
		}
	}
	g := newGate(t, k, 0, nil)
	victim, flood := g.call(t), g.call(t)
	victim.settle(t)
	flood.settle(t)
	_ = flood.Conn.(*net.TCPConn).SetReadBuffer(4 << 20)
	_ = flood.Conn.(*net.TCPConn).SetWriteBuffer(4 << 20)
	var all sync.WaitGroup
	all.Go(func() {
		many := []byte(strings.Repeat("GET /no HTTP/1.1\r\nHost: a\r\n\r\n", 30_000))
		for {
			if _, err := flood.Conn.Write(many); err != nil {
				return
			}
		}
	})
	all.Go(func() {
		p := make([]byte, 1<<20)
		for {
			if _, err := io.ReadFull(flood.Conn, p); err != nil {
				return
			}
		}
	})
	within(t, "the flood is there", func() bool { return floods.Load() > 10_000 })
	for range 20 {
		asked.Store(floods.Load())
		victim.ask(t, "/no")
	}
	flood.Conn.Close()
	all.Wait()
	t.Logf("up to %d calls of the other client came before one, of %d", waited.Load(), floods.Load())
	if waited.Load() > 2000 {
		t.Errorf("%d calls of another client were carried before one that was there", waited.Load())
	}
}

// A cutter sends what it is given in pieces of any size, or several writes together.
type cutter struct {
	net.Conn
	mu   sync.Mutex
	dice *mrand.Rand
	kept []byte
	keep bool
}

func (c *cutter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keep {
		c.kept = append(c.kept, p...)
		return len(p), nil
	}
	n := len(p)
	p = append(c.kept, p...)
	c.kept = nil
	for len(p) > 0 {
		k := len(p)
		switch c.dice.IntN(4) {
		case 0:
			k = min(k, 1+c.dice.IntN(8))
		case 1:
			k = min(k, 1+c.dice.IntN(20_000))
		}
		if _, err := c.Conn.Write(p[:k]); err != nil {
			return 0, err
		}
		p = p[k:]
		runtime.Gosched()
	}
	return n, nil
}

func (c *cutter) together(do func()) {
	c.mu.Lock()
	c.keep = true
	c.mu.Unlock()
	do()
	c.mu.Lock()
	c.keep = false
	c.mu.Unlock()
	_, _ = c.Write(nil)
}

// whim is a backend of many moods. Whatever it answers carries the tag and the body of what it was asked.
func whim(seed uint64, n *atomic.Uint64) func(net.Conn) {
	return func(c net.Conn) {
		dice := mrand.New(mrand.NewPCG(seed, n.Add(1)))
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			tag := req.Header.Get("X-Tag")
			mood := dice.IntN(24)
			if mood == 0 {
				return // before the head
			}
			early := mood == 1
			if !early {
				if _, err = io.Copy(io.Discard, req.Body); err != nil {
					return
				}
			}
			size := dice.IntN(200)
			switch dice.IntN(8) {
			case 0:
				size = dice.IntN(300_000)
			case 1:
				size = 0
			}
			body := strings.Repeat(tag+";", size/(len(tag)+1)+1)
			head := "HTTP/1.1 200 OK\r\nX-Tag: " + tag + "\r\n"
			if mood == 2 {
				head += "X-Big: " + strings.Repeat("x", 30_000) + "\r\n"
			}
			if mood == 3 {
				head = "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + head
			}
			var out string
			switch {
			case mood == 4:
				head = "HTTP/1.1 204 No\r\nX-Tag: " + tag + "\r\n"
				out = head + "\r\n"
			case mood < 12:
				out = head + "Transfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n"
				if req.Method != "HEAD" {
					for rest := body; rest != ""; {
						k := 1 + dice.IntN(len(rest))
						out += fmt.Sprintf("%x\r\n%s\r\n", k, rest[:k])
						rest = rest[k:]
					}
					out += "0\r\nX-End: " + tag + "\r\n\r\n"
				}
			default:
				out = head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))
				if req.Method != "HEAD" {
					out += body
				}
			}
			if mood == 13 {
				_, _ = io.WriteString(c, out[:dice.IntN(len(out))])
				return
			}
			for out != "" {
				k := len(out)
				if dice.IntN(3) == 0 {
					k = 1 + dice.IntN(len(out))
				}
				if _, err := io.WriteString(c, out[:k]); err != nil {
					return
				}
				out = out[k:]
				runtime.Gosched()
			}
			if mood == 14 || early {
				return // between calls, or in the middle of the request
			}
		}
	}
}

// TestChaos: clients and backends that leave, cut and hurry as they like mix no answers up, hold nobody up and leave
// nothing behind.
func TestChaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for _, loops := range []int{0, 1, 2} {
		for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("loops=%d/%d", loops, version), func(t *testing.T) { chaos(t, seed, loops, version, version == tls.VersionTLS13) })
		}
	}
}

func chaos(t *testing.T, seed uint64, loops int, version uint16, backendTLS bool) {
	t.Logf("seed %d", seed)
	var conns atomic.Uint64
	serve := whim(seed, &conns)
	source := newSource(t, func(c net.Conn) {
		if backendTLS {
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{ourCertificate()}})
		}
		serve(c)
		c.Close()
	})
	if backendTLS {
		source.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	k := &keeper{upstreams: []*http1.Upstream{source}, timeout: 10 * time.Second}
	g := newGate(t, k, version, func(cfg *http1.Config) { cfg.Loops = loops })
	var all sync.WaitGroup
	var whole, cut, no atomic.Int64
	until := time.Now().Add(chaosTime)
	for i := range 24 {
		all.Go(func() {
			dice := mrand.New(mrand.NewPCG(seed, 1000+uint64(i)))
			for n := 0; time.Now().Before(until); n++ {
				tcp, err := net.Dial("tcp", g.address)
				if err != nil {
					t.Error(err)
					return
				}
				_ = tcp.SetDeadline(time.Now().Add(40 * time.Second))
				cutting := &cutter{Conn: tcp, dice: mrand.New(mrand.NewPCG(seed, dice.Uint64()))}
				var c net.Conn = cutting
				if g.client != nil {
					over := tls.Client(cutting, g.client)
					if err := over.Handshake(); err != nil {
						t.Error(err)
						return
					}
					c = over
				}
				one := &caller{c, bufio.NewReader(c)}
				chaosCalls(t, one, cutting, dice, fmt.Sprintf("%d-%d", i, n), &whole, &cut, &no)
				tcp.Close()
			}
		})
	}
	all.Wait()
	within(t, "all calls end", func() bool { return k.judged.Load() == k.finished.Load() })
	t.Logf("%d whole, %d cut, %d failed, of %d", whole.Load(), cut.Load(), no.Load(), k.judged.Load())
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		done <- g.engine.Shutdown(ctx)
	}()
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

const chaosTime = 2500 * time.Millisecond

func chaosCalls(t *testing.T, c *caller, cutting *cutter, dice *mrand.Rand, name string, whole, cut, no *atomic.Int64) {
	for n := range 1 + dice.IntN(12) {
		type asked struct{ method, tag string }
		var list []asked
		var text strings.Builder
		last, expects := false, false
		for k := range 1 + dice.IntN(5)*dice.IntN(2) {
			tag := fmt.Sprintf("%s-%d-%d", name, n, k)
			head := " HTTP/1.1\r\nHost: a\r\nX-Tag: " + tag + "\r\n"
			if dice.IntN(20) == 0 {
				head += "X-Big: " + strings.Repeat("y", dice.IntN(40_000)) + "\r\n"
			}
			if dice.IntN(30) == 0 {
				head += "Connection: close\r\n"
				last = true
			}
			target := " /x"
			if dice.IntN(6) == 0 {
				target = " /no"
			}
			method := []string{"GET", "GET", "GET", "HEAD", "POST", "PUT"}[dice.IntN(6)]
			switch {
			case method == "POST" && k == 0 && dice.IntN(4) == 0:
				expects = true
				head += "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
			case method == "POST":
				size := dice.IntN(300)
				if dice.IntN(4) == 0 {
					size = dice.IntN(200_000)
				}
				head += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, strings.Repeat("b", size))
			case method == "PUT":
				head += "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
				for range dice.IntN(6) {
					size := 1 + dice.IntN(20_000)
					head += fmt.Sprintf("%x\r\n%s\r\n", size, strings.Repeat("c", size))
				}
				head += "0\r\nX-T: v\r\n\r\n"
			default:
				head += "\r\n"
			}
			text.WriteString(method + target + head)
			list = append(list, asked{method, tag})
			if last || expects {
				break
			}
		}
		all := text.String()
		leaves := dice.IntN(12) == 0
		if leaves {
			all = all[:dice.IntN(len(all)+1)]
		}
		sent := make(chan struct{})
		pieces, together := mrand.New(mrand.NewPCG(dice.Uint64(), 1)), dice.IntN(2) == 0
		go func() { // answers may come before all was sent
			defer close(sent)
			say := func() {
				for rest := all; rest != ""; {
					k := len(rest)
					if pieces.IntN(2) == 0 {
						k = 1 + pieces.IntN(len(rest))
					}
					if _, err := io.WriteString(c.Conn, rest[:k]); err != nil {
						return
					}
					rest = rest[k:]
				}
			}
			if together {
				cutting.together(say)
			} else {
				say()
			}
		}()
		if leaves {
			<-sent
			return
		}
		for _, a := range list {
			res, err := http.ReadResponse(c.Reader, &http.Request{Method: a.method})
			if err == nil && res.StatusCode == 100 {
				<-sent
				if _, err = io.WriteString(c.Conn, "hello"); err == nil {
					res, err = http.ReadResponse(c.Reader, &http.Request{Method: a.method})
				}
			}
			for err == nil && res.StatusCode == 103 {
				res, err = http.ReadResponse(c.Reader, &http.Request{Method: a.method})
			}
			if err == nil {
				var body []byte
				body, err = io.ReadAll(res.Body)
				switch {
				case err != nil:
				case res.StatusCode == 403:
					no.Add(1)
				case res.StatusCode/100 != 2 || res.Header.Get("X-Tag") != a.tag:
					t.Errorf("%s was answered %d for %s", a.tag, res.StatusCode, res.Header.Get("X-Tag"))
				case strings.ReplaceAll(string(body), a.tag+";", "") != "":
					t.Errorf("%s: %d bytes with something else", a.tag, len(body))
				case a.method != "HEAD" && res.StatusCode == 200 && len(body) == 0:
					t.Errorf("%s: no body", a.tag)
				default:
					whole.Add(1)
				}
			}
			if err != nil || res.Close {
				if err != nil {
					cut.Add(1)
					if e, ok := err.(net.Error); ok && e.Timeout() {
						t.Errorf("%s waited in vain", a.tag)
					}
				}
				cutting.Conn.Close()
				<-sent
				return
			}
		}
		<-sent
		if expects {
			return
		}
	}
}

// TestLateAfterALoop: a backend that stops within the head of its answer is late, also if the connection went from a
// goroutine to a loop and back in no time: what was bounded there is not bounded here.
func TestLateAfterALoop(t *testing.T) {
	k := &keeper{timeout: 300 * time.Millisecond, upstreams: []*http1.Upstream{newSource(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path == "/half" {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le")
				_, _ = io.Copy(io.Discard, c)
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})}}
	g := newGate(t, k, 0, nil)
	for range 5 {
		c := g.call(t)
		c.ask(t, "/goroutine") // the first call of a connection
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		c.say(t, "GET /half HTTP/1.1\r\nHost: a\r\n\r\n")
		if status, _, _, err := c.hear("GET"); status != 403 { // a refusal
			t.Fatalf("answered %d, %v", status, err)
		}
	}
	if n := k.failed[http1.Late].Load(); n != 5 {
		t.Errorf("%d calls were late, want 5", n)
	}
}

// A halver is a connection whose next write after cut is set is only half written, and ends the connection.
type halver struct {
	net.Conn
	cut atomic.Bool
}

func (h *halver) Write(p []byte) (int, error) {
	if !h.cut.Load() {
		return h.Conn.Write(p)
	}
	n, _ := h.Conn.Write(p[:len(p)/2])
	h.Conn.Close()
	return n, io.ErrClosedPipe
}

// TestEndWithinARecord: a backend that dies within a TLS record is noticed at once, though nothing but its end tells of it.
func TestEndWithinARecord(t *testing.T) {
	asked, answer, dead := make(chan struct{}), make(chan struct{}), make(chan struct{})
	up := newSource(t, func(c net.Conn) {
		half := &halver{Conn: c}
		over := tls.Server(half, &tls.Config{Certificates: []tls.Certificate{ourCertificate()}})
		speak(over, func(req *http.Request) bool {
			dies := req.URL.Path == "/dies"
			if dies {
				close(asked)
				<-answer
				half.cut.Store(true)
				defer close(dead)
			}
			_, _ = io.WriteString(over, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			return !dies
		})
	})
	up.TLS = &tls.Config{InsecureSkipVerify: true}
	k := &keeper{upstreams: []*http1.Upstream{up}}
	h := newHold()
	k.judge = h.judge
	g := newGate(t, k, 0, nil)
	holder, c := g.call(t), g.call(t)
	holder.settle(t)
	c.settle(t)
	c.say(t, "POST /dies HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") // which is not sent again
	<-asked
	h.occupy(t, holder) // so that the loop is told of both at once
	close(answer)
	<-dead
	close(h.release)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second)) // half of what the backend may take
	if status, _, _, err := c.hear("POST"); status != 403 {
		t.Errorf("status %d, %v", status, err)
	}
	if n := k.failed[http1.Unreachable].Load(); n != 1 {
		t.Errorf("%d calls broke off, want 1", n)
	}
}
