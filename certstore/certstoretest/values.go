package certstoretest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/certstore"
)

// oddNames are valid names of values that a careless store confuses with each other, with a pattern or with SQL.
var oddNames = []string{
	"a", "A", "á", "a\u0301", "a/b", "a/B", "a/b/c", "a/%", "a/_", "a-b", "a.b", "a0", "a0/b", "a b", "ab", "ab/c", "a%", "a%/b", "a_", "a_/b",
	`a\`, `a\/b`, "...", "$1", "?", "it's", `say "hi"`, "--", ";", "'; DROP TABLE SALLYPORT_VALUE; --", "🚪/👩‍👩‍👧", "NULL", "0", "-1", "ß", "ss",
	strings.Repeat("a", 512), strings.Repeat("🚪", 512),
}

// PutValue stores a value, which must succeed.
func PutValue(t testing.TB, s *certstore.Store, name, content string) {
	t.Helper()
	if err := s.PutValue(t.Context(), name, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

// ExpectValue expects a value with that content.
func ExpectValue(t testing.TB, s *certstore.Store, name, content string) {
	t.Helper()
	v, err := s.Value(t.Context(), name)
	if err != nil || v.Name != name || v.Size != int64(len(content)) || string(v.Content) != content || v.Content == nil {
		t.Errorf("value %.50q: %.50q of %d bytes, named %.50q, %v; want %.50q", name, v.Content, v.Size, v.Name, err, content)
	}
}

// ExpectNames expects values of these names, sorted, where Values is asked for one.
func ExpectNames(t testing.TB, s *certstore.Store, name string, want ...string) {
	t.Helper()
	list, err := s.Values(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range list {
		got = append(got, v.Name)
		if v.Content != nil {
			t.Errorf("%.50q is listed with its content", v.Name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names at %.50q (-want +got):\n%s", name, diff)
	}
}

func expectNoValue(t testing.TB, s *certstore.Store, name string) {
	t.Helper()
	if v, err := s.Value(t.Context(), name); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, certstore.ErrUnavailable) {
		t.Errorf("value %q: %q, %v; want that it isn't there", name, v.Content, err)
	}
}

func testValues(t *testing.T, s *certstore.Store) {
	expectNoValue(t, s, "acme/key")
	ExpectNames(t, s, "")
	if err := s.RemoveValues(t.Context(), "acme"); err != nil {
		t.Errorf("remove of nothing: %v", err)
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	began := time.Now()
	for name, content := range map[string][]byte{
		"acme/empty": {}, "acme/nothing": nil, "acme/every": every, "acme/large": bytes.Repeat(every, certstore.MaxValue/len(every)),
	} {
		for range 2 { // the second time nothing in it changes
			if err := s.PutValue(t.Context(), name, content); err != nil {
				t.Fatal(err)
			}
		}
		ExpectValue(t, s, name, string(content))
	}
	ExpectNames(t, s, "acme", "acme/empty", "acme/every", "acme/large", "acme/nothing")
	expectNoValue(t, s, "acme")

	list, err := s.Values(t.Context(), "acme/large")
	if err != nil || len(list) != 1 || list[0].Size != certstore.MaxValue {
		t.Fatalf("%+v, %v", list, err)
	}
	at := list[0].Modified
	if d := at.Sub(began); d < -time.Minute || d > 10*time.Minute {
		t.Errorf("it was changed at %v, and that was after %v", at, began)
	}
	PutValue(t, s, "acme/large", "small")
	ExpectValue(t, s, "acme/large", "small")
	if v, err := s.Value(t.Context(), "acme/large"); err != nil || v.Modified.Before(at) {
		t.Errorf("it was changed at %v and then at %v, %v", at, v.Modified, err)
	}
	if err := s.RemoveValues(t.Context(), "acme/every"); err != nil {
		t.Error(err)
	}
	ExpectNames(t, s, "", "acme/empty", "acme/large", "acme/nothing")
	if err := s.RemoveValues(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
	ExpectNames(t, s, "")
}

// testValueNames keeps names apart, also from what is below others.
func testValueNames(t *testing.T, s *certstore.Store) {
	names := slices.Sorted(slices.Values(oddNames))
	for _, name := range oddNames {
		PutValue(t, s, name, "of "+name)
	}
	isBelow := func(folder string) func(string) bool {
		return func(name string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }
	}
	expect := func(folder string) {
		t.Helper()
		ExpectNames(t, s, folder, slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !isBelow(folder)(n) })...)
	}
	ExpectNames(t, s, "", names...)
	for _, name := range oddNames {
		ExpectValue(t, s, name, "of "+name)
		expect(name)
	}
	for _, name := range []string{"a", "a%", "a_", "🚪", `a\`, strings.Repeat("🚪", 512)} {
		if err := s.RemoveValues(t.Context(), name); err != nil {
			t.Error(err)
		}
		names = slices.DeleteFunc(names, isBelow(name))
		ExpectNames(t, s, "", names...)
	}
}

func testValuesRefuse(t *testing.T, s *certstore.Store) {
	const secret = "abracadabra"
	put := func(name string) error { return s.PutValue(t.Context(), name, []byte(secret)) }
	value := func(name string) error { _, err := s.Value(t.Context(), name); return err }
	list := func(name string) error { _, err := s.Values(t.Context(), name); return err }
	remove := func(name string) error { return s.RemoveValues(t.Context(), name) }
	for _, name := range []string{
		"", ".", "..", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "\x00", "a\nb", "a\xff", " a", "a ", strings.Repeat("a", 513),
	} {
		for what, do := range map[string]func(string) error{"put": put, "value": value, "values": list, "remove": remove} {
			if what == "values" && name == "" {
				continue
			}
			if err := do(name); !errors.Is(err, certstore.ErrInvalid) || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), secret) {
				t.Errorf("%s of %.50q: %v", what, name, err)
			}
		}
	}
	large := bytes.Repeat([]byte(secret), certstore.MaxValue/len(secret)+1)
	if err := s.PutValue(t.Context(), "large", large); !errors.Is(err, certstore.ErrInvalid) || strings.Contains(err.Error(), secret) {
		t.Errorf("a value that is too large: %.500v", err)
	}
	ExpectNames(t, s, "")
}

// testValuesApart writes values and leases, which nobody is told of who follows registrations.
func testValuesApart(t *testing.T, s *certstore.Store) {
	Add(t, s, NewClient(t, "acme"))
	before := Version(t, s)
	PutValue(t, s, "acme/key", "k")
	expectLease(t, s, "acme", "a", time.Hour, true)
	release(t, s, "acme", "a")
	if err := s.RemoveValues(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
	if v := Version(t, s); v != before {
		t.Errorf("values and leases changed the version from %d to %d", before, v)
	}
}

func acquire(t *testing.T, s *certstore.Store, name, holder string, term time.Duration) (held bool) {
	t.Helper()
	err := again(func() (err error) {
		held, err = s.AcquireLease(t.Context(), name, holder, term)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return held
}

func expectLease(t *testing.T, s *certstore.Store, name, holder string, term time.Duration, want bool) {
	t.Helper()
	if held := acquire(t, s, name, holder, term); held != want {
		t.Errorf("%s has the lease %q: %v", holder, name, held)
	}
}

func release(t *testing.T, s *certstore.Store, name, holder string) {
	t.Helper()
	if err := again(func() error { return s.ReleaseLease(t.Context(), name, holder) }); err != nil {
		t.Error(err)
	}
}

// waitForLease asks for a lease until its term has ended.
func waitForLease(t *testing.T, s *certstore.Store, name, holder string) {
	t.Helper()
	began := time.Now()
	for !acquire(t, s, name, holder, time.Hour) {
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("%s doesn't get the lease %q", holder, name)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func testLeases(t *testing.T, s *certstore.Store) {
	const name = "issue/*.example.com"
	expectLease(t, s, name, "a", time.Hour, true)
	expectLease(t, s, name, "b", time.Hour, false)
	expectLease(t, s, name, "a", time.Hour, true)
	for _, other := range []string{"b", "A"} { // what isn't theirs stays
		release(t, s, name, other)
		expectLease(t, s, name, other, time.Hour, false)
	}
	expectLease(t, s, strings.ToUpper(name), "b", time.Hour, true)
	expectLease(t, s, "another%", "b", time.Hour, true)
	expectLease(t, s, strings.Repeat("🚪", 512), strings.Repeat("🚪", 255), time.Hour, true)
	release(t, s, name, "a")
	release(t, s, name, "a") // nobody's
	expectLease(t, s, name, "b", time.Hour, true)

	// Whoever is killed renews nothing, and its term ends.
	expectLease(t, s, name, "b", 50*time.Millisecond, true)
	waitForLease(t, s, name, "a")
	expectLease(t, s, name, "b", time.Hour, false)

	// Whoever renews keeps it beyond the first term.
	expectLease(t, s, name, "a", 50*time.Millisecond, true)
	expectLease(t, s, name, "a", time.Hour, true)
	for until := time.Now().Add(150 * time.Millisecond); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		expectLease(t, s, name, "b", time.Hour, false)
	}
	expectLease(t, s, name, "a", time.Nanosecond, true)
	waitForLease(t, s, name, "b")

	long := strings.Repeat("a", 513)
	for what, l := range map[string]struct {
		name, holder string
		term         time.Duration
	}{
		"no term": {name, "a", 0}, "a term that is over": {name, "a", -time.Hour}, "no name": {"", "a", time.Hour},
		"no holder": {name, "", time.Hour}, "a long name": {long, "a", time.Hour}, "a long holder": {name, long, time.Hour},
	} {
		if held, err := s.AcquireLease(t.Context(), l.name, l.holder, l.term); held || !errors.Is(err, certstore.ErrInvalid) {
			t.Errorf("%s: %v, %v", what, held, err)
		}
	}
	if err := s.ReleaseLease(t.Context(), name, ""); !errors.Is(err, certstore.ErrInvalid) {
		t.Errorf("release by nobody: %v", err)
	}
}

// testTermIsWhole has a lease for a while, counted from before it was asked for: no other holder gets it in that time. The
// other one's clock, which is days ahead, counts for nothing.
func testTermIsWhole(t *testing.T, db Database) {
	url := db.New(t)
	s := Open(t, url, certstore.Options{})
	ahead := Open(t, url, certstore.Options{Now: func() time.Time { return time.Now().Add(48 * time.Hour) }})
	const term = 200 * time.Millisecond
	for round := range 3 {
		name := fmt.Sprint("round", round)
		began := time.Now()
		expectLease(t, s, name, "a", term, true)
		waitForLease(t, ahead, name, "b")
		if took := time.Since(began); took < term-20*time.Millisecond { // clocks of the machine are put right now and then
			t.Errorf("a lease for %v ended after %v", term, took)
		}
		expectLease(t, s, name, "a", time.Hour, false)
	}
}

// testTwoStoresFight has holders in two Stores take turns. At any time one of them has the lease.
func testTwoStoresFight(t *testing.T, db Database) {
	url := db.New(t)
	stores := []*certstore.Store{Open(t, url, certstore.Options{}), Open(t, url, certstore.Options{})}
	const rounds = 15
	for round := range rounds { // for a lease that nobody has had yet
		got := make(chan bool)
		for i, s := range stores {
			go func() { got <- acquire(t, s, fmt.Sprint("round", round), fmt.Sprint("holder", i), time.Hour) }()
		}
		if one, other := <-got, <-got; one == other {
			t.Errorf("round %d: %v and %v", round, one, other)
		}
	}
	having := make(chan string, 1) // the holder; a second one has no room
	done := make(chan struct{})
	for i, s := range stores {
		for j := range 2 {
			holder := fmt.Sprintf("holder %d-%d", i, j)
			go func() {
				defer func() { done <- struct{}{} }()
				for won := 0; won < rounds && !t.Failed(); {
					if !acquire(t, s, "issue", holder, time.Hour) {
						time.Sleep(time.Millisecond)
						continue
					}
					won++
					select {
					case having <- holder:
					default:
						t.Errorf("%s has the lease beside another", holder)
						return
					}
					expectLease(t, s, "issue", holder, time.Hour, true)
					<-having
					release(t, s, "issue", holder)
				}
			}()
		}
	}
	for range 2 * len(stores) {
		<-done
	}
}

// testTwoStoresPut has two Stores write one value, which is whole afterwards, and seen by both and by one that only reads.
func testTwoStoresPut(t *testing.T, db Database) {
	url := db.New(t)
	stores := []*certstore.Store{Open(t, url, certstore.Options{}), Open(t, url, certstore.Options{})}
	readOnly := Open(t, url, certstore.Options{ReadOnly: true})
	for round := range 10 {
		name := fmt.Sprint("round", round)
		errs := make(chan error)
		for i, s := range stores {
			content := bytes.Repeat([]byte{byte(i)}, 10_000)
			go func() { errs <- again(func() error { return s.PutValue(t.Context(), name, content) }) }()
		}
		if err := errors.Join(<-errs, <-errs); err != nil {
			t.Error(err)
		}
		v, err := readOnly.Value(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(v.Content, []byte{1}); v.Size != 10_000 || n != 0 && n != 10_000 {
			t.Errorf("%d of %d bytes are the second one's", n, v.Size)
		}
		for _, s := range stores {
			ExpectValue(t, s, name, string(v.Content))
		}
	}
	_, acquired := readOnly.AcquireLease(t.Context(), "a", "b", time.Hour)
	for what, err := range map[string]error{
		"put": readOnly.PutValue(t.Context(), "a", nil), "remove": readOnly.RemoveValues(t.Context(), "a"),
		"acquire": acquired, "release": readOnly.ReleaseLease(t.Context(), "a", "b"),
	} {
		if !errors.Is(err, certstore.ErrReadOnly) {
			t.Errorf("%s in a read-only store: %v", what, err)
		}
	}
}
