package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/bench/port"
	"sallyport/internal/testpki"
)

// patience is how long a test waits for a state, and a call for its answer.
const patience = 2 * time.Minute

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s) }
}

// secure serves over TLS, with HTTP/2, asks for a client certificate, and counts connections.
func secure(t *testing.T, h http.Handler, connections *atomic.Int64) (*httptest.Server, *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, &tls.Config{RootCAs: roots}
}

func mustRun(t *testing.T, c Config) *Result {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = patience
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	r, err := Run(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// runUntil repeats a run with four times the duration until enough has happened: a slow machine needs longer.
func runUntil(t *testing.T, c Config, enough func(*Result) bool) *Result {
	t.Helper()
	for {
		r := mustRun(t, c)
		if enough(r) || c.Duration > patience/4 {
			return r
		}
		c.Duration *= 4
	}
}

// something is enough for tests of how calls end.
func something(r *Result) bool { return r.Calls > 0 || r.Errors.Total() > 0 }

func TestEveryWorkloadMakesTheCallsThatItSays(t *testing.T) {
	var calls, connections atomic.Int64
	var identities, fields sync.Map
	s, config := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if len(r.TLS.PeerCertificates) > 0 {
			identities.Store(string(r.TLS.PeerCertificates[0].Raw), true)
		}
		fields.Store(r.Header.Get("X-Turn"), true)
		fmt.Fprintf(w, "hello over %s", r.Proto)
	}), &connections)
	for _, tt := range []struct {
		name string
		Config
		proto string
	}{
		{"keepalive", Config{Connections: 4}, "1.1"},
		{"open", Config{Connections: 4, Rate: 300}, "1.1"},
		{"newconn", Config{Workload: NewConn, Connections: 4}, "1.1"},
		{"resumed", Config{Workload: Resumed, Connections: 4}, "1.1"},
		{"mixed", Config{Workload: Mixed, Connections: 4}, "1.1"},
		{"streams", Config{HTTP2: true, Connections: 2, Streams: 3}, "2.0"},
		{"open streams", Config{HTTP2: true, Connections: 2, Streams: 3, Rate: 300}, "2.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			warming, began, ended := 0, 0, 0
			c := tt.Config
			c.URL, c.TLS, c.Duration, c.Warmup = s.URL+"/x", config, 500*time.Millisecond, 50*time.Millisecond
			c.Identities = []tls.Certificate{testpki.SelfSigned(t, testpki.Leaf{}).TLS(), testpki.SelfSigned(t, testpki.Leaf{}).TLS()}
			c.Headers = []Header{{"X-Turn", "one"}, {"X-Turn", "two"}}
			c.Want.Body = []byte("hello over HTTP/" + tt.proto)
			c.Warming, c.Began, c.Ended = func() { warming++ }, func() { began += warming }, func() { ended += began }
			forget := func() {
				calls.Store(0)
				connections.Store(0)
				identities.Clear()
				fields.Clear()
				warming, began, ended = 0, 0, 0
			}
			forget()
			r := runUntil(t, c, func(r *Result) bool {
				if r.Calls > 100 || r.Errors.Total() > 0 {
					return true
				}
				forget()
				return false
			})
			if r.Calls == 0 || r.Errors.Total() > 0 || warming != 1 || began != 1 || ended != 1 {
				t.Fatalf("%d calls, %v, warming %d, began %d, ended %d", r.Calls, r.Errors, warming, began, ended)
			}
			if got := calls.Load(); got < int64(r.Calls) || r.Bytes < r.Calls*uint64(len(c.Want.Body)) {
				t.Errorf("%d calls came, %d are told, of %d bytes", got, r.Calls, r.Bytes)
			}
			if c.Rate > 0 && (r.Calls < 149 || r.Calls > 151) {
				t.Errorf("%d calls, want 300 a second for half a second", r.Calls)
			}
			switch got, all := connections.Load(), calls.Load(); c.Workload {
			case NewConn, Resumed:
				if got != all {
					t.Errorf("%d connections for %d calls", got, all)
				}
			case Mixed:
				if got < 4+all/10-4 || got > 4+all/10 {
					t.Errorf("%d connections for %d calls", got, all)
				}
			default:
				if got != int64(c.Connections) {
					t.Errorf("%d connections, want %d", got, c.Connections)
				}
			}
			for _, set := range []*sync.Map{&identities, &fields} {
				n := 0
				set.Range(func(any, any) bool { n++; return true })
				if want := 2; n != want && !(set == &fields && c.Workload == Mixed && n == 3) {
					t.Errorf("%d of a kind, want %d", n, want)
				}
			}
		})
	}
}

