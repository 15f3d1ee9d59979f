package fileset_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/fileset"
	"sallyport/internal/testpki"
)

func set(t testing.TB, files ...string) fileset.Set {
	t.Helper()
	var list []fileset.File
	for i := 0; i < len(files); i += 2 {
		list = append(list, fileset.File{Path: files[i], Content: []byte(files[i+1])})
	}
	s, err := fileset.NewSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, "d", name) }
	put(t, at("apis.yaml"), "apis: []")
	put(t, at("..data/x.jks"), "\xfe\xed")
	put(t, at("stores/my store@1.pem"), "pem")
	put(t, at(".git/config"), "left out")
	put(t, at(".apis.yaml.swp"), "left out")
	put(t, filepath.Join(dir, "outside"), "secret")
	if err := os.Symlink("..data/x.jks", at("x.jks")); err != nil {
		t.Fatal(err)
	}
	got, err := fileset.Read(filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	want := set(t, "x.jks", "\xfe\xed", "apis.yaml", "apis: []", "stores/my store@1.pem", "pem")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	for name, c := range map[string]struct {
		make func() error
		want string
	}{
		"a link out of it":   {func() error { return os.Symlink("../outside", at("link")) }, "link: a link that leads to no file in this folder (path escapes"},
		"an absolute link":   {func() error { return os.Symlink(filepath.Join(dir, "outside"), at("link")) }, "link: a link that leads to no file in this folder (path escapes"},
		"a link to nothing":  {func() error { return os.Symlink("nowhere", at("link")) }, "link: a link that leads to no file in this folder (no such file"},
		"a link to a folder": {func() error { return os.Symlink("stores", at("link")) }, "link: a link that leads to no file in this folder (not a regular file"},
		"an odd name":        {func() error { return os.WriteFile(at("ünï"), nil, 0o600) }, `"ünï": a file's name is of letters`},
		"a large file":       {func() error { return os.WriteFile(at("large"), make([]byte, fileset.MaxFile+1), 0o600) }, "large: larger than 4194304 bytes"},
		"too much": {func() error {
			for i := range 9 {
				if err := os.WriteFile(at(fmt.Sprint("part", i)), make([]byte, fileset.MaxFile), 0o600); err != nil {
					return err
				}
			}
			return nil
		}, "more than 33554432 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.make(); err != nil {
				t.Fatal(err)
			}
			if _, err := fileset.Read(filepath.Join(dir, "d")); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			made, _ := filepath.Glob(at("[^.axs]*"))
			for _, name := range made {
				os.Remove(name)
			}
		})
	}
	if _, err := fileset.Read(filepath.Join(dir, "d")); err != nil {
		t.Error(err)
	}
	if _, err := fileset.Read(t.TempDir()); err == nil || err.Error() != "it holds no files" {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestNewSet(t *testing.T) {
	for _, path := range []string{
		"", "/a", "a/", "a//b", "../a", "a/../b", "a/..", "./a", ".", "a\\b", "a:b", " a", "a ", "a/ b", "a\nb", "a\x00", "\xff", "C:a", "a*",
		strings.Repeat("a", 256), strings.Repeat("a/", 16) + "a",
	} {
		if _, err := fileset.NewSet([]fileset.File{{Path: path}}); err == nil {
			t.Errorf("%q was taken", path)
		}
	}
	for _, paths := range [][]string{{"a", "a"}, {"a", "a/b"}, {"a/b/c", "a/b"}, {"a", "a-b", "a/b"}} {
		var files []fileset.File
		for _, p := range paths {
			files = append(files, fileset.File{Path: p})
		}
		if _, err := fileset.NewSet(files); err == nil || !strings.Contains(err.Error(), "another file or folder") {
			t.Errorf("%q: %v", paths, err)
		}
	}
	many := make([]fileset.File, fileset.MaxFiles+1)
	for i := range many {
		many[i].Path = fmt.Sprint(i)
	}
	if _, err := fileset.NewSet(many); err == nil || !strings.Contains(err.Error(), "more than 1000 files") {
		t.Error(err)
	}
	if _, err := fileset.NewSet(many[1:]); err != nil {
		t.Error(err)
	}
}

func FuzzCheckPath(f *testing.F) {
	for _, path := range []string{"apis/a.yaml", "../a", "a/../b", "/a", `a\b`, "a b", "a:b", ".a", "CON"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if fileset.CheckPath(path) == nil && (!fs.ValidPath(path) || !filepath.IsLocal(path) || strings.ContainsAny(path, "\\:\x00\n") || len(path) > 255) {
			t.Errorf("%q is taken", path)
		}
	})
}

// newKey makes a key file with these lines and a new key behind them.
func newKey(t testing.TB, before ...string) (key fileset.Key, file, content string) {
	t.Helper()
	data, id, err := fileset.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	file, content = filepath.Join(t.TempDir(), "cluster.key"), strings.Join(before, "")+string(data)
	put(t, file, content)
	if key, err = fileset.ReadKey(file); err != nil {
		t.Fatal(err)
	}
	if len(before) == 0 && key.ID() != id {
		t.Errorf("the key is %s, want %s", key.ID(), id)
	}
	return key, file, content
}

