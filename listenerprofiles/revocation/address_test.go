package revocation

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testpki"
	"sallyport/internal/testserver"
)

func TestAddress(t *testing.T) {
	ca := newCA(t, "CA")
	good, bad := ca.Issue(testpki.Leaf{}), ca.Issue(testpki.Leaf{})
	s := serving(t, status(http.StatusServiceUnavailable))
	var changes atomic.Int64
	r := run(t, Options{Retry: 20 * time.Millisecond, Changed: func() { changes.Add(1) }})
	c := r.checker(Policy{CRL: []string{s.URL + "/ca.crl"}, Refresh: 100 * time.Millisecond})
	if a := asked(c, path(good, ca)); a.Status != Unknown || a.Pending || !strings.Contains(a.Err.Error(), "status 503") {
		t.Fatalf("%+v", a)
	}
	r.problem("status 503")

	s.serves(content(crl{revoked: []*testpki.Identity{bad}}.der(t, ca)))
	eventually(t, c, path(good, ca), Good)
	eventually(t, c, path(bad, ca), Revoked)
	r.noProblem()
	testserver.Eventually(t, "Changed", func() error {
		if changes.Load() == 0 {
			return errors.New("it is not called")
		}
		return nil
	})

	s.serves(content(crl{number: 2, revoked: []*testpki.Identity{bad, good}}.pem(t, ca)))
	eventually(t, c, path(good, ca), Revoked)

	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		want  string
	}{
		{"an error", status(http.StatusInternalServerError), "status 500"},
		{"nothing", status(http.StatusOK), "it is empty"},
		{"no content", status(http.StatusNoContent), "status 204"},
		{"not modified, unasked", status(http.StatusNotModified), "status 304"},
		{"a page", content([]byte("<html>")), "no CRL"},
		{"an older list", content(crl{number: 1}.der(t, ca)), "older than the one in force"},
		{"another CA's", content(crl{number: 3}.der(t, newCA(t, "Other"))), "not there any more"},
		{"that of a CA of the same name", content(crl{number: 3}.der(t, newCA(t, "CA"))), "not signed by the key of the one before"},
		{"endless", endless, "larger than"},
		{"announced as huge", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(maxFile+1))
			_, _ = w.Write([]byte{0x30})
		}, "larger than"},
		{"cut short", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte{0x30})
		}, "EOF"},
		{"slow", dripping, "it sends less than"},
		{"compressed", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("Accept-Encoding: %s", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(crl{number: 3}.der(t, ca))
			z.Close()
		}, "no CRL"},
		{"of another host", redirect("http://localhost:1/ca.crl"), "redirects to another host"},
		{"of another kind", redirect("ftp://127.0.0.1/ca.crl"), "redirects to an address that is not asked"},
		{"of someone", redirect("http://a:b@127.0.0.1/ca.crl"), "redirects to an address that is not asked"},
		{"in a circle", redirect("/ca.crl"), "redirects more than 3 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.serves(tt.serve)
			r.problem(tt.want)
			if a := c.Status(path(good, ca), time.Now()); a.Status != Revoked { // by the last good one
				t.Errorf("%+v", a)
			}
		})
	}
	t.Run("elsewhere on the host", func(t *testing.T) {
		next := crl{number: 4}.der(t, ca)
		s.serves(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ca.crl" {
				http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
				http.Redirect(w, r, "/moved.crl", http.StatusMovedPermanently)
				return
			}
			if r.Header.Get("Cookie") != "" {
				t.Error("a cookie is sent")
			}
			_, _ = w.Write(next)
		})
		eventually(t, c, path(bad, ca), Good)
		r.noProblem()
	})
}

