package backend

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for a state before it fails.
const patience = 2 * time.Minute

// start serves on loopback until the test ends.
func start(t *testing.T) (*Server, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, ended := New(), make(chan error, 1)
	go func() { ended <- s.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, listener.Addr().String()
}

func TestAnswers(t *testing.T) {
	s, address := start(t)
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	for path, want := range map[string]int{"/1k": 1 << 10, "/any/where/64k": 64 << 10, "/1m?x=y": 1 << 20} {
		for _, body := range []string{"", strings.Repeat("x", 100_000)} {
			answer, err := client.Post("http://"+address+path, "text/plain", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err != nil || answer.StatusCode != 200 || !bytes.Equal(got, Body(want)) {
				t.Errorf("%s: %d, %d bytes, %v", path, answer.StatusCode, len(got), err)
			}
		}
	}
	answer, err := client.Get("http://" + address + "/else")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", answer.StatusCode)
	}
	if got := s.Calls(); got != 7 {
		t.Errorf("%d calls", got)
	}
}

func TestSlowIsSlow(t *testing.T) {
	_, address := start(t)
	began := time.Now()
	answer, err := http.Get("http://" + address + "/slow?ms=50")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("after %v", took)
	}
}

func TestPipelinedCallsAreAnsweredInOrder(t *testing.T) {
	_, address := start(t)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "POST /1k HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /64k HTTP/1.1\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	want := string(answer("200 OK", Body(1<<10))) + string(answer("200 OK", Body(64<<10)))
	if string(got) != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func TestParseRequest(t *testing.T) {
	for head, want := range map[string]*request{
		"GET /a/1k HTTP/1.1\r\n":                                    {name: "1k"},
		"GET /slow?ms=20 HTTP/1.1\r\nCONNECTION: Close\r\n":         {name: "1k", wait: 20 * time.Millisecond, close: true},
		"POST /slow?ms=999999999 HTTP/1.1\r\nContent-Length: 7\r\n": {name: "1k", wait: time.Minute, length: 7},
		"GET /slow?ms=-1 HTTP/1.1\r\n":                              nil,
		"GET /1k HTTP/1.0\r\n":                                      nil,
		"GET /1k\r\n":                                               nil,
		"":                                                          nil,
		"POST / HTTP/1.1\r\nContent-Length: +7\r\n":                 nil,
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n":         nil,
	} {
		got, err := parseRequest([]byte(head))
		if (err != nil) != (want == nil) || want != nil && got != *want {
			t.Errorf("%q: %+v, %v", head, got, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("POST /slow?ms=20 HTTP/1.1\r\nContent-Length: 7\r\nConnection: close\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		r, err := parseRequest(head)
		if err == nil && (r.length < 0 || r.wait < 0 || r.wait > maxWait || strings.Contains(r.name, "/")) {
			t.Errorf("%+v", r)
		}
	})
}