func TestSeal(t *testing.T) {
	old, _, oldLines := newKey(t)
	fresh, _, freshLines := newKey(t)
	rotated, _, _ := newKey(t, freshLines, oldLines) // and a third
	if rotated.ID() != fresh.ID() {
		t.Errorf("%s encrypts, want the first, %s", rotated.ID(), fresh.ID())
	}
	s := set(t, "apis.yaml", "apis: []", "empty", "", "key.pem", "-----BEGIN PRIVATE KEY-----")
	sealed, digest, err := old.Seal(7, s)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range sealed {
		if f.Path != s[i].Path || !bytes.HasPrefix(f.Content, []byte("age-encryption.org/v1\n")) || bytes.Contains(f.Content, []byte("apis: []")) {
			t.Errorf("%s is not encrypted", f.Path)
		}
	}
	for name, key := range map[string]fileset.Key{"the same": old, "a rotated file": rotated} {
		if got, err := key.Open(7, old.ID(), sealed, digest); err != nil || !cmp.Equal(got, s) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	plain, plainDigest, err := fileset.Key{}.Seal(7, s)
	if err != nil || !cmp.Equal(plain, []fileset.File(s)) {
		t.Fatal(plain, err)
	}
	if got, err := (fileset.Key{}).Open(7, "", plain, plainDigest); err != nil || !cmp.Equal(got, s) {
		t.Errorf("plain: %v, %v", got, err)
	}

	// An attacker who may write to the store knows the key's ID, and so can encrypt.
	forged, _, err := old.Seal(7, set(t, "apis.yaml", "apis: [evil]"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(sealed[0].Content)
	damaged[len(damaged)-1] ^= 1
	for name, c := range map[string]struct {
		key     fileset.Key
		version int
		id      string
		files   []fileset.File
		digest  string
		want    string
	}{
		"another key":           {fresh, 7, old.ID(), sealed, digest, "does not hold"},
		"no key":                {fileset.Key{}, 7, old.ID(), sealed, digest, "name a file that holds it"},
		"not encrypted":         {old, 7, "", plain, plainDigest, "not encrypted"},
		"another version":       {old, 8, old.ID(), sealed, digest, "digest"},
		"another plain version": {fileset.Key{}, 8, "", plain, plainDigest, "digest"},
		"other files":           {old, 7, old.ID(), forged, digest, "digest"},
		"their plain digest":    {old, 7, old.ID(), sealed, plainDigest, "digest"},
		"fewer files":           {old, 7, old.ID(), sealed[1:], digest, "digest"},
		"no digest":             {old, 7, old.ID(), sealed, "", "digest"},
		"damaged":               {old, 7, old.ID(), []fileset.File{{Path: "apis.yaml", Content: damaged}}, digest, "apis.yaml: "},
		"plain content":         {old, 7, old.ID(), plain, digest, "apis.yaml: "},
		"a path out of it":      {fileset.Key{}, 7, "", []fileset.File{{Path: "../a"}}, plainDigest, "a file's name"},
		"no files":              {fileset.Key{}, 7, "", nil, plainDigest, "no files"},
	} {
		if got, err := c.key.Open(c.version, c.id, c.files, c.digest); err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestReadKeyRefuses(t *testing.T) {
	_, file, content := newKey(t)
	for name, c := range map[string]struct {
		content string
		mode    fs.FileMode
		want    string
	}{
		"others may read it": {content, 0o640, "chmod 600"},
		"no key":             {"# nothing\n\n", 0o600, "it holds no key"},
		"half a key":         {content[:len(content)-9], 0o600, "a line is no key"},
	} {
		put(t, file, c.content)
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := fileset.ReadKey(file)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		os.Chmod(file, 0o600)
	}
	if _, err := fileset.ReadKey(file + ".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestSecret(t *testing.T) {
	leaf := testpki.SelfSigned(t, testpki.Leaf{CommonName: "server"})
	certificate, both := string(testpki.PEM(leaf.Cert)), string(leaf.PEM())
	_, _, key := newKey(t)
	public := set(t, "apis/a.yaml", "apis: []", "p.XML", "<profiles/>", "ca.pem", certificate+"\n"+certificate, "ca.der", string(leaf.Cert.Raw),
		"jwks.json", `{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}`)
	if err := public.Secret(); err != nil {
		t.Error(err)
	}
	for name, content := range map[string]string{
		"server.pem": both, "apis.yaml": "# " + both, "gateway.jks": "\xfe\xed\xfe\xed", "gateway.p12": "\x30\x82", "password": "changeit",
		"jwks.json": `{"keys": [{"kty": "RSA", "n": "AQAB"}, {"kty": "oct", "k": "c2VjcmV0"}]}`, "cluster.yaml": key, "b.yaml": "\x00", "empty": "",
	} {
		err := set(t, "a.yaml", "", name, content).Secret()
		if err == nil || !strings.HasPrefix(err.Error(), name+": ") || !strings.Contains(err.Error(), "sallyport config key") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	f := fileset.Folder(filepath.Join(dir, "cluster"))
	if _, err := f.Holds(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is there: %v", err)
	}
	expect := func(want fileset.Version, s fileset.Set) {
		t.Helper()
		got, err := f.Holds()
		if err != nil || got != want {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
		if read, err := fileset.Read(string(f)); err != nil || !cmp.Equal(read, s) {
			t.Errorf("%v, %v", read, err)
		}
	}
	a, b := set(t, "apis.yaml", "a", "stores/deep/x.jks", "\x00"), set(t, "stores", "b")
	for i, s := range []fileset.Set{a, b, a, a} {
		v := fileset.Version{Number: i + 1, Digest: fmt.Sprint("digest", i)}
		if err := f.Put(v, s); err != nil {
			t.Fatal(err)
		}
		expect(v, s)
	}
	entries, err := os.ReadDir(string(f) + ".versions")
	if err != nil || len(entries) != 3 {
		t.Errorf("%d entries, %v; want the version, the one before, and the lock", len(entries), err)
	}
	err = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		info, broken := entry.Info()
		if err == nil && broken == nil && name != dir && info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		return errors.Join(err, broken)
	})
	if err != nil {
		t.Error(err)
	}

	// What was good is kept, however many come after it that are not.
	if err := f.Revert(); err == nil || f.Vouched() {
		t.Errorf("nothing was good: %v", err)
	}
	good := fileset.Version{Number: 5, Digest: "good"}
	if err := errors.Join(f.Put(good, b), f.Vouch(), f.Vouch()); err != nil || !f.Vouched() {
		t.Error(err, f.Vouched())
	}
	for n := 6; n < 9; n++ {
		if err := f.Put(fileset.Version{Number: n}, a); err != nil || f.Vouched() {
			t.Error(err, f.Vouched())
		}
	}
	if err := f.Revert(); err != nil || !f.Vouched() {
		t.Error(err, f.Vouched())
	}
	expect(good, b)

	file := filepath.Join(string(f), "apis.yaml")
	for name, change := range map[string]func() error{
		"a changed file": func() error { return os.WriteFile(file, []byte("b"), 0o600) },
		"a missing file": func() error { return os.Remove(file) },
		"one more file":  func() error { return os.WriteFile(file+"2", nil, 0o600) },
		"no mark":        func() error { return os.Remove(filepath.Join(string(f), fileset.MarkFile)) },
		"a broken mark":  func() error { return os.WriteFile(filepath.Join(string(f), fileset.MarkFile), []byte("{}"), 0o600) },
	} {
		if err := f.Put(fileset.Version{Number: 9}, a); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if v, err := f.Holds(); err == nil {
			t.Errorf("%s: it holds %+v", name, v)
		}
	}
	own := fileset.Folder(filepath.Join(dir, "own"))
	put(t, filepath.Join(string(own), "mine"), "")
	if err := own.Put(fileset.Version{Number: 1}, a); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("a folder of somebody's own: %v", err)
	}
	if _, err := os.Stat(filepath.Join(string(own), "mine")); err != nil {
		t.Error(err)
	}
}

// puttingFolder makes a test binary put one version after the other into a folder until it is killed.
const puttingFolder = "SALLYPORT_TEST_PUTTING_FOLDER"

// versions are the two Sets that are put by turns.
func versions(t testing.TB) [2]fileset.Set {
	var files [2][]string
	for i := range files {
		for n := range 20 {
			files[i] = append(files[i], fmt.Sprintf("folder%d/file%d", n%3, n), strings.Repeat(fmt.Sprint(i), 1000*n))
		}
	}
	return [2]fileset.Set{set(t, files[0]...), set(t, files[1]...)}
}

// TestKilled kills writers at random moments, two at a time, while others read: whatever is in the folder is whole.
func TestKilled(t *testing.T) {
	both := versions(t)
	if folder := os.Getenv(puttingFolder); folder != "" {
		for n := 1; ; n++ {
			if err := fileset.Folder(folder).Put(fileset.Version{Number: n}, both[n%2]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			fmt.Println(n)
		}
	}
	f := fileset.Folder(filepath.Join(t.TempDir(), "cluster"))
	if err := f.Put(fileset.Version{Number: 2}, both[0]); err != nil {
		t.Fatal(err)
	}
	var came atomic.Int32 // writers that have written
	for range 15 {
		var all sync.WaitGroup
		for range 2 {
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), puttingFolder+"="+string(f))
			var said bytes.Buffer
			cmd.Stderr = &said
			writes, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				if n, _ := writes.Read(make([]byte, 1)); n > 0 {
					came.Add(1)
				}
				time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
				cmd.Process.Kill()
				cmd.Wait()
				if said.Len() > 0 {
					t.Error(said.String())
				}
			})
		}
		all.Wait()
		if _, err := f.Holds(); err != nil {
			t.Fatal(err)
		}
	}
	if came.Load() == 0 {
		t.Error("no writer came to write")
	}
	if err := f.Put(fileset.Version{Number: 1}, both[1]); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(string(f) + ".versions"); err != nil || len(entries) > 3 {
		t.Errorf("%d entries are left, %v", len(entries), err)
	}
}
