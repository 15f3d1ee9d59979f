package certstoretest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"sallyport/certstore"
)

func configuration(version int) certstore.Configuration {
	return certstore.Configuration{
		Version: version, CreatedAt: day0.Add(time.Duration(version) * time.Second), CreatedBy: "ops@gw1",
		Digest: fmt.Sprint("digest", version), KeyID: "age1key", RollbackOf: version / 2, Files: 2,
	}
}

func configurationFiles(version int) []certstore.ConfigurationFile {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return []certstore.ConfigurationFile{{Path: "a/b.yaml", Content: fmt.Append(nil, version)}, {Path: "a/B.yaml", Content: every}}
}

func addConfiguration(t *testing.T, s *certstore.Store, versions ...int) {
	t.Helper()
	for _, v := range versions {
		if err := s.AddConfiguration(t.Context(), configuration(v), configurationFiles(v)); err != nil {
			t.Fatal(err)
		}
	}
}

// expectConfigurations expects all versions from the newest to the oldest, with their files.
func expectConfigurations(t *testing.T, s *certstore.Store, newest, oldest int) {
	t.Helper()
	list, err := s.Configurations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want []certstore.Configuration
	for v := newest; v >= oldest; v-- {
		want = append(want, configuration(v))
		files, err := s.ConfigurationFiles(t.Context(), v)
		expect := configurationFiles(v)
		slices.SortFunc(expect, func(a, b certstore.ConfigurationFile) int { return cmp.Compare(a.Path, b.Path) })
		if diff := gocmp.Diff(expect, files); err != nil || diff != "" {
			t.Errorf("version %d: %v, files (-want +got):\n%s", v, err, diff)
		}
	}
	for i := range list {
		list[i].CreatedAt = list[i].CreatedAt.UTC()
	}
	if diff := gocmp.Diff(want, list); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	current, err := s.CurrentConfiguration(t.Context())
	if err != nil || current.Version != newest || current.Digest != configuration(newest).Digest {
		t.Errorf("the current version is %+v, %v; want %d", current, err, newest)
	}
}

func testConfigurations(t *testing.T, s *certstore.Store) {
	if c, err := s.CurrentConfiguration(t.Context()); err != nil || c != (certstore.Configuration{}) {
		t.Errorf("before the first version: %+v, %v", c, err)
	}
	before := Version(t, s)
	addConfiguration(t, s, 1, 2)
	expectConfigurations(t, s, 2, 1)
	for _, v := range []int{0, 1, 2, 4} {
		if err := s.AddConfiguration(t.Context(), configuration(v), configurationFiles(v)); !errors.Is(err, certstore.ErrSuperseded) {
			t.Errorf("version %d after version 2: %v", v, err)
		}
	}
	twice := configurationFiles(3)
	twice[1].Path = twice[0].Path
	if err := s.AddConfiguration(t.Context(), configuration(3), twice); err == nil || errors.Is(err, certstore.ErrSuperseded) {
		t.Errorf("one path twice: %v", err)
	}
	expectConfigurations(t, s, 2, 1)
	for v := 3; v <= certstore.KeptConfigurations+3; v++ {
		addConfiguration(t, s, v)
	}
	expectConfigurations(t, s, certstore.KeptConfigurations+3, 4)
	if files, err := s.ConfigurationFiles(t.Context(), 3); err != nil || len(files) > 0 {
		t.Errorf("a version that was removed: %d files, %v", len(files), err)
	}
	if v := Version(t, s); v != before {
		t.Errorf("configurations changed the version of the registrations from %d to %d", before, v)
	}
}

// testLargeFile writes what a configuration's largest file may become when it is encrypted.
func testLargeFile(t *testing.T, s *certstore.Store) {
	large := bytes.Repeat([]byte{0, 255, '\'', '\\'}, (4<<20+64<<10)/4)
	if err := s.AddConfiguration(t.Context(), configuration(1), []certstore.ConfigurationFile{{Path: "large", Content: large}}); err != nil {
		t.Fatal(err)
	}
	files, err := s.ConfigurationFiles(t.Context(), 1)
	if err != nil || len(files) != 1 || !bytes.Equal(files[0].Content, large) {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func testNodes(t *testing.T, s *certstore.Store) {
	node := func(name string, version int, trouble string, after time.Duration) certstore.Node {
		return certstore.Node{Name: name, Version: version, Trouble: trouble, SeenAt: day0.Add(after)}
	}
	expect := func(want ...certstore.Node) {
		t.Helper()
		nodes, err := s.Nodes(t.Context())
		for i := range nodes {
			nodes[i].SeenAt = nodes[i].SeenAt.UTC()
		}
		if diff := gocmp.Diff(want, nodes); err != nil || diff != "" {
			t.Errorf("nodes: %v (-want +got):\n%s", err, diff)
		}
	}
	keep := func(n certstore.Node) {
		t.Helper()
		if err := s.KeepNode(t.Context(), n); err != nil {
			t.Error(err)
		}
	}
	expect()
	old, a := node("old", 1, "", -8*24*time.Hour), node("a", 1, "", 0)
	keep(old)
	keep(a)
	keep(a) // nothing in it changes
	expect(a, old)
	a = node("a", 2, "it's \"bad\": 🚪", time.Minute)
	keep(a)
	expect(a, old)
	addConfiguration(t, s, 1)
	expect(a)
}

// testTwoStoresPush has two write the same version: one of them is told that it comes too late.
func testTwoStoresPush(t *testing.T, db Database) {
	url := db.New(t)
	stores := []*certstore.Store{Open(t, url, certstore.Options{}), Open(t, url, certstore.Options{})}
	for version := 1; version <= 5; version++ {
		done := make(chan error, len(stores))
		for i, s := range stores {
			c := configuration(version)
			c.Digest = fmt.Sprint("of ", i)
			go func() {
				done <- again(func() error { return s.AddConfiguration(t.Context(), c, configurationFiles(version)) })
			}()
		}
		one, other := <-done, <-done
		if one != nil {
			one, other = other, one
		}
		if one != nil || !errors.Is(other, certstore.ErrSuperseded) {
			t.Errorf("version %d: %v and %v; want one good, and one that is superseded", version, one, other)
		}
	}
	readOnly := Open(t, url, certstore.Options{ReadOnly: true})
	for what, err := range map[string]error{
		"a version": readOnly.AddConfiguration(t.Context(), configuration(6), nil),
		"a node":    readOnly.KeepNode(t.Context(), certstore.Node{Name: "a", SeenAt: day0}),
	} {
		if !errors.Is(err, certstore.ErrReadOnly) {
			t.Errorf("a read-only store takes %s: %v", what, err)
		}
	}
	if c, err := readOnly.CurrentConfiguration(t.Context()); err != nil || c.Version != 5 {
		t.Errorf("read-only: %+v, %v", c, err)
	}
}
