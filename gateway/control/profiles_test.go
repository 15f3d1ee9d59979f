package control

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/listenerprofiles"
)

func TestPeriods(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			file, store := 10*time.Minute, 10*time.Second
			if own {
				file, store = time.Minute, time.Second
			}
			b := startBed(t, func(b *bed, _ *Options) {
				s := b.spec.Load()
				s.Period, s.Listeners[0].FileReadInterval = store, file
			})
			b.after(t, file, https, 0, 0)

			b.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.1 verify=require")))
			b.after(t, file-time.Second, https, 0, 0)
			b.after(t, time.Second, https, 1, 0)
			if b.set().Profiles()[0].VerifyClient != listenerprofiles.Require {
				t.Error("the new file is not in force")
			}

			b.disk.write("trust.pem", certPEM(b.ca, b.other)) // used by profile and listener
			b.after(t, store-2*time.Millisecond, https, 1, 0)
			b.after(t, 2*time.Millisecond, https, 2, 0)

			b.disk.write("server.pem", b.second.pem())
			b.disk.write("other.pem", nil) // nobody's
			b.after(t, store, https, 3, 0)
			if !b.set().Profiles()[1].Leafs[0].Equal(b.second.cert) {
				t.Error("the new key is not in force")
			}
			b.after(t, 2*file, https, 3, 0)
			b.counts(t, configuration, 0, 0)
			for i, p := range b.parts[1:] {
				if p.Routes != nil || len(p.Listeners) != 1 {
					t.Errorf("swap %d is of %+v", i, p)
				}
			}
		})
	}
}

func TestBrokenFileKeepsLastGoodSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, nil)
		good := profilesXML("10.0.0.1 verify=require")
		half := []byte(good[:len(good)/2])

		b.disk.write("listenerprofiles.xml", half)
		b.after(t, 10*time.Minute, https, 0, 1)
		b.after(t, time.Hour, https, 0, 1) // tried again and again, told once
		if s := b.state(https); s.Broken == nil || time.Since(s.BrokenSince).Round(time.Second) != time.Hour || time.Since(s.Since).Round(time.Second) != 70*time.Minute {
			t.Errorf("%+v", s)
		}

		b.disk.write("listenerprofiles.xml", []byte("<parameter/>"))
		b.after(t, 10*time.Second, https, 0, 2) // broken in another way: told, and soon
		b.disk.write("listenerprofiles.xml", half)
		b.after(t, 10*time.Second, https, 0, 3)

		b.disk.write("listenerprofiles.xml", []byte(good)) // mended: at the next look, not after ten minutes
		b.after(t, 10*time.Second, https, 1, 3)
		serving := b.set()

		b.disk.write("listenerprofiles.xml", half)
		b.after(t, 10*time.Minute, https, 1, 4) // the same content as before, but good in between: told again
		b.disk.write("listenerprofiles.xml", []byte(good))
		b.after(t, 10*time.Second, https, 2, 4)
		if b.set() != serving {
			t.Error("what is as it was is not the same set")
		}
		b.after(t, time.Hour, https, 2, 4)
		if s := b.state(https); s.Broken != nil || !s.BrokenSince.IsZero() {
			t.Errorf("%+v", s)
		}
		if n := b.log.count("listener profiles were not reloaded; the last good ones serve on"); n != 4 {
			t.Errorf("logged %d times", n)
		}
		if n := b.log.count("mended: what was refused is good again"); n != 1 {
			t.Errorf("told %d times that it is mended, want once: the first time a new set was told of", n)
		}
	})
}

func TestBrokenStoreKeepsLastGoodSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(b *bed, _ *Options) {
			b.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.1 trust=other.pem")))
		})
		trust := certPEM(b.other)
		for i, broken := range [][]byte{nil, []byte("\n"), trust[:len(trust)-30], []byte("garbage")} {
			b.disk.write("other.pem", broken)
			b.after(t, 10*time.Second, https, 0, i+1)
			b.after(t, time.Minute, https, 0, i+1)
		}
		if got := b.told[https][0].Error(); !strings.Contains(got, "other.pem: empty file") || !strings.Contains(got, "listenerprofiles.xml:2:109: <Location>: profile 10.0.0.1: ") {
			t.Error(got)
		}
		b.disk.write("other.pem", certPEM(b.other, b.ca))
		b.after(t, 10*time.Second, https, 1, 4)

		// The file is changed and the store that it named is gone: no error in between, though the file is due much
		// later.
		b.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.1 trust=third.pem")))
		b.disk.write("third.pem", trust)
		b.disk.remove("other.pem")
		b.after(t, 10*time.Second, https, 2, 4)
	})
}

