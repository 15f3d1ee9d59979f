package config

import (
	"reflect"
	"testing"

	"sallyport/internal/eachfield"
)

// A setting either comes into force with a reload, as part of the Spec, or the log says that it needs a restart:
// nothing in between.
func TestEverySettingIsFollowedOrNeedsARestart(t *testing.T) {
	for i := range reflect.TypeFor[Config]().NumField() {
		f := reflect.TypeFor[Config]().Field(i)
		if f.IsExported() && f.Name != "Spec" && f.Name != "Startup" {
			t.Errorf("a change of %s is neither followed nor told", f.Name)
		}
	}
	for path, changed := range eachfield.Change(Startup{}) {
		if reflect.DeepEqual(Startup{}.byKey(), changed.byKey()) {
			t.Errorf("nothing tells that a change of %s needs a restart", path)
		}
	}
}
