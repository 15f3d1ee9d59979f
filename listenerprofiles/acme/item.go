package acme

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// An item is the certificate of one name with a key of one kind.
type item struct {
	itemKey
	peeked  atomic.Bool // the storage has said what has served last
	wanted  atomic.Bool
	tending sync.Mutex // held by the task that tends it

	mu  sync.Mutex
	now Certificate

	// The rest belongs to the task that tends it.
	tidy     bool // nothing is left of an order whose certificate is stored
	failures int
	revoked  bool
	torn     bool // what certmagic keeps is not whole: a process was killed while it was written, or the disk was full
	asked    asked
	hold     time.Duration // for how long the CA wants to be left alone after the last attempt
}

// asked is when the CA is to be asked again about a certificate.
type asked struct {
	about     [sha256.Size]byte // its digest
	window    time.Time         // for the window in which it is to be renewed; zero: the CA suggests none
	responder time.Time         // whether it is revoked; zero: there is nobody to ask
}

// servedKey is where the certificate that serves is kept, with its key.
func (i *issuer) servedKey() string {
	return servedAt + safe(i.IssuerKey()) + "/" + safe(i.name) + ".pem"
}

func (m *Manager) issuer(it *item, s certmagic.Storage) *issuer {
	return &issuer{
		settings: m.cfg.Settings, client: m.client(), storage: s, log: m.cfg.Log, name: it.name, kind: it.kind,
		answers: answers{s, m.book, m.cfg.Log}, now: m.cfg.Now,
	}
}

// peek takes what has served last, without its staple, unless there is something newer.
func (m *Manager) peek(ctx context.Context, it *item) error {
	s, err := m.open(ctx)
	if err != nil {
		return err
	}
	pair, renews, err := m.issuer(it, s).lastServed(ctx, m.cfg.Now())
	if err != nil && !errors.As(err, new(unreadable)) {
		return fmt.Errorf("storage: %w", err)
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	it.peeked.Store(true)
	switch {
	case it.now.Pair != nil:
	case err != nil:
		it.now.Trouble = fmt.Errorf("storage: %w", err)
	case pair != nil:
		it.now.Pair, it.now.Renews, it.now.Trouble = pair, renews, nil
	}
	return nil
}

func (it *item) fail(err error, next time.Time) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.now.Trouble, it.now.Next = err, next
}

// note is fail where nothing is to be said of attempts.
func (it *item) note(err error) {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.now.Trouble == nil {
		it.now.Trouble = err
	}
}

func (it *item) current() Certificate {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.now
}