// Reload looks at once. What is broken is returned and told each time, since somebody asks; by itself it is told once.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, nil)
		if err := b.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		b.after(t, 0, https, 0, 0)
		b.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.1", "10.0.0.2")))
		var all sync.WaitGroup
		for range 8 { // at once, and beside the periods
			all.Go(func() {
				if err := b.Reload(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		b.after(t, 0, https, 1, 0)
		b.disk.write("listenerprofiles.xml", nil)
		for range 3 { // hints
			b.mark(https)
			b.after(t, time.Millisecond, https, 1, 1)
		}
		for i := range 3 {
			if err := b.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), https) {
				t.Errorf("no error of the profiles: %v", err)
			}
			b.after(t, 0, https, 1, 2+i)
		}
		b.after(t, time.Hour, https, 1, 4)
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, err := range b.told[configuration] { // which is another thing, and good
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// Expiry is a reason not to load a certificate, not one to stop a profile that serves.
func TestExpiryInService(t *testing.T) {
	short := issue(t, "server", thePKI().ca, func(c *x509.Certificate) { c.NotAfter = time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC) })
	synctest.Test(t, func(t *testing.T) { // begins on 1 January 2000
		b := startBed(t, func(b *bed, _ *Options) {
			b.disk.write("server.pem", short.pem())
			b.disk.write("listenerprofiles.xml", []byte(profilesXML("10.0.0.1", "10.0.0.2 key=second.pem")))
		})
		b.after(t, 48*time.Hour, https, 0, 0)
		b.disk.write("second.pem", b.server.pem())
		b.after(t, 10*time.Second, https, 1, 0)
		b.disk.write("trust.pem", certPEM(b.ca, b.other)) // now the expired one would have to be built anew
		b.after(t, 10*time.Second, https, 1, 1)
	})
}

func TestProfilesWithoutFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, func(b *bed, _ *Options) { b.spec.Load().Listeners[0].TLS.FilePath = "" })
		b.after(t, time.Hour, https, 0, 0)
		b.disk.write("trust.pem", certPEM(b.other))
		b.after(t, 10*time.Second, https, 1, 0)
	})
}