// TestValidators: those of a list that was fetched in the second in which it was written tell nothing of the next one.
func TestValidators(t *testing.T) {
	const date, later, latest = "Mon, 02 Jan 2006 15:04:05 GMT", "Mon, 02 Jan 2006 15:04:06 GMT", "Mon, 02 Jan 2006 15:04:07 GMT"
	for _, tt := range []struct {
		etag, modified, date string
		kept                 bool
	}{
		{`"a"`, "", later, true},
		{`"a"`, date, date, false},
		{`"a"`, date, later, false},
		{`"a"`, date, latest, true},
		{"", date, latest, true},
		{`"a"`, later, date, false},
		{`"a"`, date, "", false},
		{`"a"`, "yesterday", latest, false},
	} {
		h := http.Header{"Etag": {tt.etag}, "Last-Modified": {tt.modified}, "Date": {tt.date}}
		etag, modified := validators(h)
		if tt.kept && (etag != tt.etag || modified != tt.modified) || !tt.kept && etag+modified != "" {
			t.Errorf("%+v: %q, %q", tt, etag, modified)
		}
	}

	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	var list atomic.Pointer[[]byte]
	put := func(c crl) {
		der := c.der(t, ca)
		list.Store(&der)
	}
	put(crl{})
	now := time.Now().UTC().Format(http.TimeFormat)
	s := serving(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Date", now)
		w.Header().Set("Last-Modified", now)
		w.Header().Set("ETag", `"one"`)
		_, _ = w.Write(*list.Load())
	})
	c := run(t, Options{}).checker(Policy{CRL: []string{s.URL}, Refresh: 50 * time.Millisecond})
	if a := asked(c, path(leaf, ca)); a.Status != Good {
		t.Fatalf("%+v", a)
	}
	put(crl{number: 2, revoked: []*testpki.Identity{leaf}})
	eventually(t, c, path(leaf, ca), Revoked)
}