// tend sees to a certificate until ctx ends.
func (m *Manager) tend(ctx context.Context, it *item) error {
	it.tending.Lock() // the task before may not have ended yet
	defer it.tending.Unlock()
	for ctx.Err() == nil {
		wait := m.look(ctx, it)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// look takes what is in the storage, has it issued or renewed if that is due, and returns when to look again.
func (m *Manager) look(ctx context.Context, it *item) time.Duration {
	s, err := m.openSoon(ctx)
	if err == nil && !it.peeked.Load() {
		if err = m.peekSoon(ctx, it); err == nil && it.current().Pair != nil {
			m.cfg.Changed()
		}
	}
	if err == nil {
		err = m.take(ctx, it, s)
	}
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		m.failed(it, err)
		return m.wait(it)
	}
	if !it.tidy {
		it.tidy = m.tidy(ctx, it, s)
	}
	if m.due(it) && !m.cfg.Now().Before(it.current().Next) {
		if m.isIssuing(ctx, it, s) {
			return busyPause
		}
		if err = m.issue(ctx, it, s); err == nil {
			err = m.take(ctx, it, s)
		}
		if ctx.Err() != nil {
			return 0
		}
		if err == nil && m.due(it) {
			err = errors.New("the CA has issued a certificate that is due for renewal at once, by its end or by the window that " +
				"the CA suggests: look at the clocks")
		}
		if err != nil {
			m.failed(it, err)
		} else {
			m.succeeded(it)
		}
	}
	return m.wait(it)
}

// tidy forgets an order of which the certificate is stored: a process was killed between the two. It reports whether it
// could look; it does not wait for whoever issues.
func (m *Manager) tidy(ctx context.Context, it *item, s certmagic.Storage) bool {
	locker, ok := s.(certmagic.TryLocker)
	if !ok {
		return true // GenerateKey settles it with the next order
	}
	free, err := locker.TryLock(ctx, it.issueLock())
	if !free || err != nil {
		return false
	}
	i := m.issuer(it, s)
	defer i.unlock(ctx, it.issueLock())
	return i.settle(ctx) == nil
}

// isIssuing reports whether somebody has a certificate of the name issued just now, on this node or on another one. Who
// waits for it looks meanwhile what there is.
func (m *Manager) isIssuing(ctx context.Context, it *item, s certmagic.Storage) bool {
	locker, ok := s.(certmagic.TryLocker)
	if !ok {
		return false
	}
	free, err := locker.TryLock(ctx, it.issueLock())
	if err != nil {
		return false // who issues will say what is wrong
	}
	if free {
		_ = locker.Unlock(context.WithoutCancel(ctx), it.issueLock())
	}
	return !free
}

// issueLock is the lock that certmagic holds while a certificate of the name is issued. There is one for all kinds of
// keys: a CA that validates by TLS-ALPN-01 names nothing else by which two answers could be told apart.
func (k itemKey) issueLock() string { return "issue_cert_" + k.name }

func (m *Manager) openSoon(ctx context.Context) (certmagic.Storage, error) {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	return m.open(ctx)
}

func (m *Manager) peekSoon(ctx context.Context, it *item) error {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	return m.peek(ctx, it)
}

// due reports whether a certificate has to be had.
func (m *Manager) due(it *item) bool {
	c := it.current()
	return c.Pair == nil || it.revoked || it.torn || m.cfg.Now().After(c.Renews)
}

// wait is how long nothing is to be done.
func (m *Manager) wait(it *item) time.Duration {
	c, now := it.current(), m.cfg.Now()
	pause := lookPause
	if m.due(it) {
		pause = eagerPause
	}
	if c.Pair != nil {
		pause = min(pause, max(lifetime(c.Pair.Leaf)/50, 200*time.Millisecond)) // of another node's, too
	}
	if first := firstOf(c.Renews, c.Next, it.asked.window, it.asked.responder); first.After(now) {
		pause = min(pause, first.Sub(now)+time.Millisecond)
	}
	return max(pause, 10*time.Millisecond)
}

// failed notes and tells that a certificate could not be had.
func (m *Manager) failed(it *item, err error) {
	c, now := it.current(), m.cfg.Now()
	if now.Before(c.Next) && c.Trouble != nil {
		return // the storage, while the next attempt is not due
	}
	it.failures++
	life := time.Duration(0)
	attrs := []any{"name", it.name, "keys", it.kind, "error", shownError(err)}
	if c.Pair != nil {
		life = lifetime(c.Pair.Leaf)
		attrs = append(attrs, "serves_until", c.Pair.Leaf.NotAfter.UTC())
	}
	pause := max(pauseAfter(it.failures, life), it.hold)
	if it.hold == 0 && isProblem(err, acme.ProblemTypeRateLimited) {
		pause = max(pause, time.Hour)
	}
	it.hold = 0
	pause += time.Duration(rand.Int64N(int64(pause)/10 + 1))
	it.fail(err, now.Add(pause))
	level := m.cfg.Log.Warn
	if c.Pair == nil || now.After(c.Pair.Leaf.NotAfter) {
		level = m.cfg.Log.Error
	}
	level("a server certificate could not be had from the CA", append(attrs, "next_try_in", pause.Round(time.Second).String())...)
}

func (m *Manager) succeeded(it *item) {
	it.failures, it.revoked = 0, false
	it.mu.Lock()
	it.now.Trouble, it.now.Next = nil, time.Time{}
	c := it.now
	it.mu.Unlock()
	m.cfg.Log.Info("a server certificate was issued", "name", it.name, "keys", it.kind, "from", m.cfg.Settings.String(),
		"not_after", c.Pair.Leaf.NotAfter.UTC(), "renews", c.Renews.UTC())
}

// issue has certmagic obtain or renew the certificate, while no other node does.
func (m *Manager) issue(ctx context.Context, it *item, s certmagic.Storage) error {
	select {
	case m.busy <- struct{}{}:
		defer func() { <-m.busy }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, holdKey{}, &it.hold), orderTime)
	defer cancel()
	it.hold = 0
	i := m.issuer(it, s)
	cfg := certmagic.New(m.cache(), certmagic.Config{
		Issuers: []certmagic.Issuer{i}, KeySource: i, Storage: s, Logger: zapTo(m.cfg.Log),
		OCSP: certmagic.OCSPConfig{DisableStapling: true},
	})
	switch {
	case it.revoked || it.torn:
		return m.replace(ctx, it, i, cfg)
	case s.Exists(ctx, certmagic.StorageKeys.SiteMeta(i.IssuerKey(), it.name)):
		return cfg.RenewCertSync(ctx, it.name, false)
	}
	return cfg.ObtainCertSync(ctx, it.name)
}

