package gateway

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// A writer counts what goes to the client, and bounds the wait for it. Unwrap lets http.ResponseController reach what lies
// below.
type writer struct {
	http.ResponseWriter
	status   int
	written  int64
	kept     int  // bytes that net/http may still keep to itself
	last     bool // this answer ends the connection
	old      bool // a client of HTTP/1.0, which must not get interim answers (RFC 9110 section 15.2)
	http2    bool
	failed   bool          // a write did
	rate     int           // bytes a second that the client has to take; 0: any number
	grace    time.Duration // before that counts
	waited   time.Duration // for the client
	patience *patience     // if there is a rate
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols && w.old {
		return
	}
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.status = status
		if w.last {
			w.Header().Set("Connection", "close")
		}
	} else if w.http2 {
		// net/http may still be reading an interim answer's fields when it returns, if the client ends the stream meanwhile,
		// and whoever clears them then brings the process down. With this field, which it leaves out, it takes a copy.
		w.Header()["Content-Length"] = []string{"0"}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (n int, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.kept += len(b); w.kept <= keepable {
		n, err = w.ResponseWriter.Write(b)
	} else {
		began := w.begin()
		n, err = w.ResponseWriter.Write(b)
		w.end(began)
	}
	w.written += int64(n)
	w.failed = w.failed || err != nil
	return n, err
}

// FlushError sends what net/http has kept.
func (w *writer) FlushError() error {
	began := w.begin()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.end(began)
	w.kept = 0
	return err
}

// keepable is what net/http takes of an answer without waiting for the client, in any version.
const keepable = 2 << 10

// begin bounds a wait for the client to take what it is sent.
func (w *writer) begin() (began time.Time) {
	if w.rate > 0 {
		began = time.Now()
		w.patience.hold(w.ResponseWriter, forWrites)
		w.patience.begin(began.Add(w.grace + worth(w.written, w.rate) - w.waited))
	}
	return began
}

func (w *writer) end(began time.Time) {
	if w.rate > 0 {
		w.patience.release()
		w.waited += time.Since(began)
	}
}

// worth is how long a client may keep us waiting, after its grace, for so many bytes of a body at the rate.
func worth(bytes int64, rate int) time.Duration {
	return time.Duration(float64(bytes) / float64(rate) * float64(time.Second))
}

// Hijack is what an upgrade takes the connection over with.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.status = http.StatusSwitchingProtocols
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
