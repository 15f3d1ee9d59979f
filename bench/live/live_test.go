package live

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A site is a Backend behind a TLS server that refuses on demand, in place of a gateway.
type site struct {
	*Backend
	Config
	refuse atomic.Bool
	broken context.Context // done when streams are to end
	end    context.CancelFunc
}

func newSite(t *testing.T) *site {
	s := &site{Backend: &Backend{Beat: 5 * time.Millisecond}}
	s.broken, s.end = context.WithCancel(context.Background())
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.refuse.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.broken, cancel)()
		s.ServeHTTP(w, r.WithContext(ctx))
		if r.URL.Path[strings.LastIndexByte(r.URL.Path, '/'):] == "/events" {
			panic(http.ErrAbortHandler) // the stream breaks off
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	t.Cleanup(s.end)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	s.Config = Config{
		Address: server.Listener.Addr().String(), Path: "/bench", TLS: &tls.Config{RootCAs: roots, ServerName: "example.com"},
		Pace: 5 * time.Millisecond, Again: 10 * time.Millisecond,
	}
	return s
}

func (s *site) open(t *testing.T, carriers ...Carrier) *Crowd {
	t.Helper()
	var clients []Client
	for _, c := range carriers {
		clients = append(clients, Client{Name: "client " + string(c)[:2], Carrier: c})
	}
	for i := range clients {
		clients[i].Name = strings.ReplaceAll(clients[i].Name, " ", "-")
	}
	crowd, err := Open(t.Context(), s.Config, clients)
	t.Cleanup(crowd.Close)
	if err != nil {
		t.Fatal(err)
	}
	return crowd
}

// eventually waits until what is wanted is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

var everyCarrier = append(slices.Clone(Carriers), Fresh)

func TestConnectionsAreServedUntilTheyEnd(t *testing.T) {
	s := newSite(t)
	crowd := s.open(t, everyCarrier...)
	for _, c := range crowd.Connections {
		eventually(t, string(c.Carrier)+" goes on", func() bool { return c.Periods()[0].Count > 3 })
		if past := c.Periods(); len(past) != 1 || !past[0].Served {
			t.Errorf("%s: %+v", c.Carrier, past)
		}
	}
	before := time.Now()
	s.refuse.Store(true)
	s.end()
	for _, c := range crowd.Connections {
		eventually(t, string(c.Carrier)+" ends", func() bool { return len(c.Periods()) > 1 })
		past := c.Periods()
		if past[1].Served || past[1].Text == "" || past[1].Began.Before(before) || past[0].LastSent.After(past[1].Began) {
			t.Errorf("%s: %+v", c.Carrier, past)
		}
		if c.Carrier.Calls() && past[1].Text != "status 401" {
			t.Errorf("%s ended by %q", c.Carrier, past[1].Text)
		}
		if streams := !c.Carrier.Calls(); streams && !strings.Contains(past[1].Text, "has ended: ") {
			t.Errorf("%s ended by %q", c.Carrier, past[1].Text)
		}
		eventually(t, "no stream is left of "+string(c.Carrier), func() bool { return s.Of(c.Name).Open.Load() == 0 })
	}
}

func TestConnectionsComeBack(t *testing.T) {
	s := newSite(t)
	crowd := s.open(t, KeepAlive, HTTP2, Fresh)
	for _, refuse := range []bool{true, false} {
		s.refuse.Store(refuse)
		for _, c := range crowd.Connections {
			eventually(t, string(c.Carrier)+" notices", func() bool {
				past := c.Periods()
				return past[len(past)-1].Served != refuse
			})
		}
	}
}

func TestACrowdThatIsRefusedIsAnError(t *testing.T) {
	s := newSite(t)
	s.refuse.Store(true)
	for _, c := range everyCarrier {
		crowd, err := Open(t.Context(), s.Config, []Client{{Name: "client", Carrier: c}})
		crowd.Close()
		if err == nil || !strings.Contains(err.Error(), "status 401") {
			t.Errorf("%s: %v", c, err)
		}
	}
}

// A server that is silent, or mixes callers up, is noticed.
func TestWrongAnswersAreNoticed(t *testing.T) {
	s := newSite(t)
	silent, end := context.WithCancel(context.Background())
	defer end()
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/call") {
			w.Write([]byte("somebody else"))
			return
		}
		<-silent.Done()
	}))
	other.EnableHTTP2 = true
	other.StartTLS()
	defer other.Close()
	defer end()
	config := s.Config
	config.Address, config.Patience = other.Listener.Addr().String(), 300*time.Millisecond
	for _, c := range everyCarrier {
		crowd, err := Open(t.Context(), config, []Client{{Name: "client", Carrier: c}})
		crowd.Close()
		if err == nil || c.Calls() && !strings.Contains(err.Error(), "answer of another") {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestTheBackendEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{Beat: time.Millisecond}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := b.Run(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("GET /a/socket HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n"))
	eventually(t, "the stream is open", func() bool { return b.Of("a").Open.Load() == 1 })
	stop()
	group.Wait()
	if open, calls := b.Of("a").Open.Load(), b.Calls(); open != 0 || calls != 1 {
		t.Errorf("%d streams are open, %d calls arrived", open, calls)
	}
}
