package clientcert_test

import (
	"crypto/x509"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// issuing knows CAs that are registered, and nothing else.
type issuing struct{ issuers *trust.Issuers }

func (issuing) Registered([32]byte) bool  { return false }
func (i issuing) Issuers() *trust.Issuers { return i.issuers }

// A forgery is a door with a registered CA, and certificates without end that only seem to be of it.
type forgery struct {
	door  *clientcert.Door
	known issuing
	ca    *testpki.Identity
	like  *testpki.Identity
	made  uint64
}

func newForgery(t testing.TB, rsa bool) *forgery {
	t.Helper()
	ca := testpki.NewCA(t, "Root")
	if rsa {
		ca = testpki.SelfSigned(t, testpki.Leaf{CommonName: "Root", Key: testpki.NewRSA(t, 2048), Change: func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		}})
	}
	anchors, err := trust.New([]*x509.Certificate{ca.Cert})
	if err != nil {
		t.Fatal(err)
	}
	door := clientcert.NewDoor(clientcert.DoorConfig{Header: wso2, Rules: trust.Rules{Anchors: anchors}})
	return &forgery{door: door, known: issuing{trust.NewIssuers([]*x509.Certificate{ca.Cert})}, ca: ca, like: ca.Issue(between(-2, 2))}
}

// next is a request with another certificate, whose signature has the right form and is wrong.
func (f *forgery) next() lines {
	f.made++
	der := slices.Clone(f.like.Cert.Raw)
	end := der[len(der)-8:]
	binary.BigEndian.PutUint64(end, binary.BigEndian.Uint64(end)^f.made)
	return lines{wso2: {nginx(&testpki.Identity{Cert: &x509.Certificate{Raw: der}})}}
}

func (f *forgery) read(t testing.TB, r lines) error {
	t.Helper()
	c, err := f.door.Read(r, f.known, noon)
	if err != nil {
		t.Fatal(err)
	}
	return c.Check(noon)
}

// TestForgedAreExaminedForAShareOfTheTime: certificates that are not good take a quarter of the time at most. Meanwhile
// those that are known pass, others are not examined, and soon after they are.
func TestForgedAreExaminedForAShareOfTheTime(t *testing.T) {
	for name, rsa := range map[string]bool{"EC": false, "RSA": true} {
		t.Run(name, func(t *testing.T) {
			f := newForgery(t, rsa)
			old, fresh := lines{wso2: {nginx(f.ca.Issue(between(-2, 2)))}}, lines{wso2: {nginx(f.ca.Issue(between(-2, 2)))}}
			if err := f.read(t, old); err != nil {
				t.Fatal(err)
			}
			began, unexamined := time.Now(), 0
			for unexamined < 10_000 {
				switch cause := trust.CauseOf(f.read(t, f.next())); cause {
				case trust.Unexamined:
					unexamined++
				case trust.Untrusted, trust.Chain:
				default:
					t.Fatalf("a forged one is %q", cause)
				}
				if err := f.read(t, old); err != nil {
					t.Fatalf("one that is known: %v", err)
				}
			}
			elapsed := time.Since(began)
			count, took := f.door.Effort().Spent()
			if count == 0 || took > elapsed/4+time.Second/4 {
				t.Errorf("%d were examined, which took %v of %v", count, took, elapsed)
			}
			ended, err := time.Now(), error(nil)
			for err = f.read(t, fresh); trust.CauseOf(err) == trust.Unexamined && time.Since(ended) < 10*time.Second; err = f.read(t, fresh) {
				time.Sleep(time.Millisecond)
			}
			if err != nil {
				t.Errorf("a new one: %v", err)
			}
			t.Logf("%d examined in %v of %v, %d not; a new one was after %v", count, took, elapsed, unexamined, time.Since(ended))
		})
	}
}

// TestForeignNamesAreNotExamined: a certificate that names no issuer whom anybody knows costs no signature.
func TestForeignNamesAreNotExamined(t *testing.T) {
	f := newForgery(t, false)
	for range 100 {
		if f.read(t, lines{wso2: {nginx(testpki.NewCA(t, "Foreign").Issue(between(-2, 2)))}}) == nil {
			t.Fatal("it is good")
		}
	}
	if count, _ := f.door.Effort().Spent(); count != 0 {
		t.Errorf("%d were examined", count)
	}
}

// BenchmarkForged is what a forged certificate costs that is examined, before the Effort bounds it, and one that is not.
func BenchmarkForged(b *testing.B) {
	for name, rsa := range map[string]bool{"EC": false, "RSA": true} {
		f := newForgery(b, rsa)
		rules := f.door.Rules()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				b.StopTimer()
				f.door = clientcert.NewDoor(clientcert.DoorConfig{Header: wso2, Rules: *rules}) // without a debt
				r := f.next()
				b.StartTimer()
				if f.read(b, r) == nil {
					b.Fatal("it is good")
				}
			}
		})
	}
	f := newForgery(b, false)
	for count := int64(-1); ; {
		_ = f.read(b, f.next())
		now, _ := f.door.Effort().Spent()
		if now == count {
			break
		}
		count = now
	}
	b.Run("not examined", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			b.StopTimer()
			r := f.next()
			b.StartTimer()
			if f.read(b, r) == nil {
				b.Fatal("it is good")
			}
		}
	})
}
