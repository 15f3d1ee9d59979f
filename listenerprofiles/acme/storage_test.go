package acme_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/certstore"
	"sallyport/internal/fileset"
	"sallyport/internal/testacme"
	"sallyport/internal/testdb"
	"sallyport/internal/testserver"
	"sallyport/listenerprofiles/acme"
)

// A kind is a kind of storage. Each call of the function that open returns opens the same one, as another node does.
type kind struct {
	name string
	open func(testing.TB) func(testing.TB) certmagic.Storage
}

// kinds are all kinds of storages.
func kinds() []kind {
	server := func(start func(testing.TB, testdb.Options) *testdb.Server) func(testing.TB) certstore.Source {
		return func(t testing.TB) certstore.Source {
			d := start(t, testdb.Options{}).New(t)
			return certstore.Source{URL: d.URL, Password: d.Password}
		}
	}
	return []kind{
		{"files", func(t testing.TB) func(testing.TB) certmagic.Storage {
			folder := filepath.Join(t.TempDir(), "acme")
			return func(testing.TB) certmagic.Storage { return acme.Files(folder) }
		}},
		{"SQLite", shared(func(t testing.TB) certstore.Source {
			return certstore.Source{URL: "sqlite:" + filepath.Join(t.TempDir(), "store.db")}
		})},
		{"PostgreSQL", shared(server(testdb.Postgres))},
		{"MariaDB", shared(server(testdb.MariaDB))},
	}
}

// shared opens storages in a store, sealed.
func shared(source func(testing.TB) certstore.Source) func(testing.TB) func(testing.TB) certmagic.Storage {
	return func(t testing.TB) func(testing.TB) certmagic.Storage {
		from := source(t)
		content, _, err := fileset.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := fileset.ReadKey(file)
		if err != nil {
			t.Fatal(err)
		}
		return func(t testing.TB) certmagic.Storage {
			s, err := from.Open(context.Background(), certstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return acme.Shared(s, key, logTo(t), nil)
		}
	}
}

// TestStorages: all kinds keep, list and lock alike.
func TestStorages(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			open := k.open(t)
			a, b := open(t), open(t)
			t.Run("values", func(t *testing.T) { storesValues(t, a, b) })
			t.Run("locks", func(t *testing.T) { locks(t, a, b) })
		})
	}
}

