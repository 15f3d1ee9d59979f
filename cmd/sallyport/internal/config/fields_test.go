package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/eachfield"
)

// A setting either comes into force with a reload, or the log says that it needs a restart: nothing in between.
func TestEverySettingIsFollowedOrNeedsARestart(t *testing.T) {
	followed := []string{
		"Listeners", "MutualSSL", "Store", "Tiers", "KeyManagers", "APIs", "Files", "Globs", "Warnings", "File", "StorePos",
	}
	base := Config{Status: &Status{}}
	for path, changed := range eachfield.Change(base) {
		top, _, _ := strings.Cut(path, ".")
		fixed := !slices.Contains(followed, top) && !strings.Contains(path, ".Pos.")
		if differs := !reflect.DeepEqual(base.fixed(), changed.fixed()); fixed != differs {
			t.Errorf("a change of %s: needs a restart %t, and is seen %t", path, fixed, differs)
		}
	}
}
