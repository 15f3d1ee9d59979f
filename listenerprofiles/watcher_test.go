package listenerprofiles

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A disk is files in memory, for tests whose clock is not real.
type disk struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (d *disk) read(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data, ok := d.files[filepath.Base(path)]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return data, nil
}

func (d *disk) write(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[name] = data
}

// A watch is a Watcher that runs, and what it told.
type watch struct {
	*Watcher
	disk *disk

	mu     sync.Mutex
	sets   []*Set
	errors []error
}

// startWatch runs a Watcher over f's files in memory, in a synctest bubble. Its looks are a millisecond before the whole
// seconds that tests count from then on, so that what they find has settled.
func startWatch(t *testing.T, f *fixture, change func(*Config)) *watch {
	t.Helper()
	w := &watch{disk: &disk{files: map[string][]byte{}}}
	for _, name := range []string{"listenerprofiles.xml", "server.pem", "second.pem", "trust.pem", "other.pem"} {
		data, err := os.ReadFile(f.path(name))
		if err != nil {
			t.Fatal(err)
		}
		w.disk.files[name] = data
	}
	cfg := f.config()
	cfg.ReadFile, cfg.Settle = w.disk.read, time.Microsecond
	if change != nil {
		change(&cfg)
	}
	first, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.sets = []*Set{first}
	w.Watcher = NewWatcher(cfg, first,
		func(s *Set) { w.mu.Lock(); defer w.mu.Unlock(); w.sets = append(w.sets, s) },
		func(err error) { w.mu.Lock(); defer w.mu.Unlock(); w.errors = append(w.errors, err) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	time.Sleep(time.Millisecond)
	return w
}

// after lets d pass and demands so many sets (the first included) and errors in all.
func (w *watch) after(t *testing.T, d time.Duration, sets, errs int) {
	t.Helper()
	time.Sleep(d) // the bubble's clock
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sets) != sets || len(w.errors) != errs {
		t.Errorf("%d sets and %d errors, want %d and %d: %v", len(w.sets), len(w.errors), sets, errs, w.errors)
	}
}

func TestWatcherKeepsItsIntervals(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1")
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := startWatch(t, f, func(c *Config) {
				if own {
					c.FileReadInterval, c.StoreReadInterval = time.Minute, time.Second
				}
			})
			file, store := 10*time.Minute, 10*time.Second
			if own {
				file, store = time.Minute, time.Second
			}
			w.after(t, file, 1, 0)

			w.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.1 verify=require")))
			w.after(t, file-time.Second, 1, 0)
			w.after(t, time.Second, 2, 0)
			if w.sets[1].Profiles()[0].VerifyClient != Require {
				t.Error("the new file is not in force")
			}

			w.disk.write("trust.pem", certPEM(f.ca, f.other)) // used by profile and listener
			w.after(t, store-2*time.Millisecond, 2, 0)
			w.after(t, 2*time.Millisecond, 3, 0)

			w.disk.write("server.pem", f.second.pem(t))
			w.disk.write("other.pem", nil) // nobody's
			w.after(t, store, 4, 0)
			if !w.sets[3].Profiles()[1].Leafs[0].Equal(f.second.cert) {
				t.Error("the new key is not in force")
			}
			w.after(t, 2*file, 4, 0)
		})
	}
}

func TestBrokenFileKeepsLastGoodSet(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1")
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t, f, nil)
		good := profilesXML("10.0.0.1 verify=require")
		half := []byte(good[:len(good)/2])

		w.disk.write("listenerprofiles.xml", half)
		w.after(t, 10*time.Minute, 1, 1)
		w.after(t, time.Hour, 1, 1) // tried again and again, told once

		w.disk.write("listenerprofiles.xml", []byte("<parameter/>"))
		w.after(t, 10*time.Second, 1, 2) // broken in another way: told, and soon
		w.disk.write("listenerprofiles.xml", half)
		w.after(t, 10*time.Second, 1, 3)

		w.disk.write("listenerprofiles.xml", []byte(good)) // mended: at the next look, not after ten minutes
		w.after(t, 10*time.Second, 2, 3)

		w.disk.write("listenerprofiles.xml", half)
		w.after(t, 10*time.Minute, 2, 4) // the same content as before, but good in between: told again
		w.disk.write("listenerprofiles.xml", []byte(good))
		w.after(t, 10*time.Second, 3, 4)
		if w.sets[2] != w.sets[1] {
			t.Error("what is as it was is not the same set")
		}
		w.after(t, time.Hour, 3, 4)
	})
}

