package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testserver"
)

// TestChaosBackendDies: the backend dies in the middle of an answer, with each framing. The client sees a broken answer,
// other calls are unaffected, and the backend connection is not reused. Held: fault R5.
func TestChaosBackendDies(t *testing.T) {
	size := scaled(256<<10, 10<<20)
	var deaths, reused atomic.Int32
	backend := http.NewServeMux()
	backend.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") })
	backend.HandleFunc("/dies/", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		deaths.Add(1)
		half := bytes.Repeat([]byte("x"), size/2)
		if strings.HasSuffix(r.URL.Path, "/chunked") {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(half), half)
		} else {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, half)
		}
		if strings.Contains(r.URL.Path, "/reset") {
			_ = conn.(*net.TCPConn).SetLinger(0)
		} else if r.URL.Path == "/dies/lingers" { // half closed: anything that still arrives would be a second call
			_ = conn.(*net.TCPConn).CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if n, _ := conn.Read(make([]byte, 1)); n > 0 {
				reused.Add(1)
			}
		}
		conn.Close()
	})
	d := newDemo(t)
	p, _ := d.serve(backend)
	stop := d.load()
	var wg sync.WaitGroup
	few := make(chan struct{}, 24) // at a time
	for i := range scaled(32, 200) {
		few <- struct{}{}
		wg.Go(func() {
			defer func() { <-few }()
			how := dialects[i%len(dialects)]
			c := d.client("gold", how)
			path := "/orders/dies/" + []string{"plain", "chunked", "reset/plain", "reset/chunked", "lingers"}[i%5]
			r, err := c.call(path)
			if err == nil {
				t.Errorf("%s over %s ended well: status %d with %d bytes", path, how, r.status, len(r.body))
			}
			c.http.CloseIdleConnections()
		})
	}
	wg.Wait()
	stop()
	if deaths.Load() == 0 || reused.Load() > 0 {
		t.Errorf("the backend died %d times, and %d of its broken connections were used again", deaths.Load(), reused.Load())
	}
	p.stopClean()
}

// TestChaosUpstreams stops one of two backends and starts it again, and moves the API to another address by a reload, all
// under load: no call without a body fails. To the gateway a name that resolves to another address is the same as a URL
// that changes, so the test changes URLs. Held: faults R6 and R20 in part.
func TestChaosUpstreams(t *testing.T) {
	var calls [3]atomic.Int64
	handler := func(i int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls[i].Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, "{}")
		})
	}
	run := func(i int, address string) *http.Server {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: handler(i)}
		go func() { _ = server.Serve(listener) }() // ends with the server
		t.Cleanup(func() { server.Close() })
		return server
	}
	d := newDemo(t, fast...)
	var at [3]string
	for i := range at {
		at[i] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	}
	run(0, at[0])
	second := run(1, at[1])
	run(2, at[2])
	own := fmt.Sprintf(`urls: ["http://127.0.0.1:%d"]`, d.Ports.Backend)
	two, third := fmt.Sprintf(`urls: ["http://%s", "http://%s"]`, at[0], at[1]), fmt.Sprintf(`urls: ["http://%s"]`, at[2])
	d.edit("sallyport.yaml", own, two) // of orders, the first API
	p, _ := d.serve(handler(0))
	stop := d.load()
	grows := func(i int) {
		t.Helper()
		was := calls[i].Load()
		eventually(t, fmt.Sprintf("backend %d has calls", i), func() bool { return calls[i].Load() > was+5 })
	}
	for range scaled(2, 10) {
		grows(1)
		// Between calls: closing a listener resets the connections that it has not accepted yet, with whatever was sent on them.
		d.betweenCalls(func() {
			if err := second.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
		grows(0)
		second = run(1, at[1])
		grows(1)
		d.edit("sallyport.yaml", two, third)
		grows(2)
		d.edit("sallyport.yaml", third, two)
		grows(0)
	}
	stop()
	p.stopClean()
	if t.Failed() {
		for line := range strings.Lines(p.stdout.String()) {
			if strings.Contains(line, "problem=") {
				t.Logf("%.600s", line)
			}
		}
	}
}

// TestChaosDescriptors gives the gateway 256 descriptors and opens 1,000 connections: health checks are still answered,
// the processor stays idle, and calls are served as soon as there is room. Held: fault R12.
func TestChaosDescriptors(t *testing.T) {
	real, err := exec.LookPath("sallyport")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	testserver.Script(t, filepath.Join(dir, "sallyport"), fmt.Sprintf("ulimit -n 256\nexec %s \"$@\"", real))
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))

	d := newDemo(t)
	p, server := d.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	if limit := p.number("process_max_fds"); limit != 256 {
		t.Skipf("the limit of descriptors is %v", limit)
	}
	before := p.holdings()
	held := d.client("gold", dialects[3])
	held.get(t, "/orders/1")
	cpu, began := p.number("process_cpu_seconds_total"), time.Now()
	var conns []net.Conn
	for range 1000 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	eventually(t, "connections are turned away", func() bool { return p.total("sallyport_connections_refused_total") > 500 })
	for range 20 {
		if status, _ := p.status("/healthz"); status != http.StatusOK {
			t.Errorf("healthz while there is no room: %d", status)
		}
		if r := held.get(t, "/orders/1"); r.status != http.StatusOK {
			t.Errorf("a connection from before, while there is no room: %d", r.status)
		}
	}
	if n := p.total("sallyport_connections_refused_total", `why="accept"`); n > 0 {
		t.Errorf("there was nothing left to accept connections with, %v times", n)
	}
	used, took := p.number("process_cpu_seconds_total")-cpu, time.Since(began)
	t.Logf("%.2f s of processor time in %s", used, took)
	if lines := strings.Count(p.stderr.String(), "\n"); lines > 200 {
		t.Errorf("%d lines are logged", lines)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "new connections are welcome again", func() bool { return d.answers(http.StatusOK, "gold", d.Ports.HTTPS, "/orders/1") })
	server.CloseClientConnections()
	p.settlesTo(before, 10, held)
	p.stopClean()
}

