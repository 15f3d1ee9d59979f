package gateway

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"sallyport/gateway/http1"
	"sallyport/policy/ratelimit"
)

// AppendRequest implements http1.Handler.
func (e engine) AppendRequest(b []byte, w *http1.Call) []byte {
	c, r := w.State.(*wireCall), &w.Request
	b = c.appendStart(b, w.Upstream)
	keepsBearer := c.keepsBearer()
	for i := range r.Fields {
		if f := &r.Fields[i]; c.goesOn(f.Name, keepsBearer) && !r.Named(f.Name) {
			b = appendField(b, f.Name, f.Value)
		}
	}
	return c.appendOwn(b, versions[r.Minor], e.socket.gateway.via)
}

// versions are those of HTTP/1, as RFC 9110 section 7.6.3 writes them.
var versions = [...]string{"1.0", "1.1"}

// AppendResponse implements http1.Handler.
func (e engine) AppendResponse(b []byte, w *http1.Call) ([]byte, error) {
	c, res := w.State.(*wireCall), &w.Response
	b = appendStatus(b, res.Status, res.Reason)
	final := res.Status >= 200
	dated := false
	for i := range res.Fields {
		name, value := res.Fields[i].Name, res.Fields[i].Value
		switch {
		case forThisHop(name), res.Named(name):
			continue
		case final && len(name) == len("X-Request-Id") && strings.EqualFold(name, "X-Request-Id"):
			continue
		case c.Allowance.Window != 0 && len(name) >= len("RateLimit") && (strings.EqualFold(name, "RateLimit") || strings.EqualFold(name, "RateLimit-Policy")):
			continue
		case len(name) == len("Date") && strings.EqualFold(name, "Date"):
			dated = true
		}
		b = appendField(b, name, value)
	}
	if !final {
		return b, nil
	}
	if !dated {
		b = e.appendDate(b, w.Seen)
	}
	b = appendField(b, "X-Request-Id", c.ID)
	if c.Allowance.Window != 0 {
		b = append(b, "RateLimit-Policy: "...)
		b = ratelimit.AppendPolicy(b, c.Allowance)
		b = append(b, "\r\nRateLimit: "...)
		b = ratelimit.AppendLimit(b, c.Allowance)
		b = append(b, "\r\n"...)
	}
	return b, nil
}

func appendStatus(b []byte, status int, reason string) []byte {
	if text := http.StatusText(status); text != "" {
		reason = text
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason...)
	return append(b, "\r\n"...)
}

// appendDate is for answers that have none yet (RFC 9110 section 6.6.1).
func (e engine) appendDate(b []byte, now time.Time) []byte {
	g := e.socket.gateway
	if g.cfg.Now != nil {
		now = g.now()
	}
	line := g.date.Load()
	if line == nil || line.second != now.Unix() {
		line = &dateLine{now.Unix(), "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
		g.date.Store(line)
	}
	return append(b, line.text...)
}

// A dateLine is the Date header line of one second.
type dateLine struct {
	second int64
	text   string
}

// AppendRefusal implements http1.Handler.
func (e engine) AppendRefusal(b []byte, w *http1.Call) []byte {
	c := w.State.(*wireCall)
	r, _ := c.Err.(*Refusal)
	if r == nil {
		r = refuse(Internal, c.Err)
	}
	w.Status = r.Status()
	b = appendStatus(b, w.Status, "")
	h := http.Header{}
	r.setHeader(h, &c.Exchange)
	for name, values := range h {
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	b = e.appendDate(b, time.Now())
	if w.Last {
		b = appendField(b, "Connection", "close")
	}
	b = append(b, "\r\n"...)
	if w.Request.Method != http.MethodHead {
		body := r.body()
		b = append(b, body...)
		w.BytesOut = int64(len(body))
	}
	return b
}
