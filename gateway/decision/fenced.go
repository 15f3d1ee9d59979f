package decision

import (
	"bytes"
	"fmt"

	"sallyport/certstore"
	"sallyport/gateway/message"
)

// A Claim is where an API would answer whose definition is not good.
type Claim struct {
	API            certstore.API
	Context        string
	DefaultVersion bool
}

// An errFenced says which API a call may have been for.
type errFenced struct{ api certstore.API }

func (e errFenced) Error() string {
	return fmt.Sprintf("the definition of API %s is not good", e.api)
}

// Fence has the table, before it is put into force, answer calls at these places with APIFenced where it has no API.
// A claim opens nothing and takes no call from an API.
func (t *Table) Fence(claims []Claim) {
	for _, c := range claims {
		if t.fenced == nil {
			t.fenced = map[string]certstore.API{}
		}
		r := Route{API: c.API, Context: c.Context, DefaultVersion: c.DefaultVersion}
		for _, place := range r.Places() {
			t.fenced[message.Meaning(place)] = c.API
		}
	}
}

// missing is the refusal of a call for which there is no API.
func (t *Table) missing(path string) error {
	if len(t.fenced) > 0 {
		var space [256]byte
		meaning := message.AppendReading(space[:0], path, message.AsReceived)
		for end := len(meaning); end > 0; end = bytes.LastIndexByte(meaning[:end], '/') {
			if api, ok := t.fenced[string(meaning[:end])]; ok {
				return &Refusal{Reason: APIFenced, RetryAfter: retryAfter, Cause: errFenced{api}}
			}
		}
	}
	return refuse(NoSuchAPI, nil)
}
