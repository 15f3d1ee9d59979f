package gateway_test

import (
	"bufio"
	"io"
	"strings"
)

// A reader is a text that is read through a buffer, and tells what is left of it.
type reader struct {
	strings.Reader
	buffer *bufio.Reader
}

func (r *reader) buffered() *bufio.Reader {
	r.buffer = bufio.NewReader(&r.Reader)
	return r.buffer
}

// rest is what was not read yet.
func (r *reader) rest() string {
	text, _ := io.ReadAll(r.buffer) // a text has no errors
	return string(text)
}