func storesValues(t *testing.T, a, b certmagic.Storage) {
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Load(ctx, "x/y.key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what isn't there: %v", err)
	}
	if _, err := a.Stat(ctx, "x/y.key"); !errors.Is(err, fs.ErrNotExist) || a.Exists(ctx, "x/y.key") {
		t.Errorf("what isn't there: %v", err)
	}
	before := time.Now().Add(-time.Minute)
	must(a.Store(ctx, "x/y.key", []byte("one")))
	must(a.Store(ctx, "x/y.key", []byte("two")))
	must(a.Store(ctx, "x/z/w.crt", []byte{}))
	must(a.Store(ctx, "xx", []byte("not below x")))
	if data, err := b.Load(ctx, "x/y.key"); string(data) != "two" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	info, err := b.Stat(ctx, "x/y.key")
	if err != nil || info.Key != "x/y.key" || !info.IsTerminal || info.Modified.Before(before) {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err := b.Stat(ctx, "x"); err != nil || info.IsTerminal || !b.Exists(ctx, "x") {
		t.Errorf("a folder: %+v, %v", info, err)
	}
	for _, c := range []struct {
		recursive bool
		want      []string
	}{{false, []string{"x/y.key", "x/z"}}, {true, []string{"x/y.key", "x/z/w.crt"}}} {
		list, err := b.List(ctx, "x", c.recursive)
		list = slices.DeleteFunc(list, func(k string) bool { return c.recursive && k == "x/z" }) // certmagic's files have it
		if slices.Sort(list); err != nil || !slices.Equal(list, c.want) {
			t.Errorf("List(x, %v): %q, %v", c.recursive, list, err)
		}
	}
	must(b.Delete(ctx, "x"))
	if a.Exists(ctx, "x/z/w.crt") || !a.Exists(ctx, "xx") {
		t.Error("Delete takes too little or too much")
	}
	if err := b.Delete(ctx, "x"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// locks: of many who want a lock at once, each has it alone; who gives up doesn't get it later.
func locks(t *testing.T, a, b certmagic.Storage) {
	var inside atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		s := []certmagic.Storage{a, b}[i%2]
		all.Go(func() {
			if err := s.Lock(t.Context(), "issue_a.test"); err != nil {
				t.Error(err)
				return
			}
			if inside.Add(1) != 1 {
				t.Error("two have the lock")
			}
			time.Sleep(time.Millisecond)
			inside.Add(-1)
			if err := s.Unlock(t.Context(), "issue_a.test"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := a.Lock(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Lock(ctx, "one"); err == nil {
		t.Error("a lock that is held was had")
	}
	if ok, err := b.(certmagic.TryLocker).TryLock(t.Context(), "one"); ok || err != nil {
		t.Errorf("TryLock: %v, %v", ok, err)
	}
	if err := b.Unlock(t.Context(), "one"); err == nil {
		t.Error("somebody else's lock was given back")
	}
	if err := a.Unlock(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if ok, err := b.(certmagic.TryLocker).TryLock(t.Context(), "one"); !ok || err != nil {
		t.Errorf("TryLock of a free one: %v, %v", ok, err)
	}
	if err := b.Unlock(t.Context(), "one"); err != nil {
		t.Error(err)
	}
}

// TestTwoNodes: two nodes with one storage order once, though only the other one is asked for the answer to the CA, and
// renew once.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			at := freePorts(t)
			ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls, RejectNonces: 50})
			open := k.open(t)
			var nodes [2]*node
			var asked atomic.Int64
			answer(t, at, func() *node { return nodes[asked.Add(1)%2] })
			for i := range nodes {
				nodes[i] = start(t, ca, "", func(o *acme.Options) {
					storage := open(t)
					o.Open = func(context.Context) (certmagic.Storage, io.Closer, error) { return storage, nil, nil }
				})
			}
			wishes := []acme.Wish{{Name: "a.test", Kinds: []string{acme.ECDSA, acme.RSA}}}
			for _, n := range nodes {
				n.Want(wishes)
			}
			for _, kind := range wishes[0].Kinds {
				first := wait(t, nodes[0], "a.test", kind, anyOne)
				wait(t, nodes[1], "a.test", kind, sameAs(first))
			}
			if ca.Orders() != 2 || ca.Accounts() != 1 {
				t.Errorf("%d orders, %d accounts", ca.Orders(), ca.Accounts())
			}
		})
	}
}

// TestStoreIsAway: what can't be read now is said, and had as soon as it can.
func TestStoreIsAway(t *testing.T) {
	t.Parallel()
	at := freePorts(t)
	ca := testacme.Start(t, testacme.Options{HTTPPort: at.http, TLSPort: at.tls})
	folder := t.TempDir()
	var away atomic.Bool
	away.Store(true)
	var n *node
	answer(t, at, func() *node { return n })
	n = start(t, ca, "", func(o *acme.Options) {
		o.Open = func(context.Context) (certmagic.Storage, io.Closer, error) {
			if away.Load() {
				return nil, nil, errors.New("the store is away")
			}
			return acme.Files(folder), nil, nil
		}
	})
	n.Want([]acme.Wish{{Name: "a.test", Kinds: []string{acme.ECDSA}}})
	testserver.Eventually(t, "the trouble", func() error {
		if c := n.Certificate("a.test", acme.ECDSA); c.Trouble == nil || c.Next.IsZero() {
			return errors.New("none")
		}
		return nil
	})
	away.Store(false)
	wait(t, n, "a.test", acme.ECDSA, anyOne)
}
