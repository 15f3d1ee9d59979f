package revocation

import (
	"fmt"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// warm is checkers whose answers about path are in memory.
func warm(t testing.TB) map[string]func() (*Checker, []*testpki.Identity) {
	root := newCA(t, "Root")
	inner := root.IssueCA("Inner", signsCRLs)
	ofRoot, ofInner := crl{}.pem(t, root), crl{}.pem(t, inner)
	return map[string]func() (*Checker, []*testpki.Identity){
		"CRL": func() (*Checker, []*testpki.Identity) {
			return run(t, Options{}).checker(Policy{CRL: []string{file(t, ofRoot), file(t, ofInner)}}),
				[]*testpki.Identity{inner.Issue(testpki.Leaf{}), inner, root}
		},
		"CRL of 50 MB": func() (*Checker, []*testpki.Identity) {
			der, ca := large()
			return run(t, Options{}).checker(Policy{CRL: []string{file(t, der)}}), []*testpki.Identity{ca.Issue(testpki.Leaf{}), ca}
		},
		"100 CRLs": func() (*Checker, []*testpki.Identity) {
			p := Policy{CRL: []string{file(t, ofRoot), file(t, ofInner)}}
			for i := range 98 {
				p.CRL = append(p.CRL, file(t, crl{}.pem(t, newCA(t, fmt.Sprint(i)))))
			}
			return run(t, Options{}).checker(p), []*testpki.Identity{inner.Issue(testpki.Leaf{}), inner, root}
		},
		"OCSP": func() (*Checker, []*testpki.Identity) {
			s := serving(t, answering(t, root, ocspAnswer{}))
			return run(t, Options{}).checker(Policy{OCSP: true, DistributionPoints: true}),
				[]*testpki.Identity{naming(root, nil, []string{s.URL}), root}
		},
		"distribution point": func() (*Checker, []*testpki.Identity) {
			s := serving(t, content(ofRoot))
			return run(t, Options{}).checker(Policy{DistributionPoints: true}), []*testpki.Identity{naming(root, []string{s.URL}, nil), root}
		},
	}
}

func BenchmarkStatus(b *testing.B) {
	for name, make := range warm(b) {
		b.Run(name, func(b *testing.B) {
			c, ids := make()
			p := path(ids[0], ids[1:]...)
			if a := asked(c, p); a.Status != Good {
				b.Fatalf("%+v", a)
			}
			now := time.Now()
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if c.Status(p, now).Status != Good {
						b.Error("not good")
					}
				}
			})
		})
	}
}
