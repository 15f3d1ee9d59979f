package eachfield_test

import (
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"testing"

	"sallyport/internal/eachfield"
)

type inner struct {
	Text string
}

type outer struct {
	hidden  int
	Number  int
	Small   uint16
	Truth   bool
	List    []inner
	None    []string
	Pointer *inner
	Nil     *inner
	Addr    netip.Addr
	Prefix  netip.Prefix
	URL     *url.URL
	Named   inner
}

func TestChange(t *testing.T) {
	fresh := func() outer {
		return outer{List: []inner{{Text: "a"}, {Text: "b"}}, Pointer: &inner{Text: "c"}, URL: &url.URL{Host: "h"}}
	}
	base := fresh()
	var paths []string
	seen := []outer{base}
	for path, changed := range eachfield.Change(base) {
		paths = append(paths, path)
		for _, other := range seen {
			if reflect.DeepEqual(changed, other) {
				t.Errorf("%s: %+v was there before", path, changed)
			}
		}
		seen = append(seen, changed)
	}
	want := []string{
		"Number", "Small", "Truth", "List[0].Text", "List[1].Text", "List", "None", "Pointer.Text", "Pointer", "Nil", "Addr", "Prefix",
		"URL", "Named.Text",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("changed %q, want %q", paths, want)
	}
	if !reflect.DeepEqual(base, fresh()) {
		t.Errorf("the base was changed: %+v", base)
	}
	for range eachfield.Change(base) {
		break
	}
	_ = base.hidden
}

func TestChangeRefusesWhatItDoesNotKnow(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a func was passed over")
		}
	}()
	for range eachfield.Change(struct{ F func() }{}) {
	}
}
