package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/gateway/decision"
	"sallyport/gateway/http1"
	"sallyport/gateway/observe"
	"sallyport/internal/printable"
)

// A fullDisk takes all but the last bytes of its first write.
type fullDisk struct {
	bytes.Buffer
	full bool
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if !d.full {
		d.full = true
		n, _ := d.Buffer.Write(p[:len(p)-5])
		return n, io.ErrShortWrite
	}
	return d.Buffer.Write(p)
}

// TestAccessLogOnAFullDisk: after a line of which standard output has taken a part, the next one begins a line.
func TestAccessLogOnAFullDisk(t *testing.T) {
	var out fullDisk
	log, err := openAccessLog(config.Log{Access: "stdout", Format: "json"}, printable.NewWriter(&out), observe.NewMetrics("test"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	c := decision.NewConnection(new(decision.Endpoint), netip.AddrPort{}, netip.Addr{})
	c.Endpoint.SetSettings(new(decision.Listener))
	for range 2 {
		var x decision.Exchange
		decision.New(decision.Options{}).Begin(&x, &http1.Request{Method: "GET", Target: "/"}, "id", c, time.Now())
		log.log.Observe(&x, 0)
		_ = log.log.Run(over) // writes it
	}
	if n := strings.Count(out.String(), "\n"); n != 2 || !strings.Contains(out.String(), "\n{") {
		t.Errorf("%d lines: %q", n, out.String())
	}
}
