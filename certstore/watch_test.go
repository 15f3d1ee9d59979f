package certstore_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/certstore"
)

// watch runs s.Watch until the test ends and counts the calls.
func watch(t *testing.T, s *certstore.Store) (calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, 5*time.Millisecond, func() { calls.Add(1) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	return calls
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

func TestWatchRefusesNoPeriod(t *testing.T) {
	s := open(t, "sqlite::memory:", certstore.Options{})
	for _, period := range []time.Duration{0, -time.Second} {
		if err := s.Watch(t.Context(), period, func() {}); !errors.Is(err, certstore.ErrInvalid) {
			t.Errorf("period %v: %v", period, err)
		}
	}
}
