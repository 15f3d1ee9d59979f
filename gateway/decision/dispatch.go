package decision

import (
	"errors"

	"sallyport/certstore"
)

// dispatch finds the environment whose servers get the call, and counts the call there.
func dispatch(x *Exchange) error {
	if most := x.Route.MaxBody; most > 0 && x.Request.Length > most {
		return refuse(BodyTooLarge, nil)
	}
	group := x.Route.production
	if x.sandboxed() {
		group = x.Route.sandbox
	}
	if group == nil {
		return refuse(Internal, errors.New("the table was never put into force"))
	}
	if !group.Begin() {
		return refuse(BackendBusy, nil)
	}
	x.Group = group
	return nil
}

// sandboxed reports whether the call is one of a SANDBOX certificate.
func (x *Exchange) sandboxed() bool {
	return x.Client != nil && x.Client.KeyType == certstore.Sandbox
}
