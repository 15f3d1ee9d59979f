package main_test

import (
	"crypto/tls"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testpki"
)

// TestServerCertificateEndsInService: a server certificate ends while it is served. Readiness, log and metrics tell before
// and after, the gateway serves on, and takes a renewed one up without a restart. Held: fault R14, security J 130.
func TestServerCertificateEndsInService(t *testing.T) {
	d := newDemo(t, fast...)
	p := d.quickstart()
	ca, password := d.demoCA(), d.password("gateway")
	swap := func(end time.Time) *big.Int {
		server := ca.Issue(testpki.Leaf{
			CommonName: "renewed", DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: end, Usages: testpki.ServerOnly,
		})
		d.swap("stores/gateway.jks", string(server.JKS(password)))
		return server.Cert.SerialNumber
	}
	served := func(serial *big.Int) bool {
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.Ports.HTTPS), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(serial) == 0
	}
	metric := func() string {
		return p.metric(`sallyport_server_certificate_expiry_timestamp_seconds{key="ECDSA",listener="https",profile="listener https"}`)
	}

	var brief *big.Int
	var end time.Time
	for left := 4 * time.Second; ; left *= 2 { // on a busy machine one may have ended before it is taken up
		end = time.Now().Add(left).Truncate(time.Second)
		brief = swap(end)
		for !served(brief) && time.Now().Before(end) {
			time.Sleep(10 * time.Millisecond)
		}
		if served(brief) {
			break
		}
	}
	stamp := end.UTC().Format(time.RFC3339)
	eventually(t, "the log warns of the end", func() bool {
		return p.stderr.contains("a certificate ends soon") && p.stderr.contains("CN=renewed")
	})
	eventually(t, "the certificate has ended", func() bool { return time.Now().After(end) })
	eventually(t, "the log tells of the end", func() bool { return p.stderr.contains("a certificate has ended") })
	if text := p.ready(); !strings.Contains(text, "certificate of listener https: CN=renewed (ECDSA) from ") || !strings.Contains(text, " has ended on "+stamp) {
		t.Errorf("readiness: %q", text)
	}
	if got, want := metric(), fmt.Sprintf("%.10g", float64(end.Unix())); !sameNumber(got, want) {
		t.Errorf("the metric says %s, and it has ended at %s", got, want)
	}
	if !served(brief) {
		t.Error("the old certificate is not served any more")
	}

	end = time.Now().Add(60 * 24 * time.Hour).Truncate(time.Second)
	next, began := swap(end), time.Now()
	eventually(t, "the renewed certificate is served", func() bool { return served(next) })
	if took := time.Since(began); took > 10*(100*time.Millisecond+2*time.Second) {
		t.Errorf("it took %v", took)
	}
	eventually(t, "readiness and metrics tell of the renewed one", func() bool {
		return strings.Contains(p.ready(), " ends on "+end.UTC().Format(time.RFC3339)+", in 59 days; ") && sameNumber(metric(), fmt.Sprint(end.Unix()))
	})
	p.stopClean()

	swap(time.Now().Add(-50 * time.Hour)) // which no gateway would start with
	if code, out, errs := d.run("certificates", "--kind", "server", "--within", "1d", "--fail"); code != 1 || !strings.Contains(out, "listener https: CN=renewed ") || !strings.Contains(out, "  ENDED 2 days ago  by hand  stores/gateway.jks\n") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func sameNumber(x, y string) bool {
	var a, b float64
	_, errA := fmt.Sscan(x, &a)
	_, errB := fmt.Sscan(y, &b)
	return errA == nil && errB == nil && a == b
}
