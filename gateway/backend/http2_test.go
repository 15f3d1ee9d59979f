package backend_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/gateway/backend"
	"sallyport/gateway/http1"
)

// frames is a connection of a server of HTTP/2 that says what no server should, and the stream of its call.
type frames struct {
	*http2.Framer
	conn   int64 // its number, from 1
	stream uint32
}

// speakHTTP2 starts a server whose connections answer each call with a function, which gets the number of the call on its
// connection, from 1. They end when it returns false.
func speakHTTP2(t *testing.T, answer func(f *frames, call int64) bool) *server {
	return speakAs(t, backend.H2C, func(n int64, c net.Conn, in *bufio.Reader) {
		if _, err := io.ReadFull(in, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := &frames{Framer: http2.NewFramer(c, in), conn: n}
		_ = f.WriteSettings()
		for call := int64(0); ; {
			read, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch read := read.(type) {
			case *http2.SettingsFrame:
				if !read.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.PingFrame:
				_ = f.WritePing(true, read.Data)
			case *http2.HeadersFrame:
				f.stream = read.StreamID
				if call++; !answer(f, call) {
					return
				}
			}
		}
	})
}

// head sends a head of names and values.
func (f *frames) head(last bool, fields ...string) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.stream, BlockFragment: block.Bytes(), EndStream: last, EndHeaders: true})
}

func (f *frames) data(last bool, text string) { _ = f.WriteData(f.stream, last, []byte(text)) }

func (f *frames) answer(status, text string) {
	f.head(false, ":status", status)
	f.data(true, text)
}

// readBody reads frames until a body is over.
func (f *frames) readBody() {
	for {
		read, err := f.ReadFrame()
		if data, ok := read.(*http2.DataFrame); err != nil || ok && data.StreamEnded() {
			return
		}
	}
}

func (f *frames) reset() { _ = f.WriteRSTStream(f.stream, http2.ErrCodeInternal) }

