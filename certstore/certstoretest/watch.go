package certstoretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
)

func testVersion(t *testing.T, s *certstore.Store) {
	version := func() uint64 {
		t.Helper()
		v, err := s.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	seen := []uint64{version()}
	if v := version(); v != seen[0] {
		t.Errorf("the version went from %d to %d by itself", seen[0], v)
	}
	changed := func() {
		t.Helper()
		v := version()
		if slices.Contains(seen, v) {
			t.Errorf("version %d was there before: %v", v, seen)
		}
		seen = append(seen, v)
	}
	Add(t, s, NewClient(t, "acme"))
	changed()
	List(t, s)
	if v := version(); v != seen[1] {
		t.Errorf("reading changed the version from %d to %d", seen[1], v)
	}
	if err := s.Update(t.Context(), Orders, certstore.Production, "acme", nil, "Silver", nil); err != nil {
		t.Fatal(err)
	}
	changed()
	if err := s.Remove(t.Context(), Orders, certstore.Production, "acme"); err != nil {
		t.Fatal(err)
	}
	changed()
}

func testWatchOwn(t *testing.T, s *certstore.Store) {
	Add(t, s, NewClient(t, "before")) // between Open and Watch, which must not miss it
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen, done := make(chan int, 100), make(chan error, 1)
	go func() {
		done <- s.Watch(ctx, time.Hour, func() error {
			clients, problems, err := s.List(ctx)
			if err != nil || len(problems) > 0 {
				t.Errorf("list: %v, %v", problems, err)
			}
			seen <- len(clients)
			return nil
		})
	}()
	for want := 1; want <= 3; want++ {
		if want > 1 {
			Add(t, s, NewClient(t, fmt.Sprint("alias", want)))
		}
		for got := 0; got != want; {
			select {
			case got = <-seen:
			case err := <-done:
				t.Fatalf("watch ended: %v", err)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("watch: %v", err)
	}
}

// twoStores opens one database twice, as two processes do.
func twoStores(t *testing.T, db Database) (watched, writer *certstore.Store) {
	t.Helper()
	url := db.New(t)
	return Open(t, url, certstore.Options{}), Open(t, url, certstore.Options{})
}

func testWatchOther(t *testing.T, db Database) {
	watched, other := twoStores(t, db)
	var calls atomic.Int64
	StartWatch(t, watched, 5*time.Millisecond, func() error { calls.Add(1); return nil })
	for _, change := range []func() error{
		func() error { return other.Add(t.Context(), NewClient(t, "acme")) },
		func() error { return other.Update(t.Context(), Orders, "", "acme", nil, "Silver", nil) },
		func() error { return other.Remove(t.Context(), Orders, "", "acme") },
	} {
		before := calls.Load()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		Eventually(t, "the change is seen", func() bool { return calls.Load() > before })
	}
	if len(List(t, watched)) != 0 {
		t.Error("what was removed is still there")
	}
}

func testWatchCallsAgainOwn(t *testing.T, s *certstore.Store) { testWatchCallsAgain(t, s, s) }

func testWatchCallsAgainOther(t *testing.T, db Database) {
	watched, writer := twoStores(t, db)
	testWatchCallsAgain(t, watched, writer)
}

// testWatchCallsAgain has changed fail, as it does in a process that has run out of file descriptors: it is called again
// after the period, and not only at the next change.
func testWatchCallsAgain(t *testing.T, watched, writer *certstore.Store) {
	t.Helper()
	Add(t, writer, NewClient(t, "acme"))
	var calls, taken atomic.Int64
	StartWatch(t, watched, 5*time.Millisecond, func() error {
		if calls.Add(1) <= 3 {
			return errors.New("too many open files")
		}
		taken.Add(1)
		return nil
	})
	Eventually(t, "the change is taken in", func() bool { return taken.Load() > 0 })
	if calls.Load() < 4 {
		t.Errorf("%d calls", calls.Load())
	}
	// The change counts as seen now: the next call is for the next change.
	settled := calls.Load()
	if err := writer.Remove(t.Context(), Orders, "", "acme"); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the removal is seen", func() bool { return calls.Load() > settled })
}

func testWatchTwiceOwn(t *testing.T, s *certstore.Store) {
	testWatchTwice(t, s, s, time.Hour) // a change by the Store itself is seen at once
}

func testWatchTwiceOther(t *testing.T, db Database) {
	watched, writer := twoStores(t, db)
	testWatchTwice(t, watched, writer, 2*time.Millisecond)
}

// testWatchTwice has one Watch end while another begins, as happens when a configuration with another period is put in
// force. Neither takes a change away from the other.
func testWatchTwice(t *testing.T, watched, writer *certstore.Store, period time.Duration) {
	t.Helper()
	// follow begins a Watch that stores the number of clients it saw last.
	follow := func() (seen *atomic.Int64, end func()) {
		seen = new(atomic.Int64)
		seen.Store(-1)
		end = StartWatch(t, watched, period, func() error {
			clients, _, err := watched.List(t.Context())
			if err == nil {
				seen.Store(int64(len(clients)))
			}
			return err
		})
		return seen, end
	}
	last, endLast := follow()
	for n := int64(1); n <= 20; n++ {
		next, endNext := follow()
		Add(t, writer, NewClient(t, fmt.Sprint("alias", n)))
		Eventually(t, "both see the change", func() bool { return last.Load() == n && next.Load() == n })
		endLast() // while the next one goes on
		last, endLast = next, endNext
	}
	if err := writer.Remove(t.Context(), Orders, "", "alias1"); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the removal is seen", func() bool { return last.Load() == 19 })
}

func testWatchRefusesNoPeriod(t *testing.T, s *certstore.Store) {
	for _, period := range []time.Duration{0, -time.Second} {
		if err := s.Watch(t.Context(), period, func() error { return nil }); !errors.Is(err, certstore.ErrInvalid) {
			t.Errorf("period %v: %v", period, err)
		}
	}
}
