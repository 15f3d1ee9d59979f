package acme_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
	"sallyport/listenerprofiles"
	"sallyport/listenerprofiles/acme"
)

const name = "a.test"

var wishes = []acme.Wish{{Name: name, Kinds: []string{acme.ECDSA}}}

// trouble waits until a certificate could not be had, and returns why.
func trouble(t testing.TB, n *node) (text string) {
	t.Helper()
	testserver.Eventually(t, "trouble", func() error {
		c := n.Certificate(name, acme.ECDSA)
		if c.Trouble == nil || c.Next.IsZero() {
			return errors.New("none")
		}
		text = c.Trouble.Error()
		return nil
	})
	return text
}

// TestWrongCertificate: a certificate that is of no use is not taken, here or by the next start; the good one serves on,
// and another order has a better one.
func TestWrongCertificate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		want string
		sign func(*fakeCA, *x509.CertificateRequest) []byte
	}{
		{"another key", func(ca *fakeCA, csr *x509.CertificateRequest) []byte {
			return ca.certificate(testpki.NewKey(t).Public(), name, now.Add(-time.Hour), now.Add(time.Hour))
		}},
		{"valid for other.test", func(ca *fakeCA, csr *x509.CertificateRequest) []byte {
			return ca.certificate(csr.PublicKey, "other.test", now.Add(-time.Hour), now.Add(time.Hour))
		}},
		{"it has ended", func(ca *fakeCA, csr *x509.CertificateRequest) []byte {
			return ca.certificate(csr.PublicKey, name, now.Add(-48*time.Hour), now.Add(-time.Hour))
		}},
		{"no certificate", func(*fakeCA, *x509.CertificateRequest) []byte { return []byte("<html>") }},
		{"no certificate", func(*fakeCA, *x509.CertificateRequest) []byte { return nil }},
		{"longer than 1 MiB", func(*fakeCA, *x509.CertificateRequest) []byte { return bytes.Repeat([]byte("x"), 2<<20) }},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			ca, folder := newFakeCA(t), t.TempDir()
			n := start(t, ca.CA, folder)
			n.Want(wishes)
			first := wait(t, n, name, acme.ECDSA, anyOne)
			ca.renewNow(first)
			ca.do(func() { ca.sign = func(csr *x509.CertificateRequest) []byte { return c.sign(ca, csr) } })
			n.stop()
			n = start(t, ca.CA, folder)
			n.Want(wishes)
			if text := trouble(t, n); !strings.Contains(text, c.want) {
				t.Error(text)
			}
			wait(t, n, name, acme.ECDSA, sameAs(first))
			n.stop()
			ca.do(func() { ca.sign = nil })
			n = start(t, ca.CA, folder)
			if now := n.Certificate(name, acme.ECDSA); now.Pair == nil || !now.Pair.Leaf.Equal(first) {
				t.Errorf("at the next start: %v", now.Trouble)
			}
			if c.want == "longer than 1 MiB" {
				return // the order is valid, and is looked at for a day
			}
			n.Want(wishes)
			wait(t, n, name, acme.ECDSA, otherThan(first))
			if got := ca.count(name); got != 3 {
				t.Errorf("%d orders", got)
			}
		})
	}
}

// TestHalfADirectory: a directory that lacks what is needed is read again.
func TestHalfADirectory(t *testing.T) {
	t.Parallel()
	ca := newFakeCA(t)
	ca.answer = func(w http.ResponseWriter, what string, _ int) bool {
		if what == "dir" {
			asJSON(w, 200, map[string]string{"newNonce": ca.url + "/nonce"})
		}
		return what == "dir"
	}
	n := start(t, ca.CA, t.TempDir())
	n.Want(wishes)
	trouble(t, n)
	ca.do(func() { ca.answer = nil })
	wait(t, n, name, acme.ECDSA, anyOne)
}

