package certstoretest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"sallyport/certstore"
)

func testGoroutines(t *testing.T, s *certstore.Store) {
	const writers, rounds = 4, 5
	errs := make(chan error, writers+1)
	for w := range writers {
		clients := make([]certstore.Client, rounds)
		for i := range clients {
			clients[i] = NewClient(t, fmt.Sprintf("w%d-%d", w, i))
		}
		go func() {
			var all []error
			for i, c := range clients {
				all = append(all, s.Add(t.Context(), c))
				if i%2 == 0 {
					all = append(all, s.Remove(t.Context(), c.API, c.KeyType, c.Alias))
				}
			}
			errs <- errors.Join(all...)
		}()
	}
	go func() {
		var all []error
		for range rounds {
			_, problems, err := s.List(t.Context())
			if len(problems) > 0 {
				err = fmt.Errorf("problems: %v", problems)
			}
			all = append(all, err)
		}
		errs <- errors.Join(all...)
	}()
	for range writers + 1 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := len(List(t, s)); n != writers*(rounds/2) {
		t.Errorf("%d clients are left, want %d", n, writers*(rounds/2))
	}
}

// testReopen opens one database again and again.
func testReopen(t *testing.T, db Database) {
	url := db.New(t)
	client := NewClient(t, "acme")
	for range 3 {
		s, err := certstore.Open(t.Context(), url, certstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(List(t, s)) == 0 {
			Add(t, s, client)
		}
		ExpectList(t, s, client)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func testReadOnly(t *testing.T, db Database) {
	url := db.New(t)
	writer := Open(t, url, certstore.Options{})
	acme := NewClient(t, "acme")
	Add(t, writer, acme)
	reader := Open(t, url, certstore.Options{ReadOnly: true})
	ExpectList(t, reader, acme)
	other := NewClient(t, "other")
	for name, err := range map[string]error{
		"add":    reader.Add(t.Context(), other),
		"update": reader.Update(t.Context(), Orders, "", "acme", nil, "Silver", nil),
		"remove": reader.Remove(t.Context(), Orders, "", "acme"),
	} {
		if !errors.Is(err, certstore.ErrReadOnly) {
			t.Errorf("%s: %v; want ErrReadOnly", name, err)
		}
	}
	before, err := reader.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	Add(t, writer, other)
	ExpectList(t, reader, acme, other)
	if after, err := reader.Version(t.Context()); err != nil || after == before {
		t.Errorf("the version stayed %d, %v", after, err)
	}
}

// testTenants registers one client for two tenants, neither of which sees the other's.
func testTenants(t *testing.T, db Database) {
	url := db.New(t)
	mine, theirs := Open(t, url, certstore.Options{}), Open(t, url, certstore.Options{TenantID: 1})
	client := NewClient(t, "acme")
	Add(t, theirs, client)
	ExpectList(t, mine)
	Add(t, mine, client)
	if err := theirs.Remove(t.Context(), Orders, "", "acme"); err != nil {
		t.Fatal(err)
	}
	ExpectList(t, theirs)
	ExpectList(t, mine, client)
}

// testManyOpenOne has many Stores make the tables of one new database at once.
func testManyOpenOne(t *testing.T, db Database) {
	for range 3 {
		url := db.New(t)
		var all sync.WaitGroup
		for i := range 6 {
			client := NewClient(t, fmt.Sprint("alias", i))
			all.Go(func() {
				s, err := certstore.Open(t.Context(), url, certstore.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Add(t.Context(), client); err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := len(List(t, Open(t, url, certstore.Options{}))); n != 6 {
			t.Errorf("%d clients, want 6", n)
		}
	}
}

// testTwoStores has two Stores write to one database at once, as a gateway and a command beside it do.
func testTwoStores(t *testing.T, db Database) {
	url := db.New(t)
	var all sync.WaitGroup
	for i := range 2 {
		s := Open(t, url, certstore.Options{})
		shared := NewClient(t, "contested")
		var clients []certstore.Client
		for j := range 15 {
			clients = append(clients, NewClient(t, fmt.Sprintf("s%d-%d", i, j)))
		}
		all.Go(func() {
			for j, c := range clients {
				if err := again(func() error { return s.Add(t.Context(), c) }); err != nil {
					t.Error(err)
				}
				if j%3 == 0 {
					if err := again(func() error { return s.Remove(t.Context(), Orders, c.KeyType, c.Alias) }); err != nil {
						t.Error(err)
					}
				}
				if err := again(func() error { return s.Add(t.Context(), shared) }); err != nil && !errors.Is(err, certstore.ErrAliasTaken) {
					t.Error(err)
				}
				if err := again(func() error { return s.Remove(t.Context(), Orders, "", shared.Alias) }); err != nil && !errors.Is(err, certstore.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s := Open(t, url, certstore.Options{})
	if n := len(List(t, s)); n != 20 {
		t.Errorf("%d clients, want 20: %v", n, List(t, s))
	}
}

// again does what a store says it can't do now until it can: of two that write without a pause, a slow disk may keep one
// waiting for longer than a Store does.
func again(do func() error) error {
	for {
		if err := do(); !errors.Is(err, certstore.ErrUnavailable) {
			return err
		}
	}
}

// testListAgain: List reads each certificate once, and returns all the same what another Store has made of it since.
func testListAgain(t *testing.T, db Database) {
	url := db.New(t)
	writer, reader := Open(t, url, certstore.Options{}), Open(t, url, certstore.Options{})
	a, b := NewClient(t, "a"), NewClient(t, "b")
	Add(t, writer, a, b)
	ExpectList(t, reader, a, b)
	first := List(t, reader)
	if again := List(t, reader); again[0].Certificate != first[0].Certificate || again[1].Certificate != first[1].Certificate {
		t.Error("certificates that have not changed were read again")
	}
	for _, change := range []func(){
		func() { a.Certificate = NewClient(t, "a").Certificate },
		func() { a.Tier = "Bronze" },
		func() { a.Scopes = []string{"x", "y"} },
		func() { ca := NewCA(t, "a", "a.test"); a.Certificate, a.Match = ca.Certificate, ca.Match },
		func() { a.Match = NewCA(t, "a", "b.test").Match },
	} {
		change()
		scopes := a.Scopes
		err := writer.Change(t.Context(), a.API, a.KeyType, a.Alias, certstore.Change{Certificate: a.Certificate, Tier: a.Tier, Scopes: &scopes, Match: a.Match})
		if err != nil {
			t.Fatal(err)
		}
		ExpectList(t, reader, a, b)
	}
	if err := writer.Remove(t.Context(), a.API, a.KeyType, a.Alias); err != nil {
		t.Fatal(err)
	}
	ExpectList(t, reader, b)
	Add(t, writer, a)
	ExpectList(t, reader, a, b)
}
