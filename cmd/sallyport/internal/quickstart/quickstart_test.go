package quickstart_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/certstore"
	"sallyport/cmd/sallyport/internal/quickstart"
	"sallyport/internal/testpki"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// today is the clock of these tests.
var today = time.Date(2031, 5, 4, 12, 30, 0, 0, time.UTC)

func clock() time.Time { return today }

// A recorder is a Registrar that remembers, and makes the file that a store would make.
type recorder struct {
	calls   int
	clients []certstore.Client
	err     error
}

func (r *recorder) register(_ context.Context, storeURL string, clients []certstore.Client) error {
	path, ok := strings.CutPrefix(storeURL, "sqlite:")
	if !ok || !filepath.IsAbs(path) {
		return errors.New("not the address of a store: " + storeURL)
	}
	r.calls++
	r.clients = clients
	if err := os.WriteFile(path, []byte("a database"), 0o644); err != nil {
		return err
	}
	return r.err
}

// makeDemo makes a demonstration in dir, which must succeed, and lets others have it.
func makeDemo(t *testing.T, dir string, offset int) *quickstart.Demo {
	t.Helper()
	d, err := quickstart.Make(t.Context(), quickstart.Options{Dir: dir, PortOffset: offset, Now: clock}, new(recorder).register)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

// newDir names a folder that does not exist, in one that holds nothing else.
func newDir(t *testing.T) string { return filepath.Join(t.TempDir(), "demo") }

// tree maps each path below dir to its mode, and to the digest of its content.
func tree(t *testing.T, dir string) (modes, contents map[string]string) {
	t.Helper()
	modes, contents = map[string]string{}, map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := e.Info()
		if err != nil {
			return err
		}
		modes[filepath.ToSlash(name)] = info.Mode().String()
		if !e.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(data)
			contents[filepath.ToSlash(name)] = string(sum[:])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return modes, contents
}

func TestTheFolderHoldsWhatIsPromised(t *testing.T) {
	dir := newDir(t)
	d := makeDemo(t, dir, 0)
	if d.Reused {
		t.Error("a new folder is said to be used again")
	}
	if want := filepath.Join(dir, "sallyport.yaml"); d.ConfigFile != want {
		t.Errorf("ConfigFile is %s, want %s", d.ConfigFile, want)
	}
	const key, public = "-rw-------", "-rw-r--r--"
	want := map[string]string{
		".": "drwx------", "stores": "drwx------", "secrets": "drwx------", "clients": "drwx------", "tokens": "drwx------",
		".quickstart.json": public, "sallyport.yaml": public, "listenerprofiles.xml": public, "ca.crt": public, "jwks.json": public,
		"sallyport.db": key, "stores/gateway.jks": key, "stores/client-truststore.jks": key, "stores/lb-truststore.jks": key,
		"secrets/gateway.password": key, "secrets/client-truststore.password": key, "secrets/lb-truststore.password": key,
		"secrets/ca.key": key, "secrets/issuer.key": key, "secrets/issuer-client.secret": key,
		"tokens/valid.jwt": key, "tokens/expired.jwt": key, "tokens/forged.jwt": key,
		".lock": key, "curl": "drwx------", "curl/nobody": key,
		"curl/valid-token": key, "curl/expired-token": key, "curl/forged-token": key,
	}
	for _, name := range []string{"gold", "bronze", "trial", "trial2", "unregistered", "expired", "rogue", "loadbalancer"} {
		want["clients/"+name+".crt"], want["clients/"+name+".key"], want["curl/"+name] = public, key, key
	}
	got, _ := tree(t, dir)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files and modes (-want +got):\n%s", diff)
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the folder there is %v (%v), want nothing", entries, err)
	}
}

// TestFoldersOfBefore: a folder that an earlier version made has nothing under curl/ yet.
func TestFoldersOfBefore(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	modes, contents := tree(t, dir)
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "curl")), os.Remove(filepath.Join(dir, ".lock"))); err != nil {
		t.Fatal(err)
	}
	makeDemo(t, dir, 0)
	modes2, contents2 := tree(t, dir)
	if diff := cmp.Diff(modes, modes2) + cmp.Diff(contents, contents2); diff != "" {
		t.Errorf("the folder is not as a new one:\n%s", diff)
	}
}

