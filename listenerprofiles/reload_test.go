package listenerprofiles

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"testing"

	"sallyport/listenerprofiles/keystore"
	"sallyport/listenerprofiles/trust"
)

// J132: a file is replaced after each read of it. What was checked is what serves.
func TestFileReplacedAfterEachRead(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "127.0.0.1")
	const n = 8
	var servers, clients [n]*party
	var keys, trusts [n][]byte
	for i := range n {
		servers[i], clients[i] = issue(t, fmt.Sprint(i), f.ca), issue(t, fmt.Sprint(i), nil, isCA)
		keys[i], trusts[i] = servers[i].pem(t), certPEM(clients[i])
	}
	reads := 0
	cfg := f.config()
	last := map[string]int{} // which content was read last
	cfg.ReadFile = func(path string) ([]byte, error) {
		reads++
		i := reads % n
		switch {
		case strings.HasSuffix(path, "server.pem"):
			last["key"] = i
			return keys[i], nil
		case strings.HasSuffix(path, "trust.pem"):
			last["trust"] = i
			return trusts[i], nil
		}
		return os.ReadFile(path)
	}
	var set *Set
	for range 1000 {
		var err error
		if set, err = Load(cfg, set); err != nil {
			t.Fatal(err)
		}
		for _, p := range set.Profiles() {
			server, client := servers[last["key"]].cert, clients[last["trust"]].cert
			served, err := p.TLS.GetCertificate(&tls.ClientHelloInfo{})
			if err != nil || !p.Leafs[0].Equal(server) || !bytes.Equal(served.Certificate[0], server.Raw) {
				t.Fatalf("serves %s, read was %s: %v", p.Leafs[0].Subject, server.Subject, err)
			}
			if !p.Trust.Certificates()[0].Equal(client) || !p.TLS.ClientCAs.Equal(askedFor(p.Trust)) {
				t.Fatalf("trusts %s, read was %s", p.Trust.Certificates()[0].Subject, client.Subject)
			}
		}
	}
}

// ReadStores leaves the file be until it is due, but for when something is broken that it may mend.
func TestReadStores(t *testing.T) {
	f := newFixture(t)
	cfg := f.config()
	set := f.load(t, "10.0.0.1")
	f.xml(t, "10.0.0.1 verify=require")
	if r := ReadStores(cfg, set); r.Set != set || r.Err != nil || r.Content == Read(cfg, set).Content {
		t.Errorf("the file was read: %+v", r.Err)
	}
	f.write(t, "trust.pem", certPEM(f.ca, f.other))
	r := ReadStores(cfg, set)
	if r.Err != nil || r.Set == set || r.Set.profiles[0].VerifyClient != Optional {
		t.Fatalf("the store was not read, or the file was: %v", r.Err)
	}
	if again := ReadStores(cfg, set, r.Set); again.Set != r.Set || again.Content != r.Content {
		t.Error("what was seen is not taken over")
	}
	f.write(t, "trust.pem", nil)
	broken := ReadStores(cfg, set)
	if broken.Err == nil || broken.Set != nil || broken.Content == r.Content || len(broken.Files) != 3 {
		t.Errorf("%+v", broken)
	}
	f.write(t, "trust.pem", []byte{10})
	if other := ReadStores(cfg, set); other.Err == nil || other.Content == broken.Content {
		t.Errorf("broken in another way: %v", other.Err)
	}
	f.xml(t, "10.0.0.1 trust=other.pem")
	cfg.Own.TrustStore.Location = f.path("other.pem")
	if r := ReadStores(cfg, set); r.Err != nil || r.Set.profiles[0].TrustStore.Location != f.path("other.pem") {
		t.Errorf("the file was not read, and would have mended it: %v", r.Err)
	}
	cfg.FilePath = ""
	if r := ReadStores(cfg, set); r.Err != nil || len(r.Files) != 2 {
		t.Errorf("%+v", r)
	}
}

// A profile is taken over only if its stores hold the same, and if the issuers that are asked for are the same.
func TestProfileKeyFollowsContents(t *testing.T) {
	f := newFixture(t)
	anchors, err := trust.Open(certPEM(f.other), keystore.Ref{})
	if err != nil {
		t.Fatal(err)
	}
	data := [][]byte{{1}, {2}}
	key := func(contents [][]byte, also *trust.Anchors, shown ...int) [32]byte {
		bounds := trust.Bounds{}
		if len(shown) > 0 {
			bounds = trust.Bounds{Bytes: shown[0], Certificates: shown[1], KeyBits: shown[2]}
		}
		return digest(Settings{}, contents[0], contents[1], Options{AlsoAskFor: also, Shown: bounds}).key
	}
	before := key(data, nil)
	vouching := digest(Settings{}, data[0], data[1], Options{Vouching: trust.All}).key
	for name, key := range map[string][32]byte{
		"word on registrations":    vouching,
		"key store":                key([][]byte{{3}, {2}}, nil),
		"trust store":              key([][]byte{{1}, {3}}, nil),
		"issuer that is asked for": key(data, anchors),
		"bound of bytes":           key(data, nil, 1, 0, 0),
		"bound of certificates":    key(data, nil, 0, 1, 0),
		"bound of keys":            key(data, nil, 0, 0, 1),
	} {
		if key == before {
			t.Errorf("another %s makes no other profile", name)
		}
	}
}