func TestWhatIsWrongIsNoticed(t *testing.T) {
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    Want
		kind    string
	}{
		"status":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, Want{}, "status 503"},
		"other 2xx":  {text(""), Want{Status: 201}, "status 200"},
		"wrong byte": {text("hellO"), Want{Body: []byte("hello")}, wrongBody},
		"too short":  {text("hell"), Want{Body: []byte("hello")}, wrongBody},
		"too long":   {text("hello!"), Want{Body: []byte("hello")}, wrongBody},
		"no body":    {text(""), Want{Body: []byte("hello")}, wrongBody},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			io.WriteString(w, "1234")
		}, Want{}, broken},
		"gone":        {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Want{}, broken},
		"no HTTP":     {raw("SSH-2.0\r\n\r\n"), Want{}, malformed},
		"smuggled":    {raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"), Want{}, malformed},
		"bad chunk":   {raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"), Want{}, malformed},
		"long chunk":  {raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"), Want{}, malformed},
		"a huge head": {raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", bufferSize) + "\r\n\r\n"), Want{}, malformed},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(tt.handler)
			defer s.Close()
			r := runUntil(t, Config{URL: s.URL, Connections: 2, Duration: 100 * time.Millisecond, Want: tt.want}, something)
			if r.Errors[tt.kind].Count == 0 || len(r.Errors) != 1 || r.Calls > 0 {
				t.Errorf("%d good calls, errors %v; want only %q", r.Calls, r.Errors, tt.kind)
			}
		})
	}
}

// raw answers each connection with these bytes and closes it.
func raw(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(c, s)
		c.Close()
	}
}

// The other status that is wanted may have any body, and each call is told with its status and times.
func TestAnotherStatusIsAsGood(t *testing.T) {
	var n, good, other atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 {
			http.Error(w, "too many", http.StatusTooManyRequests)
			return
		}
		io.WriteString(w, "hello")
	}))
	defer s.Close()
	began := time.Now()
	c := Config{
		URL: s.URL, Duration: 20 * time.Millisecond, Connections: 2,
		Want: Want{Status: 200, Body: []byte("hello"), Also: 429},
		Answered: func(c Call) {
			if c.Sent.Before(began) || c.Got.Before(c.Sent) || c.Got.After(time.Now()) {
				t.Errorf("%+v, in a run that began at %v", c, began)
			}
			map[int]*atomic.Int64{200: &good, 429: &other}[c.Status].Add(1)
		},
	}
	r := runUntil(t, c, func(*Result) bool { return good.Load() > 0 && other.Load() > 0 })
	if len(r.Errors) > 0 || good.Load() == 0 || good.Load()+other.Load() != n.Load() {
		t.Errorf("%d answered 200 and %d 429 of %d, %v", good.Load(), other.Load(), n.Load(), r.Errors)
	}
	c.Want.Also, c.Answered = 503, nil
	if r := runUntil(t, c, func(r *Result) bool { return r.Errors.Total() > 0 }); r.Errors["status 429"].Count == 0 {
		t.Errorf("%v", r.Errors)
	}
}

func TestErrorsAnd(t *testing.T) {
	a := Errors{"timeout": {2, "first"}, "connect": {1, "refused"}}
	b := Errors{"timeout": {3, "second"}, "wrong body": {1, "other"}}
	want := Errors{"timeout": {5, "first"}, "connect": {1, "refused"}, "wrong body": {1, "other"}}
	if got := a.And(b); !maps.Equal(got, want) || a["timeout"].Count != 2 {
		t.Errorf("%v, want %v", got, want)
	}
	if got := Errors(nil).And(nil); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestEveryFramingIsRead(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"length": text("hello"),
		"chunks": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hel")
			w.(http.Flusher).Flush()
			io.WriteString(w, "lo")
		},
		"to EOF":   raw("HTTP/1.1 200 OK\r\n\r\nhello"),
		"HTTP/1.0": raw("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
		"interim": raw("HTTP/1.1 103 Early Hints\r\n\r\n" +
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"),
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(answer)
			defer s.Close()
			r := runUntil(t, Config{URL: s.URL, Connections: 2, Duration: 100 * time.Millisecond, Want: Want{Body: []byte("hello")}}, something)
			if r.Calls == 0 || r.Errors.Total() > 0 {
				t.Errorf("%d calls, errors %v", r.Calls, r.Errors)
			}
		})
	}
}

