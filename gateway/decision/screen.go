package decision

import (
	"errors"
	"strings"

	"sallyport/gateway/http1"
)

// maxHops is how many gateways of our kind a call may have come through.
const maxHops = 10

// screen refuses what is too much, or no request, before anything is decided.
func screen(x *Exchange) error {
	d := x.decider
	if d.short.Load() {
		return refuse(Overloaded, nil)
	}
	if problem := x.Request.Problem; problem != nil {
		return refuse(reasonOfHead(problem), problem)
	}
	if x.Request.Lines() > d.cfg.HeaderLines {
		return refuse(TooManyHeaders, nil)
	}
	for _, v := range x.Request.Values("Via") {
		if strings.Contains(v, d.via) || strings.Count(v, "sallyport-") >= maxHops {
			return refuse(Loop, nil)
		}
	}
	return nil
}

// reasonOfHead is the reason for which a head is refused that is none.
func reasonOfHead(problem error) Reason {
	var malformed *http1.Error
	if !errors.As(problem, &malformed) {
		return BadRequest
	}
	for r, a := range answers { // of the statuses that http1 names, each is the answer to one reason
		if a.status == malformed.Status {
			return Reason(r)
		}
	}
	return BadRequest
}
