// Package control keeps the gateway's snapshot in step with what it is made from.
//
// A Spec says what the configuration asks for. Build opens and checks all of it; the result is an Assembly, which never
// changes. A Loop holds the Assembly in force: Open makes the first one, and Run replaces it.
//
// # Sources
//
// A source is one thing that the snapshot is made from. Its name is its label in metrics, /readyz and State:
//
//	configuration            the Spec, and the files that the Spec names itself
//	profiles of listener L   the profiles' file of L, and the stores that it and L name
//	store                    the registered certificates
//	keys of K                the keys of key manager K
//	API file F               F, as long as it is not good, while the rest of the configuration is
//
// A task of its own, followCluster, writes the versions of a cluster's files in the store to this node, where they are
// files as any others. What keeps a version from being written is the State of "configuration in the store".
//
// A file event, the end of a period, a wake from the store and Reload all do the same: they mark sources. A file event
// marks only the sources that are made of that file. The loop looks at what is marked.
//
// # From a look to a swap
//
//	at rest --look--> news --agrees--> judged --good--> swapped in
//	                  |  ^                    '--bad--> reported once; the last good state stays
//	                  |  '--differs-- another look, for two seconds at most, then again after a period
//	                  '--no news any more--> at rest
//
// Looks compare content. News is looked at again after a pause, together with whatever was marked meanwhile, until two
// looks agree. So a half-written file is neither swapped in nor reported. Everything good is then put into force by one
// Set.
//
// A Spec that changes what a listener's profiles are made from comes into force with these profiles or not at all.
// Profiles that are broken by themselves stop nothing else. A source that is broken or kept changing is looked at again
// with every other file source, and at the end of each period.
//
// An API file that is not good, or claims what serves, is fenced off (Unit): the Spec comes into force with what was in
// force of that file, or without it at a start. A Spec of which nothing would serve is broken as a whole, and so is one in
// which what was in force of a fenced file has no place.
//
// Two sources need no second look. A database is never half written, so registrations are swapped in at once, even
// while files settle. Keys are fetched by the token verifier, at its own intervals and when it meets an unknown key ID;
// it reports to the State here.
//
// # Who owns what
//
// The goroutine of Run owns the sources and the attempt under way, and is the only one that replaces the Assembly in
// force. It starts these tasks and waits for them when it ends: the verifier's Run, upkeep, which rotates the keys of
// session tickets and drops unused allowances, those that store quotas, ask the store for changes and hear of them, and
// the one that writes the snapshot of its registrations. A start without the store takes those, and a Store that opens
// later. A panic in a turn or at the top of a task is logged, and the loop goes on. State, InForce and Reload may be
// called by any goroutine.
package control