// A server that stalls delays every call that is due meanwhile. The generator has to count each of them.
func TestOpenLoopCountsFromTheIntendedStart(t *testing.T) {
	const stall, rate = 400 * time.Millisecond, 500
	var once sync.Once
	var gate sync.RWMutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() {
			gate.Lock()
			time.Sleep(stall) // the stall itself
			gate.Unlock()
		})
		gate.RLock()
		defer gate.RUnlock()
	}))
	defer s.Close()
	r := mustRun(t, Config{URL: s.URL, Connections: 2, Rate: rate, Duration: time.Second})
	if r.Calls != rate || r.Errors.Total() > 0 {
		t.Fatalf("%d calls, want %d: none is dropped; errors %v", r.Calls, rate, r.Errors)
	}
	// Calls due in the first half of the stall, a fifth of all, wait for half of it or longer. A closed loop would have
	// measured two.
	if got := r.Latency.Quantile(0.85); got < stall/2-stall/10 {
		t.Errorf("p85 is %v", got)
	}
}

func TestWhatNeverStartsIsAnError(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	r := mustRun(t, Config{URL: s.URL, Connections: 1, Rate: 100, Duration: 300 * time.Millisecond, Timeout: time.Second})
	if r.Errors[neverStarted].Count+r.Errors[timeout].Count != 30 || r.Errors[neverStarted].Count == 0 || r.Errors[timeout].Count == 0 {
		t.Errorf("errors %v; want 30 in all", r.Errors)
	}
}

func TestNobodyThere(t *testing.T) {
	held, err := port.Hold(0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	address := held.Address()
	r := mustRun(t, Config{URL: "http://" + address, Duration: 50 * time.Millisecond})
	if r.Errors[connect].Count == 0 {
		t.Errorf("errors %v", r.Errors)
	}
	if _, _, err := Probe(context.Background(), Config{URL: "http://" + address, Duration: 1}); err == nil {
		t.Error("the probe finds a server")
	}
}

func TestAServerThatWantsAnotherProtocol(t *testing.T) {
	s := httptest.NewTLSServer(text("")) // without HTTP/2
	defer s.Close()
	config := s.Client().Transport.(*http.Transport).TLSClientConfig
	r := mustRun(t, Config{URL: s.URL, HTTP2: true, Duration: 50 * time.Millisecond, TLS: config})
	if r.Errors[handshake].Count == 0 || r.Calls > 0 {
		t.Errorf("errors %v", r.Errors)
	}
}

func TestUnresumedIsAnError(t *testing.T) {
	s := httptest.NewUnstartedServer(text(""))
	s.TLS = &tls.Config{SessionTicketsDisabled: true}
	s.StartTLS()
	defer s.Close()
	c := Config{URL: s.URL, Workload: Resumed, Duration: 50 * time.Millisecond, TLS: s.Client().Transport.(*http.Transport).TLSClientConfig}
	r := runUntil(t, c, something)
	if r.Errors[notResumed].Count == 0 || r.Calls > 0 {
		t.Errorf("%d calls, errors %v", r.Calls, r.Errors)
	}
}

func TestTheEndOfTheContextEndsTheRun(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{}, 100)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer s.Close()
	defer close(release)
	for _, rate := range []float64{0, 100} {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-arrived; cancel() }()
		r, err := Run(ctx, Config{URL: s.URL, Connections: 3, Rate: rate, Duration: time.Hour, Timeout: time.Hour})
		if !errors.Is(err, context.Canceled) || r.Errors.Total() > 0 {
			t.Errorf("%v, errors %v", err, r.Errors)
		}
	}
}

func TestProbe(t *testing.T) {
	s, config := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		io.WriteString(w, r.Proto)
	}), new(atomic.Int64))
	for _, c := range []Config{{}, {HTTP2: true}, {Workload: Resumed}} {
		c.URL, c.TLS, c.Duration, c.Timeout = s.URL, config, 1, patience
		status, body, err := Probe(context.Background(), c)
		want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[c.HTTP2]
		if status != 403 || string(body) != want || err != nil {
			t.Errorf("%+v: %d %q %v", c, status, body, err)
		}
	}
}

func TestBadConfigs(t *testing.T) {
	for _, c := range []Config{
		{URL: "http://x"},
		{URL: "ftp://x", Duration: 1},
		{URL: "http://", Duration: 1},
		{URL: "http://x\x00", Duration: 1},
		{URL: "http://x", Duration: 1, Workload: "other"},
		{URL: "http://x", Duration: 1, Workload: Resumed},
		{URL: "http://x", Duration: 1, HTTP2: true},
		{URL: "https://x", Duration: 1, HTTP2: true, Workload: NewConn},
		{URL: "https://x", Duration: 1, Streams: 2},
		{URL: "https://x", Duration: 1, Rate: -1},
	} {
		if _, err := Run(context.Background(), c); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
