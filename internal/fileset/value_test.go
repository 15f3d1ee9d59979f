package fileset_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"filippo.io/age"

	"sallyport/internal/fileset"
)

func sealValue(t testing.TB, key fileset.Key, name, content string) []byte {
	t.Helper()
	sealed, err := key.SealValue(name, []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestSealValue(t *testing.T) {
	old, _, oldLines := newKey(t)
	fresh, _, freshLines := newKey(t)
	rotated, _, _ := newKey(t, freshLines, oldLines)
	for _, content := range []string{"", "\n", "-----BEGIN PRIVATE KEY-----\n", strings.Repeat("\x00\xff\n", 1<<20/3)} {
		sealed := sealValue(t, old, "acme/key", content)
		if len(content) > 1 && bytes.Contains(sealed, []byte(content)) || len(sealed) > len(content)+1024 {
			t.Errorf("%.20q became %.300q, %d bytes", content, sealed, len(sealed))
		}
		for who, key := range map[string]fileset.Key{"the same": old, "a rotated file": rotated} {
			if got, err := key.OpenValue("acme/key", sealed); err != nil || string(got) != content {
				t.Errorf("%s: %.20q, %v; want %.20q", who, got, err, content)
			}
		}
		plain := sealValue(t, fileset.Key{}, "acme/key", content)
		if got, err := (fileset.Key{}).OpenValue("acme/key", plain); err != nil || string(got) != content {
			t.Errorf("plain: %.20q, %v; want %.20q", got, err, content)
		}
	}
	if got, err := fresh.OpenValue("a", sealValue(t, rotated, "a", "k")); err != nil || string(got) != "k" {
		t.Errorf("the first of a rotated file did not encrypt: %q, %v", got, err)
	}
}

func TestOpenValueRefuses(t *testing.T) {
	const secret = "abracadabra"
	key, file, keys := newKey(t)
	another, anotherFile, _ := newKey(t)
	sealed := sealValue(t, key, "acme/key", secret)
	// Who may write to the store knows the key's ID, and so can encrypt.
	recipient, err := age.ParseX25519Recipient(key.ID())
	if err != nil {
		t.Fatal(err)
	}
	forged := func(content string) []byte {
		var b bytes.Buffer
		w, err := age.Encrypt(&b, recipient)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	line, _ := readByAge(t, keys, sealValue(t, key, "acme/key", "2"+secret))
	const not = "damaged, or written or renamed"
	for what, c := range map[string]struct {
		key    fileset.Key
		name   string
		sealed []byte
		want   string
	}{
		"another key":                         {another, "acme/key", sealed, "keyFile " + anotherFile + " does not hold"},
		"no key":                              {fileset.Key{}, "acme/key", sealed, "name a keyFile"},
		"not encrypted":                       {key, "acme/key", []byte(secret), "not encrypted, and keyFile " + file},
		"nothing":                             {key, "acme/key", nil, "not encrypted"},
		"another's place":                     {key, "acme/other", sealed, not},
		"a letter of the content in the name": {key, "acme/key2", forged(line + "\n" + secret), not},
		"forged":                              {key, "acme/key", forged(secret), not},
		"forged with a line":                  {key, "acme/key", forged(strings.Repeat("0", 64) + "\n" + secret), not},
		"forged with an empty line":           {key, "acme/key", forged("\n" + secret), not},
		"cut off":                             {key, "acme/key", sealed[:len(sealed)-1], not},
		"its head only":                       {key, "acme/key", sealed[:22], not},
		"something behind":                    {key, "acme/key", append(bytes.Clone(sealed), 0), not},
	} {
		got, err := c.key.OpenValue(c.name, c.sealed)
		if err == nil || got != nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.name) ||
			strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %q, %v; want %q", what, got, err, c.want)
		}
	}
	for i := range sealed { // each byte of it counts
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if got, err := key.OpenValue("acme/key", damaged); err == nil || got != nil {
			t.Fatalf("with another byte at %d: %q", i, got)
		}
	}
}

// What is sealed can be read without Sallyport: age and the key file give a line, and the content after it.
func TestValueIsReadByAge(t *testing.T) {
	key, _, keys := newKey(t)
	line, content := readByAge(t, keys, sealValue(t, key, "acme/key", "line 1\nline 2\n"))
	if content != "line 1\nline 2\n" || len(line) != 64 {
		t.Errorf("age reads the line %q and %q", line, content)
	}
}

func readByAge(t *testing.T, keys string, sealed []byte) (line, content string) {
	t.Helper()
	identities, err := age.ParseIdentities(strings.NewReader(keys))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), identities...)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	line, content, _ = strings.Cut(string(plain), "\n")
	return line, content
}

func FuzzOpenValue(f *testing.F) {
	key, _, _ := newKey(f)
	f.Add([]byte(nil))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 "))
	f.Add(sealValue(f, key, "b", "content"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if got, err := key.OpenValue("a", sealed); err == nil {
			t.Errorf("%q was opened: %q", sealed, got)
		}
	})
}
