package challenge_test

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/listenerprofiles/challenge"
)

// TestHTTP: only the token that is pending has an answer, at the host that it is for.
func TestHTTP(t *testing.T) {
	b := challenge.NewBook(nil)
	b.SetNames([]string{"a.test", "b.test"})
	b.Open(challenge.Answer{Name: "a.test", Token: "tokenA", KeyAuthorization: "tokenA.thumb"})
	ask := func(host, path string) string {
		token, ok := b.Token(host, path)
		if !ok {
			return "not asked"
		}
		body, ok := b.HTTP(host, token)
		if !ok {
			return "unknown"
		}
		return body
	}
	for _, c := range []struct{ host, path, want string }{
		{"a.test", "/.well-known/acme-challenge/tokenA", "tokenA.thumb"},
		{"b.test", "/.well-known/acme-challenge/tokenA", "unknown"},
		{"c.test", "/.well-known/acme-challenge/tokenA", "not asked"},
		{"", "/.well-known/acme-challenge/tokenA", "not asked"},
		{"a.test", "/.well-known/acme-challenge/tokenB", "unknown"},
		{"a.test", "/.well-known/acme-challenge/", "not asked"},
		{"a.test", "/.well-known/acme-challenge/tokenA/", "not asked"},
		{"a.test", "/.well-known/acme-challenge/../tokenA", "not asked"},
		{"a.test", "/.well-known/acme-challenge/token%41", "not asked"},
		{"a.test", "/.well-known/acme-challenge/" + strings.Repeat("a", 300), "not asked"},
		{"a.test", "/x/.well-known/acme-challenge/tokenA", "not asked"},
	} {
		if got := ask(c.host, c.path); got != c.want {
			t.Errorf("%s%s: %s, want %s", c.host, c.path, got, c.want)
		}
	}
	b.Close(challenge.Answer{Name: "a.test", Token: "tokenA"})
	if got := ask("a.test", "/.well-known/acme-challenge/tokenA"); got != "unknown" {
		t.Errorf("closed: %s", got)
	}
	if _, ok := (*challenge.Book)(nil).Token("a.test", "/.well-known/acme-challenge/tokenA"); ok {
		t.Error("a nil Book asks")
	}
}

// TestOtherNodes: what another node has opened is found by a look; a look that fails leaves what was seen last.
func TestOtherNodes(t *testing.T) {
	var there atomic.Pointer[[]challenge.Answer]
	there.Store(&[]challenge.Answer{})
	broken := atomic.Bool{}
	b := challenge.NewBook(func(context.Context) ([]challenge.Answer, error) {
		if broken.Load() {
			return nil, errors.New("away")
		}
		return *there.Load(), nil
	})
	b.SetNames([]string{"a.test"})
	if b.Certificate(t.Context(), "a.test") != nil {
		t.Fatal("a certificate out of nothing")
	}
	cert := &tls.Certificate{}
	there.Store(&[]challenge.Answer{{Name: "a.test", Certificate: cert}, {Name: "a.test", Token: "t", KeyAuthorization: "t.x"}, {Name: "z.test", Certificate: cert}})
	if b.Certificate(t.Context(), "a.test") != cert {
		t.Error("another node's certificate is not found")
	}
	later := &tls.Certificate{}
	there.Store(&[]challenge.Answer{{Name: "a.test", Certificate: later}, {Name: "a.test", Token: "t", KeyAuthorization: "t.x"}})
	if b.Certificate(t.Context(), "a.test") != later {
		t.Error("the certificate of an order before")
	}
	if b.Certificate(t.Context(), "z.test") != nil {
		t.Error("a certificate for a name that is not ordered")
	}
	broken.Store(true)
	b.Refresh(t.Context())
	if body, ok := b.HTTP("a.test", "t"); !ok || body != "t.x" {
		t.Errorf("after a look that failed: %q, %v", body, ok)
	}
	broken.Store(false)
	there.Store(&[]challenge.Answer{})
	b.Refresh(t.Context())
	if _, ok := b.HTTP("a.test", "t"); ok {
		t.Error("what ended elsewhere is still answered")
	}
}

// TestRefreshIsShared: many who ask at once cause few looks, and each gets one that began after it asked.
func TestRefreshIsShared(t *testing.T) {
	var looks, value atomic.Int64
	b := challenge.NewBook(func(context.Context) ([]challenge.Answer, error) {
		looks.Add(1)
		v := value.Load()
		list := make([]challenge.Answer, v)
		for i := range list {
			list[i] = challenge.Answer{Name: "a.test", Token: strings.Repeat("t", i+1), KeyAuthorization: "x"}
		}
		return list, nil
	})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			if i == 100 {
				value.Store(1)
			}
			want := value.Load()
			b.Refresh(t.Context())
			if _, ok := b.HTTP("a.test", "t"); want == 1 && !ok {
				t.Error("a look that began before the question")
			}
		})
	}
	all.Wait()
	if n := looks.Load(); n > 20 {
		t.Errorf("%d looks for 200 questions", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := looks.Load()
	b.Refresh(ctx)
	if looks.Load() > before+1 {
		t.Error("a question that was given up goes on")
	}
}

// TestStrangersGiveUp: a look that ends with the stranger who caused it leaves others, who have waited for it, their own.
func TestStrangersGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		b := challenge.NewBook(func(ctx context.Context) ([]challenge.Answer, error) {
			if looks++; looks <= 2 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []challenge.Answer{{Name: "a.test", Token: "t", KeyAuthorization: "t.x"}}, nil
		})
		b.SetNames([]string{"a.test"})
		var all sync.WaitGroup
		for i := range 2 {
			ctx, giveUp := context.WithTimeout(t.Context(), time.Duration(1+i)*time.Second)
			defer giveUp()
			all.Go(func() { b.Refresh(ctx) })
			synctest.Wait()
		}
		all.Go(func() { b.Refresh(t.Context()) })
		all.Wait()
		if _, ok := b.HTTP("a.test", "t"); !ok {
			t.Error("the CA gets no answer")
		}
	})
}

// TestAnswersEnd: an answer ends on the node that has opened it, though a look has found it, and on others soon after.
func TestAnswersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var there []challenge.Answer
		b := challenge.NewBook(func(context.Context) ([]challenge.Answer, error) { return there, nil })
		b.SetNames([]string{"a.test"})
		answered := func(token string, want bool) {
			t.Helper()
			if _, ok := b.HTTP("a.test", token); ok != want {
				t.Errorf("%s is answered: %v", token, ok)
			}
		}
		mine := challenge.Answer{Name: "a.test", Token: "mine", KeyAuthorization: "mine.x"}
		theirs := challenge.Answer{Name: "a.test", Token: "theirs", KeyAuthorization: "theirs.x"}
		b.Open(mine)
		there = []challenge.Answer{mine, theirs}
		b.Refresh(t.Context())
		answered("mine", true)
		answered("theirs", true)
		b.Close(mine)
		answered("mine", false)
		answered("theirs", true)
		time.Sleep(2 * time.Minute)
		answered("theirs", false)
		b.Refresh(t.Context())
		answered("theirs", true)
	})
}
