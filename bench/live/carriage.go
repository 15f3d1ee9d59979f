package live

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// open opens a connection. Its carriage is closed when ctx ends.
func (c *Connection) open(ctx context.Context) (carriage, error) {
	settings := c.config.TLS.Clone()
	settings.Certificates = []tls.Certificate{c.Identity}
	if settings.ServerName == "" {
		settings.ServerName = "localhost"
	}
	settings.NextProtos = []string{"http/1.1"}
	if c.Carrier == HTTP2 || c.Carrier == HTTP2Events {
		settings.NextProtos = []string{http2.NextProtoTLS}
	}
	dialer := net.Dialer{Timeout: c.config.Patience}
	plain, err := dialer.DialContext(ctx, "tcp", c.config.Address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(plain, settings)
	link := &link{Conn: conn, patience: c.config.Patience, forget: context.AfterFunc(ctx, func() { plain.Close() })}
	handshake, cancel := context.WithTimeout(ctx, c.config.Patience)
	defer cancel()
	if err := conn.HandshakeContext(handshake); err != nil {
		link.close()
		return nil, fmt.Errorf("handshake: %w", nameless(err))
	}
	switch c.Carrier {
	case KeepAlive, Fresh:
		return &calls1{link: link, in: bufio.NewReader(link), request: c.request("call", ""), want: c.Name}, nil
	case HTTP2:
		return newHTTP2(link, c, "call")
	case WebSocket:
		return link.keep(newWebSocket(link, c))
	case Events:
		return link.keep(newEvents(link, c))
	default:
		return newHTTP2(link, c, "events")
	}
}

// request renders the head of a request for the last segment of the path.
func (c *Connection) request(last, fields string) []byte {
	return fmt.Appendf(nil, "GET %s/%s/%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", c.config.Path, c.Name, last, fields)
}

// A link is a connection of which each read and write has to get on within a time.
type link struct {
	*tls.Conn
	patience time.Duration
	forget   func() bool
}

func (l *link) Read(b []byte) (int, error) {
	if err := l.SetReadDeadline(time.Now().Add(l.patience)); err != nil {
		return 0, err
	}
	return l.Conn.Read(b)
}

func (l *link) Write(b []byte) (int, error) {
	if err := l.SetWriteDeadline(time.Now().Add(l.patience)); err != nil {
		return 0, err
	}
	return l.Conn.Write(b)
}

func (l *link) close() {
	l.forget()
	l.Conn.NetConn().Close() // no close_notify, which would wait for one that reads nothing
}

// keep returns what was made of the link, which is closed if that was in vain.
func (l *link) keep(c carriage, err error) (carriage, error) {
	if err != nil {
		l.close()
		return nil, err
	}
	return c, nil
}

// nameless takes addresses out of a network error, so that equal ends read alike.
func nameless(err error) error {
	if network := (*net.OpError)(nil); errors.As(err, &network) {
		return network.Err
	}
	return err
}

// calls1 makes calls on an HTTP/1.1 connection.
type calls1 struct {
	*link
	in      *bufio.Reader
	request []byte
	want    string
}

func (c *calls1) turn() error {
	if _, err := c.Write(c.request); err != nil {
		return nameless(err)
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nameless(err)
	}
	if err := answer(response, c.want); err != nil {
		return err
	}
	if response.Close {
		return errors.New("the connection is not kept")
	}
	return nil
}

// answer reads an answer, which has to be what is wanted. A refusal of a connection that is not kept is no *Refused.
func answer(response *http.Response, want string) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	response.Body.Close()
	switch {
	case err != nil:
		return nameless(err)
	case response.StatusCode != http.StatusOK && response.Close:
		return fmt.Errorf("%w, and the connection is not kept", &final{response.StatusCode})
	case response.StatusCode != http.StatusOK:
		return &Refused{response.StatusCode}
	case string(body) != want:
		return fmt.Errorf("the answer of another: %.40q", body)
	}
	return nil
}

// A final is a Refused after which the connection ends.
type final Refused

func (f *final) Error() string { return (*Refused)(f).Error() }

// overHTTP2 makes calls on an HTTP/2 connection, or has one event stream on it.
type overHTTP2 struct {
	*link
	conn    *http.Transport // of the link alone
	request *http.Request
	end     context.CancelFunc
	want    string
	events  *events // nil for calls
}

func newHTTP2(l *link, c *Connection, last string) (carriage, error) {
	h := &overHTTP2{link: l, want: c.Name}
	var err error
	var used atomic.Bool
	h.conn = &http.Transport{
		ForceAttemptHTTP2: true, DisableCompression: true,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errEnded
			}
			return l.Conn, nil
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.end = cancel
	url := fmt.Sprintf("https://localhost%s/%s/%s", c.config.Path, c.Name, last)
	if h.request, err = http.NewRequestWithContext(ctx, http.MethodGet, url, nil); err != nil || last == "call" {
		return h, err
	}
	response, err := h.trip()
	if err == nil && response.StatusCode != http.StatusOK {
		err = &Refused{response.StatusCode}
	}
	if err != nil {
		h.close()
		return nil, err
	}
	h.events = &events{link: l, in: bufio.NewReader(response.Body), body: response.Body}
	return h, nil
}

var errEnded = errors.New("the connection has ended")

// trip gives up a call without an answer within the link's patience, with its whole connection.
func (h *overHTTP2) trip() (*http.Response, error) {
	late := time.AfterFunc(h.patience, h.close)
	defer late.Stop()
	response, err := h.conn.RoundTrip(h.request)
	return response, nameless(err)
}

func (h *overHTTP2) turn() error {
	if h.events != nil {
		late := time.AfterFunc(h.patience, h.close)
		defer late.Stop()
		return h.events.turn()
	}
	response, err := h.trip()
	if err != nil {
		return err
	}
	return answer(response, h.want)
}

func (h *overHTTP2) close() {
	h.end()
	h.conn.CloseIdleConnections()
	h.link.close()
}

// events is an event stream of numbers.
type events struct {
	*link
	in   *bufio.Reader
	body io.Closer
	last int
}

func newEvents(l *link, c *Connection) (carriage, error) {
	if _, err := l.Write(c.request("events", "")); err != nil {
		return nil, nameless(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(l), nil)
	if err != nil {
		return nil, nameless(err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, &Refused{response.StatusCode}
	}
	return &events{link: l, in: bufio.NewReader(response.Body), body: response.Body}, nil
}

func (e *events) turn() error {
	for {
		line, err := e.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("the stream has ended: %w", nameless(err))
		}
		text, is := bytes.CutPrefix(line, []byte("data: "))
		if !is {
			continue
		}
		e.last++
		if got := strings.TrimSpace(string(text)); got != fmt.Sprint(e.last) {
			return fmt.Errorf("event %.20q instead of %d", got, e.last)
		}
		return nil
	}
}

// socket is a WebSocket whose messages are answered.
type socket struct {
	*link
	in *bufio.Reader
}

func newWebSocket(l *link, c *Connection) (carriage, error) {
	if _, err := l.Write(c.request("socket", upgradeFields)); err != nil {
		return nil, nameless(err)
	}
	s := &socket{link: l, in: bufio.NewReader(l)}
	response, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return nil, nameless(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil, &Refused{response.StatusCode}
	}
	return s, nil
}

func (s *socket) turn() error {
	text, err := readFrame(s.in)
	if err != nil {
		return fmt.Errorf("the WebSocket has ended: %w", nameless(err))
	}
	return nameless(writeFrame(s, text, true))
}
