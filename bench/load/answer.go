package load

import (
	"bytes"
	"fmt"
)

// An answer collects an answer as it arrives and compares it with want. The zero answer accepts anything.
type answer struct {
	want   *Want
	keep   bool // whether to store the body
	status int
	size   int
	body   []byte
	wrong  bool
}

// take checks the next bytes of the body.
func (a *answer) take(p []byte) {
	if a.want != nil && a.want.Body != nil {
		rest := a.want.Body[min(a.size, len(a.want.Body)):]
		a.wrong = a.wrong || len(p) > len(rest) || !bytes.Equal(p, rest[:len(p)])
	}
	if a.keep {
		a.body = append(a.body, p...)
	}
	a.size += len(p)
}

// verdict returns why the complete answer is a failure, or nil.
func (a *answer) verdict() error {
	switch w := a.want; {
	case w == nil, w.Also != 0 && a.status == w.Also:
		return nil
	case w.Status == 0 && (a.status < 200 || a.status > 299), w.Status != 0 && a.status != w.Status:
		return failed(fmt.Sprintf("status %d", a.status), nil)
	case w.Body != nil && (a.wrong || a.size != len(w.Body)):
		return failed(wrongBody, fmt.Errorf("%d bytes, which are not the %d expected", a.size, len(w.Body)))
	}
	return nil
}
