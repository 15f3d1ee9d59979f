package main

// ownDescriptors are those that clients cannot have: for stores, file events, the status listener and its callers, and
// logs.
const ownDescriptors = 64

// affordable is how many client connections there can be, of those that the configuration allows: each may need another
// one to its backend. So strangers who open connections until none is left leave room for what the gateway itself needs.
func affordable(connections int, descriptors uint64) int {
	if descriptors == 0 || uint64(connections) <= descriptors/2 && descriptors-2*uint64(connections) >= ownDescriptors {
		return connections
	}
	if descriptors < 2*ownDescriptors {
		return int(descriptors / 4)
	}
	return int(descriptors-ownDescriptors) / 2
}
