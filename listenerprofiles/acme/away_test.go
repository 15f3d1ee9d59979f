package acme_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
	"sallyport/listenerprofiles/acme"
)

// TestStorageHangs: however many certificates are looked for in a storage that does not answer, it is waited for once. What
// has served last is had as soon as it answers, though the rest of it is lost.
func TestStorageHangs(t *testing.T) {
	t.Parallel()
	ca, folder := newFakeCA(t), t.TempDir()
	n := start(t, ca.CA, folder)
	n.Want(wishes)
	first := wait(t, n, name, acme.ECDSA, anyOne)
	n.stop()

	answers := make(chan struct{})
	changed := make(chan struct{}, 10)
	n = start(t, ca.CA, folder, func(o *acme.Options) {
		o.Changed = func() { changed <- struct{}{} }
		o.Open = func(ctx context.Context) (certmagic.Storage, io.Closer, error) {
			select {
			case <-answers:
				return acme.Files(folder), nil, nil
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}
	})
	began := time.Now()
	for i := range 20 {
		if c := n.Certificate(fmt.Sprintf("%d.test", i), acme.ECDSA); c.Trouble == nil {
			t.Error("no trouble")
		}
	}
	n.Certificate(name, acme.ECDSA)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	ca.do(func() { ca.orders = nil })
	close(answers)
	n.Want(wishes)
	wait(t, n, name, acme.ECDSA, sameAs(first))
	<-changed
	if got := ca.count(name); got != 0 {
		t.Errorf("%d orders", got)
	}
}

// TestClosed: what is closed opens nothing any more.
func TestClosed(t *testing.T) {
	t.Parallel()
	opened := 0
	m := acme.New(acme.Options{Open: func(context.Context) (certmagic.Storage, io.Closer, error) {
		opened++
		return acme.Files(t.TempDir()), nil, nil
	}})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if c := m.Certificate(name, acme.ECDSA); c.Trouble == nil || opened > 0 {
		t.Errorf("opened %d times", opened)
	}
	m.Book().Refresh(t.Context())
	if opened > 0 {
		t.Error("opened by a look for answers")
	}
}

// TestLongName: a name may be as long as a certificate for it can be kept in files.
func TestLongName(t *testing.T) {
	t.Parallel()
	label := strings.Repeat("a", 54) + "."
	long := strings.Repeat(label, 4) + "test"
	n := start(t, newFakeCA(t).CA, t.TempDir())
	n.Want([]acme.Wish{{Name: long, Kinds: []string{acme.ECDSA}}})
	wait(t, n, long, acme.ECDSA, anyOne)
}

// TestLeftBehind: what a killed process has left of a validation is removed after an hour, half of it as well.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "challenges")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	for file, content := range map[string]string{"whole": `{"type":"http-01"}`, "half": `{"ty`, "new": `{"ty`} {
		path := filepath.Join(folder, file)
		testserver.Write(t, path, content)
		if file != "new" {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	start(t, newFakeCA(t).CA, filepath.Dir(folder))
	testserver.Eventually(t, "old answers are gone", func() error {
		left, err := os.ReadDir(folder)
		if err == nil && (len(left) != 1 || left[0].Name() != "new") {
			err = fmt.Errorf("%v", left)
		}
		return err
	})
}

// TestOldStorage: a certificate that has ended, as an old storage has it that was put back, replaces none that serves.
func TestOldStorage(t *testing.T) {
	t.Parallel()
	ca, folder := newFakeCA(t), t.TempDir()
	n := start(t, ca.CA, folder)
	n.Want(wishes)
	first := wait(t, n, name, acme.ECDSA, anyOne)
	n.stop()
	old := ca.self.Issue(testpki.Leaf{DNSNames: []string{name}, NotAfter: time.Now().Add(-time.Hour)})
	for kind, content := range map[string][]byte{"key": old.KeyPEM(), "crt": old.CertPEM()} {
		files, err := filepath.Glob(filepath.Join(folder, "certificates", "*", name, name+"."+kind))
		if err != nil || len(files) != 1 {
			t.Fatalf("%q, %v", files, err)
		}
		testserver.Write(t, files[0], string(content))
	}
	ca.do(func() {
		ca.answer = func(w http.ResponseWriter, _ string, _ int) bool {
			http.Error(w, "the CA is away", 500)
			return true
		}
	})
	n = start(t, ca.CA, folder)
	n.Want(wishes)
	trouble(t, n)
	wait(t, n, name, acme.ECDSA, sameAs(first))
	n.stop()
	ca.do(func() { ca.answer = nil })
	n = start(t, ca.CA, folder)
	wait(t, n, name, acme.ECDSA, sameAs(first))
	n.Want(wishes)
	wait(t, n, name, acme.ECDSA, otherThan(first))
}

// A lockless storage has lost its locks: leases have ended in the middle.
type lockless struct{ certmagic.Storage }

func (lockless) Lock(context.Context, string) error   { return nil }
func (lockless) Unlock(context.Context, string) error { return errors.New("the lock is lost") }

// TestLostLocks: two nodes that order at once, since neither has a lock, leave one whole certificate.
func TestLostLocks(t *testing.T) {
	t.Parallel()
	for range 5 {
		ca, folder := newFakeCA(t), t.TempDir()
		var nodes [2]*node
		for i := range nodes {
			nodes[i] = start(t, ca.CA, folder, func(o *acme.Options) {
				o.Open = func(context.Context) (certmagic.Storage, io.Closer, error) {
					return lockless{acme.Files(folder)}, nil, nil
				}
			})
		}
		for _, n := range nodes {
			n.Want(wishes)
		}
		for _, n := range nodes {
			wait(t, n, name, acme.ECDSA, anyOne)
		}
		for _, n := range nodes {
			n.stop()
		}
		for i := range nodes {
			nodes[i] = start(t, ca.CA, folder)
			nodes[i].Want(wishes)
		}
		testserver.Eventually(t, "the same certificate", func() error {
			a, b := nodes[0].Certificate(name, acme.ECDSA), nodes[1].Certificate(name, acme.ECDSA)
			if a.Pair == nil || b.Pair == nil || !a.Pair.Leaf.Equal(b.Pair.Leaf) {
				return fmt.Errorf("%v, %v", a.Trouble, b.Trouble)
			}
			return nil
		})
		for _, n := range nodes {
			n.stop()
		}
		if got := ca.count(name); got > 3 {
			t.Errorf("%d orders", got)
		}
	}
}

// TestManyAtOnce: names come and go while they are ordered and looked at, and everything ends in the middle of it.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	ca := newFakeCA(t)
	n := start(t, ca.CA, t.TempDir())
	var all sync.WaitGroup
	var over atomic.Bool
	for i := range 4 {
		all.Go(func() {
			for j := 0; !over.Load(); j++ {
				var list []acme.Wish
				for k := range 20 {
					if (j+k)%3 != 0 {
						list = append(list, acme.Wish{Name: fmt.Sprintf("%d.test", k), Kinds: []string{acme.ECDSA}})
					}
				}
				if i == 0 {
					n.Want(list)
				}
				order := orderOf([]acme.Wish{{Name: fmt.Sprintf("%d.test", j%20), Kinds: []string{acme.ECDSA}}})
				if _, err := n.Source(order).Keys(time.Now()); err != nil {
					t.Error(err)
				}
				n.Book().Certificate(t.Context(), "1.test")
				time.Sleep(time.Millisecond)
			}
		})
	}
	testserver.Eventually(t, "a few certificates", func() error {
		for k := range 20 {
			if n.Certificate(fmt.Sprintf("%d.test", k), acme.ECDSA).Pair != nil {
				return nil
			}
		}
		return errors.New("none")
	})
	n.stop()
	over.Store(true)
	all.Wait()
}
