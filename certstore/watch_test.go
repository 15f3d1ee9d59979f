package certstore_test

import (
	"errors"
	"io/fs"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/certstore"
)

// watch runs s.Watch until the test ends and counts the calls of changed.
func watch(t *testing.T, s *certstore.Store) (calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	startWatch(t, s, 5*time.Millisecond, func() error { calls.Add(1); return nil })
	return calls
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

// TestWatchWaitsAfterAnError pins three things: after a failed call, however long it took, Watch waits a whole period; a
// change by the same Store is not kept waiting by it; and after a successful call there are no more.
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
