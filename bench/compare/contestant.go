package compare

import (
	"slices"

	"sallyport/bench/peer"
)

// An instance is a gateway process of a scenario.
type instance struct {
	program int  // index into Options.Programs
	redis   bool // counts its limits in Redis
	revoked bool // looks up whether certificates are revoked
}

// A contestant is one row of a scenario.
type contestant struct {
	instance      // that is called
	own      bool // does what only Sallyport is asked to do
	title    string
	name     string
}

// contestants returns one row for each program and, where the scenario asks more of Sallyport than of its peers, one
// for Sallyport doing the peers' work. Sallyport and its baseline come first.
func contestants(s Scenario, programs []peer.Program) []contestant {
	var list []contestant
	builds := 0 // of Sallyport
	for i, p := range programs {
		c := contestant{instance: instance{program: i}, own: p.Sallyport(), title: p.Title, name: p.Name}
		if p.Sallyport() {
			builds++
			c.redis, c.revoked = s.Redis, s.Revoked
		}
		list = append(list, c)
	}
	second := list[0]
	second.own, second.redis, second.revoked = false, false, false
	switch {
	case s.own != nil:
		second.title, second.name = second.title+", by certificate", second.name+"-certificate"
	case s.Redis:
		second.title, second.name = second.title+", local limits", second.name+"-local"
	case s.Revoked:
		second.title, second.name = second.title+", without a CRL", second.name+"-without"
	default:
		return list
	}
	return slices.Insert(list, builds, second)
}
