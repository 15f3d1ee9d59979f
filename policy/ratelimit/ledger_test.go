package ratelimit

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testredis"
)

// keepers are limiters whose quotas are kept, each new one with an empty Redis.
var keepers = map[string]func(*testing.T, *clock) *Limiter{
	"local": func(_ *testing.T, c *clock) *Limiter {
		l, _ := New(Options{Now: c.Now, Kept: true})
		return l
	},
	"shared": func(t *testing.T, c *clock) *Limiter {
		nodes, _ := nodesAt(t, c, Options{Kept: true}, single(t))
		return nodes[0]
	},
}

// kept returns what Keep has for a store.
func kept(t *testing.T, l *Limiter) (all []Record) {
	t.Helper()
	l.settle()
	if err := l.Keep(func(r []Record) error { all = append(all, r...); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func remember(l *Limiter, records ...Record) {
	for _, r := range records {
		l.Remember(r)
	}
}

func TestQuotasOutliveTheProcess(t *testing.T) {
	for name, begin := range keepers {
		for unit, next := range map[Unit]time.Time{
			Day:   time.Date(2028, time.February, 29, 0, 0, 0, 0, time.UTC),
			Month: time.Date(2028, time.March, 1, 0, 0, 0, 0, time.UTC),
		} {
			t.Run(name+"/"+unit.String(), func(t *testing.T) {
				c := &clock{now: noon}
				first := begin(t, c)
				if n := passes(first.Bucket(client("a"), per(100, unit)), noon, 70); n != 70 {
					t.Fatalf("%d calls pass, want 70", n)
				}
				passes(first.Bucket(client("minutes"), perMinute(3)), noon, 1)
				records := kept(t, first)
				if len(records) != 1 || records[0].Used != 70 || !records[0].End.Equal(next) {
					t.Fatalf("%+v is kept", records)
				}
				if again := kept(t, first); len(again) > 0 {
					t.Errorf("%+v is kept again", again)
				}

				second := begin(t, c)
				remember(second, records...)
				wantPasses(t, second.Bucket(client("b"), per(5, unit)), noon, 5)
				bucket := second.Bucket(client("a"), per(100, unit))
				if v := take(noon, bucket); !v.Allowed || v.Remaining != 29 {
					t.Errorf("got %+v, want 29 remaining", v)
				}
				wantPasses(t, second.Bucket(client("a"), per(80, unit)), noon, 9)
				c.now = next
				wantPasses(t, bucket, next, 80)
				third := begin(t, c)
				remember(third, records...)
				wantPasses(t, third.Bucket(client("a"), per(100, unit)), next, 100) // they are of the period before
			})
		}
	}
}

// TestQuotasThatAreKnownLate: what was kept comes to what was counted before anybody knew of it, once, and not to what is
// of another period.
func TestQuotasThatAreKnownLate(t *testing.T) {
	c := &clock{now: noon}
	l := keepers["local"](t, c)
	used, unused, old := l.Bucket(client("a"), per(10, Day)), l.Bucket(client("b"), per(10, Day)), l.Bucket(client("c"), per(10, Day))
	passes(used, noon, 3)
	passes(old, noon, 3)
	today, yesterday := noon.Truncate(24*time.Hour), noon.Truncate(24*time.Hour).Add(-24*time.Hour)
	record := func(b Bucket, start time.Time) Record {
		return Record{Tag: b.share().account.key.tag(), Unit: Day, Start: start, End: start.Add(24 * time.Hour), Used: 5}
	}
	remember(l, record(used, today), record(unused, today), record(old, yesterday))
	l.Recollect()
	l.Recollect()
	sum := 0
	for _, r := range kept(t, l) {
		sum += r.Used
	}
	if sum != 3+5+3 {
		t.Errorf("%d is kept", sum)
	}
	for bucket, want := range map[Bucket]int{used: 2, unused: 5, old: 7} {
		wantPasses(t, bucket, noon, want)
	}
}

// TestQuotasSurviveRedis has Redis lose everything while two nodes count.
func TestQuotasSurviveRedis(t *testing.T) {
	server := testredis.Start(t, testredis.Options{})
	o := Options{Redis: Redis{Addresses: []string{server.Address}}, Timeout: patient}
	a, _ := run(t, o)
	b, _ := run(t, o)
	const count = 40
	buckets := []Bucket{a.Bucket(client("a"), per(count, Month)), b.Bucket(client("a"), per(count, Month))}
	passed, refused := 0, 0
	for i := 0; refused < 2; i++ {
		if i == 15 || i == 30 {
			server.Do("FLUSHALL")
		}
		if await(buckets[i%2]).Allowed {
			passed, refused = passed+1, 0
		} else {
			refused++
		}
	}
	// Each time, what the nodes had of leases: two calls each beyond the one that waits.
	if atMost := count + 2*2*(1+count/leasesOfAll/2); passed < count || passed > atMost {
		t.Errorf("%d calls passed, want %d to %d", passed, count, atMost)
	}
}

func TestWhatIsNotKeptIsKeptLater(t *testing.T) {
	l, _ := New(Options{Now: (&clock{now: noon}).Now, Kept: true})
	const clients = 2*recordsAtOnce + 1
	all := map[string]int{}
	spend := func() {
		for i := range clients {
			key := client(string(rune('a' + i)))
			passes(l.Bucket(key, per(10, Day)), noon, 1)
			all[key.tag()]++
		}
	}
	spend()
	broken, calls := errors.New("disk full"), 0
	got := map[string]int{}
	store := func(records []Record) error {
		if calls++; calls != 1 {
			return broken
		}
		for _, r := range records {
			got[r.Tag] = r.Used
		}
		return nil
	}
	for range 3 {
		if err := l.Keep(store); !errors.Is(err, broken) {
			t.Errorf("the error is %v", err)
		}
	}
	if len(got) != recordsAtOnce {
		t.Errorf("%d were stored, want %d", len(got), recordsAtOnce)
	}
	spend()
	for _, r := range kept(t, l) {
		got[r.Tag] = r.Used
	}
	for tag, used := range all {
		if got[tag] != used {
			t.Fatalf("%d calls of %s were stored, want %d", got[tag], tag, used)
		}
	}
}

func TestStrangeRecords(t *testing.T) {
	l, _ := New(Options{Now: (&clock{now: noon}).Now, Kept: true})
	tag := client("a").tag()
	start, end := period(noon, 1, Day)
	remember(l, []Record{
		{tag, Day, start, end, -5},
		{tag, Month, start, end, 0},
		{tag[1:], Day, start, end, 9},
		{"", Day, start, end, 9},
		{tag[:31] + "x", Day, start, end, 9},
		{tag + tag, Month, start.AddDate(0, -1, 0), start, 9},
		{tag, 0, start, end, 9},
	}...)
	for _, unit := range []Unit{Day, Month} {
		wantPasses(t, l.Bucket(client("a"), per(10, unit)), noon, 10)
	}
	l.ledger.sweep(end)
	if n := len(l.ledger.kept); n > 0 {
		t.Errorf("%d records are remembered after their end", n)
	}
}

// TestKeptWhileCalled keeps quotas while they are used: in the end each count is kept whole.
func TestKeptWhileCalled(t *testing.T) {
	l, _ := New(Options{Now: func() time.Time { return noon }, Kept: true})
	const clients, callers, calls = 20, 4, 50
	got := map[string]int{}
	keep := func() {
		if err := l.Keep(func(records []Record) error {
			for _, r := range records {
				got[r.Tag] = max(got[r.Tag], r.Used)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	var done atomic.Int64
	go atOnce(callers, func(int) {
		for range calls {
			for i := range clients {
				passes(l.Bucket(client(string(rune('a'+i))), per(1000, Day)), noon, 1)
			}
		}
		done.Add(1)
	})
	for done.Load() < callers {
		keep()
	}
	keep()
	for i := range clients {
		if n := got[client(string(rune('a'+i))).tag()]; n != callers*calls {
			t.Errorf("%d calls of client %d are kept, want %d", n, i, callers*calls)
		}
	}
}
