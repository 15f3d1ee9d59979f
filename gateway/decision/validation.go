package decision

import (
	"context"
	"net/http"
)

// answerValidation answers a CA that validates a name by HTTP-01 (RFC 8555 section 8.3), if the call is that and an
// answer is pending, on this node or on another one, which it has to wait for. Any other call goes its way, to the same
// path as well.
func (x *Exchange) answerValidation(host string) error {
	token, ok := x.Listener.Validations.Token(host, x.Path)
	if !ok || x.Request.Method != http.MethodGet {
		return nil
	}
	if body, pending := x.Listener.Validations.HTTP(host, token); pending {
		return &Refusal{Reason: Validated, Text: body}
	}
	if x.lookedForValidation {
		return nil
	}
	x.wait = func(ctx context.Context) {
		x.Listener.Validations.Refresh(ctx)
		x.lookedForValidation = true
	}
	return ErrWait
}