func TestAddressIsAskedForChangesOnly(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	var unchanged atomic.Int64
	der := crl{}.der(t, ca)
	s := serving(t, func(w http.ResponseWriter, r *http.Request) {
		const etag, date = `"one"`, "Mon, 02 Jan 2006 15:04:05 GMT"
		if r.Header.Get("If-None-Match") == etag && r.Header.Get("If-Modified-Since") == date {
			unchanged.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", etag)
		w.Header().Set("Last-Modified", date)
		_, _ = w.Write(der)
	})
	r := run(t, Options{})
	c := r.checker(Policy{CRL: []string{s.URL}, Refresh: 50 * time.Millisecond, MaxAge: 10 * time.Minute})
	if a := asked(c, path(leaf, ca)); a.Status != Good {
		t.Fatalf("%+v", a)
	}
	before, until := c.Generation(), c.Status(path(leaf, ca), time.Now()).Until
	testserver.Eventually(t, "304", func() error {
		if n := unchanged.Load(); n < 3 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	if s.calls.Load() > unchanged.Load()+2 || c.Generation() != before {
		t.Error("it is fetched again")
	}
	if a := c.Status(path(leaf, ca), time.Now()); a.Status != Good || !a.Until.After(until) {
		t.Errorf("%+v: it was had again, and ends at %v still", a, until)
	}
}

// TestSilentAddress: Await waits for a budget and not for the address, and only once.
func TestSilentAddress(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	s := serving(t, silent)
	r := run(t, Options{Budget: 300 * time.Millisecond})
	hard, soft := r.checker(Policy{CRL: []string{s.URL}}), r.checker(Policy{CRL: []string{s.URL}, Soft: true})
	if a := asked(hard, path(leaf, ca)); a.Status != Unknown || a.Pending {
		t.Errorf("%+v", a)
	}
	for range 100 { // nobody waits any more
		if a := soft.Status(path(leaf, ca), time.Now()); a.Status != Good || a.Pending {
			t.Errorf("%+v", a)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hard.Await(ctx, path(leaf, ca))
}

func TestHTTPS(t *testing.T) {
	ca, tls := newCA(t, "CA"), testpki.NewCA(t, "TLS")
	leaf := ca.Issue(testpki.Leaf{})
	secure := servingTLS(t, tls.IssueServer("127.0.0.1"), content(crl{}.der(t, ca)))
	roots := x509.NewCertPool()
	roots.AddCert(tls.Cert)
	if a := asked(run(t, Options{Roots: roots}).checker(Policy{CRL: []string{secure}}), path(leaf, ca)); a.Status != Good {
		t.Errorf("%+v", a)
	}
	if a := asked(run(t, Options{}).checker(Policy{CRL: []string{secure}}), path(leaf, ca)); a.Status != Unknown || !strings.Contains(a.Err.Error(), "certificate") {
		t.Errorf("%+v of somebody whose certificate nobody trusts", a)
	}
}

func TestDistributionPoints(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, nil)
	one, two := s.URL+"/1.crl", s.URL+"/2.crl"
	good, bad := naming(ca, []string{one}, nil), naming(ca, []string{one}, nil)
	elsewhere := naming(ca, []string{two}, nil)
	shard := func(at string) pkix.Extension { return critical(t, oidScope, scope{Name: named(at)}) }
	list := func(e ...pkix.Extension) []byte {
		return crl{revoked: []*testpki.Identity{bad}, extensions: e}.der(t, ca)
	}
	for _, tt := range []struct {
		name  string
		lists map[string][]byte
		leaf  *testpki.Identity
		want  Status
	}{
		{"good", map[string][]byte{"/1.crl": list()}, good, Good},
		{"revoked", map[string][]byte{"/1.crl": list()}, bad, Revoked},
		{"none is there", nil, good, Unknown},
		{"another CA's", map[string][]byte{"/1.crl": crl{}.der(t, newCA(t, "CA"))}, good, Unknown},
		{"a shard", map[string][]byte{"/1.crl": list(shard(one))}, good, Good},
		{"another shard", map[string][]byte{"/1.crl": list(shard(two))}, good, Unknown},
		{"a shard, that lists it", map[string][]byte{"/1.crl": list(shard(one))}, bad, Revoked},
		{"the other's list is nobody's", map[string][]byte{"/1.crl": list()}, elsewhere, Unknown},
		{"users only", map[string][]byte{"/1.crl": list(critical(t, oidScope, scope{OnlyUsers: true}))}, good, Good},
		{"CAs only", map[string][]byte{"/1.crl": list(critical(t, oidScope, scope{OnlyCAs: true}))}, good, Unknown},
		{"no point is named", map[string][]byte{"/1.crl": list()}, ca.Issue(testpki.Leaf{}), Unknown},
		{"nobody to ask", nil, naming(ca, []string{"ldap://127.0.0.1/cn=CA"}, nil), Unknown},
		{"someone's", nil, naming(ca, []string{"http://a:b@127.0.0.1/"}, nil), Unknown},
		{"the second of two", map[string][]byte{"/1.crl": list()}, naming(ca, []string{two, one}, nil), Good},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.serves(func(w http.ResponseWriter, r *http.Request) {
				if data := tt.lists[r.URL.Path]; data != nil {
					_, _ = w.Write(data)
					return
				}
				w.WriteHeader(http.StatusNotFound)
			})
			r := run(t, Options{})
			c := r.checker(Policy{DistributionPoints: true})
			for range 2 {
				if a := asked(c, path(tt.leaf, ca)); a.Status != tt.want || a.Pending {
					t.Errorf("%+v, want %v", a, tt.want)
				}
			}
			if tt.name == "another CA's" {
				r.problem("not signed by the issuer of the certificates that name it")
			}
			if a := r.checker(Policy{OCSP: true}).Status(path(tt.leaf, ca), time.Now()); a.Status != Unknown {
				t.Errorf("%+v although points are not looked at", a)
			}
		})
	}
}

// TestShardAlreadyThere: a shard for others does not keep the right one from being fetched.
func TestShardAlreadyThere(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, nil)
	one, two := s.URL+"/1.crl", s.URL+"/2.crl"
	lists := map[string][]byte{
		"/1.crl": crl{extensions: []pkix.Extension{critical(t, oidScope, scope{Name: named(s.URL + "/others.crl")})}}.der(t, ca),
		"/2.crl": crl{}.der(t, ca),
	}
	s.serves(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(lists[r.URL.Path]) })
	c := run(t, Options{}).checker(Policy{DistributionPoints: true})
	if a := asked(c, path(naming(ca, []string{one}, nil), ca)); a.Status != Unknown {
		t.Errorf("%+v", a)
	}
	if a := asked(c, path(naming(ca, []string{one, two}, nil), ca)); a.Status != Good {
		t.Errorf("%+v", a)
	}
}