func TestBrokenStoreKeepsLastGoodSet(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1 trust=other.pem")
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t, f, nil)
		trust := certPEM(f.other)
		for i, broken := range [][]byte{nil, []byte("\n"), trust[:len(trust)-30], []byte("garbage")} {
			w.disk.write("other.pem", broken)
			w.after(t, 10*time.Second, 1, i+1)
			w.after(t, time.Minute, 1, i+1)
		}
		if got := w.errors[0].Error(); !strings.Contains(got, "other.pem: empty file") || !strings.Contains(got, "listenerprofiles.xml:2: <TrustStore>") {
			t.Error(got)
		}
		w.disk.write("other.pem", certPEM(f.other, f.ca))
		w.after(t, 10*time.Second, 2, 4)

		// The file is changed and the store that it named is gone: no error in between, though the file is due much later.
		w.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.1 trust=third.pem")))
		w.disk.write("third.pem", trust)
		w.disk.mu.Lock()
		delete(w.disk.files, "other.pem")
		w.disk.mu.Unlock()
		w.after(t, 10*time.Second, 3, 4)
	})
}

func TestReload(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1")
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t, f, nil)
		if err := w.Reload(); err != nil {
			t.Error(err)
		}
		w.after(t, 0, 1, 0)
		w.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.1", "10.0.0.2")))
		var all sync.WaitGroup
		for range 8 { // at once, and beside Run
			all.Go(func() {
				if err := w.Reload(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		w.after(t, 0, 2, 0)
		w.disk.write("listenerprofiles.xml", nil)
		for range 3 { // told once, returned each time
			if err := w.Reload(); err == nil {
				t.Error("no error")
			}
		}
		w.after(t, time.Hour, 2, 1)
	})
}

// Expiry is a reason not to load a certificate, not one to stop a profile that serves.
func TestExpiryInService(t *testing.T) {
	f := newFixture(t)
	f.write(t, "server.pem", issue(t, "server", f.ca, func(c *x509.Certificate) { c.NotAfter = time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC) }).pem(t))
	f.xml(t, "10.0.0.1", "10.0.0.2 key=second.pem")
	synctest.Test(t, func(t *testing.T) { // begins on 1 January 2000
		w := startWatch(t, f, nil)
		w.after(t, 48*time.Hour, 1, 0)
		w.disk.write("second.pem", f.server.pem(t))
		w.after(t, 10*time.Second, 2, 0)
		w.disk.write("trust.pem", certPEM(f.ca, f.other)) // now the expired one would have to be built anew
		w.after(t, 10*time.Second, 2, 1)
	})
}

func TestWatcherWithoutFile(t *testing.T) {
	f := newFixture(t)
	f.xml(t)
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t, f, func(c *Config) { c.FilePath = "" })
		w.after(t, time.Hour, 1, 0)
		w.disk.write("trust.pem", certPEM(f.other))
		w.after(t, 10*time.Second, 2, 0)
	})
}

// A Watcher may begin with nothing good: the first good content is swapped in.
func TestWatcherWithoutFirst(t *testing.T) {
	f := newFixture(t)
	cfg := f.config()
	var log bytes.Buffer
	cfg.Log, cfg.Settle = slog.New(slog.NewTextHandler(&log, nil)), time.Millisecond
	var got *Set
	w := NewWatcher(cfg, nil, func(s *Set) { got = s }, nil)
	for range 3 {
		if err := w.Reload(); !errors.Is(err, fs.ErrNotExist) || got != nil {
			t.Errorf("%v, %v", got, err)
		}
	}
	if strings.Count(log.String(), "not reloaded") != 1 {
		t.Error(log.String())
	}
	f.xml(t, "10.0.0.1")
	if err := w.Reload(); err != nil || got == nil {
		t.Errorf("%v, %v", got, err)
	}
}

