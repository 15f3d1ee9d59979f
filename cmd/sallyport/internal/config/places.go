package config

import "slices"

// places returns where an API answers: at its version and, if that is the default, at its context.
func (a *API) places() []string {
	if a.Context == "" || a.Version == "" {
		return nil // reported already
	}
	versioned := a.Context + "/" + a.Version
	if a.DefaultVersion {
		return []string{versioned, a.Context}
	}
	return []string{versioned}
}

// checkPlaces reports APIs that answer at the same place: which of them serves a call would be arbitrary.
func (l *loader) checkPlaces() {
	taken := map[string][]*API{}
	for i := range l.cfg.APIs {
		api := &l.cfg.APIs[i]
		for _, place := range api.places() {
			for _, other := range taken[place] {
				if other != api && other.meets(api) {
					l.errorf(api.Pos, "%s and %s (%s) both answer at %s: %s",
						api.ID(), other.ID(), other.Pos, place, placeCure(api, other, place))
				}
			}
			taken[place] = append(taken[place], api)
		}
	}
}

func placeCure(a, b *API, place string) string {
	if place == a.Context && place == b.Context {
		return "take defaultVersion off one of them, or give them different hosts or listeners"
	}
	return "give one another context or version, or give them different hosts or listeners"
}

// meets reports whether both answer on a common listener and host. A named host takes precedence over any host, so one
// of each does not conflict.
func (a *API) meets(b *API) bool {
	share := func(x, y []string) bool {
		return slices.ContainsFunc(x, func(s string) bool { return slices.Contains(y, s) })
	}
	sameHost := len(a.Hosts) == 0 && len(b.Hosts) == 0 || share(a.Hosts, b.Hosts)
	return sameHost && share(a.Listeners, b.Listeners)
}