// TestScopesOfFiles: a list of a file, too, says nothing of certificates that it is not about.
func TestScopesOfFiles(t *testing.T) {
	root := newCA(t, "Root")
	inner := root.IssueCA("Inner", signsCRLs)
	leaf, sharded := root.Issue(testpki.Leaf{}), naming(root, []string{"http://127.0.0.1/1.crl"}, nil)
	for _, tt := range []struct {
		name                 string
		scope                scope
		leaf, ca, shardedCRL Status
	}{
		{"all", scope{}, Good, Good, Good},
		{"users", scope{OnlyUsers: true}, Good, Unknown, Good},
		{"CAs", scope{OnlyCAs: true}, Unknown, Good, Unknown},
		{"a point", scope{Name: named("http://127.0.0.1/1.crl")}, Unknown, Unknown, Good},
		{"another point", scope{Name: named("http://127.0.0.1/2.crl")}, Unknown, Unknown, Unknown},
	} {
		at := file(t, crl{extensions: []pkix.Extension{critical(t, oidScope, tt.scope)}}.der(t, root))
		c, err := New(Options{}).Checker(Policy{CRL: []string{at}})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range []struct {
			id   *testpki.Identity
			want Status
		}{{leaf, tt.leaf}, {inner, tt.ca}, {sharded, tt.shardedCRL}} {
			if a := c.Status(path(one.id, root), time.Now()); a.Status != one.want {
				t.Errorf("%s: %+v, want %v", tt.name, a, one.want)
			}
		}
	}
}

func TestDeltas(t *testing.T) {
	ca := newCA(t, "CA")
	s := serving(t, status(http.StatusNotFound))
	at := s.URL + "/delta.crl"
	freshest := extension(t, oidFreshest, []point{{Name: named(at)}})
	plain, held, fresh := ca.Issue(testpki.Leaf{}), ca.Issue(testpki.Leaf{}), ca.Issue(testpki.Leaf{})
	pointing := ca.Issue(testpki.Leaf{Change: func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{freshest} }})
	hour := time.Now().Add(-time.Hour)
	base := crl{number: 5, revoked: []*testpki.Identity{held}}
	delta := crl{number: 7, base: 5, revoked: []*testpki.Identity{fresh, pointing}, removed: []*testpki.Identity{held}}
	ended := delta
	ended.this, ended.next = hour, time.Now().Add(-time.Minute)
	ahead := delta
	ahead.number, ahead.base = 9, 8
	newer := crl{number: 8, revoked: []*testpki.Identity{held}}
	scoped := delta
	scoped.extensions = []pkix.Extension{critical(t, oidScope, scope{OnlyUsers: true})}
	named := base
	named.extensions = []pkix.Extension{freshest}
	older := crl{number: 6, base: 5}
	for _, tt := range []struct {
		name               string
		files              []crl
		address            *crl // at freshestCRL
		points             bool
		plain, held, fresh Status
	}{
		{"the base", []crl{base}, nil, false, Good, Revoked, Good},
		{"with its delta", []crl{base, delta}, nil, false, Good, Good, Revoked},
		{"the newest delta counts", []crl{older, delta, base}, nil, false, Good, Good, Revoked},
		{"a delta that has ended", []crl{base, ended}, nil, false, Good, Revoked, Revoked},
		{"a delta to a newer base", []crl{base, ahead}, nil, false, Good, Revoked, Revoked},
		{"a delta that is older than the base", []crl{newer, delta}, nil, false, Good, Revoked, Good},
		{"a delta of another scope", []crl{base, scoped}, nil, false, Good, Revoked, Revoked},
		{"a delta alone that has ended", []crl{ended}, nil, false, Unknown, Unknown, Revoked},
		{"a delta alone", []crl{delta}, nil, false, Unknown, Unknown, Revoked},
		{"where the base says", []crl{named}, &delta, true, Good, Good, Revoked},
		{"where the base says, unasked", []crl{named}, &delta, false, Good, Revoked, Good},
		{"where the base says, and it is not", []crl{named}, nil, true, Good, Revoked, Good},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.serves(status(http.StatusNotFound))
			if tt.address != nil {
				s.serves(content(tt.address.der(t, ca)))
			}
			p := Policy{DistributionPoints: tt.points}
			for _, one := range tt.files {
				p.CRL = append(p.CRL, file(t, one.pem(t, ca)))
			}
			c := run(t, Options{}).checker(p)
			for _, one := range []struct {
				id   *testpki.Identity
				want Status
			}{{plain, tt.plain}, {held, tt.held}, {fresh, tt.fresh}} {
				if a := asked(c, path(one.id, ca)); a.Status != one.want || a.Pending {
					t.Errorf("%s: %+v, want %v", one.id.Cert.SerialNumber, a, one.want)
				}
			}
		})
	}
	t.Run("where the certificate says", func(t *testing.T) {
		s.serves(content(delta.der(t, ca)))
		c := run(t, Options{}).checker(Policy{CRL: []string{file(t, base.pem(t, ca))}, DistributionPoints: true})
		if a := asked(c, path(pointing, ca)); a.Status != Revoked {
			t.Errorf("%+v", a)
		}
	})
}

