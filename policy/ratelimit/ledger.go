package ratelimit

import (
	"encoding/hex"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A Record is what was counted of one day or month quota in one period, for whoever keeps it longer than a process
// lives.
type Record struct {
	Tag        string // names the bucket: 32 hexadecimal digits, from which nothing about its Key can be read
	Unit       Unit   // Day or Month
	Start, End time.Time
	Used       int // calls that are certainly spent
}

// recordsAtOnce bounds how many accounts are read for one call of what Keep is given.
const recordsAtOnce = 500

// A ledger knows which accounts have changed since they were kept last, and what was kept before this process began.
// A nil ledger knows nothing.
type ledger struct {
	changed atomic.Pointer[account] // the first of a list by account.changedBefore

	memory sync.Mutex
	kept   map[entry]count // that no account has asked for yet
	over   int64           // when the first of them is
}

// An entry and its count are a Record in little space: there may be millions. Times are in seconds since 1970.
type entry struct {
	tag  [16]byte
	unit Unit
}

type count struct {
	start, end int64
	used       int
}

// Keep calls store with what was counted of day and month quotas since it was stored last, some hundred at a time. The
// first error ends it; what was not stored then is left for the next call. Without Options.Kept there is nothing.
func (l *Limiter) Keep(store func([]Record) error) error {
	if l.ledger == nil {
		return nil
	}
	var changed []*account
	for a := l.ledger.changed.Swap(nil); a != nil; {
		changed = append(changed, a)
		a, a.changedBefore = a.changedBefore, nil
	}
	for len(changed) > 0 {
		some := changed[:min(recordsAtOnce, len(changed))]
		var records []Record
		for _, a := range some {
			records = append(records, a.records()...)
		}
		if len(records) > 0 {
			if err := store(records); err != nil {
				l.ledger.again(some, changed[len(some):])
				return err
			}
		}
		changed = changed[len(some):]
	}
	return nil
}

// again notes the accounts that were not stored: some were read for it, others were not.
func (g *ledger) again(read, unread []*account) {
	for _, a := range read {
		a.mu.Lock()
		a.note()
		a.mu.Unlock()
	}
	for _, a := range unread {
		g.push(a)
	}
}

// push notes an account that is in no list. Calls do it, and don't wait for each other.
func (g *ledger) push(a *account) {
	for {
		a.changedBefore = g.changed.Load()
		if g.changed.CompareAndSwap(a.changedBefore, a) {
			return
		}
	}
}

// Remember has a quota begin with what was kept of its present period, as soon as its bucket is used. It is for the time
// before the first call, and takes Options.Kept. A Record that names no bucket is left out.
func (l *Limiter) Remember(r Record) {
	g := l.ledger
	e := entry{unit: r.Unit}
	if g == nil || len(r.Tag) != 2*len(e.tag) || r.Used <= 0 {
		return
	}
	if _, err := hex.Decode(e.tag[:], []byte(r.Tag)); err != nil {
		return
	}
	g.memory.Lock()
	defer g.memory.Unlock()
	if len(g.kept) == 0 {
		g.kept, g.over = map[entry]count{}, r.End.Unix()
	}
	g.kept[e] = count{r.Start.Unix(), r.End.Unix(), r.Used}
	g.over = min(g.over, r.End.Unix())
}

// Recollect has the quotas that calls have used already go on from what Remember was given since, too: to what is
// counted of them here comes what was kept. Nothing may have been kept of it by then.
func (l *Limiter) Recollect() {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.accounts {
		a.recollect(now)
	}
}

func (a *account) recollect(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calendar && a.number == a.newest.number { // else its next call recalls
		a.recall(a.newest.tier, now)
		a.note()
	}
}

// sweep drops what was kept of periods that are over.
func (g *ledger) sweep(now time.Time) {
	if g == nil {
		return
	}
	g.memory.Lock()
	defer g.memory.Unlock()
	if len(g.kept) == 0 || now.Unix() < g.over {
		return
	}
	g.over = math.MaxInt64
	for e, c := range g.kept {
		if now.Unix() >= c.end {
			delete(g.kept, e)
			continue
		}
		g.over = min(g.over, c.end)
	}
}

// take returns what was kept of a key's quota, once; false if nothing was.
func (g *ledger) take(k Key, unit Unit) (c count, ok bool) {
	if g == nil {
		return c, false
	}
	g.memory.Lock()
	defer g.memory.Unlock()
	if len(g.kept) == 0 {
		return c, false
	}
	e := entry{k.sum(), unit}
	c, ok = g.kept[e]
	delete(g.kept, e)
	return c, ok
}

// note has the account kept with the next call of Keep. The account is locked.
func (a *account) note() {
	if a.unkept || a.ledger == nil {
		return
	}
	a.unkept = true
	a.ledger.push(a)
}

// recall has the quota that t is about to count by begin with what was kept.
func (a *account) recall(t Tier, now time.Time) {
	c, ok := a.ledger.take(a.key, t.TimeUnit)
	if !ok || now.Unix() >= c.end {
		return
	}
	kept := quota{begun: true, used: c.used, start: time.Unix(c.start, 0).UTC(), end: time.Unix(c.end, 0).UTC()}
	kept.fit(t, now) // its period may have been another one
	switch m := a.meter.(type) {
	case *quota:
		if kept.used += m.usedAt(now); kept.within(now) {
			*m = kept
		}
	case *leased:
		m.recall(&kept, now)
	}
}

// records returns what there is to keep.
func (a *account) records() (list []Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unkept = false
	tag := a.key.tag()
	for _, q := range []struct {
		unit  Unit
		local *quota
		kind  int
	}{{Day, &a.days, sharedDays}, {Month, &a.months, sharedMonths}} {
		used, start, end := q.local.used, q.local.start, q.local.end
		if shared := a.leased[q.kind]; shared != nil {
			used, start, end = shared.spentFor()
		}
		if used > 0 {
			list = append(list, Record{tag, q.unit, start, end, used})
		}
	}
	return list
}
