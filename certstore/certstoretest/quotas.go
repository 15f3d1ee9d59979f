package certstoretest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"sallyport/certstore"
)

// day0 is a period's start.
var day0 = time.Date(2026, time.November, 30, 0, 0, 0, 0, time.UTC)

// days is a quota of a period that begins some days after day0.
func days(tag string, from, length int, used int64) certstore.Quota {
	start := day0.AddDate(0, 0, from)
	return certstore.Quota{Tag: tag, Unit: "day", Start: start, End: start.AddDate(0, 0, length), Used: used}
}

func month(tag string, used int64) certstore.Quota {
	start := time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)
	return certstore.Quota{Tag: tag, Unit: "month", Start: start, End: start.AddDate(0, 1, 0), Used: used}
}

func keepQuotas(t *testing.T, s *certstore.Store, quotas ...certstore.Quota) {
	t.Helper()
	if err := s.KeepQuotas(t.Context(), quotas); err != nil {
		t.Fatal(err)
	}
}

func expectQuotas(t *testing.T, s *certstore.Store, after time.Time, want ...certstore.Quota) {
	t.Helper()
	var got []certstore.Quota
	if err := s.Quotas(t.Context(), after, func(q certstore.Quota) { got = append(got, q) }); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b certstore.Quota) int {
		return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Unit, b.Unit))
	})
	for i := range got {
		got[i].Start, got[i].End = got[i].Start.UTC(), got[i].End.UTC()
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("quotas (-want +got):\n%s", diff)
	}
}

func testQuotas(t *testing.T, s *certstore.Store) {
	noon := day0.Add(12 * time.Hour)
	expectQuotas(t, s, noon)
	keepQuotas(t, s, days("a", 0, 1, 7), days("b", 0, 1, 1), month("a", 40))
	expectQuotas(t, s, noon, days("a", 0, 1, 7), month("a", 40), days("b", 0, 1, 1))

	keepQuotas(t, s, days("a", 0, 1, 5))
	expectQuotas(t, s, noon, days("a", 0, 1, 7), month("a", 40), days("b", 0, 1, 1)) // never less
	keepQuotas(t, s, days("a", 0, 1, 9), days("a", 0, 1, 8))
	expectQuotas(t, s, noon, days("a", 0, 1, 9), month("a", 40), days("b", 0, 1, 1))
	keepQuotas(t, s, days("a", 0, 7, 3)) // another tier: the period is longer, and what was counted stays so
	expectQuotas(t, s, noon, days("a", 0, 7, 9), month("a", 40), days("b", 0, 1, 1))

	keepQuotas(t, s, days("b", 1, 1, 2)) // the next period begins anew
	keepQuotas(t, s, days("b", 0, 1, 50))
	expectQuotas(t, s, noon, days("a", 0, 7, 9), month("a", 40), days("b", 1, 1, 2)) // and an older one is too late

	expectQuotas(t, s, day0.AddDate(0, 0, 2), days("a", 0, 7, 9)) // the others are over
	if err := s.ForgetQuotas(t.Context(), day0.AddDate(0, 0, 3)); err != nil {
		t.Fatal(err)
	}
	expectQuotas(t, s, time.Unix(0, 0), days("a", 0, 7, 9))
}

// testManyQuotas keeps more than one statement takes, some of them twice, in no order.
func testManyQuotas(t *testing.T, s *certstore.Store) {
	const many = 1203
	var quotas, want []certstore.Quota
	for i := range many {
		q := days(fmt.Sprintf("%04d", i), 0, 1, int64(i))
		want = append(want, q)
		quotas = append(quotas, days(fmt.Sprintf("%04d", i*7%many), 0, 1, int64(i*7%many)))
		if i%100 == 0 {
			q.Used /= 2
			quotas = append(quotas, q)
		}
	}
	keepQuotas(t, s, quotas...)
	expectQuotas(t, s, day0, want...)
}

// testQuotasApart keeps quotas, which nobody is told of who follows registrations.
func testQuotasApart(t *testing.T, s *certstore.Store) {
	Add(t, s, NewClient(t, "acme"))
	before := Version(t, s)
	keepQuotas(t, s, days("a", 0, 1, 7))
	if err := s.ForgetQuotas(t.Context(), day0); err != nil {
		t.Fatal(err)
	}
	if v := Version(t, s); v != before {
		t.Errorf("keeping quotas changed the version from %d to %d", before, v)
	}
	Add(t, s, NewClient(t, "other"))
	if v := Version(t, s); v == before {
		t.Errorf("the version stayed %d", v)
	}
}

// testTwoStoresKeepQuotas has two processes know different counts of the same buckets.
func testTwoStoresKeepQuotas(t *testing.T, db Database) {
	url := db.New(t)
	a, b := Open(t, url, certstore.Options{}), Open(t, url, certstore.Options{})
	version := Version(t, a)
	done := make(chan error, 2)
	for i, s := range []*certstore.Store{a, b} {
		go func() {
			var errs []error
			for n := range int64(20) {
				errs = append(errs, s.KeepQuotas(t.Context(), []certstore.Quota{days("a", 0, 1, 2*n+int64(i)), month("a", n)}))
			}
			done <- errors.Join(errs...)
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	expectQuotas(t, a, day0, days("a", 0, 1, 39), month("a", 19))
	if v := Version(t, a); v != version {
		t.Errorf("keeping quotas changed the version from %d to %d", version, v)
	}
	readOnly := Open(t, url, certstore.Options{ReadOnly: true})
	expectQuotas(t, readOnly, day0, days("a", 0, 1, 39), month("a", 19))
	if err := readOnly.KeepQuotas(t.Context(), nil); !errors.Is(err, certstore.ErrReadOnly) {
		t.Errorf("a read-only store keeps quotas: %v", err)
	}
}
