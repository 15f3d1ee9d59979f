package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// TestResponseIsStreamed: the client receives each part of an answer before the backend sends the next.
func TestResponseIsStreamed(t *testing.T) {
	f := newFixture(t)
	next := make(chan struct{})
	f.backend.handle("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		res, err := f.client(t, f.a4, via{http2: h2}).Get("https://mtls.test/pay/1.0/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		r := bufio.NewReader(res.Body)
		for i := range 3 {
			line, err := r.ReadString('\n') // the backend waits for us
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("got %q, %v", line, err)
			}
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			next <- struct{}{}
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("after the last event: %v", err)
		}
	})
}

// TestRequestIsStreamed: the backend receives each part of a request before the client sends the next.
func TestRequestIsStreamed(t *testing.T) {
	f := newFixture(t)
	got := make(chan string)
	f.backend.handle("/upload", func(_ http.ResponseWriter, r *http.Request) {
		p := make([]byte, 64)
		for {
			n, err := r.Body.Read(p)
			if n > 0 {
				got <- string(p[:n])
			}
			if err != nil {
				return
			}
		}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		reader, writer := io.Pipe()
		c := f.client(t, f.a4, via{http2: h2})
		done := make(chan error, 1)
		go func() {
			a, err := do(c, "POST", "https://mtls.test/pay/1.0/upload", reader)
			if err == nil && a.status != 200 {
				err = fmt.Errorf("status %d", a.status)
			}
			done <- err
		}()
		for i := range 3 {
			text := fmt.Sprintf("part %d", i)
			if _, err := io.WriteString(writer, text); err != nil {
				t.Fatal(err)
			}
			if part := <-got; part != text {
				t.Errorf("the backend got %q", part)
			}
		}
		writer.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestPausingStream: bodyRate does not end a stream while the backend has nothing to send.
func TestPausingStream(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	f := newFixture(t, func(_ *fixture, s *setup) {
		s.config.Limits.BodyRate = 1 << 20
		s.config.Hasten(0, 0, grace)
	})
	next := make(chan struct{})
	f.backend.handle("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, event := range []string{"one", "two"} {
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		res, err := f.client(t, nil, via{http2: h2}).Get("https://open.test/pub/1.0/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for _, event := range []string{"one", "two"} {
			if _, err := io.ReadFull(res.Body, make([]byte, len(event))); err != nil {
				t.Errorf("%s: %v", event, err)
			}
			<-time.After(2 * grace) // until any time for the client is over
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
			t.Errorf("it ends with %q, %v", rest, err)
		}
	})
}

// TestRemovedRowEndsStreams: when a certificate's registration is removed, its tunnels and event streams end on both
// sides. Those of other certificates, and its ordinary calls under way, go on.
func TestRemovedRowEndsStreams(t *testing.T) {
	gone := make(chan error, 8)
	ended := make(chan struct{}, 8)
	release := make(chan struct{})
	f := newFixture(t, register(client(payAPI, "a2", theWorld().a2, "Unlimited")), func(_ *fixture, s *setup) {
		s.config.DrainTimeout = patience // for the call under way
	})
	f.backend.handle("/ws", echoWebSocket(gone))
	f.backend.handle("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: first\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- struct{}{}
	})
	f.backend.handle("/slow", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-release
		fmt.Fprint(w, "whole")
	})
	open := func(who *party) *raw {
		c := f.dial(t, who, "mtls.test")
		if res := c.upgrade(t, "/pay/1.0/ws", "mtls.test", webSocketHead); res.StatusCode != 101 {
			t.Fatalf("status %d", res.StatusCode)
		}
		c.exchange(t, "before")
		return c
	}
	theirs, others := open(f.a4), open(f.a2)
	slow := make(chan answer, 1)
	go func() {
		a, err := do(f.client(t, f.a4, via{}), "GET", "https://mtls.test/pay/1.0/slow", nil)
		if err != nil {
			t.Error(err)
		}
		slow <- a
	}()
	var streams []*http.Response
	for _, h2 := range []bool{false, true} {
		res, err := f.client(t, f.a4, via{http2: h2}).Get("https://mtls.test/pay/1.0/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || line != "data: first\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		streams = append(streams, res)
	}
	eventually(t, "the slow call is under way", func() bool { return f.backend.count("/slow") == 1 })

	f.setClients(t) // a new snapshot with the same registrations
	theirs.exchange(t, "after a swap")

	f.remove(t, "a4")
	if !theirs.ended() {
		t.Error("the tunnel goes on")
	}
	<-gone // the backend's side, too
	for _, res := range streams {
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("the event stream ended as if it were whole")
		}
		<-ended
	}
	f.lastSeen(t, "the end of the tunnel is observed", func(s seen) bool { return s.Status == 101 && s.Reason == "broken_off" && s.Alias == "a4" })
	others.exchange(t, "still here")
	close(release)
	if a := <-slow; a.status != 200 || a.body != "whole" {
		t.Errorf("the call under way: status %d, %q", a.status, a.body)
	}
	others.Close()
	<-gone
}