// TestChaosMemory gives the gateway little memory and sends it more than fits, while the backend reads nothing: the gateway
// answers 503 instead of running out of memory, and recovers. Held: fault R13.
func TestChaosMemory(t *testing.T) {
	limit := scaled(96, 256)
	t.Setenv("GOMEMLIMIT", fmt.Sprint(limit, "MiB"))
	release := make(chan struct{})
	open := sync.OnceFunc(func() { close(release) })
	var held, ended atomic.Int64 // calls that have reached the backend, and calls that have ended
	d := newDemo(t)
	backendURL := fmt.Sprintf(`urls: ["http://127.0.0.1:%d"]`, d.Ports.Backend)
	d.edit("sallyport.yaml", backendURL, backendURL+", maxCalls: 100000") // so that memory runs out first
	t.Cleanup(open)                                                       // runs before the backend is closed, which waits for its calls
	p, server := d.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			held.Add(1)
			select {
			case <-release:
			case <-r.Context().Done():
			}
			_, _ = io.Copy(io.Discard, r.Body) // unread, it would meet a closed connection
		}
		fmt.Fprint(w, "{}")
	}))
	t.Cleanup(open)
	if r := d.client("gold", dialects[0]).get(t, "/orders/1"); r.status != http.StatusOK {
		t.Fatalf("at first: %d", r.status)
	}
	before := p.holdings()
	// Calls with heads near the limit, and with bodies; the backend holds them all.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	head := strings.Repeat("x", 48<<10)
	var shed atomic.Int64
	var mu sync.Mutex
	other := map[int]int{}
	var clients []*client
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	// Ten at a time: near its memory limit the gateway is slow, and each connection to the backend has to be made within two
	// seconds.
	const few = 10
	for batch := range scaled(360, 1200) {
		eventually(t, "the calls so far are held or have ended", func() bool { return held.Load()+ended.Load() >= int64(few*batch) })
		if shed.Load() > 0 {
			break
		}
		if batch%6 == 0 {
			clients = append(clients, d.client("gold", dialects[3]))
		}
		c := clients[len(clients)-1]
		c.http.Timeout = 0                             // the calls are held until the end
		if _, err := c.call("/orders/1"); err != nil { // opens the connection; without one each call would dial
			t.Error(err)
		}
		for range few {
			wg.Go(func() {
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("https://localhost:%d/orders/slow", c.port), bytes.NewReader(make([]byte, 64<<10)))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("X-Filler", head)
				defer ended.Add(1)
				res, err := c.http.Do(r)
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("a call was broken off: %v", err)
					}
					return
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				switch {
				case res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "":
					shed.Add(1)
				case res.StatusCode != http.StatusOK:
					mu.Lock()
					other[res.StatusCode]++
					mu.Unlock()
				}
				noSecrets(t, d.Demo, "a refusal", string(body))
			})
		}
	}
	t.Cleanup(func() {
		t.Logf("in the end %d calls had been held, %d had been shed", held.Load(), shed.Load())
	})
	eventually(t, "calls are answered 503 for want of memory", func() bool {
		return p.total("sallyport_refusals_total", `reason="overloaded"`) > 0 && shed.Load() > 0
	})
	if status, _ := p.status("/healthz"); status != http.StatusOK {
		t.Errorf("healthz under pressure: %d", status)
	}
	t.Logf("%d calls held, %d shed, resident %.0f MiB", held.Load(), shed.Load(), p.number("process_resident_memory_bytes")/(1<<20))
	open()
	cancel()
	wg.Wait()
	for _, c := range clients {
		c.http.CloseIdleConnections()
	}
	if len(other) > 0 {
		t.Errorf("calls were answered neither 200 nor 503: %v", other)
	}
	eventually(t, "calls are welcome again", func() bool { return d.answers(http.StatusOK, "gold", d.Ports.HTTPS, "/orders/1") })
	server.CloseClientConnections()
	p.settlesTo(before, 15, clients...)
	p.stopClean()
}