func TestOneQuickstartAFolder(t *testing.T) {
	dir := newDir(t)
	opts := quickstart.Options{Dir: dir, Now: clock}
	first, err := quickstart.Make(t.Context(), opts, new(recorder).register)
	if err != nil {
		t.Fatal(err)
	}
	_, before := tree(t, dir)
	opts.PortOffset = 100
	_, err = quickstart.Make(t.Context(), opts, new(recorder).register)
	holder := fmt.Sprintf("runs in %s already (process %d)", dir, os.Getpid())
	if !errors.Is(err, quickstart.ErrUsage) || !strings.Contains(err.Error(), holder) {
		t.Errorf("error %v, want one of usage with %q", err, holder)
	}
	if _, after := tree(t, dir); !cmp.Equal(before, after) {
		t.Error("the second one changed the folder of the first")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	makeDemo(t, dir, 100)
}

func TestRegistrations(t *testing.T) {
	var r recorder
	dir := newDir(t)
	if _, err := quickstart.Make(t.Context(), quickstart.Options{Dir: dir, Now: clock}, r.register); err != nil {
		t.Fatal(err)
	}
	type row struct {
		API, Alias, Tier string
		KeyType          certstore.KeyType
		Expired          bool
	}
	var got, want []row
	for _, c := range r.clients {
		got = append(got, row{c.API.String(), c.Alias, c.Tier, c.KeyType, today.After(c.Certificate.NotAfter)})
		file, err := os.ReadFile(filepath.Join(dir, "clients", c.Alias+".crt"))
		if err != nil || !bytes.Equal(file, testpki.PEM(c.Certificate)) {
			t.Errorf("%s of %s is not the certificate in clients (%v)", c.Alias, c.API, err)
		}
	}
	for _, c := range []row{
		{Alias: "gold", Tier: "Gold"},
		{Alias: "bronze", Tier: "Bronze"},
		{Alias: "trial", Tier: "Trial"},
		{Alias: "trial2", Tier: "Trial"},
		{Alias: "expired", Tier: "Bronze", Expired: true},
	} {
		for _, c.API = range []string{"orders:1.0.0", "payments:1.0.0"} {
			c.KeyType = certstore.Production
			want = append(want, c)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("registrations (-want +got):\n%s", diff)
	}
}

func TestASecondRunKeepsEverything(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 5)
	modes, contents := tree(t, dir)
	var r recorder
	d, err := quickstart.Make(t.Context(), quickstart.Options{Dir: dir, PortOffset: 5, Now: clock}, r.register)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !d.Reused || r.calls != 0 {
		t.Errorf("Reused is %t after %d registrations, want true after none", d.Reused, r.calls)
	}
	modes2, contents2 := tree(t, dir)
	if diff := cmp.Diff(modes, modes2) + cmp.Diff(contents, contents2); diff != "" {
		t.Errorf("changed by the second run:\n%s", diff)
	}
}

func TestAnotherPortOffset(t *testing.T) {
	dir := newDir(t)
	settings := filepath.Join(dir, "sallyport.yaml")
	makeDemo(t, dir, 0)
	_, before := tree(t, dir)
	d := makeDemo(t, dir, 100)
	if want := (quickstart.Ports{HTTPS: 8343, LoadBalancer: 8344, Status: 9191, Backend: 9100, Issuer: 9544}); d.Ports != want {
		t.Errorf("ports are %+v, want %+v", d.Ports, want)
	}
	data, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"127.0.0.1:8343\n", "127.0.0.1:8344\n", "127.0.0.1:9191}", "http://127.0.0.1:9100\""} {
		if !bytes.Contains(data, []byte(text)) {
			t.Errorf("sallyport.yaml lacks %q", text)
		}
	}
	_, after := tree(t, dir)
	for name := range before {
		if name != "sallyport.yaml" && name != ".quickstart.json" && before[name] != after[name] {
			t.Errorf("%s has changed", name)
		}
	}
	makeDemo(t, dir, 0)
	if _, again := tree(t, dir); !cmp.Equal(before, again) {
		t.Error("going back did not bring the first folder back")
	}

	// An edited file works with the same ports only.
	edited := append(data, "# mine\n"...)
	makeDemo(t, dir, 100)
	if err := os.WriteFile(settings, edited, 0o644); err != nil {
		t.Fatal(err)
	}
	var guide strings.Builder
	makeDemo(t, dir, 100).Guide(&guide)
	if !strings.Contains(guide.String(), "was edited") {
		t.Error("the guide does not say that sallyport.yaml was edited")
	}
	_, err = quickstart.Make(t.Context(), quickstart.Options{Dir: dir, PortOffset: 7, Now: clock}, new(recorder).register)
	if !errors.Is(err, quickstart.ErrUsage) || !strings.Contains(err.Error(), "--port-offset 100") {
		t.Errorf("another offset for an edited file: %v", err)
	}
	if now, err := os.ReadFile(settings); err != nil || !bytes.Equal(now, edited) {
		t.Errorf("the edited file was changed (%v)", err)
	}
}