// TestHTTP2Answers: what an answer over HTTP/2 is to a Trip, where net/http's client is more lenient than its HTTP/1.1 or
// leaves it to its caller.
func TestHTTP2Answers(t *testing.T) {
	for _, c := range []struct {
		name, method string
		say          func(f *frames)
		body         string
		bad          bool // it is no answer
		cut          bool
	}{
		{"fine", "GET", func(f *frames) { f.answer("200", "fine") }, "fine", false, false},
		{"a switch", "GET", func(f *frames) { f.head(false, ":status", "101"); f.answer("200", "fine") }, "", true, false},
		{"a switch that ends", "GET", func(f *frames) { f.head(true, ":status", "101") }, "", true, false},
		{"interim ones", "GET", func(f *frames) {
			for range backend.MaxHeads - 1 {
				f.head(false, ":status", "103")
			}
			f.answer("200", "fine")
		}, "fine", false, false},
		{"too many interim ones", "GET", func(f *frames) {
			for range backend.MaxHeads {
				f.head(false, ":status", "103")
			}
			f.answer("200", "fine")
		}, "", true, false},
		{"too many of those that say go on", "GET", func(f *frames) {
			for range backend.MaxHeads {
				f.head(false, ":status", "100")
			}
			f.answer("200", "fine")
		}, "", true, false},
		{"no status", "GET", func(f *frames) { f.head(true, "x", "y") }, "", true, false},
		{"a status that is none", "GET", func(f *frames) { f.head(true, ":status", "ok") }, "", true, false},
		{"a status that is too small", "GET", func(f *frames) { f.head(true, ":status", "99") }, "", true, false},
		{"a status that is too large", "GET", func(f *frames) { f.head(true, ":status", "1000") }, "", true, false},
		{"two lengths", "GET", func(f *frames) {
			f.head(false, ":status", "200", "content-length", "4", "content-length", "4")
			f.data(true, "fine")
		}, "", true, false},
		{"a length that is none", "GET", func(f *frames) {
			f.head(false, ":status", "200", "content-length", "+4")
			f.data(true, "fine")
		}, "", true, false},
		{"a length of HEAD that is none", "HEAD", func(f *frames) { f.head(true, ":status", "200", "content-length", "x") }, "", true, false},
		{"a length of HEAD", "HEAD", func(f *frames) { f.head(true, ":status", "200", "content-length", "4") }, "", false, false},
		{"204", "GET", func(f *frames) { f.head(true, ":status", "204") }, "", false, false},
		{"204 with a body", "GET", func(f *frames) { f.answer("204", "fine") }, "", false, false},
		{"304 with a length", "GET", func(f *frames) { f.head(true, ":status", "304", "content-length", "4") }, "", false, false},
		{"304 with a body", "GET", func(f *frames) { f.answer("304", "fine") }, "", false, false},
		{"less than the length", "GET", func(f *frames) {
			f.head(false, ":status", "200", "content-length", "5")
			f.data(true, "fine")
		}, "fine", false, true},
		{"more than the length", "GET", func(f *frames) {
			f.head(false, ":status", "200", "content-length", "4")
			f.data(true, "fine!")
		}, "fine", false, true},
		{"a length and nothing", "GET", func(f *frames) { f.head(true, ":status", "200", "content-length", "4") }, "", false, true},
		{"an end without a body", "GET", func(f *frames) { f.head(true, ":status", "200") }, "", false, false},
		{"a reset", "GET", func(f *frames) { f.head(false, ":status", "200"); f.data(false, "fi"); f.reset() }, "fi", false, true},
		{"a name in upper case", "GET", func(f *frames) { f.head(true, ":status", "200", "X", "y") }, "", true, false},
		{"a value with a line break", "GET", func(f *frames) { f.head(true, ":status", "200", "x", "y\r\nz: a") }, "", true, false},
		{"a long interim one", "GET", func(f *frames) {
			for range 4 {
				f.head(false, ":status", "103", "x", strings.Repeat("x", 10<<10))
			}
			f.answer("200", "fine")
		}, "fine", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := speakHTTP2(t, func(f *frames, _ int64) bool { c.say(f); return true })
			trip := newTrip(s.Group, c.method, nil)
			defer trip.Close()
			var passed []int
			trip.Interim = func(res *http1.Response) error { passed = append(passed, res.Status); return nil }
			err := send(trip)
			if slices.Contains(passed, 101) || slices.Contains(passed, 100) {
				t.Errorf("passed on %d", passed)
			}
			if c.bad || err != nil {
				if !errors.Is(err, backend.ErrBadAnswer) || !c.bad {
					t.Errorf("got %v, and %d", err, trip.Response.Status)
				}
				return
			}
			text, err := rest(trip)
			if text != c.body || (err != nil) != c.cut {
				t.Errorf("the body is %q, %v", text, err)
			}
		})
	}
}

// TestHTTP2Silence: a connection on which the server has fallen silent is given up, so that further calls reach the server.
func TestHTTP2Silence(t *testing.T) {
	t.Parallel()
	s := speakHTTP2(t, func(f *frames, call int64) bool {
		if f.conn == 1 && call > 1 {
			for {
				if _, err := f.ReadFrame(); err != nil { // and answer no ping either
					return false
				}
			}
		}
		f.answer("200", "fine")
		return true
	})
	trip := new(backend.Trip)
	ask(t, trip, s.Group)
	until(t, "an answer", func() bool {
		prepare(trip, s.with(100*time.Millisecond), "GET", nil)
		err := send(trip)
		trip.Close()
		return err == nil
	})
	if s.conns.Load() < 2 {
		t.Errorf("%d connections", s.conns.Load())
	}
	ask(t, trip, s.Group)
}

// TestTimesOfConnections: a connection that dies while it carries a call was had in time.
func TestTimesOfConnections(t *testing.T) {
	dead := &net.OpError{Op: "write", Err: syscall.ETIMEDOUT}
	if err := backend.CauseHTTP2(dead, false); !errors.Is(err, backend.ErrConnect) || !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("before there was a connection: %v", err)
	}
	if err := backend.CauseHTTP2(dead, true); errors.Is(err, backend.ErrConnect) {
		t.Errorf("behind that: %v", err)
	}
}
