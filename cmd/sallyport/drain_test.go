package main_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestDrain sends SIGTERM while a call is under way in each dialect: readiness ends, new connections are refused, the calls
// complete, and the exit code is 0.
func TestDrain(t *testing.T) {
	d := newDemo(t, patientUploads...)
	p := d.quickstart()
	var uploads []*upload
	for _, how := range dialects {
		uploads = append(uploads, d.upload(how))
	}
	p.signal(syscall.SIGTERM)
	eventually(t, "the gateway says that it drains", func() bool { status, _ := p.status("/readyz"); return status == http.StatusServiceUnavailable })
	if status, _ := p.status("/healthz"); status != http.StatusOK {
		t.Errorf("healthz while draining: %d", status)
	}
	eventually(t, "new connections are refused", func() bool { return !d.speaks(dialects[3].tls) })
	for i, u := range uploads {
		if r, err := u.finish(); err != nil || r.status != http.StatusOK {
			t.Errorf("%s: the call under way ended with %d, %v", dialects[i], r.status, err)
		}
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// Its last calls are in the access log.
	if n := strings.Count(p.stdout.String(), "method=POST"); n != len(dialects) {
		t.Errorf("%d of %d calls are in the access log", n, len(dialects))
	}
}

// TestSecondSignal sends SIGTERM twice: the second ends the calls under way at once.
func TestSecondSignal(t *testing.T) {
	d := newDemo(t, patientUploads...)
	p := d.quickstart()
	var uploads []*upload
	for _, how := range dialects {
		uploads = append(uploads, d.upload(how))
	}
	p.signal(syscall.SIGTERM)
	eventually(t, "the gateway says that it drains", func() bool { status, _ := p.status("/readyz"); return status == http.StatusServiceUnavailable })
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 1 {
		t.Errorf("calls were broken off, and the exit code is %d", code)
	}
	if out := p.stdout.String(); strings.Contains(out, "client_gone") || strings.Count(out, "reason=stopped") != len(dialects) {
		t.Errorf("the access log says of the calls:\n%s", out)
	}
	for i, u := range uploads {
		if r, err := u.finish(); err == nil && r.status == http.StatusOK {
			t.Errorf("%s: the call ended well", dialects[i])
		}
	}
	if log := p.stdout.String(); strings.Contains(log, "client_gone") ||
		strings.Count(log, `problem="the gateway was told to stop at once`) != len(dialects) {
		t.Errorf("the access log blames others for the stop:\n%s", log)
	}
}

// TestDrainTimeout: drainTimeout ends a call that does not end by itself.
func TestDrainTimeout(t *testing.T) {
	d := newDemo(t, append(patientUploads, longDrain, "drainTimeout: 200ms")...)
	p := d.quickstart()
	u := d.upload(dialects[0])
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 1 {
		t.Errorf("calls were broken off, and the exit code is %d", code)
	}
	if r, err := u.finish(); err == nil && r.status == http.StatusOK {
		t.Error("the call ended well")
	}
	if !p.stderr.contains("calls were broken off") {
		t.Errorf("nothing is said of the call:\n%s", p.stderr)
	}
}

// TestLameDuckTimeout: after SIGTERM the gateway says that it isn't ready, and accepts and serves new connections for
// that time. A second SIGTERM ends it at once, with 1 if a call was broken off.
func TestLameDuckTimeout(t *testing.T) {
	const long = "lameDuckTimeout: 1h\n"
	for name, c := range map[string]struct {
		setting  string
		underWay bool // at the second SIGTERM
		second   bool
		code     int
	}{
		"by itself":              {"lameDuckTimeout: 300ms\n", false, false, 0},
		"nothing is under way":   {long, false, true, 0},
		"something is under way": {long, true, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDemo(t, append(patientUploads, longDrain, c.setting+longDrain)...)
			p := d.quickstart()
			p.signal(syscall.SIGTERM)
			if c.second {
				eventually(t, "it says that it is not ready", func() bool {
					status, _ := p.status("/readyz")
					return status == http.StatusServiceUnavailable
				})
				for _, how := range dialects {
					if r := d.client("gold", how).get(t, "/orders/1"); r.status != http.StatusOK {
						t.Errorf("%s: a new connection meets %d", how, r.status)
					}
				}
				eventually(t, "the calls are over", func() bool { return count(p.stdout.String(), "method=GET") == len(dialects) })
				if c.underWay {
					d.upload(dialects[0])
				}
				p.signal(syscall.SIGTERM)
			}
			if code := p.wait(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if broken := strings.Contains(p.stdout.String(), "reason=stopped"); broken != c.underWay {
				t.Errorf("the access log tells of a call that was broken off: %t\n%s", broken, p.stdout)
			}
			if !p.stderr.contains("not ready any more, and still accepting connections") {
				t.Errorf("the log doesn't say what it waits for:\n%s", p.stderr)
			}
		})
	}
}

// TestAccessLogReopens renames the access log, as logrotate does, and sends SIGHUP: a new file begins, and no line is lost.
func TestAccessLogReopens(t *testing.T) {
	d := newDemo(t, "access: stdout", "access: access.log")
	p := d.quickstart()
	c := d.client("gold", dialects[3])
	holds := func(file string, lines int) func() bool {
		return func() bool {
			data, _ := os.ReadFile(d.path(file)) // it may not be there yet
			return strings.Count(string(data), "msg=call") == lines
		}
	}
	c.get(t, "/orders/1")
	eventually(t, "the call is in the log", holds("access.log", 1))

	if err := os.Rename(d.path("access.log"), d.path("access.log.1")); err != nil {
		t.Fatal(err)
	}
	c.get(t, "/orders/2")
	eventually(t, "the old file is written to until SIGHUP", holds("access.log.1", 2))
	p.signal(syscall.SIGHUP)
	eventually(t, "there is a new file", func() bool { _, err := os.Stat(d.path("access.log")); return err == nil })
	eventually(t, "a call is in the new file", func() bool {
		c.get(t, "/orders/3")
		data, err := os.ReadFile(d.path("access.log"))
		return err == nil && strings.Contains(string(data), "path=/orders/3")
	})
	if !holds("access.log.1", 2)() && !strings.Contains(d.read("access.log.1"), "path=/orders/3") {
		t.Errorf("the old file now holds\n%s", d.read("access.log.1"))
	}
	if p.stdout.contains("msg=call") {
		t.Error("calls are on standard output too")
	}
	p.stop()
}

// patientUploads are edits of sallyport.yaml that let clients send bodies as slowly as they like.
var patientUploads = []string{"\nstatus:", "\nlimits: {bodyRate: 0}\nstatus:"}

// An upload is a call under way: the backend waits for the rest of its body.
type upload struct {
	body   *io.PipeWriter
	result chan result
}

type result struct {
	reply
	err error
}

// upload begins a call and returns once the backend has it.
func (d *demoFolder) upload(how dialect) *upload {
	d.t.Helper()
	c := d.client("gold", how)
	r, w := io.Pipe()
	u := &upload{body: w, result: make(chan result, 1)}
	request, err := http.NewRequest(http.MethodPost, fmt.Sprintf("https://localhost:%d/orders/upload", c.port), r)
	if err != nil {
		d.t.Fatal(err)
	}
	count := d.backendCount()
	go func() {
		res, err := c.http.Do(request)
		if err != nil {
			u.result <- result{err: err}
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		u.result <- result{reply{res.StatusCode, res.Header, body}, err}
	}()
	if _, err := io.WriteString(w, "the first half, "); err != nil {
		d.t.Fatal(err)
	}
	polls := 0
	eventually(d.t, "the backend has the call", func() bool { polls++; return d.backendCount() > count+polls })
	return u
}

// finish sends the rest of the body and returns the answer.
func (u *upload) finish() (reply, error) {
	_, _ = io.WriteString(u.body, "and the second") // an error shows in the answer
	u.body.Close()
	r := <-u.result
	return r.reply, r.err
}
