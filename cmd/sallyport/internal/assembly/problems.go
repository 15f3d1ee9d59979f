package assembly

import (
	"errors"
	"strings"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/listenerprofiles"
)

// problems gathers what is wrong, each with its place.
type problems struct{ list config.Errors }

func (p *problems) add(at config.Pos, err error) {
	if err != nil {
		p.list = append(p.list, config.Error{Pos: at, Message: strings.ReplaceAll(err.Error(), "\n", "; ")})
	}
}

// addProfiles takes the errors of a listener's profiles: those of the XML have places in it, the others are the
// listener's own.
func (p *problems) addProfiles(l config.Listener, err error) {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			p.addProfiles(l, e)
		}
		return
	}
	var parse *listenerprofiles.ParseError
	if !errors.As(err, &parse) {
		p.add(l.Pos, err)
		return
	}
	message := parse.Message
	if parse.Element != "" {
		message = "<" + parse.Element + ">: " + message
	}
	place := config.Pos{File: parse.File, Line: parse.Line, Column: parse.Column}
	if place.Line > 0 {
		place.Column = max(1, place.Column) // what is wrong with a store is known to the line of its profile
	}
	p.add(place, errors.New(message))
}

func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	return p.list
}