// TestChaosMemoryOfGarbage loads a gateway with a small memory limit and GOGC=off, so that the heap fills with garbage:
// garbage is not memory pressure, and no call is refused.
func TestChaosMemoryOfGarbage(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "80MiB")
	t.Setenv("GOGC", "off")
	d := newDemo(t, "timeUnit: min}", "timeUnit: min}\n  - {name: Boundless, requestCount: 1000000, unitTime: 1, timeUnit: min}")
	d.mustRun("cert", "update", "--api", "payments:1.0.0", "--alias", "gold", "--tier", "Boundless")
	p, _ := d.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	head := strings.Repeat("x", 40<<10)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			c := d.client("gold", dialects[i%len(dialects)])
			for range scaled(400, 4000) {
				if r, err := c.call("/payments/1", "X-Filler", head); err != nil || r.status != http.StatusOK {
					t.Errorf("status %d, %v", r.status, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := p.total("sallyport_refusals_total", `reason="overloaded"`); n > 0 {
		t.Errorf("%v calls were refused for want of memory", n)
	}
	p.stopClean()
}

// TestChaosDrain sends SIGTERM during streams and uploads, with idle connections in every dialect: readiness ends at once,
// new connections are refused, all calls under way complete, and the exit code is 0. Held: fault R17.
func TestChaosDrain(t *testing.T) {
	streams, uploads, size := scaled(60, 200), scaled(4, 20), int64(scaled(1<<20, 50<<20))
	release := make(chan struct{})
	open := sync.OnceFunc(func() { close(release) })
	var under atomic.Int64
	d := newDemo(t)
	t.Cleanup(open)
	p, _ := d.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/idle" {
			fmt.Fprint(w, "{}")
			return
		}
		under.Add(1)
		if r.Method == http.MethodGet {
			fmt.Fprint(w, "the first half, ")
			w.(http.Flusher).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "the end ", n)
	}))
	t.Cleanup(open)
	for _, how := range dialects {
		for range 5 {
			d.client("gold", how).get(t, "/orders/idle")
		}
	}
	var wg sync.WaitGroup
	http2 := []*client{d.client("gold", dialects[1]), d.client("gold", dialects[3]), d.client("gold", dialects[3])}
	for i := range streams {
		wg.Go(func() {
			c := http2[i%len(http2)]
			if i%10 == 0 {
				c = d.client("gold", dialects[i/10%2*2])
			}
			if r, err := c.call("/orders/stream"); err != nil || string(r.body) != "the first half, the end 0" {
				t.Errorf("stream %d: %d %q %v", i, r.status, r.body, err)
			}
		})
	}
	for i := range uploads {
		wg.Go(func() {
			c := d.client("gold", dialects[i%len(dialects)])
			res, err := c.http.Post(fmt.Sprintf("https://localhost:%d/orders/upload", c.port), "application/octet-stream", io.LimitReader(zeros{}, size))
			if err != nil {
				t.Errorf("upload %d: %v", i, err)
				return
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != fmt.Sprint("the end ", size) {
				t.Errorf("upload %d: %q %v", i, body, err)
			}
		})
	}
	eventually(t, "the backend has all", func() bool { return under.Load() == int64(streams+uploads) })
	p.signal(syscall.SIGTERM)
	eventually(t, "the gateway says that it drains", func() bool { status, _ := p.status("/readyz"); return status == http.StatusServiceUnavailable })
	eventually(t, "new connections are refused", func() bool { return !d.speaks(dialects[3].tls) })
	p.signal(syscall.SIGHUP) // has no effect while draining
	open()
	wg.Wait()
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.stderr)
	}
	noCertificates(t, "the log", p.stdout.String()+p.stderr.String())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestChaosAborts: a third of all clients disconnect, some at random moments and some once the backend has their call.
