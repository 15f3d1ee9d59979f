package gateway

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// closedAfterwards is a request's body as net/http leaves it: once the answer's head has gone out, whoever reads on is told
// that it is closed.
type closedAfterwards struct {
	io.Reader
	closed bool
}

func (c *closedAfterwards) Read(p []byte) (int, error) {
	if c.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := c.Reader.Read(p)
	c.closed = errors.Is(err, io.EOF)
	return n, err
}

func (c *closedAfterwards) Close() error { return nil }

// TestBodyStaysEnded: the transport asks once more for the end of a body that it has sent. Anything but the end would
// break the backend's connection off, in the middle of the answer. Held: fault R21.
func TestBodyStaysEnded(t *testing.T) {
	b := &body{ReadCloser: &closedAfterwards{Reader: strings.NewReader("all of it")}}
	if got, err := io.ReadAll(b); string(got) != "all of it" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after its end: %d bytes, %v", n, err)
	}
}
