package acme

import (
	"log/slog"
	"path/filepath"
	"testing"

	"sallyport/certstore"
	"sallyport/internal/contain"
	"sallyport/internal/fileset"
)

// TestReleaseEndsNobodyElsesLock: whoever waits for a lock of the same process has it only once the lease before has
// ended in the store: that goes by the process, and would end the new one.
func TestReleaseEndsNobodyElsesLock(t *testing.T) {
	store, err := certstore.Source{URL: "sqlite:" + filepath.Join(t.TempDir(), "store.db")}.Open(t.Context(), certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	log := slog.New(slog.DiscardHandler)
	s := Shared(store, fileset.Key{}, log, &contain.Faults{Log: log}).(*shared)
	if err := s.Lock(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	early := true
	renewal := s.hold("one", nil)
	s.hold("one", func() { // as Unlock waits for the renewal of the lease
		renewal()
		var err error
		if early, err = s.TryLock(t.Context(), "one"); err != nil {
			t.Error(err)
		}
	})
	if err := s.Unlock(t.Context(), "one"); err != nil || early {
		t.Errorf("somebody else had the lock before it was given back: %t, %v", early, err)
	}
	if ok, err := s.TryLock(t.Context(), "one"); !ok || err != nil {
		t.Errorf("a lock that was given back: %t, %v", ok, err)
	}
	if err := s.Unlock(t.Context(), "one"); err != nil {
		t.Error(err)
	}
}
