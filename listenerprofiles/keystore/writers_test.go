package keystore

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"software.sslmate.com/src/go-pkcs12"

	"sallyport/internal/testpki"
)

func pemBody(t testing.TB, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM: %.100s", text)
	}
	return block.Bytes
}

func openssl(t testing.TB, program string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// A workshop makes stores with everything but Java.
type workshop struct {
	t      *testing.T
	in     *inputs
	dir    string
	stores []madeStore
}

func (w *workshop) makeAll() {
	w.t.Helper()
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	w.byOpenSSL()
	w.byNSS()
	w.byGo()
	w.byHand()
	w.damaged()
}

// manifest writes what the helper program reads.
func (w *workshop) manifest() string {
	w.t.Helper()
	var lines bytes.Buffer
	for _, s := range w.stores {
		fmt.Fprintf(&lines, "%s\t%s\t%s\n", s.file, s.password, s.actualKeyPassword())
	}
	file := filepath.Join(w.dir, "manifest")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return file
}

func (s madeStore) actualKeyPassword() string {
	return keyPassword(Ref{Password: s.password, KeyPassword: s.keyPassword})
}

const storePassword = "changeit"

// put adds a store.
func (w *workshop) put(name string, data []byte) *madeStore {
	w.t.Helper()
	s := madeStore{file: filepath.Join(w.dir, name), password: storePassword}
	if err := os.WriteFile(s.file, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.stores = append(w.stores, s)
	return &w.stores[len(w.stores)-1]
}

func (w *workshop) read(name string) []byte {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// export adds a store that openssl pkcs12 writes.
func (w *workshop) export(name, identity string, args ...string) *madeStore {
	w.t.Helper()
	s := madeStore{file: filepath.Join(w.dir, name), password: storePassword}
	all := []string{"pkcs12", "-export", "-in", filepath.Join(w.in.dir, identity+".crt.pem"), "-out", s.file, "-iter", "1000"}
	for n, arg := range args {
		if arg == "-password" {
			s.password = args[n+1]
			args = append(append([]string{}, args[:n]...), args[n+2:]...)
			break
		}
	}
	if identity != "ca0" {
		all = append(all, "-inkey", filepath.Join(w.in.dir, identity+".key.pem"))
	}
	openssl(w.t, w.in.openssl, append(append(all, "-passout", "pass:"+s.password), args...)...)
	w.stores = append(w.stores, s)
	return &w.stores[len(w.stores)-1]
}

func (w *workshop) byOpenSSL() {
	above := filepath.Join(w.in.dir, "ec.above.pem")
	w.export("openssl.p12", "ec", "-name", "Gateway", "-certfile", above)
	w.export("openssl-rsa.p12", "rsa", "-name", "rsa", "-certfile", above)
	w.export("openssl-ed25519.p12", "ed", "-name", "ed", "-certfile", above)
	w.export("openssl-brainpool.p12", "brainpool", "-name", "brainpool")
	w.export("openssl-ed448.p12", "ed448", "-name", "ed448")
	w.export("openssl-p224.p12", "p224", "-name", "p224")
	w.export("openssl-unnamed.p12", "ec", "-certfile", above)
	w.export("openssl-caname.p12", "ec", "-name", "gateway", "-certfile", above, "-caname", "above", "-caname", "root")
	w.export("openssl-nokeys.p12", "ca0", "-nokeys")
	w.export("openssl-nocerts.p12", "ec", "-nocerts", "-name", "gateway")
	w.export("openssl-windows.p12", "ec", "-name", "gateway", "-CSP", "Microsoft Software Key Storage Provider", "-LMK")
	w.export("openssl-keyex.p12", "rsa", "-name", "gateway", "-keyex")
	w.export("openssl-legacy.p12", "ec", "-legacy", "-name", "gateway", "-certfile", above)
	w.export("openssl-descert.p12", "ec", "-legacy", "-descert", "-name", "gateway")
	w.export("openssl-nomac.p12", "ec", "-nomac", "-name", "gateway")
	w.export("openssl-nomac-wrong.p12", "ec", "-nomac", "-name", "gateway").password = "wrong"
	w.export("openssl-empty-password.p12", "ec", "-name", "gateway", "-password", "")
	w.export("openssl-legacy-empty-password.p12", "ec", "-legacy", "-name", "gateway", "-password", "")
	w.export("openssl-utf8.p12", "ec", "-name", "pörtal", "-password", "pässwörd").since = 25
	w.export("openssl-legacy-utf8.p12", "ec", "-legacy", "-name", "gateway", "-password", "日本語").correct = true
	w.export("openssl-wrong.p12", "ec", "-name", "gateway").password = "wrong"
	w.export("openssl-plain.p12", "ec", "-name", "gateway", "-keypbe", "NONE", "-certpbe", "NONE", "-nomac").plainKey = true
	w.export("openssl-plain-key.p12", "ec", "-name", "gateway", "-keypbe", "NONE").plainKey = true
	w.export("openssl-plain-certificates.p12", "ec", "-name", "gateway", "-certpbe", "NONE")
	for _, mac := range []string{"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha512-224", "sha512-256", "sha3-256"} {
		w.export("openssl-mac-"+mac+".p12", "ec", "-name", "gateway", "-macalg", mac)
	}
	for _, pbe := range []string{
		"aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "camellia-256-cbc", "des-ede3-cbc", "PBE-SHA1-3DES", "PBE-SHA1-2DES",
		"PBE-SHA1-RC2-40", "PBE-SHA1-RC2-128", "PBE-SHA1-RC4-40", "PBE-SHA1-RC4-128", "PBE-MD5-DES", "PBE-SHA1-DES",
	} {
		w.export("openssl-certpbe-"+pbe+".p12", "ec", "-legacy", "-name", "gateway", "-certpbe", pbe, "-keypbe", "PBE-SHA1-3DES")
		w.export("openssl-keypbe-"+pbe+".p12", "ec", "-legacy", "-name", "gateway", "-keypbe", pbe, "-certpbe", "PBE-SHA1-3DES")
	}
}

// byNSS has pk12util write two stores: its 600,000 iterations take everybody a while.
func (w *workshop) byNSS() {
	db := "sql:" + filepath.Join(w.dir, "nss")
	if err := os.Mkdir(filepath.Join(w.dir, "nss"), 0o700); err != nil {
		w.t.Fatal(err)
	}
	openssl(w.t, w.in.certutil, "-N", "-d", db, "--empty-password")
	openssl(w.t, w.in.pk12util, "-i", filepath.Join(w.dir, "openssl.p12"), "-d", db, "-W", storePassword, "-K", "")
	for name, args := range map[string][]string{
		"nss.p12":      nil,
		"nss-3des.p12": {"-c", "PKCS #12 V2 PBE With SHA-1 And 3KEY Triple DES-CBC", "-C", "PKCS #12 V2 PBE With SHA-1 And 40 Bit RC2 CBC"},
	} {
		file := filepath.Join(w.dir, name)
		openssl(w.t, w.in.pk12util, append([]string{"-o", file, "-n", "Gateway", "-d", db, "-W", storePassword, "-K", ""}, args...)...)
		w.stores = append(w.stores, madeStore{file: file, password: storePassword})
	}
}

// byGo has the library write what it can, PBMAC1 among it.
func (w *workshop) byGo() {
	w.t.Helper()
	chain := w.in.ec.Chain()
	for name, encoder := range map[string]*pkcs12.Encoder{
		"go-rc2.p12": pkcs12.LegacyRC2, "go-des.p12": pkcs12.LegacyDES, "go-2023.p12": pkcs12.Modern2023, "go-2026.p12": pkcs12.Modern2026,
		"go-passwordless.p12": pkcs12.Passwordless,
	} {
		password := storePassword
		if encoder == pkcs12.Passwordless {
			password = ""
		}
		data, err := encoder.Encode(w.in.ec.Key, chain[0], chain[1:], password)
		if err != nil {
			w.t.Fatal(err)
		}
		w.put(name, data).plainKey = encoder == pkcs12.Passwordless
		data, err = encoder.EncodeTrustStoreEntries([]pkcs12.TrustStoreEntry{
			{Cert: w.in.cas[0].Cert, FriendlyName: "Root CA"}, {Cert: w.in.cas[1].Cert, FriendlyName: "other"},
		}, password)
		if err != nil {
			w.t.Fatal(err)
		}
		w.put("trust-"+name, data)
	}
	w.put("go.jks", w.in.ec.JKS(storePassword))
	w.put("go-trust.jks", testpki.TrustJKS(w.t, storePassword, w.in.cas[0].Cert, w.in.cas[1].Cert))
	w.put("go-negative.jks", testpki.TrustJKSDER(w.t, storePassword, w.in.cas[0].Cert.Raw, w.in.negative))
	w.put("go-garbage.jks", testpki.TrustJKSDER(w.t, storePassword, w.in.cas[0].Cert.Raw, []byte("garbage")))
	w.put("go-half-a-certificate.jks", testpki.TrustJKSDER(w.t, storePassword, w.in.cas[0].Cert.Raw[:200]))
}

// Parts of a PKCS #12 file that is made by hand, without MAC.
func oidOf(t testing.TB, id asn1.ObjectIdentifier) []byte { return marshal(t, id) }

func attributeOf(t testing.TB, id asn1.ObjectIdentifier, values ...[]byte) []byte {
	return tlv(tagSequence, oidOf(t, id), tlv(tagSet, values...))
}

func (w *workshop) named(name string) []byte {
	var text []byte
	for _, u := range utf16.Encode([]rune(name)) {
		text = append(text, byte(u>>8), byte(u))
	}
	return attributeOf(w.t, oidFriendlyName, tlv(tagBMPString, text))
}

func (w *workshop) id(id string) []byte {
	return attributeOf(w.t, oidLocalKeyID, tlv(tagOctetString, []byte(id)))
}

func (w *workshop) trusted() []byte {
	return attributeOf(w.t, oidTrustedKeyUsage, oidOf(w.t, asn1.ObjectIdentifier{2, 5, 29, 37, 0}))
}

func (w *workshop) bag(kind asn1.ObjectIdentifier, content []byte, attributes ...[]byte) []byte {
	parts := [][]byte{oidOf(w.t, kind), tlv(tagContext0, content)}
	if len(attributes) > 0 {
		parts = append(parts, tlv(tagSet, attributes...))
	}
	return tlv(tagSequence, parts...)
}

func (w *workshop) cert(der []byte, attributes ...[]byte) []byte {
	x509Certificate := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	return w.bag(oidCertBag, tlv(tagSequence, oidOf(w.t, x509Certificate), tlv(tagContext0, tlv(tagOctetString, der))), attributes...)
}

func (w *workshop) file(safes ...[]byte) []byte {
	var all [][]byte
	for _, bags := range safes {
		all = append(all, tlv(tagSequence, oidOf(w.t, oidData), tlv(tagContext0, tlv(tagOctetString, bags))))
	}
	content := tlv(tagContext0, tlv(tagOctetString, tlv(tagSequence, all...)))
	return tlv(tagSequence, marshal(w.t, 3), tlv(tagSequence, oidOf(w.t, oidData), content))
}

func bags(b ...[]byte) []byte { return tlv(tagSequence, b...) }

// sealed returns a key as openssl seals it.
func (w *workshop) sealed(identity string) []byte {
	w.t.Helper()
	file := filepath.Join(w.dir, "sealed")
	openssl(w.t, w.in.openssl, "pkcs8", "-topk8", "-in", filepath.Join(w.in.dir, identity+".key.pem"), "-outform", "DER", "-out", file,
		"-iter", "1000", "-passout", "pass:"+storePassword)
	return w.read("sealed")
}

func (w *workshop) byHand() {
	w.t.Helper()
	ec, rsa := w.sealed("ec"), w.sealed("rsa")
	chain, other := w.in.ec.Chain(), w.in.rsa.Cert.Raw
	leaf, middle, issuing := chain[0].Raw, chain[2].Raw, chain[1].Raw
	ca := w.in.cas[0].Cert.Raw
	key := func(sealed []byte, attributes ...[]byte) []byte { return w.bag(oidSealedKeyBag, sealed, attributes...) }
	unknown := attributeOf(w.t, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 17, 2}, tlv(0x05))
	a, b := w.id("a"), w.id("b")
	for name, data := range map[string][]byte{
		"no-id":                 w.file(bags(key(ec, w.named("gw"))), bags(w.cert(leaf), w.cert(issuing), w.cert(middle))),
		"no-id-one-list":        w.file(bags(key(ec, w.named("gw")), w.cert(leaf), w.cert(issuing))),
		"no-id-certs-first":     w.file(bags(w.cert(leaf), w.cert(issuing)), bags(key(ec, w.named("gw")))),
		"no-id-two-keys":        w.file(bags(key(ec, w.named("gw"))), bags(key(rsa, w.named("rsa"))), bags(w.cert(leaf), w.cert(other))),
		"no-id-by-name":         w.file(bags(w.cert(issuing), w.cert(leaf, w.named("GW"))), bags(key(ec, w.named("gw")))),
		"unnamed":               w.file(bags(key(ec, a), key(rsa, b), w.cert(leaf, a), w.cert(other, b), w.cert(ca, w.trusted()))),
		"numbers-taken":         w.file(bags(w.cert(ca, w.named("1"), w.trusted()), w.cert(middle, w.trusted()))),
		"same-id":               w.file(bags(key(ec, a, w.named("x")), key(rsa, a, w.named("y")), w.cert(leaf, a, w.named("x")), w.cert(other, a, w.named("Y")))),
		"same-id-last":          w.file(bags(key(rsa, a, w.named("y")), w.cert(leaf, a), w.cert(other, a))),
		"same-alias":            w.file(bags(key(ec, a, w.named("X")), w.cert(leaf, a), w.cert(ca, w.named("x"), w.trusted()))),
		"same-alias-key-last":   w.file(bags(w.cert(ca, w.named("x"), w.trusted()), key(ec, a, w.named("X")), w.cert(leaf, a))),
		"same-alias-two-keys":   w.file(bags(key(rsa, b, w.named("x")), key(ec, a, w.named("X")), w.cert(leaf, a), w.cert(other, b))),
		"id-of-another":         w.file(bags(key(ec, b), w.cert(leaf, a))),
		"chain-with-trusted":    w.file(bags(key(ec, a), w.cert(leaf, a), w.cert(issuing, w.named("ca"), w.trusted()), w.cert(middle))),
		"trusted-with-id":       w.file(bags(key(ec, a), w.cert(leaf, a, w.trusted()))),
		"not-trusted":           w.file(bags(w.cert(ca, w.named("ca")))),
		"unknown-attribute":     w.file(bags(key(ec, unknown, a), w.cert(leaf, unknown, a, unknown))),
		"unknown-bag":           w.file(bags(w.bag(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 4}, bags()), w.cert(ca, w.trusted()))),
		"negative":              w.file(bags(w.cert(w.in.negative, w.named("neg"), w.trusted()), w.cert(ca, w.trusted()))),
		"garbage":               w.file(bags(w.cert([]byte("garbage"), w.trusted()), w.cert(ca, w.trusted()))),
		"garbage-in-key-bag":    w.file(bags(key(tlv(tagSequence, []byte("garbage")), a), key(rsa, b), w.cert(other, b))),
		"name-is-utf8":          w.file(bags(w.cert(ca, w.trusted(), attributeOf(w.t, oidFriendlyName, tlv(0x0c, []byte("x")))))),
		"id-is-no-octets":       w.file(bags(w.cert(ca, w.trusted(), attributeOf(w.t, oidLocalKeyID, tlv(0x0c, []byte("x")))))),
		"nothing":               w.file(),
		"no-bags":               w.file(bags()),
		"trailing":              append(w.file(bags(w.cert(ca, w.trusted()))), "\ntrailing"...),
		"not-trusted-attribute": w.file(bags(w.cert(ca, w.named("x"), attributeOf(w.t, oidTrustedKeyUsage)))),
	} {
		w.put("hand-"+name+".p12", data)
		w.put("hand-"+name+"-ber.p12", inBER(w.t, data, false))
		w.put("hand-"+name+"-pieces.p12", inBER(w.t, data, true))
	}
	for _, name := range []string{"openssl.p12", "openssl-legacy.p12", "openssl-nomac.p12"} {
		w.put("ber-"+name, inBER(w.t, w.read(name), false))
		w.put("pieces-"+name, inBER(w.t, w.read(name), true))
	}
}

// inBER rewrites every constructed value with a marked end, and long octet strings, if asked for, in two pieces.
func inBER(t testing.TB, der []byte, pieces bool) (ber []byte) {
	t.Helper()
	for c := cursor(der); len(c) > 0; {
		v, err := c.next()
		if err != nil {
			return append(ber, c...) // what trails
		}
		half := len(v.body) / 2
		switch {
		case v.tag&0x20 != 0:
			ber = append(append(append(ber, v.tag, 0x80), inBER(t, v.body, pieces)...), 0, 0)
		case pieces && half > 50 && (v.tag == tagOctetString || v.tag == 0x80):
			ber = append(append(ber, v.tag|0x20, 0x80), tlv(tagOctetString, v.body[:half])...)
			ber = append(append(ber, tlv(tagOctetString, v.body[half:])...), 0, 0)
		default:
			ber = append(ber, v.full...)
		}
	}
	return ber
}

// damaged adds what is left of good stores.
func (w *workshop) damaged() {
	for _, name := range []string{"openssl.p12", "openssl-plain.p12", "go.jks", "go-trust.jks"} {
		data := w.read(name)
		for n, size := range []int{0, 1, 4, 20, len(data) / 3, len(data) / 2, len(data) - 30, len(data) - 1} {
			w.put(fmt.Sprintf("cut-%d-%s", n, name), data[:size])
		}
		plain := strings.Contains(name, "plain")
		s := w.put("wrong-"+name, data)
		s.password, s.plainKey = "wrong", plain
		w.put("trailing-"+name, append(bytes.Clone(data), "\n\n"...)).plainKey = plain
		s = w.put("key-password-"+name, data)
		s.keyPassword, s.plainKey = "another", plain
		flipped := bytes.Clone(data)
		flipped[len(data)/2] ^= 0x40
		w.put("flipped-"+name, flipped)
	}
	w.put("certificate.der", w.in.ec.Cert.Raw)
}
