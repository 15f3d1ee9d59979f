package certstore_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/certstore/certstoretest"
	"sallyport/internal/testpki"
)

// newDenials are denials of one certificate in each of the ways.
func newDenials(t testing.TB) []certstore.Denial {
	cert := newCertificate(t)
	list := []certstore.Denial{certstore.DenyCertificate(cert), certstore.DenySerial(cert), certstore.DenyKey(cert)}
	for i := range list {
		list[i].Since = time.Unix(1_800_000_000+int64(i), 0).UTC()
		list[i].Comment = strings.Repeat("é", i)
	}
	return list
}

// TestUnreadableDenials: a row that isn't what the program writes is named, and is not in the list; the others are.
func TestUnreadableDenials(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	denials := newDenials(t)
	certstoretest.Deny(t, s, denials...)
	serial := denials[1]
	digest := sha256.Sum256(serial.Issuer)
	raw := rawSQL(t, path)
	for name, row := range map[string][]any{
		"kind":                   {"subject", strings.Repeat("ab", 32), "", nil, "", 1},
		"an empty kind":          {"", strings.Repeat("ab", 32), "", nil, "", 1},
		"upper case":             {"spki", strings.Repeat("AB", 32), "", nil, "", 1},
		"short":                  {"fingerprint", "ab", "", nil, "", 1},
		"zeros":                  {"fingerprint", strings.Repeat("00", 32), "", nil, "", 1},
		"a serial of a key":      {"spki", strings.Repeat("ab", 32), "01", nil, "", 1},
		"no issuer":              {"serial", hex.EncodeToString(digest[:]), "01", nil, "", 1},
		"another issuer":         {"serial", strings.Repeat("ab", 32), "01", serial.Issuer, "", 1},
		"leading zeros":          {"serial", hex.EncodeToString(digest[:]), "0001", serial.Issuer, "", 1},
		"half a byte":            {"serial", hex.EncodeToString(digest[:]), "1", serial.Issuer, "", 1},
		"a serial in upper case": {"serial", hex.EncodeToString(digest[:]), "AB", serial.Issuer, "", 1},
		"an issuer that is none": {"serial", hex.EncodeToString(digest[:]), "01", []byte("CN=Root"), "", 1},
		"no time":                {"fingerprint", strings.Repeat("ab", 32), "", nil, "", "now"},
		"a comment of lines":     {"fingerprint", strings.Repeat("ab", 32), "", nil, "a\nb", 1},
	} {
		mustExec(t, raw, `INSERT INTO SALLYPORT_DENIAL (KIND, DIGEST, SERIAL_NUMBER, ISSUER, REMARK, SINCE) VALUES (?, ?, ?, ?, ?, ?)`, row...)
		list, unreadable, err := s.Denials(t.Context())
		if err != nil || len(unreadable) != 1 {
			t.Fatalf("%s: %v, %v", name, unreadable, err)
		}
		if text := unreadable[0].Error(); !strings.Contains(text, row[1].(string)) || !strings.Contains(text, "SALLYPORT_DENIAL") || strings.Contains(text, "\n") {
			t.Errorf("%s: it says %q", name, text)
		}
		certstoretest.ExpectSameDenials(t, list, denials)
		mustExec(t, raw, `DELETE FROM SALLYPORT_DENIAL WHERE KIND = ? AND DIGEST = ? AND SERIAL_NUMBER = ?`, row[:3]...)
	}
	certstoretest.ExpectDenials(t, s, denials...)
	list, _, err := s.Denials(t.Context())
	if err != nil || !list[0].Since.Equal(denials[0].Since) || list[0].ID() != denials[0].ID() || list[2].ID() != denials[2].ID() {
		t.Errorf("the oldest is not the first: %v, %v", list, err)
	}
}