// Nothing is served before all is good: what a running gateway would survive is an error at the start.
func TestOpenWantsAllGood(t *testing.T) {
	dir := t.TempDir()
	spec := newSpec(dir)
	open := func() error {
		_, err := Open(t.Context(), Options{Load: func() (*Spec, error) { return spec, nil }, Set: newBed(t, nil).cfg.Set})
		return err
	}
	p := thePKI()
	for name, data := range map[string][]byte{"server.pem": p.server.pem(), "trust.pem": certPEM(p.ca), "listenerprofiles.xml": []byte(profilesXML("10.0.0.1"))} {
		var problems Problems
		if err := open(); !errors.As(err, &problems) || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("without %s: %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(); err != nil {
		t.Error(err)
	}
}

// onDisk makes a bed of real files, which are looked at when somebody asks.
func onDisk(t *testing.T, settle time.Duration) (b *bed, path func(string) string) {
	dir := t.TempDir()
	path = func(name string) string { return filepath.Join(dir, name) }
	b = startBed(t, func(b *bed, cfg *Options) {
		for name, data := range b.disk.files {
			if err := os.WriteFile(path(name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cfg.readFile, cfg.settle = nil, settle
		s := newSpec(dir)
		s.Period = time.Hour
		b.spec.Store(s)
	})
	return b, path
}

// J128: files change in many ways. Each step is followed by a look at the files; good ones change the set, broken ones
// don't.
func TestFilesChangeInEveryWay(t *testing.T) {
	b, path := onDisk(t, time.Millisecond)
	file := path("listenerprofiles.xml")
	step := func(name string, good bool, change func() error) {
		t.Helper()
		before, told := b.set(), len(b.told[https])
		if err := change(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err := b.Reload(t.Context())
		news := name != "touched"
		if (err == nil) != (good || !news) || (b.set() != before) != good || (len(b.told[https]) > told) != news {
			t.Errorf("%s: %v, another set: %t, told %v", name, err, b.set() != before, b.told[https][told:])
		}
	}
	put := func(name string, data string) error { return os.WriteFile(path(name), []byte(data), 0o600) }
	n := 1
	next := func() string { n++; return profilesXML(fmt.Sprintf("10.0.0.%d", n)) }

	step("written in place", true, func() error { return put("listenerprofiles.xml", next()) })
	step("with an older time", true, func() error {
		return errors.Join(put("listenerprofiles.xml", next()), os.Chtimes(file, time.Unix(0, 0), time.Unix(0, 0)))
	})
	step("touched", false, func() error { return os.Chtimes(file, time.Now(), time.Now()) })
	step("renamed over", true, func() error { return errors.Join(put("new", next()), os.Rename(path("new"), file)) })
	step("truncated by half", false, func() error { return os.Truncate(file, int64(len(next())/2)) })
	step("truncated", false, func() error { return os.Truncate(file, 0) })
	step("written again", true, func() error { return put("listenerprofiles.xml", next()) })
	step("deleted", false, func() error { return os.Remove(file) })
	step("created again", true, func() error { return put("listenerprofiles.xml", next()) })
	if os.Geteuid() != 0 {
		step("made unreadable", false, func() error { return errors.Join(put("listenerprofiles.xml", next()), os.Chmod(file, 0)) })
		step("made readable", true, func() error { return os.Chmod(file, 0o600) })
	}
	step("made a folder", false, func() error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) })
	// As Kubernetes does it: file -> ..data/file, ..data -> a folder of its own for each version.
	step("made a link", true, func() error {
		return errors.Join(os.Remove(file), os.Mkdir(path("..v1"), 0o700), put("..v1/listenerprofiles.xml", next()),
			os.Symlink("..v1", path("..data")), os.Symlink("..data/listenerprofiles.xml", file))
	})
	for v := 2; v < 5; v++ {
		step("swapped by links", true, func() error {
			folder := fmt.Sprintf("..v%d", v)
			return errors.Join(os.Mkdir(path(folder), 0o700), put(folder+"/listenerprofiles.xml", next()),
				os.Symlink(folder, path("..data_tmp")), os.Rename(path("..data_tmp"), path("..data")))
		})
	}
	step("a link to nowhere", false, func() error { return os.RemoveAll(path("..v4")) })
	step("back", true, func() error {
		return errors.Join(os.Symlink("..v3", path("..data_tmp")), os.Rename(path("..data_tmp"), path("..data")))
	})
	step("key store: the certificate before the key", false, func() error {
		key := b.server.pem()[len(certPEM(b.server)):]
		return put("server.pem", string(certPEM(b.second))+string(key))
	})
	step("key store: the key too", true, func() error { return put("server.pem", string(b.second.pem())) })
	step("trust store: half", false, func() error { return put("trust.pem", string(certPEM(b.ca)[:200])) })
	step("trust store: other", true, func() error { return put("trust.pem", string(certPEM(b.other))) })
}

// Reading while somebody writes shows the old set, the new one, or an error: never anything else.
func TestReadingWhileBeingWritten(t *testing.T) {
	b, path := onDisk(t, time.Microsecond)
	texts := []string{profilesXML("10.0.0.1"), profilesXML("10.0.0.2", "10.0.0.3")}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range 500 {
			for _, text := range texts {
				file, err := os.Create(path("listenerprofiles.xml"))
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
	look := func() error {
		err := b.Reload(t.Context())
		var names []string
		for _, p := range b.set().Profiles() {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, ", "); got != "profile 10.0.0.1, listener https" && got != "profile 10.0.0.2, profile 10.0.0.3, listener https" {
			t.Error(got)
		}
		return err
	}
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		default:
			_ = look()
		}
	}
	if err := look(); err != nil {
		t.Error(err)
	}
}

// What does not exist at one moment is fs.ErrNotExist to whoever asks.
func TestReloadSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, nil)
		b.disk.remove("trust.pem")
		if err := b.Reload(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

// TestProfilesThatGoAway: a profile may leave a file while one that is as strict serves its clients, which is told.
// Otherwise the last good set stays, until the file is mended or says beforehand that the profile is as lax.
func TestProfilesThatGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBed(t, nil)
		put := func(profiles ...string) error {
			b.disk.write("listenerprofiles.xml", []byte(profilesXML(profiles...)))
			return b.Reload(t.Context())
		}
		if err := put("10.0.0.1", "10.0.0.2 verify=require", "10.0.0.3"); err != nil {
			t.Fatal(err)
		}
		if err := put("10.0.0.1", "10.0.0.2 verify=require"); err != nil {
			t.Errorf("with one that is as strict: %v", err)
		}
		if n := b.log.count(`profile="profile 10.0.0.3" by="listener https"`); n != 1 {
			t.Errorf("the log tells %d times", n)
		}
		serving := b.set()
		if err := put("10.0.0.1"); err == nil || !strings.Contains(err.Error(), "profile 10.0.0.2 is gone") {
			t.Errorf("with none that is as strict: %v", err)
		}
		if b.set() != serving || b.state(https).Broken == nil {
			t.Error("the laxer set is in force")
		}
		if err := put(); err == nil || !strings.Contains(err.Error(), "there is no <profile>") || b.set() != serving {
			t.Errorf("without any profile: %v", err)
		}
		from := func(file string) {
			b.change(func(s *Spec) {
				own := *s.Listeners[0].TLS
				own.FilePath = file
				s.Listeners[0].TLS = &own
			})
		}
		from("")
		if err := put("10.0.0.1"); err == nil || b.set() != serving {
			t.Errorf("without the file: %v", err)
		}
		from("/bed/listenerprofiles.xml")
		for _, step := range [][]string{{"10.0.0.1", "10.0.0.2"}, {"10.0.0.1"}} {
			if err := put(step...); err != nil {
				t.Errorf("step by step: %v", err)
			}
		}
		if n := len(b.set().Profiles()); n != 2 || b.state(https).Broken != nil {
			t.Errorf("%d profiles are in force", n)
		}
	})
}
