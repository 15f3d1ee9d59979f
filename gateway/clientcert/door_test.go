package clientcert_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/gateway/clientcert"
	"sallyport/internal/testpki"
	"sallyport/listenerprofiles/trust"
)

// lines is a request of which only the headers matter.
type lines map[string][]string

func (lines) Method() string                { return "GET" }
func (lines) Target() string                { return "/" }
func (lines) Authority() string             { return "api.test" }
func (l lines) Values(name string) []string { return l[name] }
func (l lines) Count(match func(string) bool) (n int) {
	for name, values := range l {
		if match(name) {
			n += len(values)
		}
	}
	return n
}

const wso2 = "X-Wso2-Client-Certificate" // in the canonical form of a parsed request

// nginx encodes a certificate as $ssl_client_escaped_cert does.
func nginx(i *testpki.Identity) string {
	return strings.ReplaceAll(url.QueryEscape(string(i.CertPEM())), "+", "%20")
}

func only(list ...*testpki.Identity) func([sha256.Size]byte) bool {
	return func(fingerprint [sha256.Size]byte) bool {
		for _, i := range list {
			if sha256.Sum256(i.Cert.Raw) == fingerprint {
				return true
			}
		}
		return false
	}
}

// TestRead checks that a certificate from the header meets the same conditions as one from a handshake, and is registered.
func TestRead(t *testing.T) {
	root := testpki.NewCA(t, "Root")
	leaf, unregistered := root.Issue(between(-2, 2)), root.Issue(between(-2, 2))
	past, future := root.Issue(between(-2, -1)), root.Issue(between(1, 2))
	alone, server := testpki.SelfSigned(t, between(-2, 2)), root.IssueServer("server.test")
	stray, stranger := testpki.NewCA(t, "Root").Issue(between(-2, 2)), testpki.SelfSigned(t, between(-2, 2))
	registered := only(leaf, past, future, alone, server, stray)
	door := clientcert.NewDoor(clientcert.DoorConfig{Header: "X-WSO2-CLIENT-CERTIFICATE", Rules: trust.Rules{Anchors: trusting(t, root)}})

	for _, c := range []struct {
		name string
		who  *testpki.Identity
		good bool
	}{
		{"good", leaf, true},
		{"registered for no API", unregistered, false},
		{"expired", past, false},
		{"not valid yet", future, false},
		{"another root of that name", stray, false},
		{"self-signed", alone, true},
		{"self-signed, registered for no API", stranger, false},
		{"for servers", server, false},
	} {
		for range 2 { // the second time from memory
			got, err := door.Read(lines{wso2: {nginx(c.who)}}, knows(registered), noon)
			if err != nil || got == nil {
				t.Fatalf("%s: %v, %v", c.name, got, err)
			}
			if got.Fingerprint != sha256.Sum256(c.who.Cert.Raw) {
				t.Errorf("%s: got another certificate", c.name)
			}
			if err := got.Check(noon); (err == nil) != c.good {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}

	// An unregistered value is not parsed: it need not even be a certificate.
	junk, err := door.Read(lines{wso2: {base64.StdEncoding.EncodeToString([]byte("no certificate"))}}, knows(registered), noon)
	if err != nil || junk.Leaf != nil || junk.Check(noon) == nil {
		t.Errorf("junk: %+v, %v", junk, err)
	}
	junk, err = door.Read(lines{wso2: {base64.StdEncoding.EncodeToString([]byte("no certificate"))}}, knows(func([sha256.Size]byte) bool { return true }), noon)
	if err != nil || junk.Leaf != nil || junk.Check(noon) == nil {
		t.Errorf("junk that is registered: %+v, %v", junk, err)
	}

	// Without a trust store no certificate is good. Without the header there is no certificate and no error.
	untrusting := clientcert.NewDoor(clientcert.DoorConfig{Header: wso2})
	if got, err := untrusting.Read(lines{wso2: {nginx(leaf)}}, knows(registered), noon); err != nil || got.Check(noon) == nil {
		t.Errorf("without a trust store: %v", err)
	}
	for word, good := range map[trust.Registered]bool{trust.SelfSigned: true, trust.All: true, trust.None: false} {
		storeless := clientcert.NewDoor(clientcert.DoorConfig{Header: wso2, Rules: trust.Rules{Registered: word}})
		got, err := storeless.Read(lines{wso2: {nginx(alone)}}, knows(registered), noon)
		if err != nil || (got.Check(noon) == nil) != good || got.ByRegistration() != good {
			t.Errorf("self-signed, by %s: %v, %v", word, got.Check(noon), err)
		}
		if got, err := storeless.Read(lines{wso2: {nginx(stray)}}, knows(registered), noon); err != nil || (got.Check(noon) == nil) != (word == trust.All) {
			t.Errorf("of an unknown issuer, by %s: %v, %v", word, got.Check(noon), err)
		}
	}
	for _, r := range []lines{{}, {"Client-Cert": {nginx(leaf)}}, {"X-Wso2_client_certificate": {nginx(leaf)}}} {
		if got, err := door.Read(r, knows(registered), noon); got != nil || err != nil {
			t.Errorf("%v: %v, %v", r, got, err)
		}
	}
}

// TestReadRemembers checks that a good certificate is parsed once, and its validity checked on each call.
func TestReadRemembers(t *testing.T) {
	leaf := testpki.SelfSigned(t, between(-1, 1))
	door := clientcert.NewDoor(clientcert.DoorConfig{Header: wso2, Rules: trust.Rules{Anchors: trusting(t, leaf)}})
	asked := 0
	registered := func([sha256.Size]byte) bool { asked++; return true }
	read := func(at time.Time) *clientcert.Certificate {
		t.Helper()
		got, err := door.Read(lines{wso2: {nginx(leaf)}}, knows(registered), at)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := read(noon)
	before := asked
	if second := read(noon); first != second || first.Check(noon) != nil || asked != before {
		t.Errorf("asked %d times more", asked-before)
	}
	if late := read(noon.Add(2 * day)); late.Check(noon.Add(2*day)) == nil {
		t.Error("it is good after it has expired")
	}
	if again := read(noon); again.Check(noon) != nil {
		t.Error("it is not good once the clock is right again")
	}

	// A refused certificate is not remembered: it may be registered a moment later.
	known := false
	other := testpki.SelfSigned(t, between(-1, 1))
	door = clientcert.NewDoor(clientcert.DoorConfig{Header: wso2, Rules: trust.Rules{Anchors: trusting(t, other)}})
	for _, known = range []bool{false, true} {
		got, err := door.Read(lines{wso2: {nginx(other)}}, knows(func([sha256.Size]byte) bool { return known }), noon)
		if err != nil || (got.Check(noon) == nil) != known {
			t.Errorf("registered %v: %v, %v", known, got.Check(noon), err)
		}
	}
}

// TestReadIsNeverAmbiguous refuses two values and two headers of the kind, even if each is good by itself: the load balancer
// may have set one and the client the other.
func TestReadIsNeverAmbiguous(t *testing.T) {
	leaf := testpki.SelfSigned(t, between(-1, 1))
	good := nginx(leaf)
	door := clientcert.NewDoor(clientcert.DoorConfig{Header: "x-wso2-client-certificate", Rules: trust.Rules{Anchors: trusting(t, leaf)}})
	for name, r := range map[string]lines{
		"good, good":  {wso2: {good, good}},
		"good, bad":   {wso2: {good, "x"}},
		"bad, good":   {wso2: {"x", good}},
		"good, empty": {wso2: {good, ""}},
		"RFC 9440":    {wso2: {good}, "Client-Cert": {good}},
		"Envoy":       {wso2: {good}, "X-Forwarded-Client-Cert": {""}},
		"ALB":         {wso2: {good}, "X-Amzn-Mtls-Clientcert": {good}},
		"ALB, verify": {wso2: {good}, "X-Amzn-Mtls-Clientcert-Leaf": {good}},
		"X-SSL":       {wso2: {good}, "X-Ssl-Client-Cert": {good}},
		"Traefik":     {wso2: {good}, "X-Forwarded-Tls-Client-Cert": {good}},
		"Azure":       {wso2: {good}, "X-Arr-Clientcert": {good}},
		"Cloudflare":  {wso2: {good}, "Cf-Client-Cert-Der-Base64": {good}},
		"underscores": {wso2: {good}, "X_WSO2_CLIENT_CERTIFICATE": {good}}, // the load balancer's and the client's, or so
		"dots":        {wso2: {good}, "x.wso2.client.certificate": {""}},
		"two others":  {"X-Client-Cert": {good}, "Ssl-Client-Cert": {good}},
	} {
		if got, err := door.Read(r, knows(only(leaf)), noon); got != nil || !errors.Is(err, clientcert.ErrAmbiguous) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	got, err := door.Read(lines{wso2: {good + ", " + good}}, knows(only(leaf)), noon)
	if err != nil || got.Check(noon) == nil {
		t.Errorf("two in a line: %v", err)
	}
}

// TestReadChain checks that the other certificates of the chain help to build the path, and that what is remembered is
// the leaf together with that chain.
func TestReadChain(t *testing.T) {
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	leafText, chainText := read("rfc9440-client-cert.txt"), read("rfc9440-client-cert-chain.txt")
	members := strings.Split(chainText, ", ")
	rootDER, err := base64.StdEncoding.DecodeString(strings.Trim(members[1], ":"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(rootDER)
	if err != nil {
		t.Fatal(err)
	}
	all := func([sha256.Size]byte) bool { return true }
	at := time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC) // the example's certificates expired long ago
	door := clientcert.NewDoor(clientcert.DoorConfig{Header: "Client-Cert", Format: clientcert.RFC9440, Rules: trust.Rules{Anchors: trusting(t, &testpki.Identity{Cert: root})}})
	for _, c := range []struct {
		name  string
		chain []string
		good  bool
	}{
		{"without the chain", nil, false},
		{"with it", []string{chainText}, true},
		{"in two lines", members, true},
		{"without it again", nil, false},
		{"the root alone", members[1:], false},
		{"an empty one", []string{""}, false},
		{"a broken one", []string{chainText + ", :x:"}, false},
		{"no byte sequence", []string{chainText + ", x"}, false},
		{"too long a one", []string{strings.Repeat(members[0]+",", 8) + members[0]}, false},
		{"with it again", []string{chainText}, true},
	} {
		got, err := door.Read(lines{"Client-Cert": {leafText}, "Client-Cert-Chain": c.chain}, knows(all), at)
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Check(at); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for name, format := range map[string]clientcert.Format{"envoy-chain.txt": clientcert.XFCC, "alb-passthrough.txt": clientcert.ALB} {
		door := clientcert.NewDoor(clientcert.DoorConfig{Header: "Any", Format: format, Rules: trust.Rules{Anchors: trusting(t, &testpki.Identity{Cert: root})}})
		got, err := door.Read(lines{"Any": {read(name)}}, knows(all), at)
		if err != nil || got.Check(at) != nil {
			t.Errorf("%s: %v, %v", name, got.Check(at), err)
		}
	}
}

// TestKnows recognises load balancers by their socket's address, IPv4-mapped IPv6 included.
func TestKnows(t *testing.T) {
	var prefixes []netip.Prefix
	for _, p := range []string{"127.0.0.0/8", "10.1.2.3/32", "2001:db8::/32"} {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}
	door := clientcert.NewDoor(clientcert.DoorConfig{Balancers: prefixes})
	for address, want := range map[string]bool{
		"127.0.0.1": true, "::ffff:127.0.0.1": true, "127.255.255.255": true, "10.1.2.3": true, "::ffff:10.1.2.3": true, "2001:db8::1": true,
		"10.1.2.4": false, "::1": false, "::ffff:10.1.2.4": false, "::127.0.0.1": false, "2001:db9::1": false, "0.0.0.0": false, "::": false,
		"64:ff9b::7f00:1": false, "128.0.0.1": false,
	} {
		if got := door.Knows(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	if door.Knows(netip.Addr{}) || clientcert.NewDoor(clientcert.DoorConfig{}).Knows(netip.MustParseAddr("127.0.0.1")) {
		t.Error("an address that is in no prefix is known")
	}
}

// TestBalancer accepts as a load balancer's only a certificate under the load balancers' own trust store, while it is valid.
func TestBalancer(t *testing.T) {
	own := testpki.SelfSigned(t, between(-1, 1))
	other := testpki.SelfSigned(t, between(-1, 1))
	door := clientcert.NewDoor(clientcert.DoorConfig{BalancerTrust: trusting(t, own)})
	got := door.Balancer([]*x509.Certificate{own.Cert}, noon)
	if got == nil || got.Check(noon) != nil || got.Check(noon.Add(2*day)) == nil {
		t.Errorf("a certificate of the store: %v", got)
	}
	if door.Balancer([]*x509.Certificate{other.Cert}, noon) != nil || door.Balancer(nil, noon) != nil || door.Balancer([]*x509.Certificate{own.Cert}, noon.Add(2*day)) != nil {
		t.Error("a certificate outside the store, or an expired one, is a load balancer's")
	}
	if clientcert.NewDoor(clientcert.DoorConfig{}).Balancer([]*x509.Certificate{own.Cert}, noon) != nil {
		t.Error("a load balancer without a trust store")
	}
}

// seenBefore returns a door, a call whose certificate the door remembers, and a lookup that knows no certificate.
func seenBefore(t testing.TB) (*clientcert.Door, lines, func([sha256.Size]byte) bool) {
	t.Helper()
	leaf := testpki.SelfSigned(t, between(-1, 1))
	door := clientcert.NewDoor(clientcert.DoorConfig{Header: wso2, Rules: trust.Rules{Anchors: trusting(t, leaf)}})
	r := lines{wso2: {nginx(leaf)}}
	if got, err := door.Read(r, knows(only(leaf)), noon); err != nil || got.Check(noon) != nil {
		t.Fatal(got, err)
	}
	return door, r, only()
}

// BenchmarkDoorSeenBefore measures the header door's part of a call whose certificate it remembers.
func BenchmarkDoorSeenBefore(b *testing.B) {
	door, r, registered := seenBefore(b)
	b.ReportAllocs()
	for b.Loop() {
		if got, err := door.Read(r, knows(registered), noon); err != nil || got.Check(noon) != nil {
			b.Fatal(got, err)
		}
	}
}