// TestDenialsOfOlderTables: a database without the table has no denials while it is only read, and gets the table from the
// first that writes. One that has lost it is damaged.
func TestDenialsOfOlderTables(t *testing.T) {
	path := newFile(t)
	client := newClient(t, "acme")
	s := open(t, "sqlite:"+path, certstore.Options{})
	add(t, s, client)
	raw := rawSQL(t, path)
	mustExec(t, raw, `DROP TABLE SALLYPORT_DENIAL`)
	if list, _, err := s.Denials(t.Context()); err == nil {
		t.Errorf("without the table: %v", list)
	}
	mustExec(t, raw, `DELETE FROM SALLYPORT_SCHEMA WHERE VERSION >= 7`)
	certstoretest.ExpectDenials(t, open(t, "sqlite:"+path, certstore.Options{ReadOnly: true}))
	newer := open(t, "sqlite:"+path, certstore.Options{})
	denials := newDenials(t)
	certstoretest.Deny(t, newer, denials...)
	certstoretest.ExpectDenials(t, s, denials...)
	expectList(t, newer, client)
	var needs int
	if err := raw.QueryRow(`SELECT max(NEEDS) FROM SALLYPORT_SCHEMA`).Scan(&needs); err != nil || needs != 7 {
		t.Errorf("with a deny list the tables need a program of version %d, %v", needs, err)
	}
}

// TestTooManyDenials: the list takes so many, and one that another program made longer is no list.
func TestTooManyDenials(t *testing.T) {
	path := newFile(t)
	s := open(t, "sqlite:"+path, certstore.Options{})
	mustExec(t, rawSQL(t, path), fmt.Sprintf(`WITH RECURSIVE N(I) AS (SELECT 1 UNION ALL SELECT I + 1 FROM N WHERE I < %d)
		INSERT INTO SALLYPORT_DENIAL SELECT 'fingerprint', printf('%%064x', I), '', NULL, '', I FROM N`, certstore.MaxDenials-1))
	denials := newDenials(t)
	certstoretest.Deny(t, s, denials[0])
	if list, unreadable, err := s.Denials(t.Context()); len(list) != certstore.MaxDenials || len(unreadable) > 0 || err != nil {
		t.Errorf("%d denials, %v, %v", len(list), unreadable, err)
	}
	if added, err := s.AddDenial(t.Context(), denials[1]); added || err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("one more: %v, %v", added, err)
	}
	if added, err := s.AddDenial(t.Context(), denials[0]); added || err != nil {
		t.Errorf("one that is there: %v, %v", added, err)
	}
	mustExec(t, rawSQL(t, path), `INSERT INTO SALLYPORT_DENIAL VALUES ('fingerprint', '`+strings.Repeat("f", 64)+`', '', NULL, '', 1)`)
	if list, _, err := s.Denials(t.Context()); err == nil || !strings.Contains(err.Error(), "more than 100000") {
		t.Errorf("%d denials, %v", len(list), err)
	}
}

// TestNoDenialsInWSO2s: the database of WSO2 has no deny list, and whoever wants one reads what to do.
func TestNoDenialsInWSO2s(t *testing.T) {
	path := newFile(t)
	mustExec(t, rawSQL(t, path), `CREATE TABLE AM_API (API_ID INTEGER PRIMARY KEY, API_NAME TEXT, API_VERSION TEXT);
		CREATE TABLE AM_API_CLIENT_CERTIFICATE (TENANT_ID INTEGER, ALIAS TEXT, API_ID INTEGER, CERTIFICATE BLOB, REMOVED INTEGER, TIER_NAME TEXT)`)
	s := open(t, "sqlite:"+path, certstore.Options{})
	certstoretest.ExpectDenials(t, s)
	d := newDenials(t)[0]
	_, adding := s.AddDenial(t.Context(), d)
	for _, err := range []error{adding, s.RemoveDenial(t.Context(), d)} {
		if !errors.Is(err, certstore.ErrReadOnly) || !strings.Contains(err.Error(), "a store of its own") || !strings.Contains(err.Error(), "revocation list") {
			t.Errorf("it says %v", err)
		}
	}
}

// TestCopyDenials: the deny list comes along; a row of it that can't be read keeps everything where it is.
func TestCopyDenials(t *testing.T) {
	path := newFile(t)
	from, to := open(t, "sqlite:"+path, certstore.Options{}), open(t, "sqlite:"+newFile(t), certstore.Options{})
	theirs, ours := newDenials(t), newDenials(t)
	certstoretest.Deny(t, from, theirs...)
	certstoretest.Deny(t, to, append(ours, theirs[1])...)
	done, err := certstore.Copy(t.Context(), from, to)
	if err != nil || done.Denials != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	certstoretest.ExpectDenials(t, to, append(ours, theirs...)...)
	if done, err := certstore.Copy(t.Context(), from, to); err != nil || done.Denials != 0 {
		t.Errorf("again: %+v, %v", done, err)
	}
	add(t, from, newClient(t, "acme"))
	mustExec(t, rawSQL(t, path), `UPDATE SALLYPORT_DENIAL SET DIGEST = 'x' WHERE KIND = 'spki'`)
	if done, err := certstore.Copy(t.Context(), from, to); err == nil || !strings.Contains(err.Error(), "spki x") {
		t.Errorf("with a row that can't be read: %+v, %v", done, err)
	}
	expectList(t, to)
}

