package decision

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sallyport/listenerprofiles"
)

var errForwards = errors.New("Max-Forwards is no plain number, or there is more than one")

// countForward holds OPTIONS and TRACE to their Max-Forwards (RFC 9110 section 7.6.2): at 0 the gateway is who was asked,
// and answers; else one less goes on. This comes behind all stages that refuse a caller, so that nobody is told of a
// resource who may not call it, and the question counts as a call. A server has no part in it, nor has its budget.
//
// TRACE is not answered with the request, as RFC 9110 section 9.3.8 has it: credentials that load balancers and browsers
// have added would be in it, and a script could read them.
func (x *Exchange) countForward() error {
	method := x.Request.Method
	if method != http.MethodOptions && method != http.MethodTrace {
		return nil // for which the field says nothing
	}
	value, lines := x.Request.First(maxForwards)
	if lines == 0 {
		return nil
	}
	n, err := strconv.ParseUint(value, 10, 64)
	switch {
	case lines > 1 || err != nil && !errors.Is(err, strconv.ErrRange): // of which ParseUint returns the largest number
		return refuse(BadRequest, errForwards)
	case n == 0 && method == http.MethodTrace:
		return refuse(NoTrace, nil)
	case n == 0:
		return refuse(LastHop, nil)
	}
	x.forwards = n
	return nil
}

const maxForwards = "Max-Forwards"

// counts reports whether a field of the client's is the one that goes on counted down.
func (x *Exchange) counts(name string) bool {
	return x.forwards > 0 && len(name) == len(maxForwards) && strings.EqualFold(name, maxForwards)
}

// commonMethods are what is looked for besides the methods that the API names: a resource without any takes all.
var commonMethods = []string{
	http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPatch, http.MethodPost, http.MethodPut,
}

// allow are the methods that the path of the call has a resource for, as a list. TRACE is never one.
func (x *Exchange) allow() string {
	methods := slices.Clone(commonMethods)
	for _, r := range x.Route.resources.all {
		methods = append(methods, r.Methods...)
	}
	slices.Sort(methods)
	host := listenerprofiles.NormalizeName(x.Request.Authority())
	methods = slices.DeleteFunc(slices.Compact(methods), func(method string) bool {
		at, err := x.Snapshot.Routes.find(x.Listener, host, x.Path, method)
		return err != nil || at.resource == nil || method == http.MethodTrace
	})
	return strings.Join(methods, ", ")
}
