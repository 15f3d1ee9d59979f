package gateway

import (
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
	return since, rank, resting && !c.balancer && !(admitted && c.from.exempt)
}

// isSilent is the candidacy of handshakes that wait for their client.
func isSilent(c *countedConn) (since time.Time, rank int, ok bool) {
	at := c.silent.Load()
	return time.Unix(0, at), 0, at != 0 && !c.balancer
}

// take takes the next connection off the queue, nil if none may go. yields says whether one of a rank goes for the one
// that comes; nil: always.
func (q *queue) take(among map[*countedConn]struct{}, now time.Time, may candidacy, yields yielding) *countedConn {
	if now.Sub(q.found) < queueLife {
		if c := q.pop(among, now, may, yields); c != nil || len(q.next) > 0 || now.Sub(q.found) < queuePause {
			return c // or the next does not yield, and another look would find the same
		}
	}
	q.next, q.found = look(among, now, may), now
	return q.pop(among, now, may, yields)
}

// A yielding says whether a connection that may go does so for the one that comes.
type yielding func(c *countedConn, rank int) bool

func (q *queue) pop(among map[*countedConn]struct{}, now time.Time, may candidacy, yields yielding) *countedConn {
	for len(q.next) > 0 {
		c := q.next[0]
		since, rank, ok := may(c)
		_, there := among[c]
		ok = ok && there && now.Sub(since) >= grace
		if ok && yields != nil && !yields(c, rank) {
			return nil // nor does any behind it, whose source has fewer
		}
		q.next[0] = nil
		q.next = q.next[1:]
		if ok {
			return c
		}
	}
	return nil
}

// look returns who goes first of the connections, in their order: by rank, and within one always the one that has been
// of no use for longest of the source that has most of them left.
func look(among map[*countedConn]struct{}, now time.Time, may candidacy) (order []*countedConn) {
	var ranks [2]map[sourceKey][]candidate
	for c := range among {
		since, rank, ok := may(c)
		if !ok {
			continue
		}
		if ranks[rank] == nil {
			ranks[rank] = map[sourceKey][]candidate{}
		}
		ranks[rank][c.from] = append(ranks[rank][c.from], candidate{c, since})
	}
	for _, bySource := range ranks {
		if len(order) < queueLength {
			order = appendOrder(order, bySource, now)
		}
	}
	return order
}

type candidate struct {
	conn  *countedConn
	since time.Time
}

// appendOrder appends those of one rank, as far as the queue has room.
func appendOrder(order []*countedConn, bySource map[sourceKey][]candidate, now time.Time) []*countedConn {
	lists := make([][]candidate, 0, len(bySource))
	for _, list := range bySource {
		if slices.ContainsFunc(list, func(c candidate) bool { return now.Sub(c.since) >= grace }) {
			lists = append(lists, list)
		}
	}
	slices.SortFunc(lists, func(a, b []candidate) int { return len(b) - len(a) })
	lists = lists[:min(len(lists), queueLength)] // no other source has one among the first
	for _, list := range lists {
		slices.SortFunc(list, func(a, b candidate) int { return a.since.Compare(b.since) })
	}
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
