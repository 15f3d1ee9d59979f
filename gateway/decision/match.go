package decision

import (
	"errors"
	"net/http"

	"sallyport/gateway/message"
	"sallyport/listenerprofiles"
)

var (
	errMethod    = errors.New("the method is no token")
	errAuthority = errors.New("the host is malformed")
	errConnect   = errors.New("CONNECT is never forwarded") // a backend that agreed would turn a pooled connection into a tunnel
)

// match finds the API and the resource that a call is for, by what the raw path means that the backend will get.
// A call for what does not exist is refused before any credential is looked at.
func match(x *Exchange) error {
	var err error
	x.Path, x.Query, x.HasQuery, err = message.ParseTarget(x.Request.Target)
	if err != nil {
		return refuse(BadRequest, err)
	}
	if x.Request.Method == http.MethodConnect {
		return refuse(BadRequest, errConnect)
	}
	if !message.ValidMethod(x.Request.Method) {
		return refuse(BadRequest, errMethod)
	}
	if !message.ValidAuthority(x.Request.Authority()) {
		return refuse(BadRequest, errAuthority)
	}
	host := listenerprofiles.NormalizeName(x.Request.Authority())
	if err := x.answerValidation(host); err != nil {
		return err
	}
	at, err := x.Snapshot.Routes.find(x.Listener, host, x.Path, x.Request.Method)
	x.Route, x.Resource, x.ResourcePath = at.route, at.resource, at.left
	switch {
	case err != nil:
		return err
	case x.Route == nil:
		return x.Snapshot.Routes.missing(x.Path)
	case x.Resource == nil:
		return refuse(NoSuchResource, nil)
	}
	return nil
}