// replace has a certificate issued in the place of one that is of no use, however long it would be valid, unless another
// node has done so.
func (m *Manager) replace(ctx context.Context, it *item, i *issuer, cfg *certmagic.Config) error {
	if useless, err := m.discard(ctx, it, i); err != nil || !useless {
		return err
	}
	return cfg.ObtainCertSync(ctx, it.name)
}

// discard has certmagic take a certificate that is of no use for none at all, and reports whether it still is of none. It
// holds certmagic's own lock: whoever is just writing another one has it.
func (m *Manager) discard(ctx context.Context, it *item, i *issuer) (useless bool, err error) {
	if err := i.storage.Lock(ctx, it.issueLock()); err != nil {
		return false, fmt.Errorf("storage: %w", err)
	}
	defer i.unlock(ctx, it.issueLock())
	if err := m.take(ctx, it, i.storage); err != nil || !it.revoked && !it.torn {
		return false, err
	}
	if err := i.settle(ctx); err != nil {
		return false, err
	}
	return true, forget(ctx, i.storage, certmagic.StorageKeys.SiteMeta(i.IssuerKey(), it.name))
}

// take takes over what is in the storage: certificate, renewal time and staple. None is no error.
func (m *Manager) take(ctx context.Context, it *item, s certmagic.Storage) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	i := m.issuer(it, s)
	stored, torn, err := i.stored(ctx)
	if err != nil {
		return err
	}
	now, before := m.cfg.Now(), it.current()
	if stored != nil && ended(stored.pair.Leaf, now) && before.Pair != nil && !ended(before.Pair.Leaf, now) {
		stored, torn = nil, true // somebody has put an old storage back: what serves is better
	}
	if it.torn = torn; stored == nil {
		return nil
	}
	if sum := sha256.Sum256(stored.pair.Leaf.Raw); it.asked.about != sum {
		it.asked = asked{about: sum}
	}
	next := before
	next.Pair, next.Renews = &stored.pair, renewalTime(stored.pair.Leaf, m.askRenewalTime(ctx, it, i, stored, now))
	st, problem := m.staple(ctx, s, next.Pair, now, it.asked.responder)
	if problem != nil {
		m.cfg.Log.Info("a server certificate has no new OCSP response", "name", it.name, "error", shownError(problem))
	}
	next.Pair.OCSPStaple, it.asked.responder = st.raw, st.refresh
	if st.revoked && !it.revoked {
		m.cfg.Log.Error("the CA has revoked a server certificate: another one is ordered", "name", it.name, "keys", it.kind)
	}
	it.revoked = st.revoked
	if before.sameAs(next) {
		next.Pair = before.Pair
	} else if err := i.serve(ctx, stored); err != nil {
		return err
	}
	it.mu.Lock()
	it.now = next
	it.mu.Unlock()
	if !m.due(it) {
		it.fail(nil, time.Time{})
		it.failures = 0
	}
	if next.Pair != before.Pair {
		m.cfg.Changed()
	}
	return nil
}

// sameAs reports whether both serve the same: chain and staple.
func (c Certificate) sameAs(o Certificate) bool {
	return c.Pair != nil && o.Pair != nil && bytes.Equal(c.Pair.OCSPStaple, o.Pair.OCSPStaple) &&
		slices.EqualFunc(c.Pair.Certificate, o.Pair.Certificate, bytes.Equal)
}

// A stored is what certmagic keeps of a certificate.
type stored struct {
	pair tls.Certificate
	key  []byte // PEM
	pem  []byte // the chain
	meta certmagic.CertificateResource
}

