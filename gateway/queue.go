package gateway

import (
	"net/netip"
	"slices"
	"time"
)

// A queue is the connections that go next to make room for others, as one look at all of them has found: to look for
// each new connection would cost an attacked gateway more than the attack.
type queue struct {
	next  []*countedConn
	found time.Time
}

const (
	queueLength = 256                   // how many one look finds
	queueLife   = time.Second           // how long its finding is believed
	queuePause  = 20 * time.Millisecond // between two looks, when the first has found too few
)

// A candidacy says whether a connection may go, since when it has been of no use, and what goes first: a lower rank.
type candidacy func(*countedConn) (since time.Time, rank int, ok bool)

// isIdle is the candidacy of connections without a call; those that never had an admitted one go first.
func isIdle(c *countedConn) (since time.Time, rank int, ok bool) {
	since, admitted, resting := c.known.Rest()
	if admitted {
		rank = 1
	}
	return since, rank, resting && !c.exempt
}

// isSilent is the candidacy of handshakes that wait for their client.
func isSilent(c *countedConn) (since time.Time, rank int, ok bool) {
	at := c.silent.Load()
	return time.Unix(0, at), 0, at != 0 && !c.exempt
}

// take takes the next connection off the queue, nil if none may go.
func (q *queue) take(among map[*countedConn]struct{}, now time.Time, may candidacy) *countedConn {
	if now.Sub(q.found) < queueLife {
		if c := q.pop(among, now, may); c != nil || now.Sub(q.found) < queuePause {
			return c
		}
	}
	q.next, q.found = look(among, now, may), now
	return q.pop(among, now, may)
}

func (q *queue) pop(among map[*countedConn]struct{}, now time.Time, may candidacy) *countedConn {
	for len(q.next) > 0 {
		c := q.next[0]
		q.next[0] = nil
		q.next = q.next[1:]
		if _, there := among[c]; there {
			if since, _, ok := may(c); ok && now.Sub(since) >= grace {
				return c
			}
		}
	}
	return nil
}

// look returns who goes first of the connections, in their order: always the one that has been of no use for longest of
// the source that has most of them left.
func look(among map[*countedConn]struct{}, now time.Time, may candidacy) []*countedConn {
	type candidate struct {
		conn  *countedConn
		since time.Time
	}
	best := int(^uint(0) >> 1)
	var bySource map[netip.Addr][]candidate
	for c := range among {
		since, rank, ok := may(c)
		if !ok || rank > best {
			continue
		}
		if rank < best {
			best, bySource = rank, map[netip.Addr][]candidate{}
		}
		bySource[c.from] = append(bySource[c.from], candidate{c, since})
	}
	lists := make([][]candidate, 0, len(bySource))
	for _, list := range bySource {
		lists = append(lists, list)
	}
	slices.SortFunc(lists, func(a, b []candidate) int { return len(b) - len(a) })
	lists = lists[:min(len(lists), queueLength)] // no other source has one among the first
	for _, list := range lists {
		slices.SortFunc(list, func(a, b candidate) int { return a.since.Compare(b.since) })
	}
	var order []*countedConn
	for len(order) < queueLength {
		most := -1
		for i, list := range lists {
			if len(list) > 0 && now.Sub(list[0].since) >= grace && (most < 0 || len(list) > len(lists[most])) {
				most = i
			}
		}
		if most < 0 {
			break
		}
		order = append(order, lists[most][0].conn)
		lists[most] = lists[most][1:]
	}
	return order
}