// TestRetryAfter: a CA that wants to be left alone is, for as long as it says and a day at most.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status         int
		kind, after    string
		atLeast, below time.Duration
	}{
		{429, "rateLimited", "", time.Hour, 2 * time.Hour},
		{429, "rateLimited", "7200", 2 * time.Hour, 3 * time.Hour},
		{429, "rateLimited", "300", 5 * time.Minute, 30 * time.Minute},
		{503, "serverInternal", "1800", 30 * time.Minute, time.Hour},
		{429, "", time.Now().Add(3 * time.Hour).UTC().Format(http.TimeFormat), 2 * time.Hour, 4 * time.Hour},
		{429, "rateLimited", "99999999", 23 * time.Hour, 30 * time.Hour},
		{500, "serverInternal", "7200", 0, time.Minute},
	} {
		t.Run(fmt.Sprint(c.status, c.kind, c.after), func(t *testing.T) {
			t.Parallel()
			ca := newFakeCA(t)
			ca.answer = func(w http.ResponseWriter, what string, _ int) bool {
				if what == "new" {
					w.Header().Set("Retry-After", c.after)
					if c.kind == "" {
						http.Error(w, "slow down", c.status)
					} else {
						problem(w, c.status, c.kind, "slow down")
					}
				}
				return what == "new"
			}
			n := start(t, ca.CA, t.TempDir())
			n.Want(wishes)
			trouble(t, n)
			wait := time.Until(n.Certificate(name, acme.ECDSA).Next)
			if wait < c.atLeast-time.Minute || wait > c.below {
				t.Errorf("the next attempt is in %s", wait)
			}
		})
	}
}

// TestPolls: a CA that wants to be asked again at once, or at no time that can be read, is asked once a second.
func TestPolls(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"0", "Sun, 06 Nov 1994 08:49:37 GMT", "soon"} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			ca, polls, began := newFakeCA(t), 0, time.Time{}
			ca.answer = func(w http.ResponseWriter, what string, n int) bool {
				switch what {
				case "chal":
					began = time.Now()
					asJSON(w, 200, map[string]string{"status": "processing", "type": "tls-alpn-01"})
					return true
				case "authz":
					w.Header().Set("Retry-After", after)
					if polls++; !began.IsZero() && time.Since(began) > 1500*time.Millisecond {
						ca.orders[n].proven, ca.orders[n].status = true, "ready"
					}
				}
				return false
			}
			n := start(t, ca.CA, t.TempDir())
			n.Want(wishes)
			wait(t, n, name, acme.ECDSA, anyOne)
			if polls > 6 {
				t.Errorf("asked %d times", polls)
			}
		})
	}
}

// TestLinksInCircles: links of a chain are not followed.
func TestLinksInCircles(t *testing.T) {
	t.Parallel()
	ca, asked := newFakeCA(t), 0
	ca.answer = func(w http.ResponseWriter, what string, n int) bool {
		if what == "cert" {
			asked++
			w.Header().Add("Link", fmt.Sprintf(`<%s/cert/%d>;rel="up"`, ca.url, n))
			w.Header().Add("Link", fmt.Sprintf(`<%s/cert/%d>;rel="alternate"`, ca.url, n))
		}
		return false
	}
	n := start(t, ca.CA, t.TempDir())
	n.Want(wishes)
	wait(t, n, name, acme.ECDSA, anyOne)
	if asked != 1 {
		t.Errorf("the chain was asked for %d times", asked)
	}
}

// TestLostAccount: a CA that has forgotten an account gets another one, once for all names that are ordered at once.
func TestLostAccount(t *testing.T) {
	t.Parallel()
	ca, folder := newFakeCA(t), t.TempDir()
	orders, together := 0, sync.WaitGroup{}
	together.Add(4)
	ca.before = func(what string) {
		if what != "new" {
			return
		}
		mine := 0
		ca.do(func() { orders++; mine = orders })
		if mine > 1 && mine <= 5 {
			together.Done()
			together.Wait()
		}
		for made := 1; mine == 5 && made < 2; time.Sleep(time.Millisecond) { // the last one hears late that the first is lost
			ca.do(func() { made = ca.made })
		}
	}
	n := start(t, ca.CA, folder)
	n.Want(wishes)
	wait(t, n, name, acme.ECDSA, anyOne)
	ca.do(func() { clear(ca.accounts) })
	many := []string{"b.test", "c.test", "d.test", "e.test"}
	var more []acme.Wish
	for _, one := range many {
		more = append(more, acme.Wish{Name: one, Kinds: []string{acme.ECDSA}})
	}
	n.Want(more)
	for _, one := range many {
		wait(t, n, one, acme.ECDSA, anyOne)
	}
	if ca.made != 2 {
		t.Errorf("%d accounts", ca.made)
	}
}