// TestEndedRightEndsTunnels: a tunnel ends when its certificate loses its right, in whichever way: the CA is removed, the
// certificate expires, its tier or the API is removed, the key type becomes SANDBOX. A stream whose client reads nothing
// ends, too.
func TestEndedRightEndsTunnels(t *testing.T) {
	w := theWorld()
	now := newClock().Now()
	b1 := issue("b1", w.caB)
	soon := issue("soon", w.interA, validity(now.Add(-time.Hour), now.Add(time.Minute)))
	for name, c := range map[string]struct {
		who *party
		end func(*testing.T, *fixture)
	}{
		"CA":     {b1, func(t *testing.T, f *fixture) { f.setProfiles(t, f.profiles(t, certPEM(f.caA), allProfiles...)) }},
		"expiry": {soon, func(t *testing.T, f *fixture) { f.clock.Advance(time.Hour) }}, // without a new snapshot
		"tier":   {w.a4, func(t *testing.T, f *fixture) { setTier(f, "Nowhere"); f.setClients(t) }},
		"API":    {w.a4, func(t *testing.T, f *fixture) { f.routes = f.routes[1:]; f.setRoutes(t) }},
		"sandbox": {w.a4, func(t *testing.T, f *fixture) {
			f.clients[3] = sandbox(f.clients[3])
			f.setClients(t)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan error, 1)
			f := newFixture(t, register(client(payAPI, "b1", b1, "Unlimited"), client(payAPI, "soon", soon, "Unlimited")),
				func(_ *fixture, s *setup) { s.config.Recheck(10 * time.Millisecond) })
			f.setProfiles(t, f.profiles(t, certPEM(f.caA, f.caB), allProfiles...))
			f.backend.handle("/ws", echoWebSocket(gone))
			conn := f.dial(t, c.who, "opt.test")
			if res := conn.upgrade(t, "/pay/1.0/ws", "opt.test", webSocketHead); res.StatusCode != 101 {
				t.Fatalf("status %d", res.StatusCode)
			}
			conn.exchange(t, "before")
			c.end(t, f)
			if !conn.ended() {
				t.Error("the tunnel goes on")
			}
			<-gone
		})
	}

	// A client that reads nothing.
	f := newFixture(t)
	gone := make(chan struct{})
	f.backend.handle("/pour", func(w http.ResponseWriter, _ *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	conn := f.dial(t, f.a4, "mtls.test")
	conn.send(t, "GET /pay/1.0/pour HTTP/1.1\nHost: mtls.test\n\n")
	eventually(t, "it pours", func() bool { return f.backend.count("/pour") == 1 })
	if _, err := conn.reader.ReadByte(); err != nil {
		t.Fatal(err)
	}
	f.remove(t, "a4")
	<-gone
	f.lastSeen(t, "its end is observed", func(s seen) bool { return s.Path == "/pay/1.0/pour" && s.Reason == "broken_off" })
}

func setTier(f *fixture, tier string) {
	for i := range f.clients {
		f.clients[i].Tier = tier
	}
}

// TestStreamsOfUnknownLength: an answer of unknown length goes on for DrainTimeout after its right has ended.
func TestStreamsOfUnknownLength(t *testing.T) {
	f := newFixture(t, func(_ *fixture, s *setup) { s.config.DrainTimeout = 50 * time.Millisecond })
	f.backend.handle("/lines", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprintln(w, "{}")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	eachVersion(t, func(t *testing.T, h2 bool) {
		f.remove(t, "a4")
		f.clients = append(f.clients, client(payAPI, "a4", f.a4, "Unlimited"))
		f.setClients(t)
		res, err := f.client(t, f.a4, via{http2: h2}).Get("https://mtls.test/pay/1.0/lines")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		f.remove(t, "a4")
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("it ended as if it were whole")
		}
	})
}