// TestPointsAreBounded: who names ever more distribution points is not served, and takes nobody's list away.
func TestPointsAreBounded(t *testing.T) {
	ca := newCA(t, "CA")
	der := crl{}.der(t, ca)
	s := serving(t, content(der))
	r := run(t, Options{})
	c := r.checker(Policy{DistributionPoints: true})
	for i := range maxPointLists {
		if a := asked(c, path(naming(ca, []string{fmt.Sprintf("%s/%d", s.URL, i)}, nil), ca)); a.Status != Good {
			t.Fatalf("point %d: %+v", i, a)
		}
	}
	if a := asked(c, path(naming(ca, []string{s.URL + "/more"}, nil), ca)); a.Status != Unknown || a.Pending || !strings.Contains(a.Err.Error(), "too many") {
		t.Errorf("%+v", a)
	}
	if a := asked(c, path(naming(ca, []string{s.URL + "/0"}, nil), ca)); a.Status != Good {
		t.Errorf("%+v", a)
	}
	r.forget(time.Now().Add(time.Hour))
	if a := asked(c, path(naming(ca, []string{s.URL + "/more"}, nil), ca)); a.Status != Good {
		t.Errorf("%+v when others are not in use any more", a)
	}
}

func TestCheckersShareAndAreForgotten(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	s := serving(t, content(crl{}.der(t, ca)))
	at := file(t, crl{}.pem(t, ca))
	r := run(t, Options{})
	one, two := r.checker(Policy{CRL: []string{at, s.URL}}), r.checker(Policy{CRL: []string{s.URL, at}, Refresh: 5 * time.Minute})
	if one != two {
		t.Error("equal policies have two checkers")
	}
	other := r.checker(Policy{CRL: []string{s.URL}, Soft: true})
	if other == one {
		t.Error("two policies have one checker")
	}
	for _, c := range []*Checker{one, other} {
		if a := asked(c, path(leaf, ca)); a.Status != Good {
			t.Errorf("%+v", a)
		}
	}
	if n := s.calls.Load(); n != 1 {
		t.Errorf("the address is asked %d times", n)
	}
	locations := func() (all []string) {
		for _, row := range r.State() {
			all = append(all, row.Location)
		}
		return all
	}
	r.Keep([]*Checker{other})
	if got := locations(); len(got) != 1 || got[0] != s.URL {
		t.Errorf("what is left: %q", got)
	}
	if again := r.checker(Policy{CRL: []string{at, s.URL}}); again == one {
		t.Error("a checker that is not in force is given out")
	}
	r.Keep(nil)
	if got := locations(); len(got) != 0 {
		t.Errorf("what is left: %q", got)
	}
}