// stored reads what certmagic keeps; nil if that is nothing, or torn: a part is missing, or they don't belong together.
// What was served before is taken then.
func (i *issuer) stored(ctx context.Context) (st *stored, torn bool, err error) {
	st = &stored{}
	var meta []byte
	found := 0
	for _, one := range []struct {
		key string
		to  *[]byte
	}{
		{certmagic.StorageKeys.SitePrivateKey(i.IssuerKey(), i.name), &st.key},
		{certmagic.StorageKeys.SiteCert(i.IssuerKey(), i.name), &st.pem},
		{certmagic.StorageKeys.SiteMeta(i.IssuerKey(), i.name), &meta},
	} {
		switch *one.to, err = i.storage.Load(ctx, one.key); {
		case err == nil:
			found++
		case !errors.Is(err, fs.ErrNotExist):
			return nil, false, fmt.Errorf("storage: %w", err)
		}
	}
	if found < 3 {
		return nil, found > 0, nil
	}
	st.pair, err = tls.X509KeyPair(st.pem, st.key)
	if err != nil || st.pair.Leaf.VerifyHostname(i.name) != nil || json.Unmarshal(meta, &st.meta) != nil {
		return nil, true, nil
	}
	return st, false, nil
}

// serve keeps a certificate and its key as one value, from which the next start begins, and forgets the order.
func (i *issuer) serve(ctx context.Context, st *stored) error {
	value := slices.Concat(bytes.TrimRight(st.key, "\n"), []byte("\n"), st.pem)
	if same(ctx, i.storage, i.servedKey(), value) {
		return nil
	}
	if err := i.storage.Store(ctx, i.servedKey(), value); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	return i.settle(ctx)
}

// askRenewalTime returns the time that is selected in the window which the CA suggests, and asks for another one when the
// CA has said to (RFC 9773). What it says is kept where certmagic looks for it.
func (m *Manager) askRenewalTime(ctx context.Context, it *item, i *issuer, st *stored, now time.Time) time.Time {
	var of acme.Certificate
	if json.Unmarshal(st.meta.IssuerData, &of) != nil {
		it.asked.window = time.Time{}
		return time.Time{}
	}
	var info acme.RenewalInfo
	if of.RenewalInfo != nil {
		info = *of.RenewalInfo // without a window if the CA gave none when it issued the certificate
	}
	if id, err := acme.ARIUniqueIdentifier(st.pair.Leaf); err != nil || id != info.UniqueIdentifier {
		info = acme.RenewalInfo{} // of the certificate before: a process was killed while it was written
	}
	if info.RetryAfter != nil && now.Before(*info.RetryAfter) {
		it.asked.window = *info.RetryAfter
		return info.SelectedTime
	}
	if now.Before(it.asked.window) { // it did not answer
		return info.SelectedTime
	}
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	next, err := i.client.GetRenewalInfo(ctx, st.pair.Leaf)
	if errors.Is(err, acme.ErrUnsupported) {
		it.asked.window = now.Add(windowPause)
		return info.SelectedTime
	}
	if err != nil {
		m.cfg.Log.Info("the CA gives no new renewal time", "name", it.name, "error", shownError(err))
		it.asked.window = now.Add(askPause)
		return info.SelectedTime
	}
	if next.SameWindow(info) && !info.SelectedTime.IsZero() {
		next.SelectedTime = info.SelectedTime
	}
	if next.RetryAfter == nil {
		later := now.Add(windowPause)
		next.RetryAfter = &later
	}
	it.asked.window, of.RenewalInfo = *next.RetryAfter, &next
	if err := i.keepMeta(ctx, st, of); err != nil {
		m.cfg.Log.Warn("the CA's renewal time could not be kept", "name", it.name, "error", err)
	}
	return next.SelectedTime
}

// windowPause is when a CA that says nothing of it is asked again for the window (RFC 9773 section 4.3.2).
const windowPause = 6 * time.Hour

// keepMeta writes what the CA says of a certificate into certmagic's record of it.
func (i *issuer) keepMeta(ctx context.Context, st *stored, of acme.Certificate) (err error) {
	if st.meta.IssuerData, err = json.Marshal(of); err != nil {
		return err
	}
	data, err := json.MarshalIndent(st.meta, "", "\t")
	if err != nil {
		return err
	}
	return i.storage.Store(ctx, certmagic.StorageKeys.SiteMeta(i.IssuerKey(), i.name), data)
}