// The backend notices, nothing leaks, and no client gets another's answer. Held: fault R21.
func TestChaosAborts(t *testing.T) {
	var begun, ended, told atomic.Int64
	d := newDemo(t, "timeUnit: min}", "timeUnit: min}\n  - {name: Boundless, requestCount: 1000000, unitTime: 1, timeUnit: min}")
	for _, name := range []string{"gold", "bronze"} {
		for _, api := range []string{"orders:1.0.0", "payments:1.0.0"} {
			d.mustRun("cert", "update", "--api", api, "--alias", name, "--tier", "Boundless")
		}
	}
	var there sync.Map // by the number of a waiting call: a func() to run when the backend has it
	p, server := d.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		defer ended.Add(1)
		if r.URL.Path == "/waits" { // until the client disconnects, as it always does
			if arrived, ok := there.Load(r.URL.Query().Get("n")); ok {
				arrived.(func())()
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil { // an unread body would hide the disconnect
				told.Add(1)
				return
			}
			select {
			case <-r.Context().Done():
				told.Add(1)
			case <-time.After(patience):
				t.Error("a backend was not told that its client had left")
			}
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"client": r.Header.Get("X-Sallyport-Client"), "n": r.URL.Query().Get("n"), "bytes": n, "rest": strings.Repeat("x", 20<<10),
		})
	}))
	clients := map[string][]*client{}
	for _, name := range []string{"gold", "bronze"} {
		for _, how := range dialects {
			c := d.client(name, how)
			c.get(t, "/orders/1")
			clients[name] = append(clients[name], c)
		}
	}
	for _, list := range clients {
		for _, c := range list {
			c.http.CloseIdleConnections()
		}
	}
	eventually(t, "no connection is open", func() bool { return p.number("sallyport_connections") == 0 })
	before := p.holdings()

	var wg sync.WaitGroup
	var good, left atomic.Int64
	for worker := range 12 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 7))
			for i := range scaled(60, 1000) {
				name := []string{"gold", "bronze"}[worker%2]
				c := clients[name][random.IntN(len(dialects))]
				ctx, cancel := context.WithCancel(t.Context())
				leaves := random.IntN(10) < 3
				path := "/orders/answers"
				id := fmt.Sprint(worker, "-", i)
				if leaves {
					delay := time.Duration(random.IntN(20_000)) * time.Microsecond
					leave := func() { time.AfterFunc(delay, cancel) }
					if random.IntN(4) == 0 {
						path = "/orders/waits"
						there.Store(id, leave)
					} else {
						leave()
					}
				}
				size := random.IntN(64 << 10)
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("https://localhost:%d%s?n=%s", c.port, path, id), bytes.NewReader(make([]byte, size)))
				if err != nil {
					t.Error(err)
					cancel()
					return
				}
				res, err := c.http.Do(r)
				if err == nil {
					var got struct {
						Client, N string
						Bytes     int
					}
					err = json.NewDecoder(res.Body).Decode(&got)
					res.Body.Close()
					if err == nil && (got.Client != name || got.N != id || got.Bytes != size) {
						t.Errorf("%s got the answer for %+v instead of %s with %d bytes", name, got, id, size)
					}
				}
				switch {
				case err == nil:
					good.Add(1)
				case leaves && errors.Is(ctx.Err(), context.Canceled):
					left.Add(1)
				default:
					status, proto := 0, ""
					if res != nil {
						status, proto = res.StatusCode, res.Proto
					}
					t.Errorf("call %s of %s over %s (%s, %d bytes), which nobody broke off: status %d %s, %v", id, name, c.dialect, path, size, status, proto, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	eventually(t, "no call is left at the backend", func() bool { return begun.Load() == ended.Load() })
	t.Logf("%d calls answered, %d left, %d backends told", good.Load(), left.Load(), told.Load())
	if left.Load() == 0 || told.Load() == 0 || good.Load() == 0 {
		t.Error("too little has happened")
	}
	server.CloseClientConnections() // or the gateway keeps its idle connections for a minute
	p.settlesTo(before, 10, slices.Concat(clients["gold"], clients["bronze"])...)
	p.stopClean()
	if t.Failed() {
		for line := range strings.Lines(p.stdout.String()) {
			if strings.Contains(line, "path=/orders/answers") && !strings.Contains(line, "reason=client_gone") && strings.Contains(line, "problem=") {
				t.Logf("%.600s", line)
			}
		}
	}
}