func TestFoldersThatAreNotOurs(t *testing.T) {
	tests := map[string]struct {
		prepare func(t *testing.T, dir string)
		message string
	}{
		"somebody's files": {func(t *testing.T, dir string) {
			write(t, dir, "thesis.tex", "…")
		}, "not empty"},
		"somebody's configuration": {func(t *testing.T, dir string) {
			write(t, dir, "sallyport.yaml", "listeners: []\n")
		}, "not empty"},
		"a file": {func(t *testing.T, dir string) {
			write(t, filepath.Dir(dir), filepath.Base(dir), "…")
		}, "not a folder"},
		"an unknown marker": {func(t *testing.T, dir string) {
			write(t, dir, ".quickstart.json", `{"format": 99, "settings": ["x"]}`)
		}, "another version"},
		"a broken marker": {func(t *testing.T, dir string) {
			write(t, dir, ".quickstart.json", `{"format": 1,`)
		}, "marker"},
		"a file is missing": {func(t *testing.T, dir string) {
			makeDemo(t, dir, 0)
			if err := os.Remove(filepath.Join(dir, "clients", "gold.key")); err != nil {
				t.Fatal(err)
			}
		}, "lacks clients/gold.key"},
		"another issuer's key": {func(t *testing.T, dir string) {
			makeDemo(t, dir, 0)
			write(t, dir, "jwks.json", `{"keys":[]}`)
		}, "does not hold the key"},
		"a broken issuer's key": {func(t *testing.T, dir string) {
			makeDemo(t, dir, 0)
			write(t, dir, "secrets/issuer.key", "canary")
		}, "issuer.key"},
		"an empty secret": {func(t *testing.T, dir string) {
			makeDemo(t, dir, 0)
			write(t, dir, "secrets/issuer-client.secret", "\n")
		}, "is empty"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t)
			test.prepare(t, dir)
			before, beforeContents := tree(t, filepath.Dir(dir))
			var r recorder
			_, err := quickstart.Make(t.Context(), quickstart.Options{Dir: dir, PortOffset: 3, Now: clock}, r.register)
			if !errors.Is(err, quickstart.ErrUsage) || !strings.Contains(err.Error(), test.message) || strings.Contains(err.Error(), "canary") {
				t.Errorf("error %v, want one of usage with %q", err, test.message)
			}
			if r.calls != 0 {
				t.Error("clients were registered")
			}
			after, afterContents := tree(t, filepath.Dir(dir))
			if diff := cmp.Diff(before, after) + cmp.Diff(beforeContents, afterContents); diff != "" {
				t.Errorf("changed all the same:\n%s", diff)
			}
		})
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnExpiredDemonstrationSaysSo(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	for _, test := range []struct {
		now  time.Time
		good bool
	}{
		{today.AddDate(1, 0, 0).Add(-time.Second), true},
		{today.AddDate(1, 0, 0), false},
	} {
		d, err := quickstart.Make(t.Context(), quickstart.Options{Dir: dir, Now: func() time.Time { return test.now }}, new(recorder).register)
		if err == nil {
			d.Close()
		} else if !strings.Contains(err.Error(), "has expired") {
			t.Errorf("at %s: %v", test.now, err)
		}
		if good := err == nil; good != test.good || err != nil && !errors.Is(err, quickstart.ErrUsage) {
			t.Errorf("at %s: %v", test.now, err)
		}
	}
}

func TestPortOffsets(t *testing.T) {
	for offset, good := range map[int]bool{0: true, -8242: true, -8243: false, 56091: true, 56092: false, -1 << 62: false, 1<<63 - 1: false} {
		dir := newDir(t)
		_, err := quickstart.PortsAt(offset)
		if good != (err == nil) || err != nil && !errors.Is(err, quickstart.ErrUsage) {
			t.Errorf("offset %d: %v", offset, err)
		}
		if good {
			continue
		}
		if _, err := quickstart.Make(t.Context(), quickstart.Options{Dir: dir, PortOffset: offset}, new(recorder).register); err == nil {
			t.Errorf("offset %d made a folder", offset)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("offset %d left something: %v", offset, err)
		}
	}
}

func TestAFailureLeavesNothing(t *testing.T) {
	errStore := errors.New("the store is full")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithCancel(t.Context())
	defer cancelLate()
	tests := map[string]struct {
		ctx      context.Context
		register quickstart.Registrar
		want     error
	}{
		"the registrar fails": {t.Context(), (&recorder{err: errStore}).register, errStore},
		"no store is made":    {t.Context(), func(context.Context, string, []certstore.Client) error { return nil }, fs.ErrNotExist},
		"cancelled before":    {ended, new(recorder).register, context.Canceled},
		"no registrar":        {t.Context(), nil, nil},
		"cancelled in the end ": {late, func(ctx context.Context, url string, c []certstore.Client) error {
			cancelLate()
			return new(recorder).register(ctx, url, c)
		}, context.Canceled},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t)
			_, err := quickstart.Make(test.ctx, quickstart.Options{Dir: dir, Now: clock}, test.register)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) > 0 {
				t.Errorf("left %v (%v)", entries, err)
			}
			if d := makeDemo(t, dir, 0); d.Reused {
				t.Error("the next run found something to use again")
			}
		})
	}
}

