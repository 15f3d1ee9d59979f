package control

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// An event about a file looks at what is made of it, and at nothing else.
func TestEventsLookAtWhatIsMadeOfTheFile(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	var loads atomic.Int64
	b := startBed(t, func(b *bed, cfg *Options) {
		for name, data := range b.disk.files {
			if err := os.WriteFile(path(name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := newSpec(dir)
		s.Period, s.Files, s.Globs = time.Hour, []string{path("sallyport.yaml")}, []string{filepath.Join(dir, "apis", "*.yaml")}
		b.spec.Store(s)
		cfg.readFile, cfg.noEvents = nil, false
		load := cfg.Load
		cfg.Load = func() (*Spec, error) { loads.Add(1); return load() }
	})
	eventually(t, "it watches, and looks at what has changed before", func() bool { return loads.Load() >= 2 })
	if err := b.Reload(t.Context()); err != nil { // returns when that look, too, has been judged
		t.Fatal(err)
	}
	before := loads.Load()
	if err := os.WriteFile(path("server.pem"), b.second.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new key is in force", func() bool { return b.set().Profiles()[0].Leafs[0].Equal(b.second.cert) })
	if n := loads.Load() - before; n != 0 {
		t.Errorf("the configuration was loaded %d times for a key store", n)
	}
	b.change(func(s *Spec) { s.Fixed = map[string]any{"log": 1} })
	if err := os.WriteFile(path("sallyport.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new configuration is in force", func() bool { return b.InForce().Spec == b.spec.Load() })
}

// watchOf follows files, of one source each by their own names.
func watchOf(t *testing.T, files ...string) *fileEvents {
	t.Helper()
	e := new(fileEvents)
	t.Cleanup(e.close)
	e.again(t, files...)
	return e
}

func (e *fileEvents) again(t *testing.T, files ...string) {
	t.Helper()
	all := map[string][]string{}
	for _, f := range files {
		all[filepath.Base(f)] = []string{f}
	}
	if _, err := e.follow(all, e.globs); err != nil {
		t.Fatal(err)
	}
}

// expect waits for an event that is about the source.
func (e *fileEvents) expect(t *testing.T, source, what string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case event := <-e.events:
			if slices.Contains(e.concerned(event), source) {
				return
			}
		case <-deadline:
			t.Fatalf("%s was not noticed", what)
		}
	}
}

func TestEventsOfEveryKindOfChange(t *testing.T) {
	dir := t.TempDir()
	file, apis := filepath.Join(dir, "a.xml"), filepath.Join(dir, "apis")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "1")
	e := new(fileEvents)
	t.Cleanup(e.close)
	e.globs = []string{filepath.Join(apis, "*.yaml")}
	e.again(t, file)

	write(file, "2")
	e.expect(t, "a.xml", "a write in place")
	write(filepath.Join(dir, "new"), "3")
	if err := os.Rename(filepath.Join(dir, "new"), file); err != nil {
		t.Fatal(err)
	}
	e.expect(t, "a.xml", "a rename")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	e.expect(t, "a.xml", "a removal")
	write(file, "4")
	e.expect(t, "a.xml", "a creation")

	if err := os.Mkdir(apis, 0o700); err != nil {
		t.Fatal(err)
	}
	e.again(t, file) // the folder is found at one of the next looks
	write(filepath.Join(apis, "x.yaml"), "5")
	e.expect(t, configuration, "a file that matches a pattern")
}

// TestEventsFollowKubernetesVolumes holds the swap of ..data, again and again: watchers die of the second one.
func TestEventsFollowKubernetesVolumes(t *testing.T) {
	dir := t.TempDir()
	volume := func(name string) {
		t.Helper()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700), os.WriteFile(filepath.Join(dir, name, "a.xml"), []byte(name), 0o600),
			os.Symlink(name, filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	volume("..1")
	file := filepath.Join(dir, "a.xml")
	if err := os.Symlink(filepath.Join("..data", "a.xml"), file); err != nil {
		t.Fatal(err)
	}
	e := watchOf(t, file)
	for _, name := range []string{"..2", "..3", "..4"} {
		volume(name)
		e.expect(t, "a.xml", "the swap to "+name)
		e.again(t, file)
	}
}

// Another file's events, as those of a log or a database beside the files, wake nobody.
func TestEventsOfOtherFiles(t *testing.T) {
	dir := t.TempDir()
	e := watchOf(t, filepath.Join(dir, "a.xml"), filepath.Join(dir, "b.xml"))
	e.globs = []string{filepath.Join(dir, "*.yaml")}
	for name, want := range map[string][]string{"access.log": nil, "a.xml": {"a.xml"}, "b.xml": {"b.xml"}, "x.yaml": {configuration}} {
		if got := e.concerned(fsnotify.Event{Name: filepath.Join(dir, name), Op: fsnotify.Write}); !slices.Equal(got, want) {
			t.Errorf("%s is about %q", name, got)
		}
	}
	if got := e.concerned(fsnotify.Event{Name: filepath.Join(dir, "a.xml"), Op: fsnotify.Chmod}); got != nil {
		t.Errorf("the last breath of a file that is gone is about %q", got)
	}
}
