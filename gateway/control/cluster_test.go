package control

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
	"sallyport/internal/fileset"
)

// pushTo writes a version with one file to a store, sealed under key.
func pushTo(t *testing.T, s *certstore.Store, key fileset.Key, version int, content string) {
	t.Helper()
	set, err := fileset.NewSet([]fileset.File{{Path: "apis.yaml", Content: []byte(content)}})
	if err != nil {
		t.Fatal(err)
	}
	sealed, digest, err := key.Seal(version, set)
	if err != nil {
		t.Fatal(err)
	}
	c := certstore.Configuration{Version: version, CreatedAt: time.Now(), CreatedBy: "a test", Digest: digest, KeyID: key.ID()}
	if err := s.AddConfiguration(t.Context(), c, []certstore.ConfigurationFile{certstore.ConfigurationFile(sealed[0])}); err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T, file string) fileset.Key {
	t.Helper()
	content, _, err := fileset.NewKey()
	if err == nil {
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := fileset.ReadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestPrepare starts gateways with a store that has no version yet, that is away, and whose version can't be read.
func TestPrepare(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(at("db"), 0o700); err != nil {
		t.Fatal(err)
	}
	source := Placed[certstore.Source]{Place: Place{File: "f", Line: 2, Column: 1}, Value: certstore.Source{URL: "sqlite:" + at("db/store.db")}}
	c := Cluster{Node: "gw1", Folder: at("cluster"), KeyFile: at("key")}
	key := newKey(t, c.KeyFile)
	var log bytes.Buffer
	prepare := func() error {
		return c.Prepare(t.Context(), Place{File: "f", Line: 1, Column: 1}, source, slog.New(slog.NewTextHandler(&log, nil)))
	}
	refuses := func(passing bool, want string) {
		t.Helper()
		err, ok := prepare().(Problems)
		if !ok || !strings.HasPrefix(err.Error(), want) || err.Passing() != passing {
			t.Errorf("%v (%t), want %q (%t)", err, err.Passing(), want, passing)
		}
	}
	holds := func(version int, told string) {
		t.Helper()
		log.Reset()
		if err := prepare(); err != nil {
			t.Error(err)
		}
		if v, err := c.folder().Holds(); err != nil || v.Number != version {
			t.Errorf("the folder holds %+v, %v; want %d", v, err, version)
		}
		if got := log.String(); !strings.Contains(got, told) || told == "" && got != "" {
			t.Errorf("the log says %q, want %q", got, told)
		}
	}
	refuses(true, "f:1:1: the store has no configuration yet: sallyport config push writes one")
	s, err := certstore.Open(t.Context(), source.Value.URL, certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pushTo(t, s, newKey(t, at("other")), 1, "")
	refuses(false, "f:1:1: version 1 of the configuration: it is encrypted under the key age1")
	pushTo(t, s, fileset.Key{}, 2, "")
	refuses(false, "f:1:1: version 2 of the configuration: it is not encrypted")
	pushTo(t, s, key, 3, "a")
	holds(3, "")
	before, err := os.Readlink(c.Folder)
	if err != nil {
		t.Fatal(err)
	}
	holds(3, "")
	if after, err := os.Readlink(c.Folder); err != nil || after != before {
		t.Errorf("what was there was written again, %v", err)
	}
	if err := os.WriteFile(filepath.Join(c.Folder, "apis.yaml"), []byte("changed by hand"), 0o600); err != nil {
		t.Fatal(err)
	}
	holds(3, "")
	pushTo(t, s, fileset.Key{}, 4, "b")
	holds(3, "it is not encrypted")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at("db"), at("away")); err != nil {
		t.Fatal(err)
	}
	holds(3, "store")
	if err := os.Remove(c.Folder); err != nil {
		t.Fatal(err)
	}
	refuses(false, "f:2:1: store: ")
}

// TestFollowCluster has a loop follow a store in which versions come and go.
func TestFollowCluster(t *testing.T) {
	dir := t.TempDir()
	c := Cluster{Node: "gw1", Folder: filepath.Join(dir, "cluster")}
	s, err := certstore.Open(t.Context(), "sqlite:"+filepath.Join(dir, "store.db"), certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := startBed(t, func(b *bed, o *Options) {
		b.spec.Load().Store.Value.URL = "sqlite:" + filepath.Join(dir, "store.db")
		o.Cluster = c
		load := o.Load
		o.Load = func() (*Spec, error) { // as the configuration does it
			spec, err := load()
			if err != nil {
				return nil, err
			}
			v, _ := c.folder().Holds()
			next := *spec
			next.Release, next.Digest[0] = v.Number, byte(v.Number)
			return &next, nil
		}
	})
	node := func() certstore.Node {
		nodes, err := s.Nodes(context.WithoutCancel(t.Context()))
		if err != nil || len(nodes) > 1 {
			t.Errorf("%+v, %v", nodes, err)
		}
		if len(nodes) == 0 {
			return certstore.Node{}
		}
		return nodes[0]
	}
	inForce := func(version int) {
		t.Helper()
		eventually(t, "a version is in force and told of", func() bool {
			n := node()
			return n.Name == "gw1" && n.Version == version && n.Trouble == ""
		})
	}
	eventually(t, "it tells of itself without a version", func() bool { return node().Name == "gw1" })
	for version := 1; version <= 2; version++ {
		pushTo(t, s, fileset.Key{}, version, "apis: []")
		inForce(version)
		eventually(t, "it is remembered", c.Proven)
	}
	pushTo(t, s, newKey(t, filepath.Join(dir, "key")), 3, "apis: []")
	eventually(t, "a version is refused", func() bool {
		n := node()
		return n.Version == 2 && strings.Contains(n.Trouble, "configuration in the store: version 3 of the configuration: it is encrypted under")
	})
	if b.state(cluster).Broken == nil || b.log.count("was not taken from the store") != 1 {
		t.Errorf("it is told %d times, %v", b.log.count("was not taken from the store"), b.state(cluster).Broken)
	}
	pushTo(t, s, fileset.Key{}, 4, "apis: []")
	inForce(4)
	if b.state(cluster).Broken != nil {
		t.Error(b.state(cluster).Broken)
	}
}