func TestState(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	hour := time.Now().Add(-time.Hour).Truncate(time.Second)
	base, delta := file(t, crl{number: 3, revoked: []*testpki.Identity{leaf}}.pem(t, ca)), file(t, crl{number: 4, base: 3}.pem(t, ca))
	ended := file(t, crl{this: hour, next: hour.Add(time.Minute)}.pem(t, ca))
	s := serving(t, status(http.StatusNotFound))
	r := run(t, Options{})
	r.checker(Policy{CRL: []string{base, delta, ended, s.URL}})
	r.problem("status 404")
	rows := map[string]Source{}
	for _, row := range r.State() {
		rows[row.Location] = row
	}
	if row := rows[base]; row.Kind != File || row.Issuer != "CN=CA" || row.Entries != 1 || row.Number != "3" || row.Delta || row.Stale || row.Problem != "" {
		t.Errorf("%+v", row)
	}
	if row := rows[delta]; !row.Delta || row.Number != "4" || time.Since(row.Seen) > time.Minute {
		t.Errorf("%+v", row)
	}
	if row := rows[ended]; !row.Stale || !row.ThisUpdate.Equal(hour) || !row.NextUpdate.Equal(hour.Add(time.Minute)) {
		t.Errorf("%+v", row)
	}
	if row := rows[s.URL]; row.Kind != Address || !row.Stale || !strings.Contains(row.Problem, "status 404") || time.Since(row.Since) > time.Minute {
		t.Errorf("%+v", row)
	}
	testserver.Eventually(t, "log", func() error { return r.log.wants("CRL is stale", 1) })
}

// TestForgedListTakesNothingAway: who answers in place of an address cannot end what its issuer has said.
func TestForgedListTakesNothingAway(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	s := serving(t, content(crl{number: 5, revoked: []*testpki.Identity{leaf}}.der(t, ca)))
	r := run(t, Options{Retry: 10 * time.Millisecond})
	c := r.checker(Policy{CRL: []string{s.URL}, Refresh: 20 * time.Millisecond})
	if a := asked(c, path(leaf, ca)); a.Status != Revoked {
		t.Fatalf("%+v", a)
	}
	s.serves(content(crl{number: 1 << 40}.der(t, newCA(t, "CA"))))
	r.problem("not signed by the key of the one before")
	if a := c.Status(path(leaf, ca), time.Now()); a.Status != Revoked {
		t.Errorf("%+v", a)
	}
	s.serves(content(crl{number: 6}.der(t, ca))) // a good one is taken after it
	eventually(t, c, path(leaf, ca), Good)
}

func TestMaxAge(t *testing.T) {
	ca := newCA(t, "CA")
	leaf, bad := ca.Issue(testpki.Leaf{}), ca.Issue(testpki.Leaf{})
	der := crl{next: time.Now().Add(24 * time.Hour), revoked: []*testpki.Identity{bad}}.der(t, ca)
	s := serving(t, content(der))
	at := file(t, der)
	r := run(t, Options{Retry: 10 * time.Millisecond})
	address := r.checker(Policy{CRL: []string{s.URL}, MaxAge: 10 * time.Minute, Refresh: 50 * time.Millisecond})
	unbounded := r.checker(Policy{CRL: []string{s.URL}})
	onDisk := r.checker(Policy{CRL: []string{at}, MaxAge: 10 * time.Minute})
	for _, c := range []*Checker{address, unbounded, onDisk} {
		if a := asked(c, path(leaf, ca)); a.Status != Good {
			t.Fatalf("%+v", a)
		}
	}
	if a := unbounded.Status(path(leaf, ca), time.Now()); time.Until(a.Until) < 23*time.Hour {
		t.Errorf("%+v ends before nextUpdate", a)
	}
	s.serves(status(http.StatusInternalServerError))
	r.problem("status 500")
	before := address.Status(path(leaf, ca), time.Now()).Until
	if left := time.Until(before); left > 10*time.Minute || left < 5*time.Minute {
		t.Errorf("the answer ends in %v", left)
	}
	for _, tt := range []struct {
		name string
		c    *Checker
		leaf *testpki.Identity
		at   time.Time
		want Status
	}{
		{"before", address, leaf, before.Add(-time.Second), Good},
		{"after", address, leaf, before, Unknown},
		{"after, revoked", address, bad, before, Revoked},
		{"without MaxAge", unbounded, leaf, before.Add(time.Hour), Good},
		{"a file that nobody has looked at", onDisk, leaf, time.Now().Add(11 * time.Minute), Unknown},
	} {
		if a := tt.c.Status(path(tt.leaf, ca), tt.at); a.Status != tt.want {
			t.Errorf("%s: %+v, want %v", tt.name, a, tt.want)
		}
	}
	end := onDisk.Status(path(leaf, ca), time.Now()).Until
	testserver.Eventually(t, "looks at the file", func() error {
		if a := onDisk.Status(path(leaf, ca), time.Now()); !a.Until.After(end) {
			return fmt.Errorf("%+v", a)
		}
		return nil
	})
}

