package acme_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/internal/testserver"
	"sallyport/listenerprofiles/acme"
)

// A dying storage changes nothing any more after so many changes: its process is killed, or the disk is full, so that
// values can only be removed.
type dying struct {
	certmagic.Storage
	left atomic.Int64
	full bool
	dead chan struct{}
	lost atomic.Bool // the URL of an order
}

var errDead = errors.New("the storage is gone")

func (d *dying) change() error {
	left := d.left.Add(-1)
	if left == -1 {
		close(d.dead)
	}
	if left < 0 {
		return errDead
	}
	return nil
}

func (d *dying) Store(ctx context.Context, key string, value []byte) error {
	if err := d.change(); err != nil {
		if strings.HasSuffix(key, ".order") {
			d.lost.Store(true)
		}
		return err
	}
	return d.Storage.Store(ctx, key, value)
}

func (d *dying) Delete(ctx context.Context, key string) error {
	if d.full {
		return d.Storage.Delete(ctx, key)
	}
	if err := d.change(); err != nil {
		return err
	}
	return d.Storage.Delete(ctx, key)
}

// TestKilledAnywhere: after each change of the storage in an issuance and in a renewal the process is killed, or the disk
// is full. What served before serves on, and at the next start at once, which has the certificate by the same order.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, renewal := range []bool{false, true} {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprintf("renewal %v, full %v", renewal, full), func(t *testing.T) {
				t.Parallel()
				ca := newFakeCA(t)
				for changes := range 100 {
					if killedAfter(t, ca, changes, renewal, full) {
						t.Logf("%d changes", changes)
						return
					}
				}
				t.Error("there is no end")
			})
		}
	}
}

// killedAfter reports whether everything was done before the kill.
func killedAfter(t *testing.T, ca *fakeCA, changes int, renewal, full bool) (whole bool) {
	folder, name := t.TempDir(), fmt.Sprintf("after-%d.test", changes)
	wishes := []acme.Wish{{Name: name, Kinds: []string{acme.ECDSA}}}
	var before *x509.Certificate
	orders := 1
	if renewal {
		orders = 2
		n := start(t, ca.CA, folder)
		n.Want(wishes)
		before = wait(t, n, name, acme.ECDSA, anyOne)
		n.stop()
		ca.renewNow(before)
	}
	is := func(c acme.Certificate) error {
		switch {
		case c.Pair == nil:
			return fmt.Errorf("none: %w", c.Trouble)
		case before != nil && c.Pair.Leaf.Equal(before):
			return errors.New("still the old one")
		}
		return nil
	}

	d := &dying{Storage: acme.Files(folder), full: full, dead: make(chan struct{})}
	d.left.Store(int64(changes))
	n := start(t, ca.CA, folder, func(o *acme.Options) {
		o.Open = func(context.Context) (certmagic.Storage, io.Closer, error) { return d, nil, nil }
	})
	first := n.Certificate(name, acme.ECDSA)
	if before != nil && (first.Pair == nil || !first.Pair.Leaf.Equal(before)) {
		t.Errorf("killed after %d: at the start %v", changes, first.Trouble)
	}
	n.Want(wishes)
	testserver.Eventually(t, fmt.Sprintf("killed after %d, or whole", changes), func() error {
		select {
		case <-d.dead:
			return nil
		default:
		}
		if err := is(n.Certificate(name, acme.ECDSA)); err != nil {
			return err
		}
		whole = true
		return nil
	})
	last := n.Certificate(name, acme.ECDSA)
	n.stop()
	select {
	case <-d.dead:
		whole = false
	default:
	}
	if before != nil && last.Pair == nil {
		t.Errorf("killed after %d: nothing serves", changes)
	}

	n = start(t, ca.CA, folder)
	if c := n.Certificate(name, acme.ECDSA); renewal && c.Pair == nil {
		t.Errorf("killed after %d: nothing serves at the next start: %v", changes, c.Trouble)
	}
	began := time.Now()
	n.Want(wishes)
	testserver.Eventually(t, fmt.Sprintf("a certificate after a kill after %d", changes), func() error {
		return is(n.Certificate(name, acme.ECDSA))
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("killed after %d: took %s", changes, took)
	}
	n.stop()
	if d.lost.Load() {
		orders++ // the CA has told nobody else of it
	}
	if got := ca.count(name); got != orders {
		t.Errorf("killed after %d: %d orders, want %d", changes, got, orders)
	}
	return whole
}
