package gateway

import (
	"sallyport/gateway/message"
	"sallyport/listenerprofiles"
)

// match finds the API and the resource that a call is for, by the raw path that the backend will get.
// Whoever asks for what does not exist is told so before any credential is looked at.
func (g *Gateway) match(x *Exchange) error {
	var err error
	x.Path, x.Query, x.HasQuery, err = message.ParseTarget(x.Request.Target())
	if err != nil {
		return refuse(BadRequest, err)
	}
	host := listenerprofiles.NormalizeName(x.Request.Authority())
	x.Route, x.ResourcePath = x.Snapshot.Routes.find(x.Listener, host, x.Path)
	if x.Route == nil {
		return refuse(NoSuchAPI, nil)
	}
	x.Resource = x.Route.resources.find(x.ResourcePath, x.Request.Method())
	if x.Resource == nil {
		return refuse(NoSuchResource, nil)
	}
	return nil
}
