package certstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/certstore"
)

// watch runs s.Watch until the test ends and counts the calls.
func watch(t *testing.T, s *certstore.Store) (calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	startWatch(t, s, 5*time.Millisecond, func() error { calls.Add(1); return nil })
	return calls
}

// startWatch runs s.Watch until the test ends, or until end is called, which waits for it.
func startWatch(t *testing.T, s *certstore.Store, period time.Duration, changed func() error) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, period, changed) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	t.Cleanup(end)
	return end
}

func TestWatchSeesAnotherProcess(t *testing.T) {
	url := "sqlite:" + newFile(t)
	watched, other := open(t, url, certstore.Options{}), open(t, url, certstore.Options{})
	calls := watch(t, watched)
	for _, change := range []func() error{
		func() error { return other.Add(t.Context(), newClient(t, "acme")) },
		func() error { return other.Update(t.Context(), orders, "", "acme", nil, "Silver", nil) },
		func() error { return other.Remove(t.Context(), orders, "", "acme") },
	} {
		before := calls.Load()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the change is seen", func() bool { return calls.Load() > before })
	}
	if len(list(t, watched)) != 0 {
		t.Error("what was removed is still there")
	}
}

func TestWatchSurvives(t *testing.T) {
	path := newFile(t)
	var failures, recoveries atomic.Int64
	s := open(t, "sqlite:"+path, certstore.Options{OnError: func(err error) {
		switch {
		case err == nil:
			recoveries.Add(1)
		case errors.Is(err, fs.ErrNotExist):
			failures.Add(1)
		default:
			t.Errorf("unexpected: %v", err)
		}
	}})
	calls := watch(t, s)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the absence is reported again and again", func() bool { return failures.Load() > 2 })
	if calls.Load() != 0 {
		t.Error("an absent database counts as a change")
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the return is reported", func() bool { return recoveries.Load() == 1 })
	add(t, open(t, "sqlite:"+path, certstore.Options{}), newClient(t, "acme"))
	eventually(t, "the change is seen", func() bool { return calls.Load() > 0 })
}

// TestWatchCallsAgain fails to take a change in, as a process without file descriptors does: the change must not wait
// for the next one.
func TestWatchCallsAgain(t *testing.T) {
	url := "sqlite:" + newFile(t)
	watched, other := open(t, url, certstore.Options{}), open(t, url, certstore.Options{})
	add(t, other, newClient(t, "acme"))
	var calls, taken atomic.Int64
	startWatch(t, watched, 5*time.Millisecond, func() error {
		if calls.Add(1) <= 3 {
			return errors.New("too many open files")
		}
		taken.Add(1)
		return nil
	})
	eventually(t, "the change is taken in", func() bool { return taken.Load() > 0 })
	if calls.Load() < 4 {
		t.Errorf("%d calls", calls.Load())
	}
	// It counts as seen now: the next call is for the next change.
	settled := calls.Load()
	if err := other.Remove(t.Context(), orders, "", "acme"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removal is seen", func() bool { return calls.Load() > settled })
}

// TestWatchWaitsAfterAnError pins that a whole period follows a failure, however long that took; that a change by the
// same Store does not wait for it; and that a success is followed by nothing.
func TestWatchWaitsAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, "sqlite::memory:", certstore.Options{})
		add(t, s, newClient(t, "first"))
		var ended, waited []time.Time
		startWatch(t, s, time.Minute, func() error {
			waited = append(waited, time.Now())
			defer func() { ended = append(ended, time.Now()) }()
			if len(waited) == 5 {
				return nil
			}
			time.Sleep(90 * time.Second)
			return errors.New("database is locked")
		})
		time.Sleep(6 * time.Minute) // the third call ends after 390 s: three of 90 s and two pauses
		synctest.Wait()
		time.Sleep(40 * time.Second) // into the third pause
		add(t, s, newClient(t, "second"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(waited) != 5 {
			t.Fatalf("%d calls, want 5", len(waited))
		}
		var pauses []time.Duration
		for i, begin := range waited[1:] {
			pauses = append(pauses, begin.Sub(ended[i]))
		}
		want := []time.Duration{time.Minute, time.Minute, 10 * time.Second, time.Minute}
		if diff := cmp.Diff(want, pauses); diff != "" {
			t.Errorf("pauses (-want +got):\n%s", diff)
		}
	})
}

// TestWatchTwice has one Watch end while another begins, as when a configuration with another period is put in force:
// neither takes a change from the other.
func TestWatchTwice(t *testing.T) {
	for name, places := range map[string]func() (watched, writer *certstore.Store){
		"another process writes": func() (watched, writer *certstore.Store) {
			url := "sqlite:" + newFile(t)
			return open(t, url, certstore.Options{}), open(t, url, certstore.Options{})
		},
		"the same Store writes": func() (watched, writer *certstore.Store) {
			s := open(t, "sqlite:"+newFile(t), certstore.Options{})
			return s, s
		},
	} {
		t.Run(name, func(t *testing.T) {
			watched, writer := places()
			period := time.Hour // a change by the Store itself is seen at once
			if watched != writer {
				period = 2 * time.Millisecond
			}
			// follow begins a Watch that keeps the number of clients it has seen last.
			follow := func() (seen *atomic.Int64, end func()) {
				seen = new(atomic.Int64)
				seen.Store(-1)
				end = startWatch(t, watched, period, func() error {
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
				add(t, writer, newClient(t, fmt.Sprint("alias", n)))
				eventually(t, "both see the change", func() bool { return last.Load() == n && next.Load() == n })
				endLast() // while the next one goes on
				last, endLast = next, endNext
			}
			if err := writer.Remove(t.Context(), orders, "", "alias1"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the removal is seen", func() bool { return last.Load() == 19 })
		})
	}
}

func TestWatchRefusesNoPeriod(t *testing.T) {
	s := open(t, "sqlite::memory:", certstore.Options{})
	for _, period := range []time.Duration{0, -time.Second} {
		if err := s.Watch(t.Context(), period, func() error { return nil }); !errors.Is(err, certstore.ErrInvalid) {
			t.Errorf("period %v: %v", period, err)
		}
	}
}