// TestSlowListsHoldUpNoResponder: lists and questions have turns of their own, of one host, too.
func TestSlowListsHoldUpNoResponder(t *testing.T) {
	ca := newCA(t, "CA")
	answers := answering(t, ca, ocspAnswer{})
	var lists atomic.Int64
	s := serving(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			lists.Add(1)
			silent(w, r)
			return
		}
		answers(w, r)
	})
	r := run(t, Options{Budget: time.Second})
	points := r.checker(Policy{DistributionPoints: true})
	for i := range 40 {
		leaf := naming(ca, []string{fmt.Sprintf("%s/%d", s.URL, i)}, nil)
		points.ask(path(leaf, ca), time.Now())
	}
	testserver.Eventually(t, "load", func() error {
		if n := lists.Load(); n != 4 {
			return fmt.Errorf("%d lists are asked for", n)
		}
		return nil
	})
	if a := asked(r.checker(Policy{OCSP: true}), path(naming(ca, nil, []string{s.URL}), ca)); a.Status != Good {
		t.Errorf("%+v", a)
	}
	r.checker(Policy{CRL: []string{file(t, crl{}.pem(t, ca))}}) // nor files
}

func TestIssuersAreBounded(t *testing.T) {
	ca := newCA(t, "CA")
	leaf := ca.Issue(testpki.Leaf{})
	r := New(Options{})
	c, err := r.Checker(Policy{CRL: []string{file(t, crl{}.pem(t, ca))}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxIssuers + 100 {
		other := *ca.Cert
		other.RawSubject = fmt.Appendf(nil, "%d", i)
		c.Status([]*x509.Certificate{leaf.Cert, &other}, time.Now())
	}
	if n := len(*r.issuers.Load()); n != maxIssuers {
		t.Errorf("%d issuers are remembered", n)
	}
	if a := c.Status(path(leaf, ca), time.Now()); a.Status != Good {
		t.Errorf("%+v", a)
	}
}

// TestStaleIsToldOnceAndItsEnd: by nextUpdate, and by the shortest maxAge of those who look there.
func TestStaleIsToldOnceAndItsEnd(t *testing.T) {
	ca := newCA(t, "CA")
	now := time.Now()
	var ahead atomic.Int64
	var away atomic.Bool
	s := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(crl{this: now.Add(-time.Hour), next: now.Add(9 * time.Hour)}.der(t, ca))
	})
	r := run(t, Options{Now: func() time.Time { return now.Add(time.Duration(ahead.Load())) }, Retry: time.Millisecond})
	r.checker(Policy{CRL: []string{s.URL}})
	r.checker(Policy{CRL: []string{s.URL}, MaxAge: time.Hour})
	stale := func(want bool) {
		t.Helper()
		testserver.Eventually(t, "stale", func() error {
			for _, row := range r.State() {
				if row.Issuer != "" && row.Stale == want {
					return nil
				}
			}
			return fmt.Errorf("want %v: %+v", want, r.State())
		})
	}
	stale(false)
	away.Store(true)
	ahead.Store(int64(2 * time.Hour))
	stale(true) // by maxAge
	testserver.Eventually(t, "log", func() error { return r.log.wants("CRL is stale", 1) })
	away.Store(false)
	ahead.Store(int64(3 * time.Hour))
	stale(false)
	testserver.Eventually(t, "log", func() error { return r.log.wants("CRL is not stale any more", 1) })
	away.Store(true)
	ahead.Store(int64(20 * time.Hour))
	stale(true) // by nextUpdate
	testserver.Eventually(t, "log", func() error { return r.log.wants("CRL is stale", 2) })
}
