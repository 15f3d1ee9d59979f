package main

import (
	"slices"
	"strings"
	"testing"

	"sallyport/cmd/sallyport/internal/config"
	"sallyport/internal/eachfield"
)

// A setting either comes into force with a reload, or the log says that it needs a restart: nothing in between.
func TestEverySettingIsFollowedOrNeedsARestart(t *testing.T) {
	followed := []string{
		"Listeners", "MutualSSL", "Store", "Tiers", "KeyManagers", "APIs", "Files", "Globs", "Warnings", "File", "StorePos",
	}
	base := config.Config{Status: &config.Status{}}
	for path, changed := range eachfield.Change(base) {
		top, _, _ := strings.Cut(path, ".")
		fixed := !slices.Contains(followed, top) && !strings.Contains(path, ".Pos.")
		if named := needsRestart(&base, &changed); fixed != (named != "") {
			t.Errorf("a change of %s: needs a restart %t, and the keys that are named are %q", path, fixed, named)
		}
	}
}