// J128: files change in many ways. Each step is followed by a look at the files; good ones change the set, broken ones don't.
func TestFilesChangeInEveryWay(t *testing.T) {
	f := newFixture(t)
	f.xml(t, "10.0.0.1")
	cfg := f.config()
	cfg.Settle = time.Millisecond
	first, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	var sets []*Set
	var errs []error
	w := NewWatcher(cfg, first, func(s *Set) { sets = append(sets, s) }, func(err error) { errs = append(errs, err) })
	step := func(name string, good bool, change func() error) {
		t.Helper()
		before := len(sets)
		if err := change(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		told := len(errs)
		err := w.Reload()
		if news := name != "touched"; (err == nil) != (good || !news) || (len(sets) > before) != good || (len(errs) > told) != (!good && news) {
			t.Errorf("%s: %v, %d new sets, %d errors told", name, err, len(sets)-before, len(errs)-told)
		}
	}
	path := f.path("listenerprofiles.xml")
	put := func(name string, data string) error { return os.WriteFile(f.path(name), []byte(data), 0o600) }
	n := 1
	next := func() string { n++; return profilesXML(fmt.Sprintf("10.0.0.%d", n)) }

	step("written in place", true, func() error { return put("listenerprofiles.xml", next()) })
	step("with an older time", true, func() error {
		return errors.Join(put("listenerprofiles.xml", next()), os.Chtimes(path, time.Unix(0, 0), time.Unix(0, 0)))
	})
	step("touched", false, func() error { return os.Chtimes(path, time.Now(), time.Now()) })
	step("renamed over", true, func() error { return errors.Join(put("new", next()), os.Rename(f.path("new"), path)) })
	step("truncated by half", false, func() error { return os.Truncate(path, int64(len(next())/2)) })
	step("truncated", false, func() error { return os.Truncate(path, 0) })
	step("written again", true, func() error { return put("listenerprofiles.xml", next()) })
	step("deleted", false, func() error { return os.Remove(path) })
	step("created again", true, func() error { return put("listenerprofiles.xml", next()) })
	if os.Geteuid() != 0 {
		step("made unreadable", false, func() error { return errors.Join(put("listenerprofiles.xml", next()), os.Chmod(path, 0)) })
		step("made readable", true, func() error { return os.Chmod(path, 0o600) })
	}
	step("made a folder", false, func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) })
	// As Kubernetes does it: file -> ..data/file, ..data -> a folder of its own for each version.
	step("made a link", true, func() error {
		return errors.Join(os.Remove(path), os.Mkdir(f.path("..v1"), 0o700), put("..v1/listenerprofiles.xml", next()),
			os.Symlink("..v1", f.path("..data")), os.Symlink("..data/listenerprofiles.xml", path))
	})
	for v := 2; v < 5; v++ {
		step("swapped by links", true, func() error {
			folder := fmt.Sprintf("..v%d", v)
			return errors.Join(os.Mkdir(f.path(folder), 0o700), put(folder+"/listenerprofiles.xml", next()),
				os.Symlink(folder, f.path("..data_tmp")), os.Rename(f.path("..data_tmp"), f.path("..data")))
		})
	}
	step("a link to nowhere", false, func() error { return os.RemoveAll(f.path("..v4")) })
	step("back", true, func() error {
		return errors.Join(os.Symlink("..v3", f.path("..data_tmp")), os.Rename(f.path("..data_tmp"), f.path("..data")))
	})
	pair := f.second.pem(t)
	step("key store: the certificate before the key", false, func() error {
		key := f.server.pem(t)[len(certPEM(f.server)):]
		return put("server.pem", string(certPEM(f.second))+string(key))
	})
	step("key store: the key too", true, func() error { return put("server.pem", string(pair)) })
	step("trust store: half", false, func() error { return put("trust.pem", string(certPEM(f.ca)[:200])) })
	step("trust store: other", true, func() error { return put("trust.pem", string(certPEM(f.other))) })
}

// Reading while somebody writes shows the old set, the new one, or an error: never anything else.
func TestReadingWhileBeingWritten(t *testing.T) {
	f := newFixture(t)
	texts := map[string]bool{profilesXML("10.0.0.1"): true, profilesXML("10.0.0.2", "10.0.0.3"): true}
	f.xml(t, "10.0.0.1")
	cfg := f.config()
	cfg.Settle = time.Microsecond
	first, err := Load(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWatcher(cfg, first, func(s *Set) {
		var names []string
		for _, p := range s.Profiles() {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, ", "); got != "profile 10.0.0.1, listener https" && got != "profile 10.0.0.2, profile 10.0.0.3, listener https" {
			t.Error(got)
		}
	}, func(error) {})
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range 500 {
			for text := range maps.Keys(texts) {
				file, err := os.Create(f.path("listenerprofiles.xml"))
				if err != nil {
					t.Error(err)
					return
				}
				for i := 0; i < len(text); i += 40 {
					_, _ = file.WriteString(text[i:min(i+40, len(text))])
				}
				file.Close()
			}
		}
	}()
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		default:
			_ = w.Reload()
		}
	}
	if err := w.Reload(); err != nil {
		t.Error(err)
	}
}