// TestSnapshotOfDenials: one without denials is what older programs write and read; a line that is no denial is an error.
func TestSnapshotOfDenials(t *testing.T) {
	s, text := written(t)
	s.Denials = nil
	var older bytes.Buffer
	if err := s.Write(&older); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(older.String(), "deny") || strings.Count(text, `{"deny":`) != 3 {
		t.Errorf("%s%s", older.String(), text)
	}
	if got, err := certstore.ParseSnapshot(&older); err != nil || len(got.Denials) != 0 || len(got.Clients) != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	sealed := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return text + "sha256 " + hex.EncodeToString(sum[:]) + "\n"
	}
	head := text[:strings.Index(text, `{"api"`)]
	for name, line := range map[string]string{
		"kind":        `{"deny":"subject","digest":"` + strings.Repeat("ab", 32) + `","since":1}`,
		"no digest":   `{"deny":"spki","since":1}`,
		"no issuer":   `{"deny":"serial","digest":"` + strings.Repeat("ab", 32) + `","serial":"01","since":1}`,
		"more":        `{"deny":"spki","digest":"` + strings.Repeat("ab", 32) + `","since":1,"until":2}`,
		"another one": `{"denied":"spki"}`,
	} {
		if got, err := certstore.ParseSnapshot(strings.NewReader(sealed(head + line + "\n"))); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	good := `{"deny":"spki","digest":"` + strings.Repeat("ab", 32) + `","since":1}`
	if got, err := certstore.ParseSnapshot(strings.NewReader(sealed(head + good + "\n"))); err != nil || len(got.Denials) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseDigest(t *testing.T) {
	digest := sha256.Sum256([]byte("a"))
	digits := hex.EncodeToString(digest[:])
	var colons []string
	for i := range digest {
		colons = append(colons, strings.ToUpper(digits[2*i:2*i+2]))
	}
	divided := strings.Join(colons, ":")
	for _, text := range []string{
		digits, strings.ToUpper(digits), divided, strings.ToLower(divided), " " + divided + "\n", strings.Join(colons, " "),
		"sha256 Fingerprint=" + divided, "SHA256 Fingerprint=" + divided, "sha256:" + digits, "SHA-256: " + digits,
		base64.StdEncoding.EncodeToString(digest[:]), base64.RawStdEncoding.EncodeToString(digest[:]), base64.URLEncoding.EncodeToString(digest[:]),
		"sha256/" + base64.StdEncoding.EncodeToString(digest[:]),
	} {
		if got, err := certstore.ParseDigest(text); err != nil || got != digest {
			t.Errorf("%q: %x, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "sha256:", "sha256/", digits[:63], digits + "0", digits[:63] + "g", strings.Repeat("0", 64), strings.Repeat("A", 43), "=" + digits,
		base64.StdEncoding.EncodeToString(digest[:31]), base64.StdEncoding.EncodeToString(append(digest[:], 0)),
		base64.RawStdEncoding.EncodeToString(digest[:])[:42] + "/", // bits that stand for nothing are set
		"0x" + digits, strings.Repeat("a", 1<<20), digits + "," + digits,
	} {
		if got, err := certstore.ParseDigest(text); !errors.Is(err, certstore.ErrInvalid) || len(err.Error()) > 8<<10 {
			t.Errorf("%.100q: %x, %v", text, got, err)
		}
	}
	if _, err := certstore.ParseDigest("SHA1 Fingerprint=" + divided[:59]); err == nil {
		t.Error("a SHA-1 is taken")
	}
	if _, err := certstore.ParseDigest(digits[:40]); err == nil || !strings.Contains(err.Error(), "SHA-1") {
		t.Errorf("of a SHA-1 it says %v", err)
	}
}

func TestParseSerial(t *testing.T) {
	for text, want := range map[string]string{
		"0a01": "0a01", "A01": "0a01", "0A:01": "0a01", "00:00:0a:01": "0a01", "0x0A01": "0a01", "0X0a01": "0a01", "serial=0A01": "0a01",
		"decimal:2561": "0a01", "Decimal:0002561": "0a01", "10": "10", "decimal:10": "0a", "0": "", "00": "", "decimal:0": "",
		"ff01": "ff01", " 0a 01 ": "0a01", strings.Repeat("ff", 64): strings.Repeat("ff", 64), strings.Repeat("00", 100) + "1": "01",
	} {
		if got, err := certstore.ParseSerial(text); err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%q: %x, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "0x", "decimal:", "-1", "decimal:-1", "-0x1", "+1", "decimal:+1", "1_0", "decimal:1_0", "xyz", "decimal:ff", "0x0x1", "1.5", "1e3g",
		strings.Repeat("ff", 65), "decimal:" + strings.Repeat("9", 200), strings.Repeat("1", 1<<20), "decimal:0x10",
	} {
		if got, err := certstore.ParseSerial(text); !errors.Is(err, certstore.ErrInvalid) || got != nil {
			t.Errorf("%.100q: %x, %v", text, got, err)
		}
	}
	if _, err := certstore.ParseSerial("-5"); !strings.Contains(err.Error(), "negative") {
		t.Errorf("of a negative one it says %v", err)
	}
}

func TestNameIs(t *testing.T) {
	der := func(change func(*pkix.Name)) []byte {
		name := pkix.Name{CommonName: "Partner CA, 1", Organization: []string{"Example + Söhne"}, Country: []string{"DE"}, Province: []string{"Bayern"}}
		if change != nil {
			change(&name)
		}
		b, err := asn1.Marshal(name.ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	name := der(nil)
	for _, text := range []string{
		certstore.NameText(name), `CN=Partner CA\, 1,O=Example \+ Söhne,ST=Bayern,C=DE`, `C=DE, ST=Bayern, O=Example \+ Söhne, CN=Partner CA\, 1`,
		`cn = Partner CA\2c 1 ; o = Example \2B S\c3\b6hne;s=Bayern;c=DE`,
	} {
		if !certstore.NameIs(name, text) {
			t.Errorf("%q is not %q", text, certstore.NameText(name))
		}
	}
	for _, text := range []string{
		"", " ", `CN=Partner CA\, 1`, `CN=partner ca\, 1,O=Example \+ Söhne,ST=Bayern,C=DE`, `CN=Partner CA, 1,O=Example \+ Söhne,ST=Bayern,C=DE`,
		`CN=Partner CA\, 1,ST=Bayern,O=Example \+ Söhne,C=DE`, `CN=Partner CA\, 1,O=Example \+ Söhne,ST=Bayern,C=DE,`,
		`CN=Partner CA\, 1,O=Example + Söhne,ST=Bayern,C=DE`, strings.Repeat("CN=a,", 10_000), `\`, "=",
	} {
		if certstore.NameIs(name, text) {
			t.Errorf("%.100q is %q", text, certstore.NameText(name))
		}
	}
	if other := der(func(n *pkix.Name) { n.CommonName = "Other" }); certstore.NameIs(other, certstore.NameText(name)) {
		t.Error("another name is the same")
	}
}

// FuzzDenialTexts: whatever is read of a text is what the program writes for it.
func FuzzDenialTexts(f *testing.F) {
	for _, text := range []string{"", "0a:01", "decimal:12", "sha256/" + strings.Repeat("A", 43), `CN=a\,b+O=c,C=DE`, strings.Repeat("ab", 32), `\`, `CN=\ a\ `} {
		f.Add(text)
	}
	cert := testpki.SelfSigned(testpki.Panic, testpki.Leaf{CommonName: "client"}).Cert
	f.Fuzz(func(t *testing.T, text string) {
		if digest, err := certstore.ParseDigest(text); err == nil {
			if again, err := certstore.ParseDigest(hex.EncodeToString(digest[:])); err != nil || again != digest {
				t.Errorf("%q: %x, and then %x, %v", text, digest, again, err)
			}
		}
		if serial, err := certstore.ParseSerial(text); err == nil {
			if again, err := certstore.ParseSerial("0" + hex.EncodeToString(serial)); err != nil || !slices.Equal(again, serial) {
				t.Errorf("%q: %x, and then %x, %v", text, serial, again, err)
			}
		}
		if certstore.NameIs(cert.RawSubject, text) && !strings.Contains(text, "=") {
			t.Errorf("%q is a name", text)
		}
	})
}
