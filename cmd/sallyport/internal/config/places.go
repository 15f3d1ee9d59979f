package config

import "sallyport/gateway/control"

// checkPlaces reports APIs that answer at the same place: which of them serves a call would be arbitrary.
func (l *loader) checkPlaces(apis []control.API) {
	taken := map[string][]*control.API{}
	for i := range apis {
		api := &apis[i]
		if api.Context == "" || api.API.Version == "" || len(api.Listeners) == 0 {
			continue // reported already
		}
		for _, place := range api.Places() {
			for _, other := range taken[place] {
				if other.Meets(&api.Route) {
					l.errorf(api.Place, "%s and %s (%s) both answer at %s: %s",
						api.API, other.API, other.Place, place, placeCure(api, other, place))
				}
			}
			taken[place] = append(taken[place], api)
		}
	}
}

func placeCure(a, b *control.API, place string) string {
	if place == a.Context && place == b.Context {
		return "take defaultVersion off one of them, or give them different hosts or listeners"
	}
	return "give one another context or version, or give them different hosts or listeners"
}