// TestWindowLater: a CA that gives no window with a certificate is asked again.
func TestWindowLater(t *testing.T) {
	t.Parallel()
	ca, folder := newFakeCA(t), t.TempDir()
	ca.answer = func(w http.ResponseWriter, what string, _ int) bool {
		if what == "ari" {
			http.Error(w, "later", 404)
		}
		return what == "ari"
	}
	n := start(t, ca.CA, folder)
	n.Want(wishes)
	first := wait(t, n, name, acme.ECDSA, anyOne)
	n.stop()
	ca.do(func() { ca.answer = nil })
	ca.renewNow(first)
	n = start(t, ca.CA, folder)
	n.Want(wishes)
	wait(t, n, name, acme.ECDSA, otherThan(first))
}

// TestCAThatHasLostWhatIsReplaced: what a renewal replaces is a hint. A CA that fails on it gets an order without.
func TestCAThatHasLostWhatIsReplaced(t *testing.T) {
	t.Parallel()
	ca, folder := newFakeCA(t), t.TempDir()
	n := start(t, ca.CA, folder)
	n.Want(wishes)
	first := wait(t, n, name, acme.ECDSA, anyOne)
	n.stop()
	ca.do(func() { ca.loses = true })
	ca.renewNow(first)
	n = start(t, ca.CA, folder)
	n.Want(wishes)
	wait(t, n, name, acme.ECDSA, otherThan(first))
	ca.do(func() {
		if ca.lost == 0 {
			t.Error("no order has named it")
		}
	})
}

// A quiet buffer is written to by many.
type quiet struct {
	mu sync.Mutex
	bytes.Buffer
}

func (q *quiet) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.Buffer.Write(p)
}

func (q *quiet) text() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.String()
}

// TestWhatIsLogged: what a CA says is bounded and printable wherever it is shown, and no secret is logged at any level.
func TestWhatIsLogged(t *testing.T) {
	t.Parallel()
	ca, log := newFakeCA(t), &quiet{}
	said := "\x1b[2J\u202e" + strings.Repeat("word ", 100_000)
	ca.answer = func(w http.ResponseWriter, what string, _ int) bool {
		if what == "finalize" {
			problem(w, 403, "unauthorized", said)
		}
		return what == "finalize"
	}
	n := start(t, ca.CA, t.TempDir(), func(o *acme.Options) {
		o.KeyID, o.HMAC = "the-key-id", "c2VjcmV0LWhtYWM"
		o.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	n.Want(wishes)
	trouble(t, n)
	order := orderOf(wishes)
	keys, err := n.Source(order).Keys(time.Now())
	if err != nil || keys.Trouble == nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"trouble": keys.Trouble.Error(), "log": log.text()} {
		if !strings.Contains(text, "word word") || strings.ContainsAny(text, "\x1b\u202e") {
			t.Errorf("%s: %.200q", where, text)
		}
		for line := range strings.Lines(text) {
			if len(line) > 5000 {
				t.Errorf("%s: a line of %d bytes: %.200q", where, len(line), line)
			}
		}
		for _, secret := range []string{"PRIVATE KEY", "c2VjcmV0LWhtYWM", "token-0."} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: %s is shown", where, secret)
			}
		}
	}
}

func orderOf(wishes []acme.Wish) listenerprofiles.Order {
	return listenerprofiles.Order{Names: []string{wishes[0].Name}, KeyTypes: wishes[0].Kinds}
}
