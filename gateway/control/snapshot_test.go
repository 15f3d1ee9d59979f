package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/testdb"
	"sallyport/policy/ratelimit"
)

// runBed is startBed for a bed that ends when stop is called, at the test's end at the latest.
func runBed(t *testing.T, change func(*bed, *Options)) (b *bed, stop func()) {
	t.Helper()
	b = newBed(t, change)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stopped := false
	stop = func() {
		t.Helper()
		cancel()
		if !stopped {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		stopped = true
	}
	t.Cleanup(stop)
	return b, stop
}

// TestSnapshot stops a gateway and its database, starts the gateway from its snapshot, and has the database come back.
func TestSnapshot(t *testing.T) {
	server := testdb.Postgres(t, testdb.Options{})
	d := server.New(t)
	source := certstore.Source{URL: d.URL, Password: d.Password}
	file := filepath.Join(t.TempDir(), "store.snapshot")
	other, err := source.Open(t.Context(), certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(other.Add(t.Context(), client("first", issue(t, "first", nil))))
	use := func(b *bed, o *Options) {
		s := b.spec.Load()
		s.Store = Placed[certstore.Source]{Place{File: "sallyport.yaml", Line: 7, Column: 8}, source, nil}
		s.Period, s.Snapshot, s.MaxAge = time.Hour, file, 10*time.Second
	}
	holds := func(want string) func() bool {
		return func() bool {
			s, err := readSnapshot(file, source.URL)
			var aliases []string
			for _, c := range s.Clients {
				aliases = append(aliases, c.Alias)
			}
			return err == nil && strings.Join(aliases, " ") == want
		}
	}
	key, tier := ratelimit.Key{API: "orders:1.0.0", Level: ratelimit.LevelAPI}, ratelimit.Tier{Name: "Daily", RequestCount: 9, UnitTime: 1, TimeUnit: ratelimit.Day}
	spend := func(b *bed, calls int) {
		t.Helper()
		for range calls {
			if !ratelimit.TakeAll(time.Now(), b.limits.Bucket(key, tier)).Allowed {
				t.Error("a call is refused")
			}
		}
	}

	b, stop := runBed(t, use)
	eventually(t, "there is a snapshot", holds("first"))
	must(other.Add(t.Context(), client("second", b.second)))
	eventually(t, "a change is in the snapshot", holds("first second"))
	before, err := readSnapshot(file, source.URL)
	must(err)
	eventually(t, "the snapshot says that the store was looked at since", func() bool {
		s, err := readSnapshot(file, source.URL)
		return err == nil && s.Read.After(before.Read)
	})
	spend(b, 3)
	must(other.Add(t.Context(), client("third", b.server)))
	eventually(t, "another change is in force", func() bool { return len(b.InForce().Clients.All()) == 3 })
	stop()
	if !holds("first second third")() {
		t.Error("a gateway that ends leaves an old snapshot")
	}
	text, err := os.ReadFile(file)
	must(err)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || strings.Contains(string(text), d.Password) {
		t.Errorf("mode %v, %v; or it has the password", info.Mode(), err)
	}

	wrong := source
	wrong.Password = "wrong"
	fails := func(what string, source certstore.Source, passing bool, words ...string) {
		t.Helper()
		s := *newSpec("/bed")
		s.Listeners = nil
		s.Store, s.Snapshot = Placed[certstore.Source]{Place{File: "sallyport.yaml", Line: 7, Column: 8}, source, nil}, file
		l, err := Open(t.Context(), Options{Load: func() (*Spec, error) { return &s, nil }})
		if err == nil {
			l.Close()
			t.Errorf("%s: it starts", what)
			return
		}
		var problems Problems
		if !errors.As(err, &problems) || problems.Passing() != passing {
			t.Errorf("%s: %v", what, err)
		}
		for _, w := range append(words, "sallyport.yaml:7:8: store: ") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q", what, err, w)
			}
		}
	}
	fails("with a wrong password", wrong, false, "check the user and the password")
	server.Kill()
	must(os.Chmod(file, 0o640))
	fails("from a file of others", source, true, "snapshot "+file+": its mode is 0640")
	must(os.WriteFile(file, text[:len(text)-1], 0o600))
	must(os.Chmod(file, 0o600))
	fails("from half a snapshot", source, true, "its end is missing")
	must(os.WriteFile(file, text, 0o600))
	elsewhere := source
	elsewhere.URL += "2"
	fails("from another store's snapshot", elsewhere, true, fmt.Sprintf("it is of the store %q", source.URL))
	must(os.Rename(file, file+".old"))
	fails("from no snapshot", source, true, "no such file")
	must(os.Rename(file+".old", file))
	var problems Problems
	if _, err := Build(t.Context(), &Spec{Store: Placed[certstore.Source]{Value: source}, Snapshot: file}); !errors.As(err, &problems) || !problems.Passing() {
		t.Errorf("validate says %v", err)
	}

	b, stop = runBed(t, use)
	if n := len(b.InForce().Clients.All()); n != 3 || !errors.Is(b.state(store).Broken, certstore.ErrUnavailable) {
		t.Errorf("%d registrations serve; %v", n, b.state(store).Broken)
	}
	if b.log.count("registrations of the snapshot serve until it can") != 1 {
		t.Error("nobody is told")
	}
	if age, ok := b.StoreAge(); !ok || age < 0 || age > time.Hour || !b.InForce().Clients.Stored.Seen.Load().Equal(b.InForce().registered.seen) {
		t.Errorf("the age is %v, %v", age, ok)
	}
	spend(b, 2)
	b.change(func(s *Spec) { s.Period = 2 * time.Hour })
	if err := b.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "the snapshot "+file+" serve") {
		t.Errorf("a reload says %v", err)
	}
	if b.InForce().Spec.Period != 2*time.Hour || len(b.InForce().Clients.All()) != 3 {
		t.Error("without the store, no other configuration comes into force")
	}
	if !holds("first second third")() {
		t.Error("the snapshot is not what it was")
	}

	server.Restart()
	eventually(t, "the store is called good", func() bool { return b.state(store).Broken == nil })
	must(other.Remove(t.Context(), orders, "", "second"))
	eventually(t, "changes are followed", func() bool { return len(b.InForce().Clients.All()) == 2 })
	eventually(t, "the snapshot, too", holds("first third"))
	eventually(t, "the store has what was counted before the start and since", func() bool {
		used := int64(0)
		err := other.Quotas(t.Context(), time.Now(), func(q certstore.Quota) { used += q.Used })
		return err == nil && used == 5
	})
	if v := ratelimit.TakeAll(time.Now(), b.limits.Bucket(key, tier)); v.Remaining != 3 {
		t.Errorf("%+v, want 3 remaining", v)
	}

	stop()
	server.Kill()
	must(os.WriteFile(file, []byte("precious, and no snapshot\n"), 0o600))
	if err := writeSnapshot(file, certstore.Snapshot{}); err == nil {
		t.Error("another file is replaced")
	}
}