func TestWhereTheFolderMayStand(t *testing.T) {
	t.Run("an empty folder is taken", func(t *testing.T) {
		dir := t.TempDir()
		if makeDemo(t, dir, 0).Reused || !makeDemo(t, dir, 0).Reused {
			t.Error("want it made, then used again")
		}
	})
	t.Run("parents are made", func(t *testing.T) {
		makeDemo(t, filepath.Join(t.TempDir(), "a", "b", "demo"), 0)
	})
	t.Run("a link stays a link", func(t *testing.T) {
		parent := t.TempDir()
		target, link := filepath.Join(parent, "target"), filepath.Join(parent, "link")
		if err := os.Mkdir(target, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		makeDemo(t, link, 0)
		if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("the link became %v (%v)", info, err)
		}
		if !makeDemo(t, target, 0).Reused {
			t.Error("its target was not made")
		}
	})
	t.Run("not the current folder", func(t *testing.T) {
		t.Chdir(t.TempDir())
		_, err := quickstart.Make(t.Context(), quickstart.Options{Dir: ".", Now: clock}, new(recorder).register)
		if !errors.Is(err, quickstart.ErrUsage) {
			t.Errorf("error %v, want one of usage", err)
		}
		if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
			t.Errorf("left %v (%v)", entries, err)
		}
		if d := makeDemo(t, "", 0); d.Dir != quickstart.DefaultDir {
			t.Errorf("Dir is %q", d.Dir)
		}
	})
}

func TestWhatACrashLeftIsRemoved(t *testing.T) {
	dir := newDir(t)
	parent := filepath.Dir(dir)
	crashed, running, other := filepath.Join(parent, ".demo.making-1"), filepath.Join(parent, ".demo.making-2"), filepath.Join(parent, ".demo2.making-1")
	for _, path := range []string{crashed, running, other} {
		write(t, path, "sallyport.yaml", "half")
	}
	long := time.Now().Add(-2 * time.Hour)
	for _, path := range []string{crashed, other} {
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	makeDemo(t, dir, 0)
	var left []string
	entries, err := os.ReadDir(parent)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{".demo.making-2", ".demo2.making-1", "demo"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("there is %v (%v), want %v", left, err, want)
	}
}

func TestOfRunsAtTheSameTimeOneHasTheFolder(t *testing.T) {
	dir := newDir(t)
	var has atomic.Int32
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			d, err := quickstart.Make(t.Context(), quickstart.Options{Dir: dir, Now: clock}, new(recorder).register)
			switch {
			case err == nil:
				has.Add(1)
				t.Cleanup(func() { d.Close() })
			case !errors.Is(err, quickstart.ErrUsage) || !strings.Contains(err.Error(), "already"):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if has.Load() != 1 {
		t.Errorf("%d runs have it, want one", has.Load())
	}
	if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 1 {
		t.Errorf("beside the folder there is %v (%v)", entries, err)
	}
}

func TestPrivateFilesAreClosedAgain(t *testing.T) {
	dir := newDir(t)
	makeDemo(t, dir, 0)
	want, _ := tree(t, dir)
	for _, name := range []string{"clients/gold.key", "secrets/gateway.password", "tokens/valid.jwt", "stores/gateway.jks", "sallyport.db"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	makeDemo(t, dir, 0)
	if got, _ := tree(t, dir); !cmp.Equal(want, got) {
		t.Errorf("modes (-want +got):\n%s", cmp.Diff(want, got))
	}
}

func TestKeysAndSecretsAreUniqueToTheRun(t *testing.T) {
	one, two := newDir(t), newDir(t)
	makeDemo(t, one, 0)
	makeDemo(t, two, 0)
	_, first := tree(t, one)
	_, second := tree(t, two)
	seen := map[string]string{}
	for _, contents := range []map[string]string{first, second} {
		for name, sum := range contents {
			switch name {
			case ".lock", ".quickstart.json", "sallyport.yaml", "listenerprofiles.xml", "sallyport.db":
				continue // no secrets, and the tests' database
			}
			if strings.HasPrefix(name, "curl/") && !strings.HasSuffix(name, "-token") {
				continue // only names of files
			}
			if other, ok := seen[sum]; ok {
				t.Errorf("%s is the same as %s", name, other)
			}
			seen[sum] = name
		}
	}
}
