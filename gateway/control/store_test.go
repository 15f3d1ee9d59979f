package control

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/certstore"
)

// storeBed is a bed with a store that others change, and its clients by alias.
func storeBed(t *testing.T) (b *bed, other *certstore.Store, aliases func() string) {
	t.Helper()
	url := "sqlite:" + filepath.Join(t.TempDir(), "store.db")
	other, err := certstore.Open(t.Context(), url, certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	b = startBed(t, func(b *bed, _ *Options) {
		s := b.spec.Load()
		s.Store.Value, s.Period = url, 50*time.Millisecond
		s.Clients = []certstore.Client{client("file", b.client)}
	})
	return b, other, func() string {
		var list []string
		for _, c := range b.InForce().Clients.All() {
			list = append(list, c.Alias)
		}
		return strings.Join(list, " ")
	}
}

var orders = certstore.API{Name: "orders", Version: "1.0.0"}

func client(alias string, p *party) certstore.Client {
	return certstore.Client{API: orders, Alias: alias, KeyType: certstore.Production, Tier: "Gold", Certificate: p.cert, Source: "apis.yaml:3:5"}
}

// A registration is in force soon after it was made elsewhere, and nothing but clients is swapped for it. One that
// contradicts a file's takes both away until one of them is removed.
func TestRegistrations(t *testing.T) {
	b, other, aliases := storeBed(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(other.Add(t.Context(), client("acme", b.second)))
	eventually(t, "a registration is in force", func() bool { return aliases() == "file acme" })
	for _, p := range b.swaps() {
		if p.Listeners != nil || p.Routes != nil {
			t.Errorf("%+v is swapped for a registration", p)
		}
	}
	must(other.Add(t.Context(), client("again", b.client)))
	eventually(t, "a contradiction is told", func() bool { return b.state(store).Broken != nil })
	if got := aliases(); got != "acme" {
		t.Errorf("%q is admitted", got)
	}
	must(other.Remove(t.Context(), orders, certstore.Production, "again"))
	eventually(t, "both are as they were", func() bool { return aliases() == "file acme" && b.state(store).Broken == nil })
	if b.log.count("registered certificates contradict each other") != 1 {
		t.Error("told more than once")
	}
	must(other.Add(t.Context(), client("again", b.client)))
	eventually(t, "a contradiction is told", func() bool { return b.state(store).Broken != nil })
	b.change(func(s *Spec) { s.Clients = nil })
	eventually(t, "a change of the file ends it too", func() bool { return aliases() == "acme again" && b.state(store).Broken == nil })
	if err := b.Reload(t.Context()); err != nil {
		t.Error(err)
	}
}

// A store that cannot be read is told once and tried again each period; what was read last serves on.
func TestStoreThatCannotBeRead(t *testing.T) {
	b, other, aliases := storeBed(t)
	if err := errors.Join(other.Add(t.Context(), client("acme", b.second)), other.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a registration is in force", func() bool { return aliases() == "file acme" })
	path := strings.TrimPrefix(b.spec.Load().Store.Value, "sqlite:")
	copied := filepath.Join(t.TempDir(), "copy.db")
	fresh, err := certstore.Open(t.Context(), "sqlite:"+copied, certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fresh.Add(t.Context(), client("acme", b.second)), fresh.Close()); err != nil { // which leaves one whole file
		t.Fatal(err)
	}
	good, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) {
		t.Helper()
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	put(bytes.Repeat([]byte("no database "), 1000))
	eventually(t, "the store is called broken", func() bool { return b.state(store).Broken != nil })
	for range 3 {
		if err := b.Reload(t.Context()); err == nil {
			t.Error("nobody says that it is broken")
		}
	}
	if got := aliases(); got != "file acme" {
		t.Errorf("%q serve", got)
	}
	put(good)
	eventually(t, "the store is called good", func() bool { return b.state(store).Broken == nil })
}
